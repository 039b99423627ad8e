//! Plans for exact sizes: made on demand, few, and never in the way of a run.

use std::thread;

use millrace_backend_tract::{TractBackend, TractConfig};
use millrace_core::{Backend, Group, Model, Prepared, Tensor, TensorList};
use millrace_testkit::fixture_source;

use crate::support::{loaded, run};

fn sizes(model: &dyn Model, group: &Group) -> Vec<usize> {
    match model.prepared(group) {
        Prepared::Sizes(sizes) => sizes.to_vec(),
        Prepared::Any => panic!("this model has sizes"),
    }
}

fn ones(rows: usize) -> TensorList {
    [Tensor::from_vec(&[rows], vec![1.0_f32; rows]).unwrap()].into_iter().collect()
}

#[test]
fn one_row_is_prepared_at_load_and_others_when_asked() {
    let model = loaded("models/half_plus_two/1");
    assert_eq!(sizes(&*model, &Group::default()), [1]);
    model.prepare(&Group::default(), 8).unwrap();
    model.prepare(&Group::default(), 8).unwrap();
    assert_eq!(sizes(&*model, &Group::default()), [1, 8]);
}

#[test]
fn the_oldest_plan_goes_but_never_the_one_for_a_single_row() {
    let config = TractConfig { max_plans: 3, ..TractConfig::default() };
    let model = TractBackend::new(config).load(&fixture_source("models/half_plus_two/1")).unwrap();
    for rows in [2, 4] {
        model.prepare(&Group::default(), rows).unwrap();
    }
    run(&*model, &[ones(2)]).unwrap(); // 4 is the oldest now
    model.prepare(&Group::default(), 8).unwrap();
    assert_eq!(sizes(&*model, &Group::default()), [1, 2, 8]);
}

#[test]
fn groups_have_plans_of_their_own() {
    let model = loaded("models/row_mean/1");
    let group = |length: usize| Group([length].into_iter().collect());
    assert!(sizes(&*model, &group(3)).is_empty());
    model.prepare(&group(3), 2).unwrap();
    assert_eq!(sizes(&*model, &group(3)), [2]);
    assert!(sizes(&*model, &group(4)).is_empty());
    let x = Tensor::from_vec(&[2, 3], vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let outputs = run(&*model, &[[x].into_iter().collect()]).unwrap();
    assert_eq!(outputs[0][0].elements::<f32>().unwrap()[..], [2.0, 5.0]);
}

#[test]
fn preparing_and_running_at_once_give_the_same_answers() {
    let config = TractConfig { max_plans: 2, ..TractConfig::default() };
    let model = TractBackend::new(config).load(&fixture_source("models/half_plus_two/1")).unwrap();
    let want = run(&*model, &[ones(1)]).unwrap()[0][0].elements::<f32>().unwrap()[0];
    thread::scope(|scope| {
        let preparing = scope.spawn(|| (2..12).for_each(|rows| model.prepare(&Group::default(), rows).unwrap()));
        for rows in (1..12).cycle().take(200) {
            let answer = run(&*model, &[ones(rows)]).unwrap().remove(0).remove(0);
            let elements = answer.elements::<f32>().unwrap();
            assert_eq!(elements.len(), rows);
            assert!(elements.iter().all(|element| (element - want).abs() < 1e-6), "{elements:?}");
        }
        preparing.join().unwrap();
    });
    assert_eq!(sizes(&*model, &Group::default()).len(), 2);
}
