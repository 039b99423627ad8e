//! Rewritten graphs answer as the engine's own, and hold the operators that they should.

use std::collections::BTreeSet;

use millrace_testkit::fixture;
use proptest::prelude::*;
use tract_onnx::prelude::{
    DatumType, Framework, InferenceModelExt, TValue, TVec, Tensor, TypedFact, TypedModel, TypedSimplePlan, tvec,
};
use tract_onnx::tract_core::internal::{OutletId, SpecialOps, ToDim};
use tract_onnx::tract_core::ops::array::TypedConcat;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat, MaxPool, PaddingSpec, PoolSpec};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::logic::{Iff, comp_gt};
use tract_onnx::tract_core::ops::math::{add, max, min, mul};
use tract_onnx::tract_core::ops::nn::{DataFormat, Softmax, SoftmaxKind};
use tract_onnx::tract_core::ops::quant::{DequantizeLinearF32, quantize_linear_i8, quantize_linear_u8};

use super::{is_mostly_ours, rewrite};

/// A graph under construction, with one input.
struct Graph {
    model: TypedModel,
    last: OutletId,
    nodes: usize,
}

impl Graph {
    /// An input `[N, …sizes]`.
    fn new(sizes: &[usize]) -> Self {
        let mut model = TypedModel::default();
        let rows = model.symbols.sym("N").to_dim();
        let shape: TVec<_> = std::iter::once(rows).chain(sizes.iter().map(ToDim::to_dim)).collect();
        let last = model.add_source("x", TypedFact::dt_shape(DatumType::F32, &*shape)).unwrap();
        Self { model, last, nodes: 0 }
    }

    fn name(&mut self) -> String {
        self.nodes += 1;
        format!("node{}", self.nodes)
    }

    fn constant(&mut self, sizes: &[usize]) -> OutletId {
        let name = self.name();
        let seed = u32::try_from(self.nodes).unwrap();
        self.model.add_const(name, tensor(sizes, seed)).unwrap()
    }

    fn zero(&mut self) -> OutletId {
        let rank = self.model.outlet_fact(self.last).unwrap().rank();
        let name = self.name();
        self.model.add_const(name, Tensor::zero::<f32>(&vec![1; rank]).unwrap()).unwrap()
    }

    fn conv(mut self, inputs: usize, outputs: usize, side: usize, padding: PaddingSpec) -> Self {
        let (kernel, bias) = (self.constant(&[outputs, inputs, side, side]), self.constant(&[outputs]));
        let pool = PoolSpec::new(DataFormat::NCHW, tvec!(side, side), padding, None, None, inputs, outputs);
        let op = Conv::new(pool, KernelFormat::OIHW, 1, None);
        let name = self.name();
        self.last = self.model.wire_node(name, op, &[self.last, kernel, bias]).unwrap()[0];
        self
    }

    /// A matrix product with constant weights, which have their outputs first where that is said, and a bias.
    fn layer(mut self, inputs: usize, outputs: usize, has_outputs_first: bool) -> Self {
        let (axes, shape) =
            if has_outputs_first { ("mk,nk->mn", [outputs, inputs]) } else { ("mk,kn->mn", [inputs, outputs]) };
        let (weights, bias) = (self.constant(&shape), self.constant(&[1, outputs]));
        let (name, op) = (self.name(), EinSum::new(axes.parse().unwrap(), DatumType::F32));
        self.last = self.model.wire_node(name, op, &[self.last, weights]).unwrap()[0];
        let name = self.name();
        self.last = self.model.wire_node(name, add(), &[self.last, bias]).unwrap()[0];
        self
    }

    /// A convolution of `groups` groups.
    fn grouped(mut self, inputs: usize, outputs: usize, groups: usize, side: usize, padding: PaddingSpec) -> Self {
        let (kernel, bias) = (self.constant(&[outputs, inputs / groups, side, side]), self.constant(&[outputs]));
        let pool = PoolSpec::new(DataFormat::NCHW, tvec!(side, side), padding, None, None, inputs, outputs);
        let name = self.name();
        let op = Conv::new(pool, KernelFormat::OIHW, groups, None);
        self.last = self.model.wire_node(name, op, &[self.last, kernel, bias]).unwrap()[0];
        self
    }

    /// A convolution that takes every `stride`-th place.
    fn strided(mut self, inputs: usize, outputs: usize, side: usize, stride: usize) -> Self {
        let (kernel, bias) = (self.constant(&[outputs, inputs, side, side]), self.constant(&[outputs]));
        let (padding, strides) = (PaddingSpec::SameUpper, Some(tvec!(stride, stride)));
        let pool = PoolSpec::new(DataFormat::NCHW, tvec!(side, side), padding, None, strides, inputs, outputs);
        let name = self.name();
        let op = Conv::new(pool, KernelFormat::OIHW, 1, None);
        self.last = self.model.wire_node(name, op, &[self.last, kernel, bias]).unwrap()[0];
        self
    }

    /// As the engine reads ONNX's `Clip` between 0 and `high`.
    fn clip(mut self, high: f32) -> Self {
        self = self.relu();
        let (limit, name) = (self.name(), self.name());
        let high = Tensor::from_shape(&[1, 1, 1, 1], &[high]).unwrap();
        let high = self.model.add_const(limit, high).unwrap();
        self.last = self.model.wire_node(name, min(), &[self.last, high]).unwrap()[0];
        self
    }

    /// As the engine reads `QuantizeLinear` and `DequantizeLinear` with an unsigned or signed zero point.
    fn steps(mut self, size: f32, zero: i32) -> Self {
        let (quantise, dequantise) = (self.name(), self.name());
        let op = match (u8::try_from(zero), i8::try_from(zero)) {
            (Ok(zero), _) => quantize_linear_u8(size.recip(), zero),
            (_, zero) => quantize_linear_i8(size.recip(), zero.unwrap()),
        };
        let integers = self.model.wire_node(quantise, op, &[self.last]).unwrap()[0];
        self.last = self.model.wire_node(dequantise, DequantizeLinearF32::new(size, zero), &[integers]).unwrap()[0];
        self
    }

    /// As the engine reads ONNX's `PRelu`.
    fn prelu(mut self, slopes: &[usize]) -> Self {
        let (slopes, zero) = (self.constant(slopes), self.zero());
        let (scaled, test, choice) = (self.name(), self.name(), self.name());
        let scaled = self.model.wire_node(scaled, mul(), &[self.last, slopes]).unwrap()[0];
        let test = self.model.wire_node(test, TypedBinOp(comp_gt(), None), &[zero, self.last]).unwrap()[0];
        self.last = self.model.wire_node(choice, Iff, &[test, scaled, self.last]).unwrap()[0];
        self
    }

    fn relu(mut self) -> Self {
        let zero = self.zero();
        let name = self.name();
        self.last = self.model.wire_node(name, max(), &[self.last, zero]).unwrap()[0];
        self
    }

    fn plus(mut self, other: OutletId) -> Self {
        let name = self.name();
        self.last = self.model.wire_node(name, add(), &[self.last, other]).unwrap()[0];
        self
    }

    fn pool(mut self, channels: usize, kernel: [usize; 2], strides: [usize; 2], padding: PaddingSpec) -> Self {
        let strides = Some(tvec!(strides[0], strides[1]));
        let kernel = tvec!(kernel[0], kernel[1]);
        let pool = PoolSpec::new(DataFormat::NCHW, kernel, padding, None, strides, channels, channels);
        let name = self.name();
        self.last = self.model.wire_node(name, MaxPool::new(pool, None), &[self.last]).unwrap()[0];
        self
    }

    fn softmax(mut self, axis: usize) -> Self {
        let name = self.name();
        let op = Softmax::new(tvec!(axis), None, SoftmaxKind::Softmax);
        self.last = self.model.wire_node(name, op, &[self.last]).unwrap()[0];
        self
    }

    fn done(mut self) -> TypedModel {
        self.model.select_output_outlets(&[self.last]).unwrap();
        self.model
    }
}

fn tensor(sizes: &[usize], seed: u32) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f32::from(u16::try_from(state >> 16).unwrap()) / 32_768.0 - 1.0
    };
    let numbers: Vec<f32> = (0..sizes.iter().product()).map(|_| next()).collect();
    Tensor::from_shape(sizes, &numbers).unwrap()
}

fn rewritten(model: &TypedModel) -> TypedModel {
    let mut model = model.clone();
    rewrite(&mut model).unwrap();
    model.into_decluttered().unwrap()
}

/// What `model` answers to `input`.
fn answer(model: &TypedModel, input: &Tensor) -> TVec<TValue> {
    let plan = TypedSimplePlan::new(model.clone().into_optimized().unwrap()).unwrap();
    plan.run(tvec!(input.clone().into())).unwrap()
}

/// The names of the operators in `model`, constants and sources left out.
fn operators(model: &TypedModel) -> BTreeSet<String> {
    let names = model.nodes().iter().map(|node| node.op.name().into_owned());
    names.filter(|name| name != "Const" && name != "Source").collect()
}

/// Checks that `model` becomes these operators and answers as before, within 1e-5 of the largest number. An infinity or
/// a NaN stays what it is.
fn check(model: &TypedModel, input: &Tensor, want: &[&str]) {
    let ours = rewritten(model);
    assert_eq!(operators(&ours), want.iter().map(|&name| name.to_owned()).collect());
    same(&answer(model, input), &answer(&ours, input));
}

fn same(want: &[TValue], got: &[TValue]) {
    assert_eq!(want.len(), got.len());
    for (want, got) in want.iter().zip(got) {
        assert_eq!(want.shape(), got.shape());
        let numbers = |value: &TValue| value.to_plain_array_view::<f32>().unwrap().iter().copied().collect::<Vec<_>>();
        let (want, got) = (numbers(want), numbers(got));
        let most =
            want.iter().filter(|number| number.is_finite()).fold(1e-6_f32, |most, number| most.max(number.abs()));
        for (place, (want, got)) in want.iter().zip(&got).enumerate() {
            let same = want == got || (want.is_nan() && got.is_nan()) || (want - got).abs() <= 1e-5 * most;
            assert!(same, "at {place}: expected {want}, got {got}");
        }
    }
}

fn valid() -> PaddingSpec {
    PaddingSpec::Valid
}

#[test]
fn a_convolution_and_its_prelu_are_one_operator() {
    let model = Graph::new(&[3, 12, 13]).conv(3, 10, 3, valid()).prelu(&[1, 10, 1, 1]).done();
    for rows in [1, 3, 17] {
        check(&model, &tensor(&[rows, 3, 12, 13], 9), &["DirectConv"]);
    }
}

#[test]
fn a_convolution_and_its_relu_are_one_operator() {
    let model = Graph::new(&[2, 9, 9]).conv(2, 5, 3, PaddingSpec::SameUpper).relu().done();
    check(&model, &tensor(&[2, 2, 9, 9], 4), &["DirectConv"]);
}

#[test]
fn relu_and_prelu_keep_nan_as_onnx_says() {
    for model in [
        Graph::new(&[2, 9, 9]).conv(2, 5, 3, valid()).relu().done(),
        Graph::new(&[2, 9, 9]).conv(2, 5, 3, valid()).prelu(&[1, 5, 1, 1]).done(),
    ] {
        let input = Tensor::from_shape(&[1, 2, 9, 9], &[f32::NAN; 162]).unwrap();
        let answers = answer(&rewritten(&model), &input);
        assert!(answers[0].to_plain_array_view::<f32>().unwrap().iter().all(|number| number.is_nan()));
    }
}

#[test]
fn infinities_go_through_a_convolution_as_before() {
    let model = Graph::new(&[2, 9, 9]).conv(2, 5, 3, valid()).prelu(&[1, 5, 1, 1]).done();
    let mut numbers: Vec<f32> = tensor(&[2 * 81], 3).to_plain_array_view::<f32>().unwrap().iter().copied().collect();
    (numbers[20], numbers[130]) = (f32::INFINITY, f32::NEG_INFINITY);
    check(&model, &Tensor::from_shape(&[1, 2, 9, 9], &numbers).unwrap(), &["DirectConv"]);
}

#[test]
fn a_pointwise_convolution_keeps_its_bias() {
    let model = Graph::new(&[8, 7, 9]).conv(8, 6, 1, valid()).relu().done().into_decluttered().unwrap();
    assert!(operators(&model).contains("EinSum"), "the engine reads it as a product: {:?}", operators(&model));
    check(&model, &tensor(&[3, 8, 7, 9], 2), &["DirectConv"]);
}

#[test]
fn what_others_read_too_is_not_swallowed() {
    let mut graph = Graph::new(&[2, 9, 9]).conv(2, 5, 3, valid());
    let sums = graph.last;
    graph = graph.prelu(&[1, 5, 1, 1]);
    let end = graph.last;
    let mut model = graph.done();
    model.select_output_outlets(&[sums, end]).unwrap();
    check(&model, &tensor(&[2, 2, 9, 9], 4), &["DirectConv", "Prelu"]);
    let mut graph = Graph::new(&[2, 9, 9]).conv(2, 5, 3, valid());
    let sums = graph.last;
    graph = graph.relu();
    let end = graph.last;
    let mut model = graph.done();
    model.select_output_outlets(&[sums, end]).unwrap();
    check(&model, &tensor(&[2, 2, 9, 9], 4), &["DirectConv", "Max"]);
}

#[test]
fn a_prelu_without_a_convolution_is_one_operator() {
    for (sizes, slopes) in [(&[6][..], &[1, 6][..]), (&[4, 3, 5], &[1, 4, 1, 1]), (&[4, 3, 5], &[1, 1, 1, 1])] {
        let shape = [&[3], sizes].concat();
        check(&Graph::new(sizes).prelu(slopes).done(), &tensor(&shape, 8), &["Prelu"]);
    }
    // Two axes of slopes are left to the engine.
    let model = Graph::new(&[4, 3]).prelu(&[1, 4, 3]).done();
    check(&model, &tensor(&[2, 4, 3], 8), &["GT", "Iff", "Mul"]);
}

#[test]
fn the_end_of_a_residual_block_is_one_operator() {
    let graph = Graph::new(&[4, 8, 8]);
    let input = graph.last;
    let model = graph.conv(4, 4, 3, PaddingSpec::SameUpper).plus(input).relu().done();
    check(&model, &tensor(&[2, 4, 8, 8], 6), &["AddRelu", "DirectConv"]);
}

#[test]
fn groups_are_convolved_one_after_the_other() {
    let model = Graph::new(&[6, 8, 9]).grouped(6, 4, 2, 3, valid()).relu().done();
    check(&model, &tensor(&[3, 6, 8, 9], 6), &["DirectConv"]);
    // Whole blocks of channels stay blocks.
    let model = Graph::new(&[64, 8, 9]).grouped(64, 32, 2, 3, valid()).relu().done();
    check(&model, &tensor(&[2, 64, 8, 9], 6), &["BlockConv", "Unblock"]);
}

#[test]
fn an_inverted_residual_block_is_three_convolutions() {
    let graph = Graph::new(&[24, 9, 11]).conv(24, 24, 1, valid());
    let input = graph.last;
    let model = graph
        .conv(24, 144, 1, valid())
        .clip(6.0)
        .grouped(144, 144, 144, 3, PaddingSpec::SameUpper)
        .clip(6.0)
        .conv(144, 24, 1, valid())
        .plus(input)
        .done();
    check(&model, &tensor(&[3, 24, 9, 11], 6), &["BlockConv", "Unblock"]);
    let ours = rewritten(&model);
    assert!(is_mostly_ours(&ours));
    assert_eq!(ours.nodes().iter().filter(|node| node.op.name() == "BlockConv").count(), 4);
}

#[test]
fn a_bottleneck_with_a_stride_is_four_convolutions_and_a_pool() {
    let mut graph = Graph::new(&[3, 20, 20]).conv(3, 32, 3, PaddingSpec::SameUpper).relu().pool(
        32,
        [3, 3],
        [2, 2],
        PaddingSpec::SameUpper,
    );
    let input = graph.last;
    graph = graph.conv(32, 16, 1, valid()).relu().strided(16, 16, 3, 2).relu().conv(16, 64, 1, valid());
    let branch = std::mem::replace(&mut graph.last, input);
    let model = graph.strided(32, 64, 1, 2).plus(branch).relu().done();
    let model = model.into_decluttered().unwrap();
    check(&model, &tensor(&[2, 3, 20, 20], 6), &["BlockConv", "BlockPool", "Unblock"]);
}

#[test]
fn a_quantisation_and_its_inverse_are_one_step_and_a_convolution_does_it() {
    for zero in [0, 131, 255, -7] {
        check(&Graph::new(&[5, 7]).steps(0.013, zero).done(), &tensor(&[3, 5, 7], 6), &["Steps"]);
        let model = Graph::new(&[3, 9, 9]).conv(3, 5, 3, valid()).steps(0.03, zero).done();
        check(&model, &tensor(&[2, 3, 9, 9], 6), &["DirectConv"]);
        let model = Graph::new(&[16, 9, 9]).conv(16, 32, 3, valid()).steps(0.05, zero).done();
        check(&model, &tensor(&[2, 16, 9, 9], 6), &["BlockConv", "Unblock"]);
    }
}

#[test]
fn a_quantisation_that_its_neighbour_does_not_undo_is_left_alone() {
    let mut graph = Graph::new(&[5, 7]);
    let name = graph.name();
    graph.last = graph.model.wire_node(name, quantize_linear_u8(8.0, 100), &[graph.last]).unwrap()[0];
    let name = graph.name();
    graph.last = graph.model.wire_node(name, DequantizeLinearF32::new(0.25, 100), &[graph.last]).unwrap()[0];
    check(&graph.done(), &tensor(&[3, 5, 7], 6), &["DequantizeLinearF32", "QuantizeLinearU8"]);
}

#[test]
fn branches_are_joined_as_blocks() {
    let mut graph = Graph::new(&[16, 7, 7]);
    let input = graph.last;
    graph = graph.conv(16, 32, 1, valid()).relu();
    let branch = std::mem::replace(&mut graph.last, input);
    graph = graph.conv(16, 48, 3, PaddingSpec::SameUpper).relu();
    let name = graph.name();
    graph.last = graph.model.wire_node(name, TypedConcat { axis: 1 }, &[branch, graph.last]).unwrap()[0];
    let model = graph.conv(80, 16, 1, valid()).done();
    check(&model, &tensor(&[2, 16, 7, 7], 6), &["BlockConv", "Concat", "Unblock"]);
}

#[test]
fn what_others_read_of_blocks_is_turned_back() {
    let mut graph = Graph::new(&[16, 7, 7]).conv(16, 32, 1, valid());
    let sums = graph.last;
    graph = graph.relu().conv(32, 16, 3, valid());
    let end = graph.last;
    let mut model = graph.done();
    model.select_output_outlets(&[sums, end]).unwrap();
    check(&model, &tensor(&[2, 16, 7, 7], 4), &["BlockConv", "Max", "Unblock"]);
}

#[test]
fn softmax_of_extreme_numbers_is_what_it_was() {
    let model = Graph::new(&[2, 3, 3]).softmax(1).done();
    let special = [0.0, -0.0, 1e-30, 88.0, -88.0, 200.0, -200.0, f32::MAX, f32::MIN];
    let other = [0.0, 0.0, 87.0, -88.0, 88.0, -3.0, 3.0, 1.0, -1.0];
    check(&model, &Tensor::from_shape(&[1, 2, 3, 3], &[special, other].concat()).unwrap(), &["PlaneSoftmax"]);
    let not_finite = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::INFINITY, f32::NEG_INFINITY, 0.0, 0.0, 0.0, 0.0];
    let finite = [0.0, 0.0, 0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0, 2.0, 3.0];
    let input = Tensor::from_shape(&[1, 2, 3, 3], &[not_finite, finite].concat()).unwrap();
    let answers = answer(&rewritten(&model), &input);
    let got: Vec<f32> = answers[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect();
    // e^(-∞) is 0; wherever ∞ - ∞ or a NaN takes part, all classes are NaN.
    for (place, want) in [(2, 0.0), (11, 1.0), (6, 1.0 / (1.0 + 1_f32.exp()))] {
        assert!((got[place] - want).abs() < 1e-6, "{got:?}");
    }
    for place in [0, 9, 3, 12, 4, 13, 5, 14, 1, 10] {
        assert!(got[place].is_nan() || (place == 10 && got[place] == 0.0), "at {place}: {got:?}");
    }
}

#[test]
fn the_face_networks_become_our_operators_and_answer_as_before() {
    for (network, sizes, left) in [
        ("mtcnn_pnet", [2, 3, 41, 57], &["BlockConv", "DirectConv", "PlaneSoftmax", "RowPool", "Unblock"][..]),
        (
            "mtcnn_rnet",
            [18, 3, 24, 24],
            &["Add", "BlockConv", "BlockPool", "Dense", "EinSum", "Prelu", "Softmax", "Unblock"],
        ),
        (
            "mtcnn_onet",
            [3, 3, 48, 48],
            &["Add", "BlockConv", "BlockPool", "Dense", "EinSum", "Prelu", "Softmax", "Unblock"],
        ),
        (
            "face_embedding",
            [1, 3, 150, 150],
            &["AddRelu", "BlockConv", "BlockPool", "EinSum", "Mul", "Pad", "Reduce<Sum>", "Sub", "SumPool", "Unblock"],
        ),
    ] {
        let path = fixture(&format!("face-models/{network}/1/model.onnx"));
        let model = tract_onnx::onnx().model_for_path(path).unwrap().into_typed().unwrap().into_decluttered().unwrap();
        check(&model, &tensor(&sizes, 5), left);
        assert!(is_mostly_ours(&rewritten(&model)), "{network}");
    }
}

#[test]
fn a_small_network_becomes_one_operator_and_what_follows_it() {
    let path = fixture("models/fraud/1/model.onnx");
    let model = tract_onnx::onnx().model_for_path(path).unwrap().into_typed().unwrap().into_decluttered().unwrap();
    for rows in [1, 2, 15, 40] {
        check(&model, &tensor(&[rows, 10], 5), &["Dense", "Sigmoid"]);
    }
    assert_eq!(rewritten(&model).nodes().iter().filter(|node| node.op.name() == "Dense").count(), 1);
    assert!(is_mostly_ours(&rewritten(&model)));
}

#[test]
fn a_large_layer_stays_the_engines() {
    let model = Graph::new(&[200]).layer(200, 100, false).relu().layer(100, 3, true).done();
    check(&model, &tensor(&[5, 200], 5), &["Add", "Dense", "EinSum", "Max"]);
    assert!(!is_mostly_ours(&rewritten(&model)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_pool_takes_the_same_numbers(
        channels in 1_usize..4,
        height in 1_usize..12,
        width in 1_usize..40,
        kernel in prop::array::uniform2(1_usize..5),
        strides in prop::array::uniform2(1_usize..4),
        pads in prop::array::uniform4(0_usize..2),
        kind in 0_usize..4,
    ) {
        let (before, after) = (tvec!(pads[0].min(kernel[0] - 1), pads[1].min(kernel[1] - 1)),
            tvec!(pads[2].min(kernel[0] - 1), pads[3].min(kernel[1] - 1)));
        let padding = match kind {
            0 => PaddingSpec::SameUpper,
            1 => PaddingSpec::ExplicitOnnxPool(before, after, true),
            2 => PaddingSpec::Explicit(before, after),
            _ => PaddingSpec::Valid,
        };
        prop_assume!(height >= kernel[0] && width >= kernel[1]);
        let model = Graph::new(&[channels, height, width]).pool(channels, kernel, strides, padding).done();
        check(&model, &tensor(&[2, channels, height, width], 3), &["RowPool"]);
    }

    #[test]
    fn any_softmax_gives_the_same_shares(
        classes in 1_usize..5,
        plane in prop::array::uniform2(2_usize..40),
        scale in prop_oneof![Just(1.0_f32), Just(30.0), Just(300.0)],
    ) {
        let shape = [2, classes, plane[0], plane[1]];
        let numbers: Vec<f32> =
            tensor(&shape, 3).to_plain_array_view::<f32>().unwrap().iter().map(|number| number * scale).collect();
        let model = Graph::new(&shape[1..]).softmax(1).done();
        check(&model, &Tensor::from_shape(&shape, &numbers).unwrap(), &["PlaneSoftmax"]);
    }

    #[test]
    fn any_layers_answer_as_the_engine(
        sizes in prop::array::uniform3(1_usize..70),
        rows in 1_usize..40,
        orders in prop::array::uniform2(any::<bool>()),
        has_activation in any::<bool>(),
    ) {
        let [inputs, hidden, outputs] = sizes;
        let graph = Graph::new(&[inputs]).layer(inputs, hidden, orders[0]);
        let graph = if has_activation { graph.relu() } else { graph };
        let model = graph.layer(hidden, outputs, orders[1]).done();
        check(&model, &tensor(&[rows, inputs], 7), &["Dense"]);
    }

    #[test]
    fn any_convolution_answers_as_the_engine(
        channels in prop::array::uniform2(1_usize..6),
        height in 4_usize..20,
        width in 4_usize..60,
        side in 1_usize..4,
        rows in prop_oneof![1_usize..3, Just(13)],
        padded in any::<bool>(),
    ) {
        let padding = if padded { PaddingSpec::SameUpper } else { PaddingSpec::Valid };
        let [inputs, outputs] = channels;
        let model =
            Graph::new(&[inputs, height, width]).conv(inputs, outputs, side, padding).prelu(&[1, outputs, 1, 1]).done();
        check(&model, &tensor(&[rows, inputs, height, width], 7), &["DirectConv"]);
    }
}
