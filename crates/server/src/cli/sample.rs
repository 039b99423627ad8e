//! A request that a model accepts, made from its signature alone: ones of the right shapes.

use std::fmt::Write as _;

use millrace_core::{Admission, DType, Dim, Group, SERVING_DEFAULT, Signature, Signatures, TENSORS, TensorSpec};

use crate::parts::pipelines;

/// The most elements that a request still worth printing has.
const MOST_SHOWN: usize = 256;
/// The most elements that are written at all.
const MOST: usize = 16 << 20;
/// Sizes to try for axes that the request chooses: the smallest that leaves every output a size.
const SIZES: [usize; 12] = [1, 2, 4, 8, 11, 16, 32, 64, 128, 224, 256, 512];

/// A request body, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sample {
    /// The body, and how many elements stand in it.
    Body(String, usize),
    /// TensorFlow Serving's JSON has no form for this dtype.
    NoJson(DType),
    /// No size of the open axes gives a request of reasonable size.
    NoSize,
}

impl Sample {
    /// Whether it fits a line of a terminal's history.
    pub(super) fn is_short(&self) -> bool {
        matches!(self, Self::Body(_, elements) if *elements <= MOST_SHOWN)
    }
}

/// A grey picture of one pixel.
const PICTURE: &str =
    "{\"b64\": \"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNoAAAAggCB2kUIOwAAAABJRU5ErkJggg==\"}";

/// A request of one row for the default signature of what `maker` (an engine or a pipeline) made.
pub(super) fn sample_of(signatures: &Signatures, maker: Option<&str>) -> Option<Sample> {
    let (_, signature) = signatures.find(SERVING_DEFAULT)?;
    let network = signatures.find(TENSORS).map(|(_, network)| network);
    let is_pipeline = maker.is_some_and(|maker| pipelines().iter().any(|pipeline| pipeline.name() == maker));
    // Every declared form and every pipeline here that takes bytes takes pictures.
    let is_picture = |spec: &TensorSpec| {
        let inner = network.and_then(|network| network.inputs().iter().find(|inner| inner.name == spec.name));
        spec.dtype == DType::Bytes && (is_pipeline || inner.is_some_and(|inner| inner.dtype != DType::Bytes))
    };
    Some(sample(signature, &is_picture))
}

/// A request of one row for `signature`.
fn sample(signature: &Signature, is_picture: &dyn Fn(&TensorSpec) -> bool) -> Sample {
    let carried = |spec: &&TensorSpec| matches!(spec.dtype, DType::Fp16 | DType::Bf16 | DType::Uint16);
    if let Some(spec) = signature.inputs().iter().chain(signature.outputs()).find(carried) {
        return Sample::NoJson(spec.dtype);
    }
    let Some(admission) =
        SIZES.iter().map(|&size| admission(signature, size)).find(|admission| fits(signature, admission))
    else {
        return Sample::NoSize;
    };
    let mut elements = 0_usize;
    let mut shapes = Vec::new();
    for spec in signature.inputs() {
        let sizes: Vec<usize> = spec.shape.iter().map(|dim| size(signature, &admission, dim)).collect();
        let count = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size)).unwrap_or(usize::MAX);
        elements = elements.saturating_add(count);
        shapes.push(sizes);
    }
    if elements > MOST {
        return Sample::NoSize;
    }
    let inputs: Vec<(&TensorSpec, Vec<usize>)> = signature.inputs().iter().zip(shapes).collect();
    Sample::Body(body(signature.is_batched(), &inputs, is_picture), elements)
}

/// Rows where the model takes rows, else columns.
fn body(is_batched: bool, inputs: &[(&TensorSpec, Vec<usize>)], is_picture: &dyn Fn(&TensorSpec) -> bool) -> String {
    let literal = |spec: &TensorSpec| if is_picture(spec) { PICTURE } else { literal(spec.dtype) };
    let mut text = String::from(if is_batched { "{\"instances\": [" } else { "{\"inputs\": " });
    let inner = |sizes: &Vec<usize>| if is_batched { sizes[1..].to_vec() } else { sizes.clone() };
    if let [(spec, sizes)] = inputs {
        nested(&mut text, literal(spec), &inner(sizes));
    } else {
        text.push('{');
        for (index, (spec, sizes)) in inputs.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let _ = write!(text, "{comma}{}: ", serde_json::Value::from(&*spec.name));
            nested(&mut text, literal(spec), &inner(sizes));
        }
        text.push('}');
    }
    text.push_str(if is_batched { "]}" } else { "}" });
    text
}

fn nested(text: &mut String, literal: &str, sizes: &[usize]) {
    let Some((size, inner)) = sizes.split_first() else {
        text.push_str(literal);
        return;
    };
    text.push('[');
    for index in 0..*size {
        if index > 0 {
            text.push_str(", ");
        }
        nested(text, literal, inner);
    }
    text.push(']');
}

fn literal(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "true",
        DType::Bytes => "\"text\"",
        DType::Fp16 | DType::Bf16 | DType::Fp32 | DType::Fp64 => "1.0",
        DType::Uint8
        | DType::Uint16
        | DType::Uint32
        | DType::Uint64
        | DType::Int8
        | DType::Int16
        | DType::Int32
        | DType::Int64 => "1",
    }
}

fn admission(signature: &Signature, size: usize) -> Admission {
    Admission { rows: 1, group: Group(signature.symbols().iter().map(|_| size).collect()) }
}

fn fits(signature: &Signature, admission: &Admission) -> bool {
    let positive = |output| match signature.output_shape(output, admission) {
        Ok(Some(shape)) => shape.n_elements() > 0,
        Ok(None) => true,
        Err(_) => false,
    };
    signature.outputs().iter().all(positive)
}

fn size(signature: &Signature, admission: &Admission, dim: &Dim) -> usize {
    match dim {
        Dim::Fixed(size) => *size,
        Dim::Symbol(symbol) => signature.symbol_value(admission, symbol).unwrap_or(1),
        // Inputs have neither; a signature with one is refused when it is made.
        Dim::Expr(_) | Dim::Unknown => 1,
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::{DType, Dim, DimExpr, Signature, Signatures, TensorSpec};

    use super::{PICTURE, Sample, sample, sample_of};

    fn check(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>, expected: &str) {
        match sample(&Signature::new(inputs, outputs).unwrap(), &|_| false) {
            Sample::Body(body, _) => assert_eq!(body, expected),
            other => panic!("{other:?}"),
        }
    }

    fn spec(name: &str, dtype: DType, shape: Vec<Dim>) -> TensorSpec {
        TensorSpec::new(name, dtype, shape)
    }

    #[test]
    fn one_batched_input_is_a_row() {
        let n = || Dim::symbol("N");
        check(
            vec![spec("x", DType::Fp32, vec![n(), Dim::Fixed(2)])],
            vec![spec("y", DType::Fp32, vec![n()])],
            r#"{"instances": [[1.0, 1.0]]}"#,
        );
        check(
            vec![spec("x", DType::Bytes, vec![n()])],
            vec![spec("y", DType::Bytes, vec![n()])],
            r#"{"instances": ["text"]}"#,
        );
    }

    #[test]
    fn several_inputs_are_named() {
        let n = || Dim::symbol("N");
        check(
            vec![spec("a", DType::Int32, vec![n()]), spec("b", DType::Bool, vec![n(), Dim::symbol("L")])],
            vec![spec("y", DType::Int32, vec![n()])],
            r#"{"instances": [{"a": 1, "b": [true]}]}"#,
        );
    }

    #[test]
    fn a_model_without_rows_gets_columns() {
        check(vec![spec("x", DType::Fp32, vec![])], vec![spec("y", DType::Fp32, vec![])], r#"{"inputs": 1.0}"#);
        check(
            vec![spec("x", DType::Fp64, vec![Dim::Fixed(1)])],
            vec![spec("y", DType::Fp64, vec![])],
            r#"{"inputs": [1.0]}"#,
        );
    }

    #[test]
    fn open_axes_are_large_enough_for_the_outputs() {
        let n = || Dim::symbol("N");
        let shrunk = Dim::Expr(DimExpr::Sum(vec![DimExpr::Symbol("H".into()), DimExpr::Number(-3)]));
        check(
            vec![spec("x", DType::Fp32, vec![n(), Dim::symbol("H")])],
            vec![spec("y", DType::Fp32, vec![n(), shrunk])],
            r#"{"instances": [[1.0, 1.0, 1.0, 1.0]]}"#,
        );
    }

    #[test]
    fn what_takes_pictures_gets_one() {
        let spec = |dtype| vec![spec("x", dtype, vec![Dim::symbol("N")])];
        let signature = |dtype| Signature::new(spec(dtype), spec(DType::Fp32)).unwrap();
        let declared = Signatures::single(signature(DType::Bytes)).with("tensors", signature(DType::Fp32));
        let body = |signatures: &Signatures, maker| match sample_of(signatures, maker) {
            Some(Sample::Body(body, _)) => body,
            other => panic!("{other:?}"),
        };
        let picture = format!("{{\"instances\": [{PICTURE}]}}");
        assert_eq!(body(&declared, Some("tract")), picture);
        let text = Signatures::single(signature(DType::Bytes));
        assert_eq!(body(&text, Some("tract")), r#"{"instances": ["text"]}"#);
        #[cfg(feature = "face")]
        assert_eq!(body(&text, Some("face_detection")), picture);
    }

    #[test]
    fn dtypes_without_a_json_form_are_named() {
        let n = || Dim::symbol("N");
        let signature =
            Signature::new(vec![spec("x", DType::Fp16, vec![n()])], vec![spec("y", DType::Fp16, vec![n()])]);
        assert_eq!(sample(&signature.unwrap(), &|_| false), Sample::NoJson(DType::Fp16));
    }
}
