//! Files with random damage: never a panic, never a crash of the process, bounded memory, and an error that names the file.

use millrace_core::{Backend, LoadErrorKind, MemoryFiles, ModelSource};
use millrace_testkit::fixture_source;
use std::sync::Arc;

use crate::builder::{field, node, number, value};
use crate::support::engine;

/// A small generator with a fixed seed, so that a failure comes back.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (limit as u64)).expect("below a size")
    }
}

#[test]
fn damaged_files_never_panic_or_crash() {
    let Some(engine) = engine() else { return };
    let originals = ["models/row_mean/1", "models/sum_diff/1", "extra/shrinking_conv/1", "extra/gather_tokens/1"];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut loaded, mut refused) = (0, 0);
    for dir in originals {
        let original = fixture_source(dir).files.read("model.onnx").unwrap().to_vec();
        for _ in 0..100 {
            let mut damaged = original.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(damaged.len());
                match random.below(4) {
                    0 => damaged[at] = u8::try_from(random.below(256)).unwrap(),
                    1 => damaged[at] ^= 1 << random.below(8),
                    2 => drop(damaged.remove(at)),
                    _ => damaged.insert(at, u8::try_from(random.below(256)).unwrap()),
                }
            }
            let files = MemoryFiles::default().with("model.onnx", damaged);
            let mut source = ModelSource::new("damaged".parse().unwrap(), 1, Arc::new(files));
            source.memory_budget = 64 << 20;
            match engine.load(&source) {
                Ok(_) => loaded += 1,
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.starts_with("model.onnx") && !text.contains("onnxruntime_src"), "{text}");
                    refused += 1;
                }
            }
        }
    }
    assert!(loaded > 0 && refused > 100, "{loaded} loaded, {refused} refused: the damage is too weak or too strong");
}

/// y = -x, beside `nodes` and `initializers` that nothing depends on.
fn beside(nodes: &[Vec<u8>], initializers: &[Vec<u8>]) -> ModelSource {
    let mut graph: Vec<u8> = nodes.iter().flat_map(|node| field(1, node)).collect();
    graph.extend(field(1, &node(&["x"], "y", "Neg", b"")));
    graph.extend(field(2, b"g"));
    graph.extend(initializers.iter().flat_map(|tensor| field(5, tensor)));
    graph.extend(field(11, &value("x")));
    graph.extend(field(12, &value("y")));
    let model = [number(1, 8), field(7, &graph), field(8, &number(2, 15))].concat();
    let files = MemoryFiles::default().with("model.onnx", model);
    ModelSource::new("hostile".parse().expect("a name"), 1, Arc::new(files))
}

/// INT64 elements under the shape of a list.
fn ints(name: &str, elements: &[i64]) -> Vec<u8> {
    let data: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
    let count = u8::try_from(elements.len()).expect("a short list");
    [number(1, count), number(2, 7), field(8, name.as_bytes()), field(9, &data)].concat()
}

#[test]
fn constants_that_explode_are_refused_whatever_operator_makes_them() {
    let Some(engine) = engine() else { return };
    let huge = 1 << 44;
    let explodes = |nodes: &[Vec<u8>], initializers: &[Vec<u8>]| {
        let error = engine.load(&beside(nodes, initializers)).unwrap_err();
        assert_eq!(error.kind(), LoadErrorKind::TooLarge, "{error}");
        assert!(error.to_string().contains("`big`"), "{error}");
    };
    let shape = ints("s", &[huge]);
    explodes(&[node(&["s"], "big", "ConstantOfShape", b"")], std::slice::from_ref(&shape));
    let one = ints("c", &[1]);
    explodes(&[node(&["c", "s"], "big", "Expand", b"")], &[shape.clone(), one.clone()]);
    explodes(&[node(&["c", "s"], "big", "Tile", b"")], &[shape, one.clone()]);
    let limits = [ints("from", &[0]), ints("to", &[huge]), one.clone()];
    explodes(&[node(&["from", "to", "c"], "big", "Range", b"")], &limits);
    explodes(&[node(&["c", "p"], "big", "Pad", b"")], &[one, ints("p", &[huge, huge])]);
    // A column and a row of a million each are small, but not what they make together.
    let side = 1 << 20;
    let (column, row) = (ints("column", &[side, 1]), ints("row", &[1, side]));
    let sides = [node(&["column"], "c", "ConstantOfShape", b""), node(&["row"], "r", "ConstantOfShape", b"")];
    for operator in ["Add", "MatMul"] {
        let outer = [&sides[..], &[node(&["c", "r"], "big", operator, b"")]].concat();
        explodes(&outer, &[column.clone(), row.clone()]);
    }
}

#[test]
fn a_constant_doubled_again_and_again_is_refused() {
    let Some(engine) = engine() else { return };
    let axis = [field(1, b"axis"), number(3, 0), vec![0xa0, 0x01, 2]].concat();
    let doubled = |step: usize| {
        let (from, to) = (format!("c{step}"), format!("c{}", step + 1));
        node(&[&from, &from], &to, "Concat", &axis)
    };
    let nodes: Vec<Vec<u8>> = (0..60).map(doubled).collect();
    let error = engine.load(&beside(&nodes, &[ints("c0", &[1])])).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::TooLarge, "{error}");
}
