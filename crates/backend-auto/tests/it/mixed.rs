//! Engines whose runs are of texts of different lengths.

use std::sync::Arc;

use millrace_backend_auto::{AutoBackend, AutoConfig, Available};
use millrace_core::{
    Admission, Backend, Batch, BatchOutputs, DType, Dim, InputError, Instance, LoadError, Model, ModelSource, Part,
    RunContext, RunError, Signature, Tensor, TensorSpec,
};
use parking_lot::Mutex;

use crate::engine::{World, dropped, serves, source};

/// Takes `input_ids` and `attention_mask`, gives the sum of the real ids and the first of them.
#[derive(Debug, Clone)]
struct Words {
    name: &'static str,
    world: World,
    /// Nanoseconds of a run of so many rows.
    cost: fn(u64) -> u64,
    vocabulary: i64,
    is_mixed: bool,
    heeds_the_mask: bool,
    /// Real tokens of each row that ran.
    lengths: Arc<Mutex<Vec<usize>>>,
}

impl Words {
    fn new(name: &'static str, world: &World) -> Self {
        let (world, lengths) = (world.clone(), Arc::default());
        Self { name, world, cost: |rows| rows * 1000, vocabulary: 100, is_mixed: true, heeds_the_mask: true, lengths }
    }
}

impl Backend for Words {
    fn name(&self) -> &'static str {
        self.name
    }

    fn recognises(&self, _source: &ModelSource) -> bool {
        true
    }

    fn load(&self, _source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        let spec = |name| TensorSpec::new(name, DType::Int64, vec![Dim::symbol("batch"), Dim::symbol("sequence")]);
        let inputs = ["input_ids", "attention_mask"].map(spec).to_vec();
        let output = TensorSpec::new("y", DType::Fp32, vec![Dim::symbol("batch"), Dim::Fixed(2)]);
        let signature = Signature::new(inputs, vec![output]).unwrap();
        let signature = if self.is_mixed { signature.mixed("sequence").unwrap() } else { signature };
        Ok(Arc::new(WordsModel { words: self.clone(), signature }))
    }
}

#[derive(Debug)]
struct WordsModel {
    words: Words,
    signature: Signature,
}

impl Model for WordsModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(WordsInstance { words: self.words.clone(), computed: 0 }))
    }

    fn weigh(&self, inputs: &[Tensor], admission: &Admission) -> Result<usize, InputError> {
        let (ids, mask) = (inputs[0].elements::<i64>().unwrap(), inputs[1].elements::<i64>().unwrap());
        let is_known = ids.iter().all(|id| (0..self.words.vocabulary).contains(id));
        let is_empty = mask.chunks(mask.len() / admission.rows).any(|row| !row.contains(&1));
        if !is_known || is_empty { Err(InputError::NoRows) } else { Ok(mask.iter().filter(|mark| **mark == 1).count()) }
    }
}

struct WordsInstance {
    words: Words,
    computed: usize,
}

impl Instance for WordsInstance {
    fn run(&mut self, batch: &Batch, _: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        self.computed = 0;
        let mut sums = Vec::new();
        for part in batch.parts() {
            let (ids, mask) = (part.inputs[0].elements::<i64>()?, part.inputs[1].elements::<i64>()?);
            let width = ids.len() / part.rows;
            self.computed += ids.len();
            for (ids, mask) in ids.chunks(width).zip(mask.chunks(width)) {
                assert!(
                    ids.iter().all(|id| (0..self.words.vocabulary).contains(id)),
                    "nobody asked whether this is taken"
                );
                let counts = |mark: &i64| *mark == 1 || !self.words.heeds_the_mask;
                let real: Vec<i64> = ids.iter().zip(mask).filter(|(_, mark)| counts(mark)).map(|(id, _)| *id).collect();
                self.words.lengths.lock().push(real.len());
                sums.extend([real.iter().sum::<i64>() as f32, real[0] as f32]);
            }
        }
        self.words.world.advance((self.words.cost)(batch.rows() as u64));
        Ok(BatchOutputs::all([Tensor::from_vec(&[batch.rows(), 2], sums)?]))
    }

    fn computed(&self) -> usize {
        self.computed
    }
}

fn load(world: &World, engines: &[&Words]) -> Arc<dyn Model> {
    let config = AutoConfig { clock: world.clock(), available: Available::new(|| None), ..AutoConfig::default() };
    let engines = engines.iter().map(|engine| Arc::new((*engine).clone()) as Arc<dyn Backend>).collect();
    AutoBackend::new(engines, config).load(&source()).unwrap()
}

fn request(rows: usize, width: usize, id: i64) -> Part {
    let tensor = |value| Tensor::from_vec(&[rows, width], vec![value; rows * width]).unwrap();
    Part { inputs: [tensor(id), tensor(1)].into_iter().collect(), rows }
}

fn weigh(model: &Arc<dyn Model>, part: &Part) -> Result<usize, InputError> {
    model.weigh(&part.inputs, &model.signature().check(&part.inputs).unwrap())
}

#[test]
fn engines_are_tried_with_rows_of_different_lengths_that_they_take() {
    let world = World::default();
    let (slow, fast) = (Words::new("slow", &world), Words { cost: |rows| rows * 10, ..Words::new("fast", &world) });
    let model = load(&world, &[&slow, &fast]);
    assert_eq!(serves(&model), "fast");
    assert!(model.signature().is_mixed());
    let mut lengths = fast.lengths.lock().clone();
    assert_eq!((lengths.iter().max(), slow.lengths.lock().is_empty()), (Some(&32), false));
    lengths.sort_unstable();
    lengths.dedup();
    assert!(lengths.len() > 4, "{lengths:?}");
    assert_eq!(weigh(&model, &request(2, 3, 99)), Ok(6));
    assert!(weigh(&model, &request(2, 3, 100)).is_err());
}

#[test]
fn a_small_vocabulary_is_no_obstacle() {
    let world = World::default();
    let words = Words { vocabulary: 2, ..Words::new("a", &world) };
    let model = load(&world, &[&words, &Words { name: "b", cost: |rows| rows * 10, ..words.clone() }]);
    assert_eq!(serves(&model), "b");
    assert_eq!(words.lengths.lock().iter().max(), Some(&32));
}

#[test]
fn an_engine_that_does_not_heed_the_mask_is_not_used() {
    let world = World::default();
    let right = Words::new("right", &world);
    let wrong = Words { heeds_the_mask: false, cost: |_| 1, ..Words::new("wrong", &world) };
    let model = load(&world, &[&right, &wrong]);
    assert_eq!(serves(&model), "right");
    assert!(dropped(&model, "wrong").contains("`y`"), "{}", dropped(&model, "wrong"));
}

#[test]
fn an_engine_of_one_length_does_not_stand_in_for_one_of_any() {
    let world = World::default();
    let any = Words::new("any", &world);
    let one = Words { is_mixed: false, cost: |_| 1, ..Words::new("one", &world) };
    let model = load(&world, &[&any, &one]);
    assert_eq!(serves(&model), "any");
    assert!(dropped(&model, "one").contains("requests of one length"), "{}", dropped(&model, "one"));
}

#[test]
fn engines_that_share_the_row_counts_have_a_say_about_each_request_and_tell_what_they_computed() {
    let world = World::default();
    let single = Words { cost: |rows| rows * rows * 1000, ..Words::new("single", &world) };
    let many = Words { cost: |_| 30_000, vocabulary: 80, ..Words::new("many", &world) };
    let model = load(&world, &[&single, &many]);
    assert_eq!(serves(&model), "1:single 8:many");
    assert_eq!(weigh(&model, &request(1, 5, 79)), Ok(5));
    // It might ride in a run of the other's.
    assert!(weigh(&model, &request(1, 5, 80)).is_err());
    let mut instance = model.instance().unwrap();
    for (parts, computed) in [(vec![request(1, 5, 1)], 5), (vec![request(8, 2, 1), request(4, 7, 1)], 44)] {
        let outputs = instance.run(&Batch::new(parts, 0), &RunContext::plain()).unwrap();
        assert!(outputs.0[0].is_some());
        assert_eq!(instance.computed(), computed);
    }
}
