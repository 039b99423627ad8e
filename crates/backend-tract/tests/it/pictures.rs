//! Convolution networks: batches that are run in parts, and sizes that need no plan.

use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_core::{Batch, Group, Prepared, RunContext, RunError, Tensor, TensorList, Wanted};
use millrace_testkit::assert_close;

use crate::support::{loaded, run};

const RNET: &str = "face-models/mtcnn_rnet/1";

/// Different pictures of 24 x 24.
fn crops(rows: usize, seed: usize) -> TensorList {
    let numbers = (0..rows * 3 * 24 * 24).map(|index| {
        let step = u16::try_from((index * 7919 + seed * 104_729) % 2003).unwrap();
        f32::from(step) / 1001.0 - 1.0
    });
    [Tensor::from_vec(&[rows, 3, 24, 24], numbers.collect::<Vec<f32>>()).unwrap()].into_iter().collect()
}

#[test]
fn a_batch_that_is_run_in_parts_gives_each_row_its_own_answer() {
    let model = loaded(RNET);
    // 39 rows: two full parts and one of seven, and no request ends where a part does.
    let requests = [crops(5, 1), crops(31, 2), crops(3, 3)];
    let together = run(&*model, &requests).unwrap();
    for (request, shares) in requests.iter().zip(&together) {
        let rows = request[0].shape().rows().unwrap();
        for row in 0..rows {
            let one: TensorList = [request[0].rows(row..row + 1)].into_iter().collect();
            let alone = run(&*model, &[one]).unwrap().remove(0);
            for (spec, (share, alone)) in model.signature().outputs().iter().zip(shares.iter().zip(&alone)) {
                assert_close(&share.rows(row..row + 1), alone, 1e-5, &spec.name);
            }
        }
    }
}

#[test]
fn only_the_wanted_outputs_of_parts_are_joined() {
    let model = loaded(RNET);
    let batch = Batch::single(crops(40, 4), 40);
    let wanted = Wanted::Only([1].into_iter().collect());
    let context = RunContext { wanted: &wanted, ..RunContext::plain() };
    let outputs = model.instance().unwrap().run(&batch, &context).unwrap();
    assert!(outputs.0[0].is_none());
    assert_eq!(outputs.0[1].as_ref().unwrap().shape().rows(), Some(40));
}

#[test]
fn a_run_in_parts_stops_between_two_of_them() {
    let model = loaded(RNET);
    let asked = AtomicUsize::new(0);
    let gone = || asked.fetch_add(1, Ordering::Relaxed) == 1;
    let context = RunContext { cancelled: &gone, ..RunContext::plain() };
    let outcome = model.instance().unwrap().run(&Batch::single(crops(40, 5), 40), &context);
    assert!(matches!(outcome, Err(RunError::Cancelled)), "{outcome:?}");
}

#[test]
fn photographs_of_new_sizes_need_no_plan_of_their_own() {
    let model = loaded("face-models/mtcnn_pnet/1");
    let bytes = model.memory_bytes();
    for side in [41, 42, 43] {
        let group = Group([side, side + 9].into_iter().collect());
        assert_eq!(model.prepared(&group), Prepared::Any);
        model.prepare(&group, 1).unwrap();
    }
    assert_eq!(model.memory_bytes(), bytes);
}
