//! Runs use no threads but their own: rayon's global pool is never made. The only test of its process, since that pool is the
//! process's.

#![cfg(test)]

use millrace_backend_candle::CandleBackend;
use millrace_core::{Backend, Batch, Part, RunContext, TensorList};
use millrace_testkit::{Case, fixture_source};

#[test]
fn runs_of_one_and_of_several_threads_leave_the_global_pool_alone() {
    let models = [
        ("text-models", "cases/text", "bert_mean"),
        ("text-models", "cases/text", "roberta_labels"),
        ("gguf-models", "cases/gguf", "bert_q4_mixed"),
        ("vision-models", "cases/vision", "vit_labels"),
        ("vision-models", "cases/vision", "resnet_labels"),
    ];
    for (folder, cases, name) in models {
        let model = CandleBackend::default().load(&fixture_source(&format!("{folder}/{name}/1"))).unwrap();
        let cases = Case::folder(cases).into_iter().filter(|case| case.model == name).collect::<Vec<_>>();
        assert!(!cases.is_empty(), "{name}");
        for case in cases {
            let inputs: TensorList = model.signature().arrange(case.inputs).unwrap();
            let rows = inputs[0].shape().rows().unwrap();
            for threads in [1, 2, 3] {
                let batch = Batch::new(vec![Part { inputs: inputs.clone(), rows }], 0);
                let context = RunContext { threads, ..RunContext::plain() };
                model.instance().unwrap().run(&batch, &context).unwrap();
            }
        }
    }
    let made = rayon::ThreadPoolBuilder::new().num_threads(1).build_global();
    assert!(made.is_ok(), "somebody made the global pool before: {made:?}");
}
