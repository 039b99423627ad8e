//! Keeps an operator's orders in the state directory, so that a restart finds them again.
//!
//! One JSON file, replaced as a whole: written beside, synced, renamed over, and the directory synced. Whenever the
//! process is killed, the next one reads either all of the old file or all of the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use millrace_core::{Alias, ModelName};
use serde::{Deserialize, Serialize};

use crate::desired::Overrides;

/// The file's name in the state directory.
const FILE: &str = "registry.json";
/// What it is called while it is being written.
const TEMPORARY: &str = "registry.json.new";
/// Where a file goes that cannot be read.
const DAMAGED: &str = "registry.json.damaged";
/// Files of another format are not guessed at.
const FORMAT: u32 = 1;
/// No honest state is larger.
const LARGEST: u64 = 64 << 20;

/// The orders that hold, by model.
pub(crate) type Orders = BTreeMap<ModelName, Overrides>;

/// Where orders are kept.
#[derive(Debug)]
pub(crate) struct StateFile(PathBuf);

/// What a start found.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) orders: Orders,
    /// What an operator should know.
    pub(crate) warnings: Vec<String>,
}

impl StateFile {
    /// The state in the directory `path`, which is made where it is not there.
    pub(crate) fn open(path: &Path) -> (Self, Restored) {
        let file = Self(path.to_owned());
        let mut warnings = Vec::new();
        if let Err(error) = fs::create_dir_all(path) {
            warnings.push(format!(
                "the state directory {} cannot be made ({error}): orders by API will be refused",
                path.display()
            ));
        }
        let orders = match file.read() {
            Ok(orders) => orders,
            Err(ReadError::Io(error)) => {
                warnings.push(format!("the state in {} cannot be read: {error}", file.at(FILE).display()));
                Orders::new()
            }
            Err(ReadError::Damaged(why)) => {
                let (from, to) = (file.at(FILE), file.at(DAMAGED));
                let kept = match fs::rename(&from, &to) {
                    Ok(()) => format!("moved to {}", to.display()),
                    Err(error) => format!("and it cannot be moved aside: {error}"),
                };
                warnings.push(format!("the state in {} is damaged ({why}); {kept}; starting without", from.display()));
                Orders::new()
            }
        };
        (file, Restored { orders, warnings })
    }

    /// Makes `orders` what the next start finds.
    ///
    /// # Errors
    /// What the system said; the old orders then still hold.
    pub(crate) fn save(&self, orders: &Orders) -> io::Result<()> {
        self.write(orders)?;
        self.commit()
    }

    /// The new file, complete and on disk, but not yet in place.
    fn write(&self, orders: &Orders) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&RawState::from(orders)).map_err(io::Error::other)?;
        let mut file = File::create(self.at(TEMPORARY))?;
        file.write_all(&text)?;
        file.write_all(b"\n")?;
        file.sync_all()
    }

    /// Puts the new file in place.
    fn commit(&self) -> io::Result<()> {
        fs::rename(self.at(TEMPORARY), self.at(FILE))?;
        File::open(&self.0)?.sync_all()
    }

    fn read(&self) -> Result<Orders, ReadError> {
        let path = self.at(FILE);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Orders::new()),
            Err(error) => return Err(ReadError::Io(error)),
        };
        if !metadata.is_file() || metadata.len() > LARGEST {
            return Err(ReadError::Damaged("it is not a file of reasonable size".to_owned()));
        }
        let text = fs::read(&path).map_err(ReadError::Io)?;
        let raw: RawState = serde_json::from_slice(&text).map_err(|error| ReadError::Damaged(error.to_string()))?;
        raw.resolve().map_err(ReadError::Damaged)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

#[derive(Debug)]
enum ReadError {
    Io(io::Error),
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawState {
    format: u32,
    models: BTreeMap<String, RawOverrides>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawOverrides {
    unloaded: bool,
    /// Version to whether it was loaded or unloaded.
    versions: BTreeMap<u64, RawOrder>,
    /// Alias to version; null where it was removed.
    aliases: BTreeMap<String, Option<u64>>,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
enum RawOrder {
    Loaded,
    Unloaded,
}

impl From<&Orders> for RawState {
    fn from(orders: &Orders) -> Self {
        let order = |loaded: bool| if loaded { RawOrder::Loaded } else { RawOrder::Unloaded };
        let raw = |overrides: &Overrides| RawOverrides {
            unloaded: overrides.unloaded,
            versions: overrides.versions.iter().map(|(version, loaded)| (*version, order(*loaded))).collect(),
            aliases: overrides.aliases.iter().map(|(alias, version)| (alias.to_string(), *version)).collect(),
        };
        let models = orders.iter().filter(|(_, overrides)| !overrides.is_empty());
        Self { format: FORMAT, models: models.map(|(name, overrides)| (name.to_string(), raw(overrides))).collect() }
    }
}

impl RawState {
    fn resolve(self) -> Result<Orders, String> {
        if self.format != FORMAT {
            return Err(format!("its format is {}, expected {FORMAT}", self.format));
        }
        let mut orders = Orders::new();
        for (name, raw) in self.models {
            let name: ModelName = name.parse().map_err(|error| format!("{error}"))?;
            let mut overrides = Overrides { unloaded: raw.unloaded, ..Overrides::default() };
            for (version, order) in raw.versions {
                overrides.versions.insert(version, order == RawOrder::Loaded);
            }
            for (alias, version) in raw.aliases {
                let alias: Alias = alias.parse().map_err(|error| format!("{error}"))?;
                overrides.aliases.insert(alias, version);
            }
            orders.insert(name, overrides);
        }
        Ok(orders)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{FILE, Orders, StateFile, TEMPORARY};
    use crate::desired::Overrides;

    fn orders(version: u64) -> Orders {
        let mut overrides = Overrides::default().with_unload(None).with_load(Some(version)).with_unload(Some(9));
        overrides.aliases.insert("stable".parse().unwrap(), Some(version));
        overrides.aliases.insert("old".parse().unwrap(), None);
        [("fraud".parse().unwrap(), overrides)].into()
    }

    #[test]
    fn what_is_saved_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not/yet/there");
        let (file, restored) = StateFile::open(&path);
        assert!(restored.orders.is_empty() && restored.warnings.is_empty());
        file.save(&orders(3)).unwrap();
        assert_eq!(StateFile::open(&path).1.orders, orders(3));
    }

    /// Row 77 of the robustness table: wherever the process dies, the old or the new state is found.
    #[test]
    fn a_kill_at_any_byte_of_a_write_leaves_the_old_state_and_after_the_rename_the_new() {
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = StateFile::open(dir.path());
        file.save(&orders(1)).unwrap();
        file.write(&orders(2)).unwrap();
        let written = fs::read(file.at(TEMPORARY)).unwrap();
        for end in 0..=written.len() {
            fs::write(file.at(TEMPORARY), &written[..end]).unwrap();
            let restored = StateFile::open(dir.path()).1;
            assert_eq!((restored.orders, restored.warnings.len()), (orders(1), 0));
        }
        file.commit().unwrap();
        assert_eq!(StateFile::open(dir.path()).1.orders, orders(2));
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_named() {
        let good = {
            let dir = tempfile::tempdir().unwrap();
            StateFile::open(dir.path()).0.save(&orders(1)).unwrap();
            fs::read_to_string(dir.path().join(FILE)).unwrap()
        };
        let damaged = [
            good[..good.len() / 2].to_owned(),
            good.replace("\"format\": 1", "\"format\": 2"),
            good.replace("fraud", "../fraud"),
            good.replace("loaded", "lodaed"),
            String::new(),
        ];
        for text in damaged {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE), &text).unwrap();
            let (file, restored) = StateFile::open(dir.path());
            assert!(restored.orders.is_empty());
            assert!(restored.warnings[0].contains("damaged"), "{:?}", restored.warnings);
            assert_eq!(fs::read_to_string(file.at("registry.json.damaged")).unwrap(), text);
            file.save(&orders(1)).unwrap();
            assert_eq!(StateFile::open(dir.path()).1.orders, orders(1));
        }
    }

    #[test]
    fn a_directory_that_cannot_be_written_refuses_and_keeps_the_old_state() {
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = StateFile::open(dir.path());
        file.save(&orders(1)).unwrap();
        // Stands in for a full disk: the temporary file cannot be made.
        fs::create_dir(file.at(TEMPORARY)).unwrap();
        file.save(&orders(2)).unwrap_err();
        assert_eq!(StateFile::open(dir.path()).1.orders, orders(1));

        fs::write(dir.path().join("file"), "").unwrap();
        let (file, restored) = StateFile::open(&dir.path().join("file/below"));
        assert!(restored.warnings[0].contains("cannot be made"), "{:?}", restored.warnings);
        file.save(&orders(2)).unwrap_err();
    }
}
