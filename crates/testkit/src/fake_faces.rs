//! A detector without an engine: answers whose number of rows differs from picture to picture, for tests of front-ends.

use std::sync::Arc;

use millrace_core::{
    DType, Dim, InferRequest, InputError, ModelName, Reason, Refusal, Signature, Tensor, TensorList, TensorSpec, Wanted,
};

/// Finds as many faces as a picture says: the picture `3` has three of them. Face `j` has the box `[j, j, j+0.5, j+0.5]`
/// and the confidence 1 / 2^j.
///
/// | picture | answer |
/// |---|---|
/// | a number below 100 | so many faces |
/// | `large` | refused as too large |
/// | `lie` | a face more is counted than there are |
/// | anything else | refused as no picture |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeFaces {
    /// Each output for itself.
    Lists,
    /// Both as fields of the record `faces`.
    Records,
}

impl FakeFaces {
    /// `image` BYTES `[N]` to `bbox` FP32 `[?,4]` and `confidence` FP32 `[?]`, both ragged by `counts` INT32 `[N]`.
    pub fn signature(self) -> Signature {
        let field = |name: &str, dims: &[Dim]| {
            let spec = TensorSpec::new(name, DType::Fp32, dims.to_vec()).ragged_by("counts");
            match self {
                Self::Lists => spec,
                Self::Records => spec.in_record("faces"),
            }
        };
        let n = || [Dim::symbol("N")];
        let outputs = vec![
            field("bbox", &[Dim::Unknown, Dim::Fixed(4)]),
            field("confidence", &[Dim::Unknown]),
            TensorSpec::new("counts", DType::Int32, n()),
        ];
        Signature::new(vec![TensorSpec::new("image", DType::Bytes, n())], outputs).expect("it is one")
    }

    /// The wanted outputs of a request that fits the signature.
    ///
    /// # Errors
    /// The first picture that cannot be looked at, as a pipeline would say it for `model`.
    pub fn find(self, model: &ModelName, request: &InferRequest) -> Result<TensorList, Refusal> {
        let pictures = request.inputs[0].strings().expect("a picture is BYTES");
        let mut counts = Vec::new();
        let (mut boxes, mut confidences) = (Vec::new(), Vec::new());
        for (index, picture) in pictures.iter().enumerate() {
            let input = || Arc::from("image");
            let text = std::str::from_utf8(picture).unwrap_or_default();
            let found = match text {
                "large" => {
                    let text = format!("model `{model}`: input `image`, instance {index}: more pixels than the limit");
                    return Err(Refusal::new(Reason::TooLarge, text));
                }
                "lie" => 1,
                number => number.parse().ok().filter(|number| *number < 100_u8).ok_or_else(|| {
                    let detail = "the bytes are no picture".to_owned();
                    InputError::Instance { input: input(), index, detail }.refusal(model)
                })?,
            };
            counts.push(i32::from(found) + i32::from(text == "lie"));
            boxes.extend((0..found).map(f32::from).flat_map(|face| [face, face, face + 0.5, face + 0.5]));
            confidences.extend((0..found).map(|face| 0.5_f32.powi(face.into())));
        }
        let tensor = |sizes: &[usize], elements| Tensor::from_vec(sizes, elements).expect("sizes that fit");
        let n_faces = confidences.len();
        let outputs: [Tensor; 3] = [
            tensor(&[n_faces, 4], boxes),
            tensor(&[n_faces], confidences),
            Tensor::from_vec(&[counts.len()], counts).expect("one count for each picture"),
        ];
        Ok(match &request.wanted {
            Wanted::All => outputs.into_iter().collect(),
            Wanted::Only(indices) => indices.iter().map(|&index| outputs[index].clone()).collect(),
        })
    }
}
