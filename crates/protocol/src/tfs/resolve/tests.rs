//! Resolution over a resolver that knows one model with versions 1 and 7 and the label `stable`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_core::{
    DType, Dim, InferFuture, InferRequest, ModelName, ModelRef, Reason, Refusal, RequestContext, Resolver, Servable,
    Signature, Signatures, TensorSpec, VersionChoice,
};

use super::{Failure, Verb, resolve, signature_unknown};

#[derive(Debug)]
struct Known {
    name: ModelName,
    version: u64,
    signatures: Signatures,
}

impl Known {
    fn servable(version: u64) -> Arc<dyn Servable> {
        let spec = |name| TensorSpec::new(name, DType::Fp32, vec![Dim::symbol("N")]);
        let signature = Signature::new(vec![spec("x")], vec![spec("y")]).unwrap();
        Arc::new(Self { name: "m".parse().unwrap(), version, signatures: Signatures::single(signature) })
    }
}

impl Servable for Known {
    fn model(&self) -> &ModelName {
        &self.name
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    fn infer(&self, _request: InferRequest) -> InferFuture {
        InferFuture::refused(Refusal::new(Reason::Unsupported, "only resolved here"))
    }
}

#[derive(Debug)]
struct OneModel {
    versions: &'static [u64],
    refused: Option<Reason>,
}

impl Resolver for OneModel {
    fn resolve(&self, model: &ModelRef<'_>, _context: &RequestContext) -> Result<Arc<dyn Servable>, Refusal> {
        if let Some(reason) = self.refused {
            return Err(Refusal::new(reason, "not now").with_retry_after(Duration::from_secs(2)));
        }
        if model.name != "m" {
            return Err(Refusal::new(Reason::ModelUnknown, "no such model"));
        }
        let version = match model.version {
            VersionChoice::Default => self.versions.last().copied(),
            VersionChoice::Number(number) => self.versions.iter().copied().find(|known| *known == number),
            VersionChoice::Label("stable") => self.versions.first().copied(),
            VersionChoice::Label(_) => return Err(Refusal::new(Reason::LabelUnknown, "no such label")),
        };
        version.map(Known::servable).ok_or_else(|| Refusal::new(Reason::VersionUnknown, "no such version"))
    }
}

fn ask(versions: &'static [u64], model: &ModelRef<'_>) -> Result<u64, Failure> {
    let context = RequestContext::new(now());
    resolve(&OneModel { versions, refused: None }, model, &context).map(|servable| servable.version())
}

#[expect(clippy::disallowed_methods, reason = "a context wants an instant; nothing here measures time")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn version_0_is_the_default_unless_a_version_0_exists() {
    assert_eq!(ask(&[1, 7], &ModelRef::with_version("m", 0)).unwrap(), 7);
    assert_eq!(ask(&[0, 7], &ModelRef::with_version("m", 0)).unwrap(), 0);
}

#[test]
fn version_0_of_an_unknown_model_is_still_unknown() {
    let failure = ask(&[1], &ModelRef::with_version("n", 0)).unwrap_err();
    assert_eq!((failure.rest_status(), failure.refusal().reason()), (404, Reason::ModelUnknown));
}

#[test]
fn what_is_not_there_reads_as_in_tensorflow_serving() {
    let cases = [
        (ModelRef::new("nope"), 404, "Servable not found for request: Latest(nope)"),
        (ModelRef::with_version("m", 99), 404, "Servable not found for request: Specific(m, 99)"),
        (ModelRef::with_label("m", "canary"), 400, "Unrecognized servable version label: canary"),
    ];
    for (model, status, message) in cases {
        let failure = ask(&[1, 7], &model).unwrap_err();
        assert_eq!((failure.rest_status(), failure.to_string().as_str()), (status, message));
    }
}

#[test]
fn a_model_that_is_still_loading_is_not_found_but_says_why_and_when_to_retry() {
    for reason in [Reason::Loading, Reason::NotReady] {
        let resolver = OneModel { versions: &[], refused: Some(reason) };
        let failure = resolve(&resolver, &ModelRef::new("m"), &RequestContext::new(now())).unwrap_err();
        assert_eq!(failure.rest_status(), 404);
        assert_eq!(failure.to_string(), "Servable not found for request: Latest(m) (not now)");
        assert_eq!(failure.refusal().retry_after(), Some(Duration::from_secs(2)));
        assert_eq!(failure.refusal().reason(), reason, "metrics keep the reason");
    }
}

#[test]
fn a_draining_server_is_unavailable_and_not_not_found() {
    let resolver = OneModel { versions: &[1], refused: Some(Reason::Draining) };
    let failure = resolve(&resolver, &ModelRef::new("m"), &RequestContext::new(now())).unwrap_err();
    assert_eq!((failure.rest_status(), failure.to_string().as_str()), (503, "not now"));
}

#[test]
fn foreign_names_are_escaped_and_cut() {
    let long = "x".repeat(8000);
    for name in ["a\r\nset-cookie: b", "\u{1b}[31m", "\u{ff0e}\u{ff0e}", &long] {
        let message = ask(&[1], &ModelRef::new(name)).unwrap_err().to_string();
        let (_, shown) = message.split_once("Latest(").unwrap();
        assert!(shown.chars().all(|character| matches!(character, ' '..='~' | '…')), "{shown}");
        assert!(shown.chars().count() <= 131, "{shown}");
    }
}

#[test]
fn an_unknown_signature_is_worded_by_verb() {
    let predict = signature_unknown(Verb::Predict, "s");
    assert_eq!(predict.to_string(), "Serving signature name: \"s\" not found in signature def");
    let classify = signature_unknown(Verb::Classify, "s");
    assert_eq!(classify.to_string(), "No signature was found with the name: s");
    assert_eq!((predict.rest_status(), classify.rest_status()), (400, 400));
}
