//! Inputs and outputs as an operator's file declares them, and the check that the loaded model has them.

use millrace_core::{DType, Dim, LoadError, LoadErrorKind, Signature, TensorSpec};

use super::FILE;

/// What a `config.pbtxt` says about a model's tensors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Declared {
    /// The most rows of a request; 0 for a model without a batch axis. With more than 0, `dims` leave the batch axis out.
    pub max_batch_size: Option<usize>,
    /// The inputs; all of the model's, or none.
    pub inputs: Vec<DeclaredTensor>,
    /// Some of the outputs.
    pub outputs: Vec<DeclaredTensor>,
}

/// One declared input or output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeclaredTensor {
    /// Its name.
    pub name: String,
    /// Its type, where said.
    pub dtype: Option<DType>,
    /// Its axes, `None` where the size varies; `None` as a whole where nothing is said.
    pub dims: Option<Vec<Option<usize>>>,
}

impl Declared {
    /// Checks that a loaded model is what was declared.
    ///
    /// # Errors
    /// [`LoadError`] (`Invalid`), naming the tensor and both sides.
    pub(crate) fn check(&self, signature: &Signature) -> Result<(), LoadError> {
        for (what, declared, specs) in
            [("input", &self.inputs, signature.inputs()), ("output", &self.outputs, signature.outputs())]
        {
            for tensor in declared {
                let spec = specs.iter().find(|spec| *spec.name == *tensor.name).ok_or_else(|| {
                    let known: Vec<&str> = specs.iter().map(|spec| &*spec.name).collect();
                    invalid(format!("the model has no {what} `{}`; it has {}", tensor.name, known.join(", ")))
                })?;
                self.check_one(what, tensor, spec)?;
            }
        }
        let missing = |spec: &&TensorSpec| !self.inputs.iter().any(|input| *input.name == *spec.name);
        match signature.inputs().iter().find(missing).filter(|_| !self.inputs.is_empty()) {
            Some(spec) => Err(invalid(format!("the model's input `{}` is not in it", spec.name))),
            None => Ok(()),
        }
    }

    fn check_one(&self, what: &str, tensor: &DeclaredTensor, spec: &TensorSpec) -> Result<(), LoadError> {
        let name = &tensor.name;
        if let Some(dtype) = tensor.dtype.filter(|dtype| *dtype != spec.dtype) {
            let text = format!("{what} `{name}`: it says {dtype}, the model has {}", spec.dtype);
            return Err(invalid(text));
        }
        let axes = match self.max_batch_size {
            Some(most) if most > 0 => match spec.shape.split_first() {
                Some((Dim::Fixed(_), _)) | None => {
                    let text = format!(
                        "{what} `{name}`: `max_batch_size` is {most}, but the model's {spec} has no batch axis"
                    );
                    return Err(invalid(text));
                }
                Some((_, rest)) => rest,
            },
            // Nothing said how to count: with the batch axis or without, whichever fits.
            None => match (&tensor.dims, spec.shape.split_first()) {
                (Some(dims), Some((Dim::Symbol(_) | Dim::Expr(_) | Dim::Unknown, rest)))
                    if dims.len() == rest.len() =>
                {
                    rest
                }
                _ => &spec.shape,
            },
            Some(_) => &spec.shape,
        };
        let Some(dims) = &tensor.dims else { return Ok(()) };
        let fits = dims.len() == axes.len() && dims.iter().zip(axes).all(|(dim, axis)| fits(*dim, axis));
        if fits {
            return Ok(());
        }
        let shown: Vec<String> = dims.iter().map(|dim| dim.map_or("-1".to_owned(), |size| size.to_string())).collect();
        let counted = if axes.len() == spec.shape.len() { "" } else { ", whose first axis is the batch" };
        Err(invalid(format!("{what} `{name}`: its dims are [{}], the model has {spec}{counted}", shown.join(","))))
    }
}

/// A size that the model leaves open may be narrowed; one that it fixes must be that one.
fn fits(declared: Option<usize>, axis: &Dim) -> bool {
    match axis {
        Dim::Fixed(size) => declared == Some(*size),
        Dim::Symbol(_) | Dim::Expr(_) | Dim::Unknown => true,
    }
}

fn invalid(text: impl std::fmt::Display) -> LoadError {
    LoadError::new(LoadErrorKind::Invalid, format!("{FILE}: {text}"))
}
