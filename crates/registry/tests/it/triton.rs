//! Triton's `config.pbtxt` in a model's folder.

use millrace_core::{Reason, VersionState};
use millrace_testkit::FakeBackend;

use crate::repository::{Repository, Served};

const WIDE: &str = "scale = 2\noffset = 0\nwidth = 4\nend\n";

/// A repository with version 1 of `m`, whose rows have four elements, and this `config.pbtxt`.
fn served(pbtxt: &str) -> (Repository, Served) {
    let repository = Repository::new();
    repository.version_with("m", 1, WIDE).file("m/config.pbtxt", pbtxt);
    let served = repository.start();
    (repository, served)
}

#[test]
fn a_model_is_served_as_its_file_says() {
    let (_repository, served) = served(
        "name: 'm' backend: 'onnxruntime' max_batch_size: 16
         input [ { name: 'x' data_type: TYPE_FP32 dims: [ 4 ] } ]
         output [ { name: 'y' data_type: TYPE_FP32 dims: [ 4 ] } ]
         dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 200 }
         instance_group [ { count: 2 kind: KIND_GPU } ] optimization { }
         model_warmup { name: 'w' batch_size: 3
           inputs { key: 'x' value { data_type: TYPE_FP32 dims: 4 random_data: true } } }",
    );
    let status = served.status("m", 1);
    assert_eq!(status.state, VersionState::Available, "{:?}", status.failure);
    assert_eq!((status.max_batch_size, status.executors), (16, Some(2)));
    assert_eq!(status.batch_delay, Some(std::time::Duration::from_micros(200)));
    let warnings = served.0.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("model `m`: config.pbtxt, line 5, column "), "{warnings:?}");
    assert!(warnings[0].contains("asks for a GPU") && warnings[1].contains("`optimization`"), "{warnings:?}");
    served.rescan();
    assert_eq!(served.0.warnings(), warnings, "said as long as it is so");
}

#[test]
fn without_a_batch_size_a_model_is_not_batched() {
    assert_eq!(served("max_batch_size: 0").1.status("m", 1).max_batch_size, 0);
    assert_eq!(served("").1.status("m", 1).max_batch_size, 1024);
}

#[test]
fn what_does_not_fit_fails_the_load_and_is_named() {
    for (pbtxt, expected) in [
        ("max_batch_size: 8 input { name: 'q' dims: 4 }", "the model has no input `q`; it has x"),
        ("max_batch_size: 8 input { name: 'x' dims: 5 }", "input `x`: its dims are [5], the model has x FP32[N,4]"),
        ("output { name: 'y' data_type: TYPE_INT32 dims: 4 }", "output `y`: it says INT32, the model has FP32"),
        ("platform: 'tensorrt_plan'", "there is no backend `tensorrt_plan`; expected one of fake"),
        ("default_model_filename: 'net.fake'", "there is no file `net.fake`"),
        ("model_warmup { name: 'w' inputs { key: 'q' value { dims: 4 } } }", "`model_warmup` `w`: "),
        ("model_warmup { name: 'w' inputs { key: 'x' value { dims: 5 } } }", "`model_warmup` `w`: input `x`"),
        ("model_warmup { name: 'w' }", "`model_warmup` `w`: "),
        (
            "model_warmup { name: 'w' inputs { key: 'x' value { dims: [1073741824, 4] } } }",
            "more than 268435456 bytes are too many",
        ),
    ] {
        let message = served(pbtxt).1.failure("m", 1);
        assert!(message.contains(expected), "{pbtxt}: {message}");
    }
}

#[test]
fn a_file_that_cannot_be_read_keeps_the_model_from_loading() {
    for (pbtxt, expected) in [
        ("name: 'other'", "config.pbtxt, line 1, column 1: the model is called `other`, but its folder `m`"),
        ("input [", "config.pbtxt, line 1, column 8: "),
    ] {
        let (_repository, served) = served(pbtxt);
        assert_eq!(served.default_of("m"), Err(Reason::NotReady));
        assert!(served.failure("m", 1).contains(expected), "{}", served.failure("m", 1));
    }
}

#[test]
fn the_named_file_is_the_model() {
    let repository = Repository::new();
    repository.version("m", 3).file("m/3/other.fake", "fail = not this one\nend\n");
    repository.file("m/config.pbtxt", "default_model_filename: 'model.fake'");
    assert_eq!(repository.start().default_of("m"), Ok(3));
    repository.file("m/config.pbtxt", "default_model_filename: 'other.fake'");
    assert_eq!(repository.start().failure("m", 3), "not this one");
}

#[test]
fn model_toml_goes_first_and_changes_to_either_file_count() {
    let repository = Repository::new();
    repository.version("m", 1).version("m", 2).file("m/config.pbtxt", "version_policy { all { } } max_batch_size: 4");
    let served = repository.start();
    assert_eq!((served.available("m"), served.status("m", 2).max_batch_size), (vec![1, 2], 4));
    repository.file("m/model.toml", "versions = [1]");
    served.rescan();
    assert_eq!(served.available("m"), [1]);
    repository.file("m/model.toml", "[aliases]\nstable = 1").file("m/config.pbtxt", "version_policy { latest { } }");
    served.rescan();
    assert_eq!(served.available("m"), [1, 2], "the alias holds a version as well");
}

/// An operator's own request must run, also where an invented one would be passed over.
#[test]
fn a_warm_up_request_that_fails_fails_the_load() {
    let repository = Repository::new();
    repository.version_with("m", 1, &FakeBackend::file(1.0, 0.0));
    repository.file(
        "m/config.pbtxt",
        "max_batch_size: 4 model_warmup { name: 'w' batch_size: 2
           inputs { key: 'x' value { data_type: TYPE_INT32 dims: [] zero_data: true } } }",
    );
    let message = repository.start().failure("m", 1);
    assert!(message.contains("`model_warmup` `w`") && message.contains("FP32"), "{message}");
}
