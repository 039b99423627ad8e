use std::sync::Arc;

use millrace_core::{LoadError, LoadErrorKind, MemoryFiles, ModelSource};
use millrace_onnx::Model;

use super::{MOST, check};

#[path = "../../tests/it/builder.rs"]
mod builder;
use builder::{field, node, number, value};

/// Element types as the format numbers them.
const FP32: u8 = 1;
const INT64: u8 = 7;
const FP64: u8 = 11;

/// Bytes of a list of one size, whose place what is made of it takes.
const SHAPE: u64 = 8;

/// Checks a model of this graph, under a budget of so many bytes.
fn checked(graph: &[u8], budget: u64) -> Result<u64, LoadError> {
    let file = [number(1, 8), field(7, graph)].concat();
    let files = MemoryFiles::default().with("model.onnx", file.clone());
    let mut source = ModelSource::new("constants".parse().unwrap(), 1, Arc::new(files));
    source.memory_budget = budget;
    check("model.onnx", &Model::parse(&file).unwrap(), &source)
}

/// A list of INT64 with its name.
fn ints(name: &str, elements: &[i64]) -> Vec<u8> {
    let data: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
    let count = u8::try_from(elements.len()).unwrap();
    field(5, &[number(1, count), number(2, INT64), field(8, name.as_bytes()), field(9, &data)].concat())
}

/// A node that fills the shape `shape` with elements of this type.
fn filled(shape: &str, output: &str, element: u8) -> Vec<u8> {
    let one = field(5, &[number(1, 1), number(2, element)].concat());
    let value = [field(1, b"value"), one, vec![0xa0, 0x01, 4]].concat();
    field(1, &node(&[shape], output, "ConstantOfShape", &value))
}

#[test]
fn sizes_are_bytes_of_the_elements_own_width() {
    const COUNT: i64 = 1 << 20;
    for (element, width) in [(FP32, 4), (INT64, 8), (FP64, 8)] {
        let graph = [filled("s", "big", element), ints("s", &[COUNT])].concat();
        let bytes = COUNT.unsigned_abs() * width - SHAPE;
        assert_eq!(checked(&graph, u64::MAX).unwrap(), bytes);
        assert!(checked(&graph, bytes).is_ok());
        let error = checked(&graph, bytes - 1).unwrap_err();
        assert_eq!(error.kind(), LoadErrorKind::TooLarge, "{error}");
    }
    let to = |element: u8| [field(1, b"to"), number(3, element), vec![0xa0, 0x01, 2]].concat();
    let cast = field(1, &node(&["big"], "wide", "Cast", &to(FP64)));
    let graph = [filled("s", "big", FP32), cast, ints("s", &[COUNT])].concat();
    assert_eq!(checked(&graph, u64::MAX).unwrap(), COUNT.unsigned_abs() * 8 - SHAPE);
}

#[test]
fn without_a_budget_there_is_a_limit_in_bytes() {
    let elements = |count: u64| [filled("s", "big", INT64), ints("s", &[i64::try_from(count).unwrap()])].concat();
    assert!(checked(&elements(MOST / 8), u64::MAX).is_ok());
    // The files' own bytes raise it by a little.
    let error = checked(&elements(MOST / 8 + (1 << 10)), u64::MAX).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::TooLarge, "{error}");
}

#[test]
fn ranges_run_both_ways() {
    let range = |from: i64, to: i64, step: i64| {
        let limits = [ints("from", &[from]), ints("to", &[to]), ints("step", &[step])].concat();
        let node = field(1, &node(&["from", "to", "step"], "r", "Range", b""));
        checked(&[node, limits].concat(), u64::MAX).unwrap()
    };
    // What lies in the file already, one element, is not counted again.
    assert_eq!(range(0, 100, 3), 33 * 8);
    assert_eq!(range(0, -100, -3), 33 * 8);
    assert_eq!(range(-100, 0, 1), 99 * 8);
    assert_eq!(range(0, -100, 1), 0);
}

/// A node with a graph inside.
fn around(graph: &[u8]) -> Vec<u8> {
    let branch = [field(1, b"then_branch"), field(6, graph), vec![0xa0, 0x01, 5]].concat();
    field(1, &node(&["c"], "", "If", &branch))
}

#[test]
fn inner_graphs_see_the_constants_around_them_until_they_hide_them() {
    let inner = filled("s", "big", INT64);
    let graph = |inner: &[u8]| [around(&around(inner)), ints("s", &[1000])].concat();
    assert_eq!(checked(&graph(&inner), u64::MAX).unwrap(), 8 * 999);
    let hidden = [inner.clone(), ints("s", &[500])].concat();
    assert_eq!(checked(&graph(&hidden), u64::MAX).unwrap(), 8 * 499);
    let input = [inner, field(11, &value("s"))].concat();
    assert_eq!(checked(&graph(&input), u64::MAX).unwrap(), 0);
}

/// A graph inside costs what stands in it: to copy what stands around it would take hours here.
#[test]
fn many_inner_graphs_beside_many_constants_are_checked_at_once() {
    const MANY: usize = 20_000;
    let inner = around(&filled("i0", "x", FP32));
    let mut graph: Vec<u8> = (0..MANY).flat_map(|_| inner.iter().copied()).collect();
    (0..MANY).for_each(|index| graph.extend(ints(&format!("i{index}"), &[3])));
    // Three floats from one number of eight bytes, each time.
    assert_eq!(checked(&graph, u64::MAX).unwrap(), 4 * MANY as u64);
}

/// Sizes of every rank up to that many would take more memory than there is.
#[test]
fn ranks_do_not_grow_from_node_to_node() {
    const MANY: usize = 100_000;
    let step = |index: usize| {
        let (from, to) = (format!("c{index}"), format!("c{}", index + 1));
        field(1, &node(&[&from, "one", "values"], &to, "OneHot", b""))
    };
    let mut graph: Vec<u8> = (0..MANY).flat_map(step).collect();
    graph.extend([ints("c0", &[1]), ints("one", &[1]), ints("values", &[0, 1])].concat());
    assert_eq!(checked(&graph, u64::MAX).unwrap(), 0);
}
