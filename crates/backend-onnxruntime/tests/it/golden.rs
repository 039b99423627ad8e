//! Every golden case: alone, joined with others, and divided among threads.

use millrace_core::{RunContext, Tensor, TensorList};
use millrace_testkit::Case;

use crate::support::{arranged, by_name, engine, loaded, run, run_with};

fn check(folder: &str, case: &Case) {
    let Some(engine) = engine() else { return };
    let model = loaded(engine, &format!("{folder}/{}/{}", case.model, case.version));
    let (inputs, admission) = arranged(&*model, &case.inputs);
    let alone = run(&*model, std::slice::from_ref(&inputs)).unwrap_or_else(|error| panic!("{}: {error}", case.model));
    case.check(by_name(&*model, &alone[0]));
    let two = RunContext { threads: 2, ..RunContext::plain() };
    let divided = run_with(&*model, std::slice::from_ref(&inputs), &two).expect("it runs divided");
    case.check(by_name(&*model, &divided[0]));
    if model.signature().is_batched() {
        let rows: Vec<TensorList> =
            (0..admission.rows).map(|row| inputs.iter().map(|input| input.rows(row..row + 1)).collect()).collect();
        for context in [RunContext::plain(), two, RunContext { threads: 3, ..RunContext::plain() }] {
            let requests = [vec![inputs.clone()], rows.clone(), vec![inputs.clone()]].concat();
            let joined = run_with(&*model, &requests, &context).expect("it runs joined");
            case.check(by_name(&*model, &joined[0]));
            case.check(by_name(&*model, &joined[admission.rows + 1]));
            for output in 0..model.signature().outputs().len() {
                let pieces: Vec<_> = joined[1..=admission.rows].iter().map(|share| share[output].clone()).collect();
                let whole = Tensor::concat(&pieces).expect("rows join");
                let name = &*model.signature().outputs()[output].name;
                let (_, want) = case.outputs.iter().find(|(known, _)| known == name).expect("the case has it");
                millrace_testkit::assert_close(
                    &whole,
                    want,
                    case.tolerance,
                    &format!("{} {name} row by row", case.model),
                );
            }
        }
    }
}

#[test]
fn every_case_of_the_models_comes_out_alone_joined_and_divided() {
    let cases = Case::models();
    cases.iter().for_each(|case| check("models", case));
}

#[test]
fn every_case_of_the_extra_models_comes_out() {
    let cases = Case::extra();
    cases.iter().for_each(|case| check("extra", case));
}
