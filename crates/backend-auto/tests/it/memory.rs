//! What is remembered, for how long, and that it never matters when it is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use millrace_backend_auto::AutoBackend;
use millrace_core::{Backend as _, ModelFiles, ModelSource, Samples, Signature, Tensor, TensorList};
use tempfile::TempDir;

use crate::engine::{Engine, World, choice, runs, serves, source, with_content};

struct Setting {
    world: World,
    many: Engine,
    single: Engine,
    wrong: Engine,
    folder: TempDir,
}

impl Setting {
    /// Two engines that share the rows, and one that is wrong.
    fn new() -> Self {
        let world = World::default();
        let wrong = world.engine("wrong").answer(|rows| Ok(vec![0.5; rows.len()]));
        let (single, many) = (world.engine("single"), world.engine("many").cost(|_| 6000));
        Self { world, many, single, wrong, folder: TempDir::new().unwrap() }
    }

    fn auto(&self, machine: &str) -> AutoBackend {
        self.in_folder(machine, &self.folder.path().join("engines"))
    }

    fn in_folder(&self, machine: &str, folder: &Path) -> AutoBackend {
        self.world.configured(&[&self.single, &self.many, &self.wrong], |config| {
            config.folder = Some(folder.to_owned());
            machine.clone_into(&mut config.machine);
        })
    }

    /// Loads; says whether anything was measured.
    #[track_caller]
    fn measures(&self, auto: &AutoBackend, source: &ModelSource) -> bool {
        for engine in [&self.single, &self.many, &self.wrong] {
            engine.forget();
        }
        let model = auto.load(source).unwrap();
        assert_eq!(serves(&model), "1:single 8:many");
        let measured = !self.single.log().runs.is_empty();
        assert_eq!(choice(&model).is_remembered, !measured);
        // Who lost is not even loaded.
        assert_eq!(self.wrong.log().loads, usize::from(measured));
        runs(&model, 2);
        runs(&model, 20);
        measured
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("engines/fraud-1.json")
    }
}

#[test]
fn the_second_load_remembers_and_loads_only_who_won() {
    let setting = Setting::new();
    assert!(setting.measures(&setting.auto("here"), &source()));
    assert!(!setting.measures(&setting.auto("here"), &source()));
    let again = setting.auto("here").load(&source()).unwrap();
    let choice = choice(&again);
    assert_eq!(choice.engines.len(), 3);
    assert!(choice.reason.starts_with("1 row: single "), "{}", choice.reason);
    assert_eq!(choice.engines[0].times.len(), 4);
    assert!(crate::engine::dropped(&again, "wrong").contains("output `y`"));
}

#[test]
fn another_machine_content_option_or_set_of_engines_is_measured() {
    let setting = Setting::new();
    let again = |machine: &str, source: &ModelSource| setting.measures(&setting.auto(machine), source);
    assert!(again("here", &source()));
    assert!(again("there", &source()));
    assert!(!again("there", &source()));
    // Of the same name and size: a retrained model.
    assert!(again("there", &with_content("WEIGHTS")));
    assert!(!again("there", &with_content("WEIGHTS")));
    let mut optioned = with_content("WEIGHTS");
    optioned.options.insert("depth".to_owned(), "3".to_owned());
    assert!(again("there", &optioned));
    let fewer = setting.world.configured(&[&setting.single, &setting.many], |config| {
        config.folder = Some(setting.folder.path().join("engines"));
        config.machine = "there".to_owned();
    });
    setting.single.forget();
    fewer.load(&optioned).unwrap();
    assert!(!setting.single.log().runs.is_empty());
    // Versions of one model are told apart by their files' names, not by replacing each other.
    let second = ModelSource { version: 2, ..source() };
    assert!(again("here", &source()) && again("here", &second));
    assert!(!again("here", &source()) && !again("here", &second));
}

#[test]
fn a_damaged_file_is_measured_again_and_replaced() {
    let setting = Setting::new();
    assert!(setting.measures(&setting.auto("here"), &source()));
    let good = fs::read_to_string(setting.file()).unwrap();
    let senseless = [
        good.replace("\"single\"", "\"nobody\""),
        good.replace("\"format\": 2", "\"format\": 99"),
        good.replacen("1,\n        \"single\"", "3,\n        \"single\"", 1),
        good[..good.len() / 2].to_owned(),
        String::new(),
        "[]".to_owned(),
        "x".repeat(1 << 20),
    ];
    for text in senseless {
        assert_ne!(text, good);
        fs::write(setting.file(), &text).unwrap();
        assert!(setting.measures(&setting.auto("here"), &source()), "{:.200}", text);
        assert!(!setting.measures(&setting.auto("here"), &source()));
    }
    fs::write(setting.file(), [0xff, 0xfe]).unwrap();
    assert!(setting.measures(&setting.auto("here"), &source()));
}

#[test]
fn a_winner_that_does_not_load_any_more_is_measured_again() {
    let setting = Setting::new();
    assert!(setting.measures(&setting.auto("here"), &source()));
    // Together the two winners need more than there is now.
    let poor = ModelSource { memory_budget: 150, ..source() };
    let model = setting.auto("here").load(&poor).unwrap();
    assert_eq!(choice(&model).ranges.len(), 1);
    assert!(!choice(&model).is_remembered);
}

#[test]
fn without_a_folder_to_write_to_each_load_measures() {
    let setting = Setting::new();
    let blocked = setting.folder.path().join("file");
    fs::write(&blocked, "").unwrap();
    let auto = setting.in_folder("here", &blocked.join("engines"));
    assert!(setting.measures(&auto, &source()));
    assert!(setting.measures(&auto, &source()));
}

#[test]
fn the_folder_does_not_grow_for_ever() {
    let setting = Setting::new();
    let folder = setting.folder.path().join("engines");
    fs::create_dir(&folder).unwrap();
    for index in 0..1005 {
        fs::write(folder.join(format!("old-{index}.json")), "{}").unwrap();
    }
    assert!(setting.measures(&setting.auto("here"), &source()));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1000);
    assert!(setting.file().exists());
}

#[test]
fn what_somebody_else_put_into_the_folder_stays() {
    let setting = Setting::new();
    let folder = setting.folder.path().join("engines");
    fs::create_dir_all(folder.join("inner.json")).unwrap();
    for index in 0..1005 {
        fs::write(folder.join(format!("note-{index}.txt")), "").unwrap();
    }
    assert!(setting.measures(&setting.auto("here"), &source()));
    assert!(!setting.measures(&setting.auto("here"), &source()));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1007);
}

/// One recorded request of these numbers.
#[derive(Debug)]
struct Recorded([f32; 2]);

impl Samples for Recorded {
    fn inputs(&self, _: &Signature) -> Vec<TensorList> {
        vec![[Tensor::from_vec(&[1, 2], self.0.to_vec()).unwrap()].into_iter().collect()]
    }
}

#[test]
fn other_recorded_requests_and_another_budget_are_measured() {
    let setting = Setting::new();
    let with = |numbers: [f32; 2]| ModelSource { samples: Some(Arc::new(Recorded(numbers))), ..source() };
    let again = |source: &ModelSource| {
        setting.single.forget();
        setting.auto("here").load(source).unwrap();
        !setting.single.log().runs.is_empty()
    };
    assert!(again(&source()) && !again(&source()));
    assert!(again(&with([7.0, 8.0])) && !again(&with([7.0, 8.0])));
    assert!(again(&with([7.0, 9.0])) && !again(&with([7.0, 9.0])));
    assert!(again(&source()) && !again(&source()));
    let longer = setting.world.configured(&[&setting.single, &setting.many, &setting.wrong], |config| {
        config.folder = Some(setting.folder.path().join("engines"));
        config.machine = "here".to_owned();
        config.budget *= 2;
    });
    assert!(setting.measures(&longer, &source()) && !setting.measures(&longer, &source()));
}

/// A file that is replaced after it has been read so often.
#[derive(Debug)]
struct Replaced {
    list: Vec<(String, u64)>,
    reads: AtomicUsize,
    after: usize,
}

impl ModelFiles for Replaced {
    fn list(&self) -> &[(String, u64)] {
        &self.list
    }

    fn read(&self, _: &str) -> std::io::Result<Bytes> {
        let is_old = self.reads.fetch_add(1, Ordering::SeqCst) < self.after;
        Ok(Bytes::from_static(if is_old { b"weights" } else { b"WEIGHTS" }))
    }
}

#[test]
fn files_that_are_replaced_meanwhile_are_not_remembered() {
    let setting = Setting::new();
    let replaced = |after: usize| {
        let list = vec![("the.model".to_owned(), 7)];
        ModelSource { files: Arc::new(Replaced { list, reads: AtomicUsize::new(0), after }), ..source() }
    };
    // The first read is before the trial, the second after it.
    assert!(setting.measures(&setting.auto("here"), &replaced(1)));
    assert!(!setting.file().exists());
    assert!(setting.measures(&setting.auto("here"), &replaced(2)));
    assert!(setting.file().exists());
}
