//! Text models: turned into tokens on compute threads, then asked as any other request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use millrace_batching::{ComputePool, PoolConfig};
use millrace_core::{InferRequest, ModelRef, Reason, Refusal, Servable, Tensor, Wanted};
use millrace_registry::{Parts, Registry, RegistryConfig};
use millrace_testkit::Gate;
use pollster::block_on;

use crate::letters::{Alphabet, LettersBackend};
use crate::repository::{Repository, Served, context};

/// `m`, which takes texts, with this `model.toml`.
fn letters(toml: &str) -> Repository {
    let repository = Repository::new();
    repository.file("m/1/alphabet", "").file("m/1/model.letters", "").file("m/model.toml", toml);
    repository
}

fn start(config: RegistryConfig) -> Served {
    start_with(config, &Alphabet::new(Gate::opened()))
}

fn start_with(config: RegistryConfig, alphabet: &Alphabet) -> Served {
    let text: Arc<dyn millrace_core::TextFactory> = Arc::new(alphabet.clone());
    let parts = Parts { backends: vec![Arc::new(LettersBackend)], text: Some(text), ..Parts::default() };
    let served = Served(Registry::start(config, parts, ComputePool::new(PoolConfig::default())).unwrap());
    block_on(served.0.settled());
    served
}

fn m(served: &Served) -> Arc<dyn Servable> {
    served.resolve(&ModelRef::new("m")).unwrap()
}

fn request(texts: &[&str]) -> InferRequest {
    let strings = texts.iter().map(|text| text.as_bytes()).collect();
    InferRequest::new(vec![Tensor::from_strings(&[texts.len()], strings).unwrap()], context())
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.elements::<f32>().unwrap().into_owned()
}

fn ask(servable: &dyn Servable, texts: &[&str]) -> Result<Vec<f32>, Refusal> {
    Ok(numbers(&block_on(servable.infer(request(texts)))?.outputs[0]))
}

/// The count and the sum of each text's letters.
fn sums(texts: &[&str]) -> Vec<f32> {
    let sum = |text: &str| -> f32 { text.bytes().map(|letter| f32::from(letter - b'a' + 1)).sum() };
    texts.iter().flat_map(|text| [f32::from(u16::try_from(text.len()).unwrap()), sum(text)]).collect()
}

#[test]
fn callers_give_text_and_find_the_token_ids_under_their_own_name() {
    let served = start(letters("").config());
    let lease = m(&served);
    let written = |(name, one): (&str, &millrace_core::Signature)| {
        let list =
            |specs: &[millrace_core::TensorSpec]| specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        format!("{name}: {} -> {}", list(one.inputs()), list(one.outputs()))
    };
    let signatures: Vec<String> = lease.signatures().iter().map(written).collect();
    assert_eq!(
        signatures,
        [
            "serving_default: text BYTES[batch] -> sum FP32[batch,2]",
            "tensors: input_ids INT64[batch,sequence], attention_mask INT64[batch,sequence] -> \
             each FP32[batch,sequence], sum FP32[batch,2]"
        ]
    );
    assert!(lease.signatures().get(0).unwrap().is_batched());
    assert_eq!(ask(&*lease, &["abc", "z"]).unwrap(), [3.0, 6.0, 1.0, 26.0]);
    let ids = |values: [i64; 3]| Tensor::from_vec(&[1, 3], values.to_vec()).unwrap();
    let tensors = InferRequest { signature: 1, ..InferRequest::new(vec![ids([2, 4, 0]), ids([1, 1, 0])], context()) };
    let answer = block_on(lease.infer(tensors)).unwrap();
    assert_eq!((numbers(&answer.outputs[0]), numbers(&answer.outputs[1])), (vec![2.0, 4.0, 0.0], vec![2.0, 6.0]));
}

#[test]
fn outputs_are_numbered_as_callers_see_them() {
    let served = start(letters("").config());
    let lease = m(&served);
    let first = InferRequest { wanted: Wanted::Only([0].as_slice().into()), ..request(&["ab"]) };
    let answer = block_on(lease.infer(first)).unwrap();
    assert_eq!(answer.outputs.iter().map(numbers).collect::<Vec<_>>(), [[2.0, 3.0]]);
    let second = InferRequest { wanted: Wanted::Only([1].as_slice().into()), ..request(&["ab"]) };
    let refusal = block_on(lease.infer(second)).unwrap_err();
    assert_eq!((refusal.reason(), refusal.message()), (Reason::InvalidInput, "model `m` has no output number 1"));
}

#[test]
fn a_large_request_goes_in_pieces_of_different_lengths_and_comes_back_as_one() {
    let alphabet = Alphabet::new(Gate::opened());
    let served = start_with(letters("").config(), &alphabet);
    let long: Vec<String> = (1..=300_usize).map(|index| "abcdefgh".repeat(index % 12 + 1)).collect();
    let mut texts: Vec<&str> = long.iter().map(String::as_str).collect();
    texts[250] = "xyz";
    assert_eq!(ask(&*m(&served), &texts).unwrap(), sums(&texts));
    assert_eq!(alphabet.pieces(), 5);
    served.until("the count", || served.status("m", 1).statistics.answered.count == 1);
    assert_eq!(served.status("m", 1).statistics.rows, 300);
}

#[test]
fn front_ends_get_what_cuts_text_and_ask_by_ids() {
    let repository = letters("");
    repository.file("plain/1/model.letters", "");
    let served = start(repository.config());
    let lease = m(&served);
    let text = lease.text().unwrap();
    assert_eq!((text.facts().max_tokens, text.facts().dimension), (100, 2));
    let tokens: Vec<u32> = text.tokens("cab", false).unwrap().iter().map(|token| token.id).collect();
    assert_eq!((tokens.as_slice(), text.decode(&tokens, true).unwrap().as_str()), ([3, 1, 2].as_slice(), "cab"));
    assert!(served.resolve(&ModelRef::new("plain")).unwrap().text().is_none());
}

#[test]
fn a_wrong_text_is_named_by_its_place_in_the_request() {
    let served = start(letters("[text]\nmost = 5\n").config());
    let lease = m(&served);
    let refused = |texts: &[&str]| {
        let refusal = ask(&*lease, texts).unwrap_err();
        (refusal.reason(), refusal.message().to_owned())
    };
    let expected = |index: usize, detail: &str| {
        (Reason::InvalidInput, format!("model `m`: input `text`, instance {index}: {detail}"))
    };
    assert_eq!(refused(&["a", "B"]), expected(1, "expected small letters"));
    assert_eq!(refused(&["a", "abcdef"]), expected(1, "6 letters, the most are 5"));
    assert_eq!(refused(&["a", "b", ""]), expected(2, "an empty text"));
    let mut many = vec!["a"; 200];
    (many[130], many[190]) = ("B", "C");
    assert_eq!(refused(&many), expected(130, "expected small letters"));
    let statistics = served.status("m", 1).statistics;
    assert_eq!((statistics.refused, statistics.answered.count, statistics.failed.count), (4, 0, 0));
}

#[test]
fn a_processor_that_panics_or_breaks_its_contract_costs_one_request() {
    let served = start(letters("").config());
    let lease = m(&served);
    let mut many = vec!["a"; 100];
    many[70] = "?";
    for bad in [&["!"][..], &["?"], &many] {
        assert_eq!(ask(&*lease, bad).unwrap_err().reason(), Reason::BackendBroken, "{bad:?}");
    }
    assert_eq!(ask(&*lease, &["a"]).unwrap(), [1.0, 1.0]);
    assert_eq!(served.status("m", 1).statistics.failed.count, 3);
}

#[test]
fn tokens_that_are_not_in_the_queue_yet_have_a_budget() {
    let repository = letters("");
    let mut config = repository.config();
    // Two inputs of eight bytes for each letter.
    config.batching.max_queue_bytes = 100 * 16 * 4;
    let served = start(config);
    let lease = m(&served);
    let short = vec!["a"; 100];
    assert_eq!(ask(&*lease, &short).unwrap(), sums(&short));
    // The first piece would fit as often as needed; a later one is longer, and all are padded to it.
    let mut long = short.clone();
    long[80] = "abcdefgh";
    let refusal = ask(&*lease, &long).unwrap_err();
    assert_eq!(refusal.reason(), Reason::TooLarge);
    let expected = format!("a request of {} bytes to model `m` does not fit its queue of 6400", 100 * 16 * 8);
    assert_eq!(refusal.message(), expected);
    // The room of requests that were answered or refused is free again.
    assert_eq!(ask(&*lease, &short).unwrap(), sums(&short));
}

#[test]
fn a_short_text_is_turned_where_it_arrives_and_a_long_one_elsewhere() {
    let gate = Gate::opened();
    let alphabet = Alphabet::new(gate.clone());
    let served = start_with(letters("").config(), &alphabet);
    let lease = m(&served);
    let mut context = Context::from_waker(Waker::noop());
    let mut short = lease.infer(request(&["rye"]));
    let answer = Future::poll(Pin::new(&mut short), &mut context);
    assert_eq!(alphabet.pieces(), 1, "before anybody else came to it");
    let answer = if let Poll::Ready(answer) = answer { answer } else { block_on(short) };
    assert_eq!(numbers(&answer.unwrap().outputs[0]), sums(&["rye"]));
    gate.close();
    let text = "a".repeat(100);
    let mut long = lease.infer(request(&[&*text; 20]));
    // Here it would never end.
    assert!(Future::poll(Pin::new(&mut long), &mut context).is_pending());
    gate.open();
    assert_eq!(numbers(&block_on(long).unwrap().outputs[0]), [100.0; 40]);
}

#[test]
fn work_whose_caller_left_or_is_late_is_not_begun() {
    let gate = Gate::closed();
    let alphabet = Alphabet::new(gate.clone());
    let served = start_with(letters("").config(), &alphabet);
    let lease = m(&served);
    let past = context();
    let mut late = request(&["a"]);
    late.context = past.with_deadline(past.received);
    assert_eq!(block_on(lease.infer(late)).unwrap_err().reason(), Reason::Late);
    let many = vec!["a"; 1000];
    let mut left = lease.infer(request(&many));
    let mut waker = Context::from_waker(Waker::noop());
    assert!(Future::poll(Pin::new(&mut left), &mut waker).is_pending());
    gate.wait_for(1);
    drop(left);
    let mut in_time = request(&["a"]);
    in_time.context = context().with_deadline(context().received + Duration::from_secs(3600));
    let in_time = lease.infer(in_time);
    gate.open();
    assert_eq!(numbers(&block_on(in_time).unwrap().outputs[0]), [1.0, 1.0]);
    // One piece of the one that left, and the only one of the other.
    assert_eq!(alphabet.pieces(), 2);
}

#[test]
fn what_the_model_says_about_ids_is_said_before_they_are_queued() {
    let served = start(letters("").config());
    let lease = m(&served);
    let ids = |value: i64| Tensor::from_vec(&[1, 1], vec![value]).unwrap();
    let tensors = InferRequest { signature: 1, ..InferRequest::new(vec![ids(27), ids(1)], context()) };
    let refusal = block_on(lease.infer(tensors)).unwrap_err();
    assert!(refusal.message().contains("27 is not in the vocabulary of 27"), "{}", refusal.message());
}

#[test]
fn text_can_be_forbidden_and_what_is_no_text_model_cannot_be_made_one() {
    let repository = letters("[text]\nenabled = false\n");
    for (model, toml) in
        [("plain", "[text]\nenabled = true\n"), ("optioned", "[text]\nmost = 3\n"), ("unknown", "[text]\nleast = 3\n")]
    {
        repository.file(&format!("{model}/1/model.letters"), "").file(&format!("{model}/model.toml"), toml);
    }
    repository.file("unknown/1/alphabet", "");
    let served = start(repository.config());
    let lease = m(&served);
    assert!(lease.text().is_none());
    assert_eq!(lease.signatures().get(0).unwrap().inputs()[0].name.as_ref(), "input_ids");
    let failure = |model: &str| served.failure(model, 1);
    for model in ["plain", "optioned"] {
        assert!(
            failure(model).contains("[text]: this is no text model: expected a tokenizer.json"),
            "{}",
            failure(model)
        );
    }
    assert_eq!(failure("unknown"), "model.toml: [text]: unknown key `least`; expected most");
}

#[test]
fn a_program_without_text_serves_ids_and_says_so_where_text_is_asked_for() {
    let repository = letters("");
    repository.file("asked/1/model.letters", "").file("asked/model.toml", "[text]\nenabled = true\n");
    let served = crate::repository::start(repository.config(), LettersBackend);
    assert_eq!(m(&served).signatures().get(0).unwrap().inputs().len(), 2);
    let failure = served.failure("asked", 1);
    assert_eq!(failure, "model.toml: there is no kind of input `text`; this program was built without any");
}
