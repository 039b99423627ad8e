//! Documents that are wrong, one way at a time: each is refused with a text that says what, and the next request is
//! answered as if nothing had been.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, TestServer, request};
use crate::oip::{infer, infer_text, oip_models, x};

/// Sends `text` to the model `pairs`, then a sound request that must be answered.
async fn wrong(server: &TestServer, text: &str) -> Answer {
    let answer = infer_text(server, "pairs", text).await;
    let sound = infer(server, "pairs", &x("FP32", &json!([1, 2]), &json!([1, 2]))).await;
    assert_eq!(sound.json()["outputs"][0]["data"], json!([1.0, 2.0]), "after {}", &text[..text.len().min(100)]);
    answer
}

async fn refused(text: &str, words: &str) {
    let server = TestServer::new(oip_models());
    let answer = wrong(&server, text).await;
    assert_eq!(answer.status, 400, "{}: {:?}", &text[..text.len().min(200)], answer.body);
    answer.refuses(400, words);
    assert!(answer.body.len() < 8 << 10, "{} bytes", answer.body.len());
}

/// An input with other members than `{"name": "x", "shape": [1,2], "datatype": "FP32", "data": [1,2]}`.
fn input(changes: &Value) -> String {
    let mut input = json!({"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]});
    input.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    json!({"inputs": [input]}).to_string()
}

/// Robustness row 1.
#[tokio::test]
async fn a_body_that_is_no_object_is_refused() {
    for (text, words) in [
        ("", "empty"),
        ("  \n", "empty"),
        ("{", "JSON Parse error"),
        ("[]", "object"),
        ("null", "object"),
        ("1", "object"),
        ("\"x\"", "object"),
        ("{}", "Unable to parse 'inputs'"),
        ("{]", "JSON Parse error"),
        ("{\"inputs\"}", "JSON Parse error"),
        ("{\"inputs\":}", "Unable to parse 'inputs'"),
        ("{\"inputs\":[}", "Unable to parse 'inputs'"),
        ("nul", "JSON Parse error"),
    ] {
        refused(text, words).await;
    }
}

/// Robustness rows 2 and 3.
#[tokio::test]
async fn nesting_is_bounded_wherever_it_is() {
    let (open, objects) = ("[".repeat(100_000), "{\"a\":".repeat(100_000));
    for text in [
        open.clone(),
        objects.clone(),
        format!("{{\"new\":{open}"),
        format!("{{\"new\":{objects}"),
        format!("{{\"parameters\":{{\"a\":{open}"),
        format!("{{\"inputs\":{open}"),
        format!("{{\"inputs\":[{{\"new\":{objects}"),
        format!("{{\"inputs\":[{{\"data\":{open}"),
        format!("{{\"inputs\":[{{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":{open}"),
        "[".repeat(1_000_000),
    ] {
        let server = TestServer::new(oip_models());
        let answer = wrong(&server, &text).await;
        answer.refuses(400, "");
        let body = answer.json();
        let said = body["error"].as_str().unwrap();
        // Where a list is no value at all, that is said first.
        assert!(said.contains("limit of 64") || said.contains("expected") || said.contains("must be"), "{said}");
    }
    let deep = |n: usize| {
        format!(
            "{{\"inputs\":[{{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":{}1,2{}}}]}}",
            "[".repeat(n),
            "]".repeat(n)
        )
    };
    let server = TestServer::new(oip_models());
    assert_eq!(infer_text(&server, "pairs", &deep(61)).await.status, 200);
    refused(&deep(62), "limit of 64").await;
}

/// Robustness row 4.
#[tokio::test]
async fn bytes_that_are_no_text_are_refused() {
    let server = TestServer::new(oip_models());
    let sound = input(&json!({}));
    let utf16: Vec<u8> = sound.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [&b"\xef\xbb\xbf"[..], sound.as_bytes()].concat();
    let not_text = sound.replace("FP32", "\u{0}").into_bytes();
    let not_utf8 = [&b"{\"id\":\"\xff\","[..], &sound.as_bytes()[1..]].concat();
    for bytes in [utf16, marked, not_text, not_utf8, b"{\"a\":\"\xc3\x28\"}".to_vec()] {
        let answer = server.ask(Method::POST, "/v2/models/pairs/infer", &[], bytes).await;
        answer.refuses(400, "UTF-8");
    }
}

/// Robustness row 5.
#[tokio::test]
async fn a_key_that_means_something_stands_once() {
    let one = r#"{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}"#;
    for (text, key) in [
        (format!(r#"{{"inputs":[{one}],"inputs":[{one}]}}"#), "inputs"),
        (format!(r#"{{"id":"a","id":"b","inputs":[{one}]}}"#), "id"),
        (format!(r#"{{"parameters":{{}},"parameters":{{}},"inputs":[{one}]}}"#), "parameters"),
        (format!(r#"{{"outputs":[],"outputs":[],"inputs":[{one}]}}"#), "outputs"),
        (format!(r#"{{"parameters":{{"a":1,"\u0061":1}},"inputs":[{one}]}}"#), "a"),
        (r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2],"data":[1,2]}]}"#.to_owned(), "data"),
        (r#"{"inputs":[{"data":[1,2],"data":[1,2],"name":"x","shape":[1,2],"datatype":"FP32"}]}"#.to_owned(), "data"),
        (r#"{"inputs":[{"name":"x","name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#.to_owned(), "name"),
        (r#"{"inputs":[{"name":"x","shape":[1,2],"shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#.to_owned(), "shape"),
        (format!(r#"{{"inputs":[{one}],"outputs":[{{"name":"y","name":"y"}}]}}"#), "name"),
    ] {
        refused(&text, &format!("duplicate key '{key}'")).await;
    }
}

/// Robustness row 6.
#[tokio::test]
async fn nothing_may_follow_the_document() {
    let sound = input(&json!({}));
    for rest in ["x", "{}", " ]", "\u{0}", "\n1"] {
        refused(&format!("{sound}{rest}"), "trailing").await;
    }
    let server = TestServer::new(oip_models());
    assert_eq!(infer_text(&server, "pairs", &format!("{sound} \r\n\t")).await.status, 200);
}

/// Robustness row 7.
#[tokio::test]
async fn a_number_out_of_range_names_its_input() {
    let digits = "9".repeat(100_000);
    for value in ["1e999", "-1e999", "3.5e38", &digits] {
        let text = format!(r#"{{"inputs":[{{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,{value}]}}]}}"#);
        refused(&text, "input `x` at index [1]").await;
    }
    let server = TestServer::new(oip_models());
    for (dtype, value) in [("INT8", "128"), ("UINT8", "-1"), ("UINT16", "65536"), ("INT64", "9223372036854775808")] {
        let text = format!(r#"{{"inputs":[{{"name":"x","shape":[1,2],"datatype":"{dtype}","data":[1,{value}]}}]}}"#);
        infer_text(&server, &format!("id_{dtype}"), &text).await.refuses(400, "out of range");
    }
}

/// Robustness row 9.
#[tokio::test]
async fn data_of_another_type_names_its_input() {
    for data in [json!(null), json!({}), json!("1,2"), json!(5), json!(true), json!([1, "2"]), json!([1, null])] {
        refused(&input(&json!({"data": data})), "input `x`").await;
    }
    for data in [json!([true, false]), json!([1, {}]), json!([[1, 2], {"b64": "AA=="}])] {
        refused(&input(&json!({"data": data})), "input `x`").await;
    }
    let server = TestServer::new(oip_models());
    for (dtype, data) in [
        ("INT32", json!([1, 1.5])),
        ("INT32", json!([1, 2.0])),
        ("BOOL", json!([true, 1])),
        ("BYTES", json!(["a", 1])),
        ("BYTES", json!(["a", {"b64": "AA=="}])),
        ("UINT8", json!(["1", "2"])),
    ] {
        infer(&server, &format!("id_{dtype}"), &x(dtype, &json!([1, 2]), &data)).await.refuses(400, "input `x`");
    }
}

/// Robustness rows 10 and 11: how lists nest means nothing here, how many elements there are does.
#[tokio::test]
async fn too_few_and_too_many_elements_say_how_many_were_wanted() {
    for (data, words) in [
        (json!([1]), "expected 2 elements, got 1"),
        (json!([]), "expected 2 elements, got 0"),
        (json!([[], [[]]]), "expected 2 elements, got 0"),
        (json!([1, 2, 3]), "expected 2 elements, got 3"),
        (json!([[1, 2], [3, 4]]), "expected 2 elements, got 4"),
    ] {
        refused(&input(&json!({"data": data})), words).await;
    }
    // Where the shape is known before, nothing is read beyond it.
    let text = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2,3,4]}]}"#;
    refused(text, "expected 2 elements, got more").await;
}

/// Robustness rows 12, 13, 14, 16 and 17.
#[tokio::test]
async fn a_shape_that_is_none_is_refused_and_nothing_allocated() {
    let two_62 = 1_u64 << 62;
    for (shape, words) in [
        (json!([two_62, 4]), "overflow"),
        (json!([4_611_686_018_427_387_904_u64, 4_611_686_018_427_387_904_u64]), "overflow"),
        (json!([1_u64 << 32, 1_u64 << 32]), "overflow"),
        (json!([16, (1_u64 << 60) + 2]), "overflow"),
        (json!([0, two_62, 4]), "overflow"),
        (json!([0, two_62]), "unexpected shape"),
        (json!([1, 1_u64 << 40]), "unexpected shape"),
        (json!([1_u64 << 40, 2]), "expected 2199023255552 elements, got 2"),
        (json!([-1, 2]), "bad dimension -1"),
        (json!([-2, -2]), "bad dimension -2"),
        (json!([1.5, 2]), "bad dimension `1.5`"),
        (json!(["4", 2]), "bad dimension"),
        (json!([null, 2]), "bad dimension"),
        (json!([[1], 2]), "bad dimension"),
        (json!([1_u64 << 63, 2]), "bad dimension"),
        (json!("1,2"), "shape"),
        (json!(2), "shape"),
        (json!(null), "shape"),
        (json!({}), "shape"),
        (json!([]), "unexpected shape"),
        (json!([2]), "unexpected shape"),
        (json!([1, 3]), "unexpected shape for input 'x' for model 'pairs'. Expected [-1,2], got [1,3]"),
        (json!(vec![1; 1_000_000]), "rank"),
    ] {
        refused(&input(&json!({"shape": shape})), words).await;
        // The same where the elements come first.
        let text = format!(r#"{{"inputs":[{{"data":[1,2],"name":"x","datatype":"FP32","shape":{shape}}}]}}"#);
        refused(&text, words).await;
    }
    let past_64_bits = r#"{"inputs":[{"name":"x","shape":[18446744073709551616,2],"datatype":"FP32","data":[1,2]}]}"#;
    refused(past_64_bits, "bad dimension").await;
}

/// Robustness row 15.
#[tokio::test]
async fn no_rows_are_refused() {
    refused(&input(&json!({"shape": [0, 2], "data": []})), "0 rows").await;
}

/// Robustness row 18.
#[tokio::test]
async fn a_datatype_that_is_not_the_inputs_says_which_one_is() {
    let long = "X".repeat(1 << 20);
    for datatype in ["FP64", "fp32", "FLOAT", "", "FP16", "TYPE_FP32", &long] {
        let words = "input 'x' data-type is";
        refused(&input(&json!({"datatype": datatype})), words).await;
        refused(&input(&json!({"datatype": datatype})), "but model 'pairs' expects 'FP32'").await;
    }
    refused(&input(&json!({"datatype": 5})), "datatype").await;
    refused(r#"{"inputs":[{"name":"x","shape":[1,2],"data":[1,2]}]}"#, "no 'datatype'").await;
    refused(r#"{"inputs":[{"name":"x","datatype":"FP32","data":[1,2]}]}"#, "no 'shape'").await;
    refused(r#"{"inputs":[{"shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#, "no 'name'").await;
}

/// Robustness row 19.
#[tokio::test]
async fn an_input_that_is_missing_unknown_or_given_twice_is_named() {
    refused(
        r#"{"inputs":[]}"#,
        "expected 1 inputs but got 0 inputs for model 'pairs'. Got input(s) [], but missing required input(s) ['x'].",
    )
    .await;
    for (name, shown) in [("z", "z"), ("", ""), ("x\u{0}", "x\\\\u{0}"), ("\n\u{1b}[31m", "\\\\n\\\\u{1b}[31m")] {
        let text = input(&json!({"name": name}));
        let server = TestServer::new(oip_models());
        let answer = wrong(&server, &text).await;
        let shown = shown.replace("\\\\", "\\");
        answer.refuses(400, &format!("unexpected inference input '{shown}' for model 'pairs'"));
    }
    refused(&input(&json!({"name": "n".repeat(1 << 20)})), "unexpected inference input").await;
    refused(&input(&json!({"name": 5})), "name").await;
    let twice = json!({"inputs": [
        {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
        {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
    ]});
    refused(&twice.to_string(), "input 'x' already exists in request").await;
    for inputs in [json!(null), json!({}), json!("x"), json!([1]), json!([null]), json!([[]])] {
        refused(&json!({"inputs": inputs}).to_string(), "Unable to parse 'inputs'").await;
    }
}

/// Robustness row 20.
#[tokio::test]
async fn an_output_that_is_unknown_or_asked_twice_is_named() {
    let with = |outputs: Value| {
        let mut body = x("FP32", &json!([1, 2]), &json!([1, 2]));
        body["outputs"] = outputs;
        body.to_string()
    };
    refused(&with(json!([{"name": "z"}])), "unexpected inference output 'z' for model 'pairs'").await;
    refused(&with(json!([{"name": "y"}, {"name": "y"}])), "output 'y' already requested").await;
    refused(&with(json!([{}])), "no 'name'").await;
    refused(&with(json!([{"name": 1}])), "name").await;
    for outputs in [json!(null), json!({}), json!("y"), json!(["y"])] {
        refused(&with(outputs), "Unable to parse 'outputs'").await;
    }
    refused(&with(json!([{"name": "y", "parameters": {"binary_data": "yes"}}])), "binary_data").await;
    refused(&with(json!([{"name": "y", "parameters": []}])), "parameters").await;
}

/// Robustness row 21.
#[tokio::test]
async fn two_hundred_thousand_inputs_or_outputs_or_parameters_are_refused_at_the_first_too_many() {
    let one = r#"{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}"#;
    let many = vec![one; 200_000].join(",");
    refused(&format!("{{\"inputs\":[{many}]}}"), "already exists").await;
    let many = vec![r#"{"name":"y"}"#; 200_000].join(",");
    refused(&format!("{{\"outputs\":[{many}],\"inputs\":[{one}]}}"), "already requested").await;
    let many: Vec<String> = (0..200_000).map(|index| format!("\"p{index}\":1")).collect();
    let parameters = many.join(",");
    refused(&format!("{{\"parameters\":{{{parameters}}},\"inputs\":[{one}]}}"), "limit of 256").await;
}

#[tokio::test]
async fn an_id_is_a_string() {
    for id in [json!(5), json!(null), json!(["a"]), json!({})] {
        let mut body = x("FP32", &json!([1, 2]), &json!([1, 2]));
        body["id"] = id;
        refused(&body.to_string(), "'id' must be a string").await;
    }
}

/// Robustness rows 51 and 52.
#[tokio::test]
async fn names_and_versions_that_are_none_are_not_found_and_shown_escaped() {
    let server = TestServer::new(oip_models());
    let body = x("FP32", &json!([1]), &json!([1])).to_string();
    let long = "n".repeat(8 << 10);
    for name in ["nothing", "..", "%2e%2e", "..%2fetc", "a%00b", "%c0%ae", "a%0d%0ab", &long] {
        for path in [format!("/v2/models/{name}/infer"), format!("/v2/models/{name}/versions/1/infer")] {
            let answer = server.ask(Method::POST, &path, &[], body.clone()).await;
            answer.refuses(404, "Request for unknown model: '");
            assert!(answer.body.len() < 400 && !answer.body.contains(&b'\n'), "{:?}", answer.body);
        }
    }
    for (version, status, words) in [
        ("9", 404, "version 9 is not found"),
        ("0", 404, "version 0 is not found"),
        ("01", 400, "version"),
        ("18446744073709551616", 400, "version"),
        ("-1", 404, "Not Found"),
        ("1.0", 404, "Not Found"),
        ("abc", 404, "Not Found"),
        ("%d9%a1", 404, "Not Found"),
        ("", 404, "Not Found"),
    ] {
        let path = format!("/v2/models/half_plus_two/versions/{version}/infer");
        server.ask(Method::POST, &path, &[], body.clone()).await.refuses(status, words);
    }
    // A wrong body to an unknown model is still an unknown model.
    infer_text(&server, "nothing", "{").await.refuses(404, "nothing");
}

#[tokio::test]
async fn a_model_that_cannot_serve_is_unavailable() {
    let server = TestServer::new(oip_models());
    for model in ["loading", "failed"] {
        let answer = infer_text(&server, model, "{}").await;
        answer.refuses(503, model);
        assert_eq!(answer.headers["retry-after"], "1");
    }
}

/// Robustness row 28: on these routes the body decides, whatever it is said to be.
#[tokio::test]
async fn the_content_type_is_not_looked_at() {
    let server = TestServer::new(oip_models());
    for content_type in ["application/x-pickle", "text/xml", "multipart/form-data; boundary=x", ""] {
        let headers = [("content-type", content_type)];
        let path = "/v2/models/pairs/infer?and=a&query";
        assert_eq!(server.ask(Method::POST, path, &headers, input(&json!({}))).await.status, 200);
        server.ask(Method::POST, path, &headers, "\u{80}\x02cos\nsystem\n").await.refuses(400, "JSON");
    }
}

/// Robustness rows 30 and 31.
#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_its_length_or_its_bytes() {
    let server = TestServer::with(oip_models(), |config| config.max_body_bytes = 1000);
    let path = "/v2/models/pairs/infer";
    let announced = server.ask(Method::POST, path, &[("content-length", "10000000000000")], "{}").await;
    announced.refuses(413, "limit of 1000 bytes");
    assert_eq!(announced.headers["connection"], "close");
    let text = input(&json!({}));
    let padded = format!("{text}{}", " ".repeat(1001 - text.len()));
    let over = server.ask(Method::POST, path, &[], padded.clone()).await;
    over.refuses(413, "limit of 1000 bytes");
    assert_eq!(over.headers["connection"], "close");
    let chunked = request(Method::POST, path, &[], "").map(|_| Chunks(padded.into_bytes()));
    server.send(chunked).await.refuses(413, "limit of 1000 bytes");
    let fits = format!("{text}{}", " ".repeat(1000 - text.len()));
    assert_eq!(server.ask(Method::POST, path, &[], fits).await.status, 200);
}

/// A body in small frames whose length nobody announces.
struct Chunks(Vec<u8>);

impl http_body::Body for Chunks {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, std::convert::Infallible>>> {
        let length = self.0.len().min(100);
        let rest = self.0.split_off(length);
        let chunk = std::mem::replace(&mut self.0, rest);
        std::task::Poll::Ready((!chunk.is_empty()).then(|| Ok(http_body::Frame::data(chunk.into()))))
    }
}

#[tokio::test]
async fn an_answer_over_the_limit_is_refused() {
    let server = TestServer::with(oip_models(), |config| config.max_answer_bytes = 150);
    let small = x("FP32", &json!([1, 2]), &json!([1, 2]));
    assert_eq!(infer(&server, "pairs", &small).await.status, 200);
    let mut large = x("FP32", &json!([40, 2]), &json!(vec![1.5; 80]));
    infer(&server, "pairs", &large).await.refuses(413, "limit of 150 bytes");
    large["parameters"] = json!({"binary_data_output": true});
    infer(&server, "pairs", &large).await.refuses(413, "limit of 150 bytes");
}
