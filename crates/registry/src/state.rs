//! Keeps an operator's orders in the state directory, so that a restart finds them again.
//!
//! One JSON file, replaced as a whole: written beside, synced, renamed over, and the directory synced. Whenever the
//! process is killed, the next one reads either all of the old file or all of the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millrace_core::{Alias, ModelName};
use serde::{Deserialize, Serialize};

use crate::VersionPolicy;
use crate::desired::{Orders, Overrides, Stored};
use crate::scan::Place;

/// The file's name in the state directory.
const FILE: &str = "registry.json";
/// What it is called while it is being written.
const TEMPORARY: &str = "registry.json.new";
/// Where a file goes that cannot be read.
const DAMAGED: &str = "registry.json.damaged";
/// The format that is written. Format 1 is the same without what only orders to register, scale and replace need.
const FORMAT: u32 = 2;
/// The formats that are read. Files of another one are not guessed at.
const READABLE: std::ops::RangeInclusive<u32> = 1..=FORMAT;
/// No honest state is larger.
const LARGEST: u64 = 64 << 20;

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
                Orders::default()
            }
            Err(ReadError::Damaged(why)) => {
                let (from, to) = (file.at(FILE), file.at(DAMAGED));
                let kept = match fs::rename(&from, &to) {
                    Ok(()) => format!("moved to {}", to.display()),
                    Err(error) => format!("and it cannot be moved aside: {error}"),
                };
                warnings.push(format!("the state in {} is damaged ({why}); {kept}; starting without", from.display()));
                Orders::default()
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
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Orders::default()),
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
    /// Whether the models with a `base` are all that is wanted.
    #[serde(default)]
    whole: bool,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<RawPlace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<RawPolicy>,
    /// Version to how many runs may go on at once.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    executors: BTreeMap<u64, usize>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    registered: BTreeMap<u64, RawStored>,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
enum RawOrder {
    Loaded,
    Unloaded,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawPolicy {
    Latest(NonZeroUsize),
    All,
    Specific(Vec<u64>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlace {
    /// The repository, a listed model's folder or a store, as configured.
    root: PathBuf,
    /// The folder below it.
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStored {
    place: RawPlace,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_batch_size: Option<NonZeroUsize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch_delay_micros: Option<u64>,
}

impl From<&Orders> for RawState {
    fn from(orders: &Orders) -> Self {
        let models = orders.models.iter().filter(|(_, overrides)| !overrides.is_empty());
        let models = models.map(|(name, overrides)| (name.to_string(), RawOverrides::from(overrides))).collect();
        Self { format: FORMAT, whole: orders.is_whole, models }
    }
}

impl From<&Overrides> for RawOverrides {
    fn from(overrides: &Overrides) -> Self {
        let order = |loaded: bool| if loaded { RawOrder::Loaded } else { RawOrder::Unloaded };
        let policy = |policy: &VersionPolicy| match policy {
            VersionPolicy::Latest(count) => RawPolicy::Latest(*count),
            VersionPolicy::All => RawPolicy::All,
            VersionPolicy::Specific(versions) => RawPolicy::Specific(versions.clone()),
        };
        let place = |place: &Place| RawPlace {
            root: place.root.to_path_buf(),
            path: place.below.clone(),
            file: place.file.clone(),
        };
        let stored = |stored: &Stored| RawStored {
            place: place(&stored.place),
            config: stored.config.clone(),
            max_batch_size: stored.max_batch_size,
            batch_delay_micros: stored.batch_delay.map(|delay| u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)),
        };
        Self {
            unloaded: overrides.unloaded,
            versions: overrides.versions.iter().map(|(version, loaded)| (*version, order(*loaded))).collect(),
            aliases: overrides.aliases.iter().map(|(alias, version)| (alias.to_string(), *version)).collect(),
            base: overrides.base.as_ref().map(place),
            policy: overrides.policy.as_ref().map(policy),
            executors: overrides.executors.clone(),
            registered: overrides.stored.iter().map(|(version, one)| (*version, stored(one))).collect(),
        }
    }
}

impl RawState {
    fn resolve(self) -> Result<Orders, String> {
        if !READABLE.contains(&self.format) {
            return Err(format!("its format is {}, expected at most {FORMAT}", self.format));
        }
        let mut orders = Orders { is_whole: self.whole, ..Orders::default() };
        for (name, raw) in self.models {
            let name: ModelName = name.parse().map_err(|error| format!("{error}"))?;
            orders.models.insert(name, raw.resolve()?);
        }
        Ok(orders)
    }
}

impl RawOverrides {
    fn resolve(self) -> Result<Overrides, String> {
        let policy = |policy: RawPolicy| match policy {
            RawPolicy::Latest(count) => VersionPolicy::Latest(count),
            RawPolicy::All => VersionPolicy::All,
            RawPolicy::Specific(versions) => VersionPolicy::Specific(versions),
        };
        let mut aliases = BTreeMap::new();
        for (alias, version) in self.aliases {
            let alias: Alias = alias.parse().map_err(|error| format!("{error}"))?;
            aliases.insert(alias, version);
        }
        Ok(Overrides {
            unloaded: self.unloaded,
            versions: self.versions.into_iter().map(|(version, order)| (version, order == RawOrder::Loaded)).collect(),
            aliases,
            base: self.base.map(RawPlace::resolve),
            policy: self.policy.map(policy),
            executors: self.executors,
            stored: self.registered.into_iter().map(|(version, raw)| (version, raw.resolve())).collect(),
        })
    }
}

impl RawPlace {
    /// Names that lead out of the root need no check here: nothing opens them.
    fn resolve(self) -> Place {
        Place { root: Arc::from(self.root), below: self.path, file: self.file }
    }
}

impl RawStored {
    fn resolve(self) -> Stored {
        Stored {
            place: self.place.resolve(),
            config: self.config,
            max_batch_size: self.max_batch_size,
            batch_delay: self.batch_delay_micros.map(Duration::from_micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use std::num::NonZeroUsize;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::{FILE, StateFile, TEMPORARY};
    use crate::VersionPolicy;
    use crate::desired::{Orders, Overrides, Stored};
    use crate::scan::Place;

    fn place(below: &str) -> Place {
        Place { root: Arc::from(Path::new("/srv/models")), below: below.to_owned(), file: None }
    }

    fn orders(version: u64) -> Orders {
        let mut overrides = Overrides::default().with_unload(None).with_load(Some(version)).with_unload(Some(9));
        overrides.aliases.insert("stable".parse().unwrap(), Some(version));
        overrides.aliases.insert("old".parse().unwrap(), None);
        overrides.base = Some(place("fraud"));
        overrides.policy = Some(VersionPolicy::Latest(NonZeroUsize::MIN));
        overrides.executors.insert(version, 0);
        let stored = Stored {
            place: Place { file: Some("model.onnx".to_owned()), ..place("zoo") },
            config: Some("zoo".to_owned()),
            max_batch_size: NonZeroUsize::new(4),
            batch_delay: Some(Duration::from_micros(7)),
        };
        overrides.stored.insert(version + 1, stored);
        let mut orders = Orders::default().with(&"fraud".parse().unwrap(), overrides);
        orders.is_whole = true;
        orders
    }

    #[test]
    fn files_of_the_first_format_are_still_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"format": 1, "models": {"fraud": {"unloaded": true, "versions": {"1": "loaded", "9": "unloaded"},
            "aliases": {"stable": 1, "old": null}}}}"#;
        fs::write(dir.path().join(FILE), text).unwrap();
        let mut overrides = Overrides::default().with_unload(None).with_load(Some(1)).with_unload(Some(9));
        overrides.aliases.insert("stable".parse().unwrap(), Some(1));
        overrides.aliases.insert("old".parse().unwrap(), None);
        let expected = Orders::default().with(&"fraud".parse().unwrap(), overrides);
        assert_eq!(StateFile::open(dir.path()).1.orders, expected);
    }

    #[test]
    fn what_is_saved_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not/yet/there");
        let (file, restored) = StateFile::open(&path);
        assert!(restored.orders == Orders::default() && restored.warnings.is_empty());
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
            good.replace("\"format\": 2", "\"format\": 3"),
            good.replace("fraud", "../fraud"),
            good.replace("loaded", "lodaed"),
            String::new(),
        ];
        for text in damaged {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE), &text).unwrap();
            let (file, restored) = StateFile::open(dir.path());
            assert_eq!(restored.orders, Orders::default());
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
