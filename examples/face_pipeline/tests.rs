//! The example does what its help says, on the astronaut and on files that are no photographs.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::ErrorKind;
use millrace_testkit::fixture;
use millrace_vision::{Limits, Rgb8, decode};
use serde_json::Value;
use tempfile::TempDir;

use crate::progress::Progress;
use crate::{Arguments, run, stems};

/// Whether all went well, what was printed line by line, and what was said on standard error.
fn told(arguments: &[&Path], is_terminal: bool) -> Result<(bool, Vec<Value>, String), String> {
    let command = [Path::new("face_pipeline")].into_iter().chain(arguments.iter().copied());
    let arguments = Arguments::try_parse_from(command).unwrap();
    let (mut out, mut error) = (Vec::new(), Vec::new());
    let all =
        run(&arguments, &mut out, &mut Progress::new(&mut error, is_terminal)).map_err(|error| error.to_string())?;
    let lines = String::from_utf8(out).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Ok((all, lines, String::from_utf8(error).unwrap()))
}

fn astronaut() -> PathBuf {
    fixture("face/astronaut.png")
}

fn golden() -> Value {
    serde_json::from_slice(&fs::read(fixture("face/golden_astronaut.json")).unwrap()).unwrap()
}

fn picture(path: &Path) -> Rgb8 {
    decode(&fs::read(path).unwrap(), &Limits::default()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

#[track_caller]
fn assert_near(got: &Value, want: &Value, tolerance: f64) {
    let (got, want) = (numbers(got), numbers(want));
    assert_eq!(got.len(), want.len());
    assert!(got.iter().zip(&want).all(|(got, want)| (got - want).abs() <= tolerance), "got {got:?}, want {want:?}");
}

#[test]
fn the_astronaut_is_found_drawn_and_cut_out() {
    let out = TempDir::new().unwrap();
    let pictures = out.path().join("made/on/the/way");
    let (all, lines, error) = told(&[&astronaut(), Path::new("--out"), &pictures], true).unwrap();
    assert!(all);
    assert_eq!(error, "", "one photograph needs no progress");
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((line["width"].as_u64(), line["height"].as_u64()), (Some(512), Some(512)));
    let [face] = line["faces"].as_array().unwrap().as_slice() else { panic!("{line}") };
    let want = &golden()["faces"][0];
    assert_near(&face["bbox"], &want["bbox"], 0.01 / 512.0);
    assert_near(&face["landmarks"], &want["landmarks"], 0.01 / 512.0);
    assert_near(&face["confidence"], &want["confidence"], 1e-4);
    assert_near(&face["embedding"], &want["embedding"], 1e-3);

    // The chip is the published one, rounded likewise.
    let chip = picture(&pictures.join("astronaut.face-1.png"));
    let published = picture(&fixture("face/astronaut_aligned.png"));
    let difference = chip.pixels().iter().zip(published.pixels()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(difference <= Some(1), "{difference:?}");

    // The photograph stands at the left, drawn on only around the face; the chip stands beside it.
    let (drawn, photo) = (picture(&pictures.join("astronaut.faces.png")), picture(&astronaut()));
    assert_eq!((drawn.width(), drawn.height()), (512 + 162, 512));
    let (color, corner) = ([64, 224, 96], numbers(&want["bbox_px"]));
    let is_green = |x: usize, y: usize| drawn.pixel(x, y) == color;
    let greens: Vec<_> =
        (0..512).flat_map(|y| (0..512).map(move |x| (x, y))).filter(|&(x, y)| is_green(x, y)).collect();
    let reach = |place: fn(&(usize, usize)) -> usize| {
        let places = greens.iter().map(place);
        (places.clone().min().unwrap() as f64, places.max().unwrap() as f64)
    };
    let ((left, right), (top, bottom)) = (reach(|at| at.0), reach(|at| at.1));
    for (got, want) in [left, top, right, bottom].into_iter().zip(&corner) {
        assert!((got - want).abs() <= 2.0, "a frame at {left} {top} {right} {bottom}, want {corner:?}");
    }
    for point in want["landmarks_px"].as_array().unwrap() {
        let [x, y] = numbers(point)[..] else { panic!("{point}") };
        let is_near = |&(column, row): &(usize, usize)| (column as f64 - x).hypot(row as f64 - y) < 1.0;
        assert!(greens.iter().any(is_near), "no dot at {x} {y}");
    }
    assert_eq!(drawn.pixel(0, 511), photo.pixel(0, 511));
    assert_eq!(drawn.pixel(512 + 6 + 75, 6 + 75), chip.pixel(75, 75));
}

#[test]
fn what_is_no_photograph_fails_alone() {
    let folder = TempDir::new().unwrap();
    let (rubbish, nothing) = (folder.path().join("rubbish.jpg"), folder.path().join("nothing.png"));
    fs::write(&rubbish, "no picture").unwrap();
    let arguments = [&rubbish, &astronaut(), &nothing, Path::new("--out"), folder.path()];
    for is_terminal in [false, true] {
        let (all, lines, error) = told(&arguments, is_terminal).unwrap();
        assert!(!all);
        let [first, second, third] = lines.as_slice() else { panic!("{lines:?}") };
        assert!(first["error"].as_str().is_some_and(|error| error.contains("instance 0")), "{first}");
        assert_eq!(second["faces"].as_array().map(Vec::len), Some(1));
        assert!(third["error"].is_string(), "{third}");
        assert_eq!(third["file"].as_str(), nothing.to_str());
        let errors = error.matches("error: ").count();
        assert_eq!(errors, 2, "{error}");
        assert_eq!(error.contains("[3/3]"), is_terminal, "{error:?}");
        assert_eq!(error.ends_with("\r\x1b[K"), is_terminal, "{error:?}");
    }
}

#[test]
fn a_person_is_the_same_in_two_photographs() {
    let folder = TempDir::new().unwrap();
    // Smaller and mirrored: not the same photograph.
    let photo = picture(&astronaut());
    let small = millrace_vision::resize(&photo, 400, 400, millrace_vision::Filter::Bilinear).unwrap();
    let mirrored = (0..400).flat_map(|y| (0..400).rev().flat_map(move |x| [(x, y)]));
    let pixels = mirrored.flat_map(|(x, y)| small.pixel(x, y)).collect();
    let other = folder.path().join("other.png");
    crate::drawing::write(&other, &Rgb8::new(400, 400, pixels).unwrap()).unwrap();
    let (all, lines, _) = told(&[Path::new("--compare"), &astronaut(), &other], false).unwrap();
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    let distance = line["distance"].as_f64().unwrap();
    assert!(all && distance > 0.01 && distance < 0.37, "{line}");
    assert_eq!((line["same_person"].as_bool(), line["threshold"].as_f64()), (Some(true), Some(0.37)));
}

#[test]
fn without_a_face_there_is_nothing_to_compare() {
    let folder = TempDir::new().unwrap();
    let empty = folder.path().join("empty.png");
    crate::drawing::write(&empty, &Rgb8::new(64, 64, vec![128; 3 * 64 * 64]).unwrap()).unwrap();
    let error = told(&[Path::new("--compare"), &astronaut(), &empty], false).unwrap_err();
    assert!(error.ends_with("empty.png: no face was found"), "{error}");
    // Nothing to cut out either: the picture is the photograph.
    let (all, lines, _) = told(&[&empty, Path::new("--out"), folder.path()], false).unwrap();
    assert!(all);
    assert_eq!(lines[0]["faces"].as_array().map(Vec::len), Some(0));
    assert_eq!(picture(&folder.path().join("empty.faces.png")), picture(&empty));
}

#[test]
fn models_that_are_not_there_are_named() {
    let folder = TempDir::new().unwrap();
    let named = folder.path().to_str().unwrap();
    let error = told(&[&astronaut(), Path::new("--models"), folder.path()], false).unwrap_err();
    assert_eq!(error, format!("{named}: there is no model `face_pipeline`"));
    // The pipeline, but none of its networks.
    let pipeline = folder.path().join("face_pipeline");
    fs::create_dir(&pipeline).unwrap();
    fs::copy(fixture("face-models/face_pipeline/model.toml"), pipeline.join("model.toml")).unwrap();
    let error = told(&[&astronaut(), Path::new("--models"), folder.path()], false).unwrap_err();
    let (start, network) = (format!("{named}: the model `face_pipeline` does not serve: "), "mtcnn_pnet");
    assert!(error.starts_with(&start) && error.contains(network), "{error}");
}

#[test]
fn wrong_command_lines_are_refused() {
    let kind = |arguments: &[&str]| Arguments::try_parse_from(arguments).unwrap_err().kind();
    assert_eq!(kind(&["face_pipeline"]), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind(&["face_pipeline", "--compare", "a.jpg"]), ErrorKind::WrongNumberOfValues);
    assert_eq!(kind(&["face_pipeline", "--compare", "a.jpg", "b.jpg", "c.jpg"]), ErrorKind::ArgumentConflict);
    assert_eq!(kind(&["face_pipeline", "--compare", "a.jpg", "b.jpg", "--out", "x"]), ErrorKind::ArgumentConflict);
    assert_eq!(kind(&["face_pipeline", "--help"]), ErrorKind::DisplayHelp);
}

#[test]
fn photographs_of_one_name_do_not_overwrite_each_other() {
    let photos = ["a/x.jpg", "b/x.png", "x-2.jpg", "c/x.jpg"].map(PathBuf::from);
    assert_eq!(stems(&photos), ["x", "x-2", "x-2-2", "x-3"]);
}
