//! Every golden case: alone, joined with others, and on plans made for its size.

use millrace_core::{Prepared, TensorList};
use millrace_testkit::Case;

use crate::support::{arranged, by_name, load, loaded, run};

/// Models of `fixtures/extra` that this engine refuses at load, each with a test in `refused`.
const REFUSED: [&str; 2] = ["lstm_symbolic", "tree_binary"];

/// The one of `fixtures/models` that is for the engine of trees.
const TREES: (&str, u64) = ("fraud", 2);

fn check(folder: &str, case: &Case) {
    let model = loaded(&format!("{folder}/{}/{}", case.model, case.version));
    let (inputs, admission) = arranged(&*model, &case.inputs);
    let alone = run(&*model, std::slice::from_ref(&inputs)).unwrap_or_else(|error| panic!("{}: {error}", case.model));
    case.check(by_name(&*model, &alone[0]));
    if model.signature().is_batched() {
        let rows: Vec<TensorList> =
            (0..admission.rows).map(|row| inputs.iter().map(|input| input.rows(row..row + 1)).collect()).collect();
        let joined = run(&*model, &[vec![inputs.clone()], rows, vec![inputs.clone()]].concat()).unwrap();
        case.check(by_name(&*model, joined.first().unwrap()));
        case.check(by_name(&*model, joined.last().unwrap()));
        for output in 0..model.signature().outputs().len() {
            let pieces: Vec<_> = joined[1..=admission.rows].iter().map(|share| share[output].clone()).collect();
            let whole = millrace_core::Tensor::concat(&pieces).unwrap();
            let name = &*model.signature().outputs()[output].name;
            let (_, want) = case.outputs.iter().find(|(known, _)| known == name).unwrap();
            millrace_testkit::assert_close(&whole, want, case.tolerance, &format!("{} {name} row by row", case.model));
        }
    }
    model.prepare(&admission.group, admission.rows).unwrap_or_else(|error| panic!("{}: {error}", case.model));
    match model.prepared(&admission.group) {
        // Sizes that do not vary, or convolutions and small layers, whose operators take any size.
        Prepared::Any => assert!(
            (model.signature().symbols().is_empty() && !model.signature().is_batched())
                || ["Conv", "Gemm", "MatMul"].iter().any(|name| model.facts().operators.contains_key(*name)),
            "{}",
            case.model
        ),
        Prepared::Sizes(sizes) => assert!(sizes.contains(&admission.rows), "{}: {sizes:?}", case.model),
    }
    let specialised = run(&*model, &[inputs]).unwrap();
    case.check(by_name(&*model, &specialised[0]));
}

#[test]
fn every_case_of_the_models_comes_out_alone_joined_and_specialised() {
    let is_trees = |case: &Case| (&*case.model, case.version) == TREES;
    let cases = Case::models();
    assert!(load(&format!("models/{}/{}", TREES.0, TREES.1)).is_err(), "it loads now: check it too");
    cases.iter().filter(|case| !is_trees(case)).for_each(|case| check("models", case));
}

#[test]
fn every_case_of_the_extra_models_comes_out_or_the_model_is_refused() {
    for case in Case::extra() {
        let dir = format!("extra/{}/{}", case.model, case.version);
        if REFUSED.contains(&case.model.as_str()) {
            assert!(load(&dir).is_err(), "{} loads now: take it off the list", case.model);
        } else {
            check("extra", &case);
        }
    }
}
