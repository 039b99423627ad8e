//! Loads a fixture, asks it all its cases in several ways, and compares.

use std::sync::Arc;

use millrace_backend_candle::CandleBackend;
use millrace_core::{Backend, Batch, MemoryFiles, Model, ModelSource, Part, RunContext, Tensor};
use millrace_testkit::{Case, assert_close, conformance::Subject, fixture, fixture_source};

/// The folders of models and of their cases.
pub(crate) struct Family {
    pub(crate) models: &'static str,
    pub(crate) cases: &'static str,
}

pub(crate) const TEXT: Family = Family { models: "text-models", cases: "cases/text" };
pub(crate) const VISION: Family = Family { models: "vision-models", cases: "cases/vision" };

impl Family {
    pub(crate) fn source(&self, model: &str) -> ModelSource {
        fixture_source(&format!("{}/{model}/1", self.models))
    }

    pub(crate) fn cases(&self, model: &str) -> Vec<Case> {
        let cases: Vec<Case> = Case::folder(self.cases).into_iter().filter(|case| case.model == model).collect();
        assert!(!cases.is_empty(), "{model} has no case");
        cases
    }

    /// The same with its weights cut off at half, and with a header that says it is longer than the file.
    pub(crate) fn damaged(&self, model: &str) -> [ModelSource; 2] {
        let source = self.source(model);
        let weights = source.files.read("model.safetensors").expect("the model has one file of weights");
        let mut long = weights.to_vec();
        long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        [weights[..weights.len() / 2].to_vec(), long].map(|weights| {
            let config = source.files.read("config.json").expect("the model has a configuration");
            let files = MemoryFiles::default().with("config.json", config).with("model.safetensors", weights);
            ModelSource { files: Arc::new(files), ..source.clone() }
        })
    }

    /// The model with all its cases, for the conformance suite.
    pub(crate) fn subject(&self, model: &str) -> Subject {
        let add = |subject: Subject, case: Case| subject.case(case.inputs, case.outputs, case.tolerance);
        self.cases(model).into_iter().fold(Subject::new(self.source(model)), add)
    }

    /// Each case by itself, and all that can share a run in one, with an engine that computes as the file says.
    pub(crate) fn check(&self, model: &str) {
        self.check_with(model, &[], 1.0);
    }

    /// The same with options, and with the cases' tolerances multiplied.
    pub(crate) fn check_with(&self, model: &str, options: &[(&str, &str)], slack: f64) {
        let mut source = self.source(model);
        source.options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let loaded = CandleBackend::default().load(&source).unwrap_or_else(|error| panic!("{model}: {error}"));
        let cases = self.cases(model);
        for case in &cases {
            compare(&*loaded, &run(&*loaded, &[case])[0], case, slack);
        }
        let mixed: Vec<&Case> = cases.iter().collect();
        if loaded.signature().is_mixed() {
            for (case, answer) in mixed.iter().zip(run(&*loaded, &mixed)) {
                compare(&*loaded, &answer, case, slack);
            }
        }
    }

    /// The names of all models that there are.
    pub(crate) fn all(&self) -> Vec<String> {
        let entries = std::fs::read_dir(fixture(self.models)).expect("the folder is there");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.expect("it can be listed").file_name().into_string().expect("a plain name")
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }
}

/// The model `model` with `options`.
pub(crate) fn load(family: &Family, model: &str) -> Arc<dyn Model> {
    CandleBackend::default().load(&family.source(model)).unwrap_or_else(|error| panic!("{model}: {error}"))
}

type Answer = Vec<Option<Tensor>>;

/// The answers to `cases` in one run.
fn run(model: &dyn Model, cases: &[&Case]) -> Vec<Answer> {
    let signature = model.signature();
    let part = |case: &&Case| {
        let inputs = signature.arrange(case.inputs.iter().cloned()).expect("the inputs are the signature's");
        let admission = signature.check(&inputs).expect("the inputs fit the signature");
        model.admit(&admission).expect("the inputs fit the model");
        if signature.is_mixed() {
            model.weigh(&inputs, &admission).expect("the values fit the model");
        }
        Part { inputs, rows: admission.rows }
    };
    let batch = Batch::new(cases.iter().map(part).collect(), 0);
    let outputs = model.instance().expect("an instance").run(&batch, &RunContext::plain()).expect("the run works");
    let shares = batch.split(&outputs, signature).expect("the outputs keep the contract");
    shares.into_iter().map(|share| share.into_iter().collect()).collect()
}

fn compare(model: &dyn Model, answer: &Answer, case: &Case, slack: f64) {
    let specs = model.signature().outputs();
    assert_eq!(specs.len(), case.outputs.len(), "{}: {specs:?}", case.model);
    for (name, want) in &case.outputs {
        let index = specs.iter().position(|spec| *spec.name == **name).expect("the signature has the output");
        let got = answer[index].as_ref().expect("all outputs are wanted");
        assert_close(got, want, case.tolerance * slack, &format!("{} {name}", case.model));
    }
}
