//! Engines that are wrong, break or disagree.

use millrace_core::{Backend as _, DType, Dim, LoadErrorKind, RunError, Signature, TensorSpec};

use crate::engine::{World, choice, dropped, load, right, runs, serves, signature, source};

#[test]
fn an_engine_that_answers_wrongly_is_dropped_and_the_difference_is_told() {
    let world = World::default();
    let honest = world.engine("honest");
    let wrong = world.engine("wrong").cost(|_| 1).answer(|rows| Ok(rows.iter().map(|[a, b]| a + 2.1 * b).collect()));
    let model = load(&world.auto(&[&honest, &wrong]));
    assert_eq!(serves(&model), "honest");
    let reason = dropped(&model, "wrong");
    for part in
        ["output `y`: element [0] is ", ", expected ", "; the largest difference is ", "(by honest, with 1 row)"]
    {
        assert!(reason.contains(part), "no `{part}` in {reason}");
    }
    assert_eq!(choice(&model).reason, "the only engine here whose answers can be relied on");
    runs(&model, 2);
}

#[test]
fn an_engine_that_is_wrong_in_some_rows_only_is_found() {
    let world = World::default();
    let honest = world.engine("honest");
    // Right alone and in fours; wrong from the seventeenth row on.
    let wrong = world.engine("wrong").cost(|_| 1).answer(|rows| {
        let mut y = right(rows)?;
        y.iter_mut().skip(16).for_each(|y| *y = 0.0);
        Ok(y)
    });
    let model = load(&world.auto(&[&honest, &wrong]));
    assert_eq!(serves(&model), "honest");
    assert!(dropped(&model, "wrong").contains("with 64 rows"));
    // Wrong on one kind of value only.
    let wrong =
        world.engine("wrong").cost(|_| 1).answer(|rows| Ok(rows.iter().map(|[a, b]| a + 2.0 * b.abs()).collect()));
    assert_eq!(serves(&load(&world.auto(&[&honest, &wrong]))), "honest");
    // The same for everything.
    let wrong = world.engine("wrong").cost(|_| 1).answer(|rows| Ok(vec![1.0; rows.len()]));
    assert_eq!(serves(&load(&world.auto(&[&honest, &wrong]))), "honest");
}

#[test]
fn rows_that_change_one_another_are_never_joined() {
    let world = World::default();
    let mixing = |rows: &[[f32; 2]]| {
        let first = rows[0][0];
        Ok(rows.iter().map(|[a, b]| a + 2.0 * b - rows[0][0] + first * rows.len() as f32).collect())
    };
    let (mixes, honest) = (world.engine("mixes").answer(mixing), world.engine("honest"));
    let model = load(&world.auto(&[&mixes, &honest]));
    assert_eq!(serves(&model), "honest");
    assert!(dropped(&model, "mixes").contains("rows that share a run"), "{}", dropped(&model, "mixes"));
    // Nobody is left.
    let other = world.engine("other").answer(mixing);
    let error = world.auto(&[&mixes, &other]).load(&source()).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Engine);
    assert!(error.to_string().starts_with("no engine gives an answer that can be relied on: mixes: "), "{error}");
}

#[test]
fn what_one_engine_found_about_rows_holds_for_all() {
    let world = World::default();
    let careless = world.engine("careless").cost(|_| 1);
    let careful =
        world.engine("careful").signature(signature().unbatched()).property("not batched", "a sum over the rows");
    let model = load(&world.auto(&[&careless, &careful]));
    assert_eq!((serves(&model).as_str(), model.signature().is_batched()), ("careful", false));
    assert!(dropped(&model, "careless").contains("a sum over the rows"));
    // An engine that merely cannot join rows gives way to one that can.
    let cannot = world.engine("cannot").signature(signature().unbatched()).cost(|_| 1);
    let model = load(&world.auto(&[&cannot, &careless]));
    assert_eq!((serves(&model).as_str(), model.signature().is_batched()), ("careless", true));
}

#[test]
fn panics_and_failures_stay_their_engine_s_own() {
    for place in ["load", "instance", "run", "admit"] {
        let world = World::default();
        let (breaks, sound) = (world.engine("breaks").panics_in(place).cost(|_| 1), world.engine("sound"));
        for engines in [[&breaks, &sound], [&sound, &breaks]] {
            let model = load(&world.auto(&engines));
            assert_eq!(serves(&model), "sound", "{place}");
            assert!(dropped(&model, "breaks").contains("panicked"), "{}", dropped(&model, "breaks"));
            runs(&model, 3);
        }
    }
    // That it cannot specialise is no reason.
    let world = World::default();
    let (other, sound) = (world.engine("other").panics_in("prepare").cost(|_| 1), world.engine("sound"));
    assert_eq!(serves(&load(&world.auto(&[&sound, &other]))), "other");
    let fails = world.engine("fails").answer(|_| Err(RunError::Failed("no operator X".into()))).cost(|_| 1);
    for engines in [[&fails, &sound], [&sound, &fails]] {
        let model = load(&world.auto(&engines));
        assert_eq!(serves(&model), "sound");
        assert_eq!(dropped(&model, "fails"), "it failed: no operator X");
    }
    let short = world.engine("short").answer(|_| Ok(vec![1.0; 3])).cost(|_| 1);
    let model = load(&world.auto(&[&sound, &short]));
    assert!(dropped(&model, "short").contains("not what its signature says"), "{}", dropped(&model, "short"));
}

#[test]
fn where_nothing_runs_the_most_trusted_engine_is_left_to_the_warm_up() {
    let world = World::default();
    let fails = |name| world.engine(name).answer(|_| Err(RunError::Failed("broken".into())));
    let (first, second) = (fails("first"), fails("second"));
    let model = load(&world.auto(&[&first, &second]));
    assert_eq!(serves(&model), "first");
    assert!(choice(&model).reason.contains("no engine runs it"), "{}", choice(&model).reason);
}

#[test]
fn signatures_that_differ_are_told() {
    let world = World::default();
    let spec = |name, shape: &[Dim]| TensorSpec::new(name, DType::Fp32, shape.to_vec());
    let inputs = || vec![spec("x", &[Dim::symbol("N"), Dim::Fixed(2)])];
    let other = Signature::new(inputs(), vec![spec("z", &[Dim::symbol("N")])]).unwrap();
    let (first, second) = (world.engine("first"), world.engine("second").signature(other).cost(|_| 1));
    let model = load(&world.auto(&[&first, &second]));
    assert_eq!(serves(&model), "first");
    assert_eq!(dropped(&model, "second"), "its outputs are z FP32[N], another engine's y FP32[N] (first)");
    // Other names for the same axes are none.
    let named = |name: &str| {
        let inputs = vec![spec("x", &[Dim::symbol(name), Dim::Fixed(2)])];
        Signature::new(inputs, vec![spec("y", &[Dim::symbol(name)])]).unwrap()
    };
    let second = world.engine("second").signature(named("batch")).cost(|rows| if rows > 1 { 1 } else { 5000 });
    let model = load(&world.auto(&[&first, &second]));
    assert_eq!(serves(&model), "1:first 2:second");
    runs(&model, 1);
    runs(&model, 5);
}

#[test]
fn where_none_loads_every_reason_is_told_and_a_lone_one_as_it_is() {
    let world = World::default();
    let engine = |name, kind, text| world.engine(name).refuses_to_load(kind, text);
    let cut = engine("cut", LoadErrorKind::Invalid, "the.model is cut off");
    let foreign = engine("foreign", LoadErrorKind::Foreign, "a network");
    let lacks = engine("lacks", LoadErrorKind::Unsupported, "no operator X");
    let check = |engines: &[&crate::engine::Engine], kind: LoadErrorKind, text: &str| {
        let error = world.auto(engines).load(&source()).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
    };
    check(&[&cut], LoadErrorKind::Invalid, "the.model is cut off");
    check(&[&foreign, &cut], LoadErrorKind::Invalid, "the.model is cut off");
    check(&[&cut, &lacks], LoadErrorKind::Invalid, "cut: the.model is cut off; lacks: no operator X");
    // One that loads serves, and why the other does not is shown.
    let sound = world.engine("sound");
    let model = load(&world.auto(&[&lacks, &sound]));
    assert_eq!((serves(&model).as_str(), dropped(&model, "lacks").as_str()), ("sound", "no operator X"));
    assert_eq!(choice(&model).reason, "the only engine here that loads them");
}
