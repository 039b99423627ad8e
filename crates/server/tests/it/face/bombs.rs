//! Pictures that are meant to hurt, to a process of its own, whose memory the kernel counts.

use millrace_testkit::fixture;
use serde_json::json;

use super::{ASTRONAUT, b64, image, is_golden, predict, predicted};
use crate::support::{Client, PATIENCE, Process, now, serve};

/// Small files that claim to be large pictures.
const CLAIMS: [&str; 5] =
    ["claims_2_31.png", "claims_6000.jpg", "claims_6000.png", "claims_65500.jpg", "claims_65535.png"];
/// Small pictures with much hidden in what is not looked at.
const HIDING: [&str; 4] = ["hides_iccp.png", "hides_idat.png", "hides_itxt.png", "hides_ztxt.png"];
const CUT: [&str; 3] = ["baseline.jpg", "progressive.jpg", "rgb.png"];

#[test]
fn row_66_pictures_that_are_bombs_or_rubbish_are_refused_in_little_memory() {
    let process = Process::start(&mut serve(fixture("face-models")));
    process.logged("ready");
    let mut client = Client::connect(process.address);
    // What is made for the first pictures is not a bomb's cost.
    predicted(&mut client, "face_pipeline", &json!({"instances": [b64(&ASTRONAUT), b64(&ASTRONAUT)]}));
    let svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"/>".to_vec();
    let of = |folder: &str, names: &[&str], status: u16| -> Vec<(String, u16, Vec<u8>)> {
        let one = |name: &&str| (format!("{folder}/{name}"), status, image(&format!("{folder}/{name}")));
        names.iter().map(one).collect()
    };
    let pictures = [
        of("bombs", &CLAIMS, 413),
        of("bombs", &HIDING, 200),
        of("truncated", &CUT, 400),
        vec![("svg".to_owned(), 400, svg), ("nothing".to_owned(), 400, Vec::new())],
    ];
    let pixel = image("one_pixel.png");
    for (name, status, picture) in pictures.concat() {
        let body = json!({"instances": [b64(&pixel), b64(&picture)]});
        let begin = now();
        let growth = process.peak_growth(|| {
            let reply = predict(&mut client, "face_pipeline", &body);
            assert_eq!(reply.status, status, "{name}: {}", reply.text());
            if status == 200 {
                reply.gives(&json!({"predictions": [{"faces": []}, {"faces": []}]}));
            } else {
                reply.refuses(status, "input `image`, instance 1: ");
            }
        });
        assert!(growth < 8 << 20, "{name}: {growth} bytes");
        assert!(begin.elapsed() < PATIENCE / 4, "{name}: {:?}", begin.elapsed());
    }
    let answer = predicted(&mut client, "face_pipeline", &json!({"instances": [b64(&ASTRONAUT)]}));
    is_golden(&answer["predictions"][0]["faces"][0]);
}
