//! The inner models: which roles there are, whether a model fits its role, and asking it.

use std::fmt;
use std::sync::Arc;

use millrace_core::{
    DType, Dim, InferRequest, LoadError, LoadErrorKind, ModelName, OwnedModelRef, PipelineSource, Quoted, Reason,
    Refusal, RequestContext, Resolver, Servable, Signature, Signatures, Tensor, TensorSpec, Wanted,
};
use smallvec::SmallVec;

use crate::clock;

/// What a model must take and give to play a part. All tensors are FP32.
#[derive(Debug)]
pub(crate) struct Role {
    /// The name in `[models]`.
    pub(crate) name: &'static str,
    /// The axes of the one input, whatever its name.
    input: &'static [Axis],
    /// The outputs that are used, by name.
    outputs: &'static [(&'static str, &'static [Axis])],
}

/// One axis of a tensor.
#[derive(Debug, Clone, Copy)]
enum Axis {
    /// Any number of rows, called `N`.
    Rows,
    /// A size that the request chooses.
    Free(&'static str),
    /// This size.
    Size(usize),
}

use Axis::{Free, Rows, Size};

/// Proposes windows on one level of the pyramid.
pub(crate) const PNET: Role = Role {
    name: "pnet",
    input: &[Rows, Size(3), Free("H"), Free("W")],
    outputs: &[("prob", &[Rows, Size(2), Free("h"), Free("w")]), ("reg", &[Rows, Size(4), Free("h"), Free("w")])],
};
/// Refines crops of 24 x 24.
pub(crate) const RNET: Role = Role {
    name: "rnet",
    input: &[Rows, Size(3), Size(24), Size(24)],
    outputs: &[("prob", &[Rows, Size(2)]), ("reg", &[Rows, Size(4)])],
};
/// Refines crops of 48 x 48 and finds landmarks.
pub(crate) const ONET: Role = Role {
    name: "onet",
    input: &[Rows, Size(3), Size(48), Size(48)],
    outputs: &[("prob", &[Rows, Size(2)]), ("reg", &[Rows, Size(4)]), ("landmarks", &[Rows, Size(10)])],
};
/// Describes chips of 150 x 150.
pub(crate) const EMBEDDING: Role = Role {
    name: "embedding",
    input: &[Rows, Size(3), Size(150), Size(150)],
    outputs: &[("embedding", &[Rows, Size(128)])],
};

/// The models that a pipeline asks, by role.
#[derive(Debug)]
pub(crate) struct Cast {
    owner: ModelName,
    resolver: Arc<dyn Resolver>,
    parts: Vec<(&'static Role, OwnedModelRef)>,
}

impl Cast {
    /// Gives every role its model and sees that it fits.
    ///
    /// # Errors
    /// [`LoadError`]: `Missing` for a model that does not serve now, `Invalid` for a role that has no model or does not
    /// exist, and for a model that does not fit.
    pub(crate) fn new(source: &PipelineSource, roles: &[&'static Role]) -> Result<Self, LoadError> {
        let invalid = |text: String| LoadError::new(LoadErrorKind::Invalid, text);
        let names = || roles.iter().map(|role| format!("`{}`", role.name)).collect::<Vec<_>>().join(", ");
        if let Some(unknown) = source.models.keys().find(|name| roles.iter().all(|role| role.name != name.as_str())) {
            return Err(invalid(format!("[models] has the unknown role {}; there are {}", Quoted(unknown), names())));
        }
        let mut parts = Vec::with_capacity(roles.len());
        for role in roles {
            let Some(model) = source.models.get(role.name) else {
                let text = format!("[models] lacks the role `{}`: expected a model that takes {role}", role.name);
                return Err(invalid(text));
            };
            parts.push((*role, model.clone()));
        }
        let cast = Self { owner: source.model.clone(), resolver: Arc::clone(&source.resolver), parts };
        let context = RequestContext::new(clock::now());
        for (role, model) in &cast.parts {
            let servable = cast.resolver.resolve(&model.borrowed(), &context).map_err(|refusal| {
                let text = format!("role `{}`: the model {model} does not serve: {refusal}", role.name);
                LoadError::new(LoadErrorKind::Missing, text).with_cause(refusal)
            })?;
            role.place(servable.signatures()).map_err(|misfit| {
                let version = servable.version();
                invalid(format!("role `{}`: the model {model} (version {version}) does not fit: {misfit}", role.name))
            })?;
        }
        Ok(cast)
    }

    /// The pipeline's own name.
    pub(crate) fn owner(&self) -> &ModelName {
        &self.owner
    }

    /// The version that plays `role` for one request.
    ///
    /// # Errors
    /// `NotReady` where it does not serve any more, or was replaced by one that does not fit; else the resolver's refusal.
    pub(crate) fn resolve(&self, role: &'static Role, context: &RequestContext) -> Result<Network, Refusal> {
        let part = self.parts.iter().find(|(known, _)| known.name == role.name);
        let (_, model) = part.expect("a pipeline asks only for roles that it was made with");
        let refused = |refusal| self.reworded(model.name(), None, &refusal);
        let servable = self.resolver.resolve(&model.borrowed(), context).map_err(refused)?;
        let place = role.place(servable.signatures()).map_err(|misfit| {
            let text = format!("version {} does not fit the role `{}`: {misfit}", servable.version(), role.name);
            self.reworded(model.name(), None, &Refusal::new(Reason::NotReady, text))
        })?;
        Ok(Network { role, servable, place })
    }

    /// An inner refusal in the pipeline's own words. That an inner model is not there is not the caller's mistake; that
    /// it cannot take what was made of a picture says something about the picture.
    pub(crate) fn reworded(&self, inner: &ModelName, instance: Option<(&str, usize)>, refusal: &Refusal) -> Refusal {
        let own = format!("model `{inner}`: ");
        let text = refusal.message();
        let text = text.strip_prefix(own.as_str()).unwrap_or(text);
        let (owner, reason) = (&self.owner, refusal.reason());
        let message = match (reason, instance) {
            (Reason::InvalidInput | Reason::TooLarge, Some((input, index))) => {
                format!("model `{owner}`: input `{input}`, instance {index}: the inner model `{inner}`: {text}")
            }
            _ => format!("model `{owner}`: the inner model `{inner}`: {text}"),
        };
        match reason {
            Reason::ModelUnknown | Reason::VersionUnknown | Reason::LabelUnknown | Reason::SignatureUnknown => {
                let cause: Arc<dyn std::error::Error + Send + Sync> = Arc::new(refusal.clone());
                Refusal::new(Reason::NotReady, message).with_cause(cause)
            }
            _ => refusal.clone().reworded(message),
        }
    }
}

/// Where a role's tensors stand in a model.
#[derive(Debug)]
struct Place {
    signature: usize,
    outputs: SmallVec<[usize; 4]>,
}

impl Role {
    /// The first signature of a model that fits: one with a declared input has its network's own form as another.
    fn place(&self, signatures: &Signatures) -> Result<Place, String> {
        let mut first = None;
        for (index, (_, signature)) in signatures.iter().enumerate() {
            match self.fits(signature) {
                Ok(outputs) => return Ok(Place { signature: index, outputs }),
                Err(misfit) => _ = first.get_or_insert(misfit),
            }
        }
        Err(first.unwrap_or_else(|| "it has no signature".to_owned()))
    }

    fn fits(&self, signature: &Signature) -> Result<SmallVec<[usize; 4]>, String> {
        match signature.inputs() {
            [input] if fits(input, self.input) => {}
            [input] => return Err(format!("expected an input FP32{}, its input is {input}", Axes(self.input))),
            inputs => return Err(format!("expected one input FP32{}, it has {}", Axes(self.input), inputs.len())),
        }
        let position = |(name, axes): &(&str, &[Axis])| match signature.output_index(name) {
            Some(index) if fits(&signature.outputs()[index], axes) => Ok(index),
            Some(index) => {
                Err(format!("expected an output {name} FP32{}, it is {}", Axes(axes), signature.outputs()[index]))
            }
            None => Err(format!("expected an output {name} FP32{}, there is none of that name", Axes(axes))),
        };
        self.outputs.iter().map(position).collect()
    }
}

/// As it is written in errors: `FP32[N,3,24,24]`.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FP32{} and gives ", Axes(self.input))?;
        for (index, (name, axes)) in self.outputs.iter().enumerate() {
            let between = if index == 0 { "" } else { ", " };
            write!(f, "{between}{name} FP32{}", Axes(axes))?;
        }
        Ok(())
    }
}

fn fits(spec: &TensorSpec, axes: &[Axis]) -> bool {
    let fits = |(dim, axis): (&Dim, &Axis)| match (dim, axis) {
        (Dim::Fixed(size), Size(wanted)) => size == wanted,
        (Dim::Fixed(_), Rows | Free(_)) => false,
        (Dim::Symbol(_) | Dim::Expr(_) | Dim::Unknown, _) => true,
    };
    spec.dtype == DType::Fp32 && spec.shape.len() == axes.len() && spec.shape.iter().zip(axes).all(fits)
}

struct Axes<'a>(&'a [Axis]);

impl fmt::Display for Axes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, axis) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "[" } else { "," })?;
            match axis {
                Rows => f.write_str("N")?,
                Free(name) => f.write_str(name)?,
                Size(size) => write!(f, "{size}")?,
            }
        }
        f.write_str("]")
    }
}

/// One inner model for the time of one request: a lease on one version.
#[derive(Debug)]
pub(crate) struct Network {
    role: &'static Role,
    servable: Arc<dyn Servable>,
    place: Place,
}

impl Network {
    /// The model's name.
    pub(crate) fn model(&self) -> &ModelName {
        self.servable.model()
    }

    /// Asks it; the answer has the role's outputs in order, each with as many rows as `input` and of the role's sizes.
    ///
    /// # Errors
    /// The model's refusal as it is, or `BackendBroken` for an answer of other sizes.
    pub(crate) async fn ask(&self, input: Tensor, context: RequestContext) -> Result<SmallVec<[Tensor; 4]>, Refusal> {
        let rows = input.shape().rows();
        let request = InferRequest {
            signature: self.place.signature,
            inputs: [input].into_iter().collect(),
            wanted: Wanted::Only(self.place.outputs.clone()),
            context,
        };
        let outputs = self.servable.infer(request).await?.outputs;
        // Sizes that the network chose must agree from output to output.
        let mut free: SmallVec<[(&str, usize); 2]> = SmallVec::new();
        let mut is_right = |(tensor, (_, axes)): (&Tensor, &(&str, &[Axis]))| {
            let is_right = |(&size, axis): (&usize, &Axis)| match *axis {
                Rows => Some(size) == rows,
                Size(wanted) => size == wanted,
                Free(name) => match free.iter().find(|(known, _)| *known == name) {
                    Some((_, known)) => size == *known,
                    None => {
                        free.push((name, size));
                        true
                    }
                },
            };
            tensor.dtype() == DType::Fp32
                && tensor.shape().len() == axes.len()
                && tensor.shape().iter().zip(*axes).all(is_right)
        };
        if outputs.len() != self.role.outputs.len() || !outputs.iter().zip(self.role.outputs).all(&mut is_right) {
            let text = format!("its answer does not fit the role `{}`: expected {}", self.role.name, self.role);
            return Err(Refusal::new(Reason::BackendBroken, text));
        }
        Ok(outputs.into_iter().collect())
    }
}
