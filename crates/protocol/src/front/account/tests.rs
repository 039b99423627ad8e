use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_core::{
    Catalog, ClosedBy, DType, Dim, EngineChoice, EngineRange, InferFuture, InferRequest, ModelName, ModelStatus,
    Progress, Protocol, Reason, Refusal, RequestContext, Servable, Signature, Signatures, Stages, TensorList,
    TensorSpec, VersionState, VersionStatus,
};

use super::{Account, Inquiry, Text, switch};
use crate::front::now;

#[derive(Debug)]
struct One(ModelName, Signatures);

impl Servable for One {
    fn model(&self) -> &ModelName {
        &self.0
    }

    fn version(&self) -> u64 {
        3
    }

    fn signatures(&self) -> &Signatures {
        &self.1
    }

    fn infer(&self, _request: InferRequest) -> InferFuture {
        unreachable!("an account asks no model")
    }
}

#[derive(Debug)]
struct Known(Option<ModelStatus>);

impl Catalog for Known {
    fn models(&self) -> Vec<ModelStatus> {
        self.0.clone().into_iter().collect()
    }

    fn model(&self, name: &str) -> Option<ModelStatus> {
        self.0.clone().filter(|status| status.name.as_str() == name)
    }

    fn is_ready(&self) -> bool {
        true
    }
}

fn known(choice: Option<EngineChoice>) -> Known {
    let mut status = ModelStatus::new("m".parse().unwrap());
    status.versions.push(VersionStatus {
        backend: Some(Arc::from("trees+tract")),
        choice: choice.map(Arc::new),
        ..VersionStatus::new(3, VersionState::Available)
    });
    Known(Some(status))
}

fn servable(name: &str) -> One {
    let spec = |name| TensorSpec::new(name, DType::Fp32, vec![Dim::symbol("N")]);
    let signature = Signature::new(vec![spec("x")], vec![spec("y")]).unwrap();
    One(name.parse().unwrap(), Signatures::single(signature))
}

/// An account whose stages take a microsecond and a nanosecond, two and one, and so on from `received`.
fn account(received: Instant, inquiry: Option<Box<Inquiry>>) -> (Box<Account>, Instant) {
    let mut at = received;
    let mut after = |microseconds: u64| {
        at += Duration::from_nanos(microseconds * 1000 + 1);
        at
    };
    let (arrived, decoded) = (after(1), after(2));
    let stages = Stages {
        queued: after(3),
        formed: after(4),
        started: after(5),
        finished: after(6),
        batch_rows: 8,
        padding: 2,
        requests: 3,
        ahead: 5,
        closed_by: Some(ClosedBy::Full),
    };
    let (answered, encoded) = (after(7), after(8));
    let context = RequestContext::new(received).with_deadline(received + Duration::from_millis(250));
    let request = InferRequest::new(TensorList::new(), context);
    let mut account = Account::begin(inquiry.unwrap(), Protocol::Local, received);
    account.arrived(arrived);
    account.found(&servable("m"));
    account.asked(&servable("m"), &request, 4, decoded);
    account.ran(stages, answered);
    (account, encoded)
}

fn told(account: &Account, encoded: Instant, catalog: &dyn Catalog) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    account.tell(encoded, catalog, |name, value| headers.push((name, value)));
    headers
}

#[test]
fn stages_are_told_to_the_nanosecond_in_the_form_of_server_timing() {
    let (account, encoded) = account(now(), Inquiry::new(true, false, None));
    let headers = told(&account, encoded, &known(None));
    let expected = "receive;dur=0.001001, decode;dur=0.002001, admit;dur=0.003001, queue;dur=0.004001, \
                    form;dur=0.005001, compute;dur=0.006001, wake;dur=0.007001, encode;dur=0.008001, \
                    total;dur=0.036008, batch;desc=\"rows=8 closed_by=full\"";
    assert_eq!(headers, [("server-timing", expected.to_owned())]);
}

#[test]
fn the_whole_account_is_one_json_object() {
    let (account, encoded) = account(now(), Inquiry::new(false, true, Some(b"a\"\xff")));
    let headers = told(&account, encoded, &known(None));
    let [("x-millrace-explain", text)] = &headers[..] else { panic!("{headers:?}") };
    let (told, clock) = text.split_once(",\"clock\":").unwrap();
    assert_eq!(
        told,
        "{\"request_id\":\"a\\\"\\ufffd\",\"model\":\"m\",\"version\":3,\"signature\":\"serving_default\",\
         \"engine\":\"trees+tract\",\"protocol\":\"local\",\"priority\":128,\"deadline_ms\":250,\"rows\":4,\
         \"rows_ahead\":5,\"batch\":{\"rows\":8,\"padding\":2,\"requests\":3,\"closed_by\":\"full\"},\
         \"stages_us\":{\"receive\":1.001,\"decode\":2.001,\"admit\":3.001,\"queue\":4.001,\"form\":5.001,\
         \"compute\":6.001,\"wake\":7.001,\"encode\":8.001},\"total_us\":36.008"
    );
    let each = clock.strip_prefix("{\"readings\":9,\"each_us\":").and_then(|rest| rest.strip_suffix("}}")).unwrap();
    let each: f64 = each.parse().unwrap();
    assert!(each > 0.0, "{each}");
}

#[test]
fn the_engine_is_the_one_that_ran_a_batch_of_that_size() {
    let range = |rows_from, engine: &str| EngineRange { rows_from, engine: Arc::from(engine) };
    let choice = EngineChoice { ranges: vec![range(1, "trees"), range(10, "tract")], ..EngineChoice::default() };
    let (account, encoded) = account(now(), Inquiry::new(true, true, None));
    let headers = told(&account, encoded, &known(Some(choice)));
    assert_eq!(headers[0].0, "server-timing");
    // Eight rows and two of padding.
    assert!(headers[1].1.contains("\"engine\":\"tract\""), "{}", headers[1].1);
    let headers = told(&account, encoded, &Known(None));
    assert!(headers[1].1.contains("\"engine\":null"), "{}", headers[1].1);
}

#[test]
fn parts_add_up_whatever_the_order_of_the_instants() {
    let received = now();
    let (mut account, encoded) = account(received, Inquiry::new(true, false, None));
    // A pipeline's inner call may have been queued before its caller's body was read.
    let (_, answered) = account.ran.unwrap();
    account.ran(Stages::immediate(received), answered);
    let times = account.stages(encoded);
    assert_eq!(times.iter().map(|(_, time)| *time).sum::<Duration>(), encoded - received);
    assert!(times.contains(&("compute", Duration::ZERO)), "{times:?}");
    let headers = told(&account, encoded, &known(None));
    assert!(!headers[0].1.contains("batch"), "{}", headers[0].1);
}

/// Where a request was refused that came as far as `come` lets it, and how many stages it came through.
#[track_caller]
fn refused(come: impl FnOnce(&mut Account, Instant), progress: impl FnOnce(Instant) -> Option<Progress>) -> String {
    let received = now();
    let mut account = Account::begin(Inquiry::new(true, true, None).unwrap(), Protocol::OipRest, received);
    come(&mut account, received);
    let refusal = Refusal::new(Reason::Late, "late");
    let refusal = match progress(received) {
        Some(progress) => refusal.with_progress(progress),
        None => refusal,
    };
    let mut told = Vec::new();
    let at = received + Duration::from_micros(100);
    account.tell_refused(&refusal, at, &known(None), |_, text| told.push(text));
    let [timing, explained] = &told[..] else { panic!("{told:?}") };
    let (stages, refused) = timing.split_once(", total;dur=0.100000").unwrap();
    let (_, json) = explained.split_once("\"stages_us\":{").unwrap();
    let (json, _) = json.split_once("},\"total_us\":100.000").unwrap();
    assert_eq!(json.split(',').count(), stages.split(", ").count(), "{timing} {explained}");
    let words = refused.strip_prefix(", refused;desc=\"stage=").unwrap().strip_suffix(" reason=late\"").unwrap();
    assert!(explained.contains(&format!("\"refused\":{{\"stage\":\"{words}\",\"reason\":\"late\"}}")), "{explained}");
    stages.to_owned()
}

#[test]
fn a_refused_request_is_told_the_stages_up_to_the_one_that_refused_it() {
    let micros = Duration::from_micros;
    let asked = |account: &mut Account, received: Instant| {
        account.arrived(received + micros(10));
        account.found(&servable("m"));
        let request = InferRequest::new(TensorList::new(), RequestContext::new(received));
        account.asked(&servable("m"), &request, 4, received + micros(30));
    };
    assert_eq!(refused(|_, _| (), |_| None), "receive;dur=0.100000");
    let arrived = |account: &mut Account, received| account.arrived(received + micros(10));
    assert_eq!(refused(arrived, |_| None), "receive;dur=0.010000, decode;dur=0.090000");
    let head = "receive;dur=0.010000, decode;dur=0.020000";
    assert_eq!(refused(asked, |_| None), format!("{head}, model;dur=0.070000"));
    assert_eq!(refused(asked, |_| Some(Progress::Door)), format!("{head}, admit;dur=0.070000"));
    let queued = |received| Some(Progress::Queue { queued: received + micros(40) });
    assert_eq!(refused(asked, queued), format!("{head}, admit;dur=0.010000, queue;dur=0.060000"));
    let run = |received| {
        let [queued, formed, started] = [40, 60, 65].map(|after| received + micros(after));
        Some(Progress::Run { queued, formed, started })
    };
    let ran = "admit;dur=0.010000, queue;dur=0.020000, form;dur=0.005000, compute;dur=0.035000";
    assert_eq!(refused(asked, run), format!("{head}, {ran}"));
    // An answer that could not be written.
    let answered = |account: &mut Account, received| {
        asked(account, received);
        account.ran(Stages::immediate(received + micros(50)), received + micros(60));
    };
    let stages = refused(answered, |_| None);
    assert!(stages.ends_with(", wake;dur=0.010000, encode;dur=0.040000"), "{stages}");
    // A refusal of an inner request says nothing about one that was not asked yet.
    assert_eq!(refused(arrived, run), "receive;dur=0.010000, decode;dur=0.090000");
}

#[test]
fn parts_are_told_as_pieces_of_one_request_are() {
    let received = now();
    let inquiry = || Inquiry::new(false, true, None);
    let (first, _) = account(received, inquiry());
    let (mut second, _) = account(received + Duration::from_millis(1), inquiry());
    if let Some((stages, _)) = &mut second.ran {
        (stages.batch_rows, stages.closed_by) = (9, Some(ClosedBy::Drained));
    }
    let mut whole = Account::begin(inquiry().unwrap(), Protocol::General, received);
    whole.arrived(received);
    whole.joined(Some(&first));
    whole.joined(Some(&second));
    whole.joined(None);
    let end = received + Duration::from_millis(2);
    let [(_, text)] = &told(&whole, end, &known(None))[..] else { panic!() };
    for part in [
        "\"model\":\"m\",\"version\":3,\"signature\":\"serving_default\"",
        "\"rows\":8,\"rows_ahead\":5,\"parts\":{\"answered\":2,\"refused\":1}",
        "\"batch\":{\"rows\":9,\"padding\":2,\"requests\":3,\"closed_by\":\"drained\"}",
        "\"decode\":3.002,\"admit\":3.001,\"queue\":4.001,\"form\":5.001,\"compute\":1006.001,\"wake\":7.001",
        "\"total_us\":2000.000",
    ] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    let (mut other, _) = account(received, inquiry());
    other.found(&servable("other"));
    whole.joined(Some(&other));
    let [(_, text)] = &told(&whole, end, &known(None))[..] else { panic!() };
    assert!(text.contains("\"model\":null,\"version\":null,\"signature\":null,\"engine\":null"), "{text}");
}

#[test]
fn switches_are_on_or_off_and_nothing_else() {
    for (value, expected) in [("1", true), ("true", true), ("TRUE", true), ("0", false), ("False", false)] {
        assert_eq!(switch("x", value.as_bytes()).unwrap(), expected, "{value}");
    }
    for wrong in ["", "maybe", "2", "on", " 1", "\u{ff}"] {
        let refusal = switch("x-millrace-timing", wrong.as_bytes()).unwrap_err();
        assert_eq!(refusal.reason(), Reason::InvalidInput);
        assert!(refusal.message().starts_with("x-millrace-timing: expected 1 or 0, got "), "{}", refusal.message());
    }
    assert!(Inquiry::new(false, false, Some(b"id")).is_none());
}

#[test]
fn texts_are_short_ascii() {
    assert_eq!(Text(Some("é\n😀\\")).to_string(), "\"\\u00e9\\u000a\\ud83d\\ude00\\\\\"");
    assert_eq!(Text(Some(&"x".repeat(1000))).to_string().len(), 258);
    assert_eq!(Text(None).to_string(), "null");
}
