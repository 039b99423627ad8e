//! Paths, methods, models and versions that are not there, and names that mean harm.

use http::Method;
use millrace_core::{Reason, Refusal};

use crate::harness::{Models, TestServer, models};

const BODY: &str = r#"{"instances": [1]}"#;

#[tokio::test]
async fn an_unknown_model_or_version_is_404_and_an_unknown_label_400() {
    let server = TestServer::new(models());
    server.predict("nope", BODY).await.refuses(404, "Servable not found for request: Latest(nope)");
    let unknown = server.predict("half_plus_two/versions/9", BODY).await;
    unknown.refuses(404, "Servable not found for request: Specific(half_plus_two, 9)");
    let label = server.predict("half_plus_two/labels/nope", BODY).await;
    label.refuses(400, "Unrecognized servable version label: nope");
}

#[tokio::test]
async fn a_model_that_is_still_loading_is_404_for_predict() {
    let server = TestServer::new(models());
    for model in ["loading", "failed"] {
        let answer = server.predict(model, BODY).await;
        answer.refuses(404, &format!("Servable not found for request: Latest({model})"));
    }
}

#[tokio::test]
async fn malformed_paths_and_foreign_methods_are_400() {
    let server = TestServer::new(models());
    let cases = [
        (Method::POST, "/v1/models/half_plus_two/versions/abc:predict"),
        (Method::POST, "/v1/models/half_plus_two:foo"),
        (Method::POST, "/v1/models/half_plus_two/versions/1/labels/stable:predict"),
        (Method::PUT, "/v1/models/half_plus_two:predict"),
        (Method::DELETE, "/v1/models/half_plus_two"),
        (Method::PATCH, "/v1/models/half_plus_two"),
        (Method::HEAD, "/v1/models/half_plus_two"),
        (Method::GET, "/v1/models/half_plus_two:predict"),
        (Method::POST, "/v1/models/half_plus_two"),
        (Method::POST, "/v1/models/half_plus_two/metadata"),
        (Method::POST, "/v1/models"),
        (Method::OPTIONS, "/v1/models/half_plus_two:predict"),
        (Method::GET, "/v1/"),
        (Method::GET, "/v1/nothing"),
        (Method::from_bytes(b"BREW").unwrap(), "/v1/models/half_plus_two:predict"),
    ];
    for (method, path) in cases {
        let answer = server.ask(method.clone(), path, &[], BODY).await;
        answer.refuses(400, &format!("Malformed request: {method} {path}"));
    }
}

#[tokio::test]
async fn a_path_that_nobody_has_is_404_in_a_form_that_every_client_reads() {
    let server = TestServer::new(models());
    for path in ["/nonsense", "/v1", "/v2x/models/half_plus_two", "/v1x/models", "/predictionsx", "/admin/models"] {
        for method in [Method::GET, Method::POST, Method::OPTIONS] {
            let answer = server.ask(method, path, &[], BODY).await;
            assert_eq!(answer.status, 404, "{path}");
            let body = answer.json();
            assert_eq!((&body["code"], &body["type"]), (&404.into(), &"ResourceNotFoundException".into()), "{path}");
            assert_eq!(body["error"], body["message"]);
        }
    }
}

#[tokio::test]
async fn versions_that_are_no_64_bit_number_are_refused() {
    let server = TestServer::new(models());
    for digits in ["18446744073709551616", "9223372036854775808"] {
        let expected = format!("Failed to convert version: {digits} to numeric.");
        server.predict(&format!("half_plus_two/versions/{digits}"), BODY).await.refuses(400, &expected);
        server.get(&format!("/v1/models/half_plus_two/versions/{digits}")).await.refuses(400, &expected);
        server.get(&format!("/v1/models/half_plus_two/versions/{digits}/metadata")).await.refuses(400, &expected);
    }
    for odd in ["-1", "1.0", "+1", "%31", "%D9%A1", "0x1"] {
        let answer = server.predict(&format!("half_plus_two/versions/{odd}"), BODY).await;
        answer.refuses(400, "Malformed request");
    }
}

#[tokio::test]
async fn names_that_mean_harm_are_escaped_and_find_nothing() {
    let server = TestServer::new(models());
    let long = "x".repeat(8000);
    let names = [
        "..",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "%c0%ae%c0%ae",
        "%EF%BC%8E",
        "a%0d%0aset-cookie:x",
        "%1b[31m",
        &long,
    ];
    for name in names {
        for path in
            [format!("/v1/models/{name}:predict"), format!("/v1/models/{name}"), format!("/v1/models/{name}/metadata")]
        {
            let method = if path.ends_with("predict") { Method::POST } else { Method::GET };
            let Ok(uri) = path.parse::<http::Uri>() else { continue };
            let request =
                http::Request::builder().method(method).uri(uri).body(http_body_util::Full::from(BODY)).unwrap();
            let answer = server.send(request).await;
            assert!(matches!(answer.status.as_u16(), 400 | 404), "{path}: {}", answer.status);
            assert!(!answer.headers.contains_key("set-cookie"));
            let text = answer.json()["error"].as_str().unwrap().to_owned();
            assert!(text.chars().all(|character| matches!(character, ' '..='~' | '…')), "{text:?}");
            assert!(text.chars().count() < 300, "{} characters", text.chars().count());
        }
    }
}

#[tokio::test]
async fn a_refusal_for_want_of_time_or_room_says_when_to_come_back() {
    let later = std::time::Duration::from_millis(1200);
    let cases = [(Reason::QueueFull, 503, "2"), (Reason::Draining, 503, "2"), (Reason::RateLimited, 429, "2")];
    for (reason, status, seconds) in cases {
        let refusal = Refusal::new(reason, "later").with_retry_after(later);
        let answer = TestServer::new(Models::new().refusing("m", refusal)).predict("m", BODY).await;
        answer.refuses(status, "later");
        assert_eq!(answer.headers["retry-after"], seconds);
    }
}
