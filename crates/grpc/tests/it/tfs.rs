//! TensorFlow Serving's prediction service through its generated client, and what it refuses in which words.

use bytes::Bytes;
use millrace_core::{DType, Dim, Reason, Refusal, Signature, Tensor, TensorSpec, VersionState, Wanted};
use millrace_proto::tensorflow::serving::model_spec::VersionChoice;
use millrace_proto::tensorflow::serving::prediction_service_client::PredictionServiceClient as Client;
use millrace_proto::tensorflow::serving::{ModelSpec, PredictRequest, PredictResponse};
use millrace_proto::tensorflow::tensor_shape_proto::Dim as DimProto;
use millrace_proto::tensorflow::{TensorProto, TensorShapeProto};
use prost::Message as _;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use crate::harness::{Models, TestServer, answered, framed, spec};

/// Path of the method.
pub(crate) const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";

/// One model of each kind that the tests ask.
pub(crate) fn models() -> Models {
    let vector = |name: &str| spec(name, DType::Fp32, &[-1]);
    let sums = Signature::new(vec![vector("a"), vector("b")], vec![vector("s"), vector("d")]).unwrap();
    Models::new()
        .affine("half_plus_two", 1, 0.5, 2.0)
        .affine("half_plus_two", 2, 0.5, 3.0)
        .alias("half_plus_two", "stable", 1)
        .identity("ids", vec![spec("ids", DType::Int64, &[-1])])
        .identity("words", vec![spec("w", DType::Bytes, &[-1])])
        .identity("matrix", vec![spec("m", DType::Fp32, &[2, 4])])
        .version("sums", 1, sums, |request| {
            let [a, b] = [0, 1].map(|index| request.inputs[index].elements::<f32>().unwrap().into_owned());
            let outputs = [
                a.iter().zip(&b).map(|(a, b)| a + b).collect::<Vec<f32>>(),
                a.iter().zip(&b).map(|(a, b)| a - b).collect(),
            ];
            let tensors = outputs.map(|output| Tensor::from_vec(&[output.len()], output).unwrap());
            match request.wanted {
                Wanted::All => answered(tensors),
                Wanted::Only(indices) => answered(indices.into_iter().map(|index| tensors[index].clone())),
            }
        })
        .refusing("full", Refusal::new(Reason::QueueFull, "the queue is full"))
        .refusing("broken", Refusal::new(Reason::BackendFailed, "the backend failed"))
        .unavailable("loading", VersionState::Loading, Refusal::new(Reason::Loading, "still loading"))
}

pub(crate) fn proto(number: i32, sizes: &[i64]) -> TensorProto {
    let dim = sizes.iter().map(|&size| DimProto { size, name: String::new() }).collect();
    let tensor_shape = Some(TensorShapeProto { dim, unknown_rank: false });
    TensorProto { dtype: number, tensor_shape, ..TensorProto::default() }
}

pub(crate) fn floats(values: &[f32]) -> TensorProto {
    TensorProto { float_val: values.to_vec(), ..proto(1, &[i64::try_from(values.len()).unwrap()]) }
}

pub(crate) fn spec_of(name: &str) -> ModelSpec {
    ModelSpec { name: name.to_owned(), ..ModelSpec::default() }
}

/// A request to the model `name`.
pub(crate) fn request<const N: usize>(name: &str, inputs: [(&str, TensorProto); N]) -> PredictRequest {
    PredictRequest {
        model_spec: Some(spec_of(name)),
        inputs: inputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect(),
        ..PredictRequest::default()
    }
}

/// A good request.
pub(crate) fn good() -> PredictRequest {
    request("half_plus_two", [("x", floats(&[1.0, 2.0, 5.0]))])
}

fn chosen(choice: VersionChoice) -> PredictRequest {
    let mut request = good();
    request.model_spec.as_mut().unwrap().version_choice = Some(choice);
    request
}

/// The answer of version 1 to [`good`], and that of version 2.
const ANSWERS: [[f32; 3]; 2] = [[2.5, 3.0, 4.5], [3.5, 4.0, 5.5]];

#[track_caller]
fn is_from_version(answer: &PredictResponse, version: i64) {
    let spec = answer.model_spec.as_ref().unwrap();
    assert_eq!((&*spec.name, &*spec.signature_name), ("half_plus_two", "serving_default"));
    assert_eq!(spec.version_choice, Some(VersionChoice::Version(version)));
    let values = &answer.outputs["y"].float_val;
    assert_eq!(values[..], ANSWERS[usize::try_from(version - 1).unwrap()]);
}

#[tokio::test]
async fn a_client_predicts_with_whatever_version_it_chooses() {
    let server = TestServer::new(models());
    let mut client = Client::new(server.connect().await);
    for (request, version) in [
        (good(), 2),
        (chosen(VersionChoice::Version(1)), 1),
        (chosen(VersionChoice::Version(2)), 2),
        (chosen(VersionChoice::VersionLabel("stable".to_owned())), 1),
        // No version 0 exists, so it means any.
        (chosen(VersionChoice::Version(0)), 2),
    ] {
        let answer = client.predict(request).await.unwrap().into_inner();
        is_from_version(&answer, version);
        assert_eq!(answer.outputs["y"].tensor_content, Bytes::new());
    }
}

#[tokio::test]
async fn the_bytes_of_the_specifications_example_give_the_bytes_of_its_answer() {
    let message = [
        &[0x0a, 0x0f, 0x0a, 0x0d][..],
        b"half_plus_two",
        &[0x12, 0x1b, 0x0a, 1, b'x', 0x12, 0x16, 0x08, 1, 0x12, 4, 0x12, 2, 0x08, 3, 0x2a, 0x0c],
        &[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0xa0, 0x40],
    ]
    .concat();
    let server = TestServer::new(Models::new().affine("half_plus_two", 1, 0.5, 2.0));
    let answer = server.send(PREDICT, &[], [framed(&message)]).await;
    let expected = [
        &[0x0a, 0x1b, 0x0a, 1, b'y', 0x12, 0x16, 0x08, 1, 0x12, 4, 0x12, 2, 0x08, 3, 0x2a, 0x0c][..],
        &[0, 0, 0x20, 0x40, 0, 0, 0x40, 0x40, 0, 0, 0x90, 0x40],
        &[0x12, 0x24, 0x0a, 0x0d],
        b"half_plus_two",
        &[0x12, 2, 0x08, 1, 0x1a, 0x0f],
        b"serving_default",
    ]
    .concat();
    assert_eq!((answer.code(), &answer.messages[..]), (0, &[Bytes::from(expected)][..]));
}

#[tokio::test]
async fn a_filter_picks_outputs_and_none_means_all() {
    let server = TestServer::new(models());
    let mut client = Client::new(server.connect().await);
    let ask = |filter: &[&str]| PredictRequest {
        output_filter: filter.iter().map(|&name| name.to_owned()).collect(),
        ..request("sums", [("b", floats(&[4.0])), ("a", floats(&[9.0]))])
    };
    for (filter, wanted) in
        [(&[][..], &[("s", 13.0), ("d", 5.0)][..]), (&["d"], &[("d", 5.0)]), (&["d", "s"], &[("s", 13.0), ("d", 5.0)])]
    {
        let answer = client.predict(ask(filter)).await.unwrap().into_inner();
        let given: Vec<_> = wanted.iter().map(|(name, _)| (*name, answer.outputs[*name].float_val[0])).collect();
        assert_eq!((given.as_slice(), answer.outputs.len()), (wanted, wanted.len()), "{filter:?}");
    }
    server
        .ask(PREDICT, &ask(&["y"]))
        .await
        .refuses(Code::InvalidArgument, "output tensor alias not found in signature: y");
    server.ask(PREDICT, &ask(&["s", "s"])).await.refuses(Code::InvalidArgument, "duplicate output tensor alias: s");
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_as_tensorflow_serving_does() {
    let server = TestServer::new(models());
    let without_spec = PredictRequest { model_spec: None, ..good() };
    let mut other_signature = good();
    other_signature.model_spec.as_mut().unwrap().signature_name = "S".to_owned();
    let x = || floats(&[1.0]);
    let label = |label: &str| chosen(VersionChoice::VersionLabel(label.to_owned()));
    for (request, code, words) in [
        (without_spec, Code::InvalidArgument, "Missing ModelSpec"),
        (request("", [("x", x())]), Code::InvalidArgument, "ModelSpec has no name specified."),
        (request("nope", [("x", x())]), Code::NotFound, "Servable not found for request: Latest(nope)"),
        (
            chosen(VersionChoice::Version(7)),
            Code::NotFound,
            "Servable not found for request: Specific(half_plus_two, 7)",
        ),
        (chosen(VersionChoice::Version(-1)), Code::NotFound, "Specific(half_plus_two, -1)"),
        (label("canary"), Code::InvalidArgument, "Unrecognized servable version label: canary"),
        (other_signature, Code::FailedPrecondition, "Serving signature key \"S\" not found."),
        (request("loading", [("x", x())]), Code::NotFound, "Latest(loading)"),
        (
            request("sums", [("a", x())]),
            Code::InvalidArgument,
            "input size does not match signature: 1!=2 len({a,b}). Sent extra: {}. Missing but required: {b}.",
        ),
        (
            request("sums", [("a", x()), ("c", x())]),
            Code::InvalidArgument,
            "Signature input alias: b not found in request",
        ),
        (request("half_plus_two", []), Code::InvalidArgument, "Missing but required: {x}."),
        (
            request("half_plus_two", [("x", proto(2, &[1]))]),
            Code::InvalidArgument,
            "input `x`: expected FP32, got FP64",
        ),
        (
            request("half_plus_two", [("x", proto(8, &[1]))]),
            Code::InvalidArgument,
            "tensor parsing error: x: data type 8",
        ),
        (
            request("half_plus_two", [("x", proto(1, &[1, 1]))]),
            Code::InvalidArgument,
            "input `x`: expected shape [N], got [1,1]",
        ),
        (request("full", [("x", x())]), Code::Unavailable, "the queue is full"),
        (request("broken", [("x", x())]), Code::Internal, "the backend failed"),
    ] {
        server.ask(PREDICT, &request).await.refuses(code, words);
    }
    let answer: PredictResponse = server.ask(PREDICT, &good()).await.gives();
    is_from_version(&answer, 2);
}

#[tokio::test]
async fn the_edge_cases_of_tensors_are_tensorflows() {
    let server = TestServer::new(models());
    let repeated = TensorProto { float_val: vec![7.5], ..proto(1, &[2, 4]) };
    let answer: PredictResponse = server.ask(PREDICT, &request("matrix", [("m", repeated)])).await.gives();
    assert_eq!(answer.outputs["m_out"].float_val, [7.5; 8]);
    assert_eq!(answer.outputs["m_out"].tensor_shape, proto(1, &[2, 4]).tensor_shape);
    let content = |length: usize| TensorProto { tensor_content: vec![0; length].into(), ..proto(1, &[2, 4]) };
    let answer: PredictResponse = server.ask(PREDICT, &request("matrix", [("m", content(32))])).await.gives();
    assert_eq!(answer.outputs["m_out"].float_val, [0.0; 8]);
    for length in [31, 33, 1] {
        let answer = server.ask(PREDICT, &request("matrix", [("m", content(length))])).await;
        answer.refuses(Code::InvalidArgument, "tensor parsing error: m");
    }
    let words = TensorProto { string_val: vec!["a".into(), b"\xff\0"[..].into()], ..proto(7, &[2]) };
    let answer: PredictResponse = server.ask(PREDICT, &request("words", [("w", words.clone())])).await.gives();
    assert_eq!(answer.outputs["w_out"], words);
}

#[tokio::test]
async fn answers_carry_content_where_the_operator_wants_that() {
    let server = TestServer::with(models(), |config| config.tfs_tensor_content = true);
    let answer: PredictResponse = server.ask(PREDICT, &good()).await.gives();
    let content: Vec<u8> = ANSWERS[1].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!((&answer.outputs["y"].tensor_content[..], &answer.outputs["y"].float_val[..]), (&content[..], &[][..]));
}

#[tokio::test]
async fn a_large_message_is_answered_and_converted_on_a_compute_thread_if_at_all() {
    // More than 8 MiB.
    const N: usize = (2 << 20) + 1;
    const IDS: usize = 100_000;
    let server = TestServer::new(models());
    let mut client = Client::new(server.connect().await).max_decoding_message_size(64 << 20);
    let values = TensorProto { float_val: vec![4.0; N], ..proto(1, &[i64::try_from(N).unwrap()]) };
    let answer = client.predict(request("half_plus_two", [("x", values)])).await.unwrap().into_inner();
    assert_eq!(answer.outputs["y"].float_val, vec![5.0; N]);
    assert_eq!(server.compute.jobs(), 0, "floats are where they should be already");
    let ids = TensorProto { int64_val: vec![300; IDS], ..proto(9, &[i64::try_from(IDS).unwrap()]) };
    let answer = client.predict(request("ids", [("ids", ids)])).await.unwrap().into_inner();
    assert_eq!(answer.outputs["ids_out"].int64_val, vec![300; IDS]);
    assert_eq!(server.compute.jobs(), 2, "once to read and once to write");
}

#[tokio::test]
async fn packed_requests_are_unpacked_and_their_answers_packed() {
    let server = TestServer::new(models());
    for coding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let client = Client::new(server.connect().await).send_compressed(coding).accept_compressed(coding);
        let values = floats(&[4.0; 100_000]);
        let answer = client.clone().predict(request("half_plus_two", [("x", values)])).await.unwrap();
        assert_eq!(answer.into_inner().outputs["y"].float_val, [5.0; 100_000]);
    }
}

#[tokio::test]
async fn a_long_refusal_is_cut() {
    let names: Vec<String> = (0..40).map(|number| format!("{number:0100}")).collect();
    let vector = |name: &str| TensorSpec::new(name, DType::Fp32, [Dim::symbol("N")]);
    let inputs = names.iter().map(|name| vector(name)).collect();
    let models = Models::new().version("wide", 1, Signature::new(inputs, vec![vector("y")]).unwrap(), |_| answered([]));
    let server = TestServer::new(models);
    let answer = server.ask(PREDICT, &request("wide", [])).await;
    answer.refuses(Code::InvalidArgument, "input size does not match signature: 0!=40");
    assert!(answer.text().ends_with("...TRUNCATED") && answer.text().len() < 1500, "{}", answer.text());
}

#[tokio::test]
async fn fields_that_nobody_here_knows_change_nothing() {
    let server = TestServer::new(models());
    // Options of other servers, and a field of the future.
    let more = [&good().encode_to_vec()[..], &[0x2a, 0, 0x32, 1, b'c', 0x3a, 0], &[0xa2, 0x06, 2, 1, 2]].concat();
    let answer: PredictResponse = server.send(PREDICT, &[], [framed(&more)]).await.gives();
    is_from_version(&answer, 2);
}
