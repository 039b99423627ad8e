//! Which outputs a request wants, in which order and which form, and what that makes of the tensors that come back.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::Arc;

use millrace_core::{DType, ModelName, Reason, Refusal, Signature, Tensor, Wanted};
use smallvec::SmallVec;

use super::classification::classify;
use super::parameter::{Parameter, wrong_type};
use super::words;
use crate::tfs::Bare;

/// What the parameters of one requested output say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputParameters {
    /// How many of the largest elements are wanted as text in the output's place.
    pub classification: Option<NonZeroUsize>,
    /// Whether the output is wanted in binary form. Means something over REST only.
    pub binary: bool,
    has_region: bool,
}

impl OutputParameters {
    /// Takes one parameter in. What is not known is ignored.
    ///
    /// # Errors
    /// `InvalidInput` for a known parameter of another type.
    pub fn set(&mut self, name: &str, value: &Parameter<'_>) -> Result<(), Refusal> {
        match name {
            "classification" => {
                let most = value.unsigned().map(|most| usize::try_from(most).unwrap_or(usize::MAX));
                let most = most.and_then(NonZeroUsize::new);
                self.classification = Some(most.ok_or_else(|| wrong_type(name, "an unsigned integer above 0"))?);
            }
            "binary_data" => self.binary = value.bool().ok_or_else(|| wrong_type(name, "a boolean"))?,
            "shared_memory_region" | "shared_memory_offset" | "shared_memory_byte_size" => self.has_region = true,
            _ => {}
        }
        Ok(())
    }
}

/// The outputs that one request lists, as they come in.
#[derive(Debug)]
pub struct Outputs<'s> {
    model: &'s ModelName,
    signature: &'s Signature,
    planned: SmallVec<[PlannedOutput; 1]>,
}

/// One output of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedOutput {
    /// Its name.
    pub name: Arc<str>,
    /// Its position in the signature.
    pub index: usize,
    /// How many of its largest elements are wanted as text in its place.
    pub classification: Option<NonZeroUsize>,
    /// Whether it leaves in binary form. Means something over REST only.
    pub binary: bool,
    /// Whether its first axis counts the rows of a batch.
    pub is_batched: bool,
}

/// Every output of the answer, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputPlan {
    /// The outputs. A plan waits with its request for the model, so no more than the usual one lies in it.
    pub outputs: SmallVec<[PlannedOutput; 1]>,
    /// Whether they are all of the signature's, in its order.
    is_all: bool,
}

impl<'s> Outputs<'s> {
    /// None yet, for `signature` of `model`.
    pub fn new(model: &'s ModelName, signature: &'s Signature) -> Self {
        Self { model, signature, planned: SmallVec::new() }
    }

    /// Asks for the output `name`.
    ///
    /// # Errors
    /// `InvalidInput` when the model has no such output, it was asked for already, its elements cannot be classified or are
    /// ragged, or its parameters contradict each other; `Unsupported` for an output in shared memory.
    pub fn ask(&mut self, name: &str, parameters: OutputParameters) -> Result<(), Refusal> {
        let specs = self.signature.outputs();
        let index = self.signature.output_index(name);
        let index = index.ok_or_else(|| words::unexpected_output(self.model, name, specs))?;
        if self.planned.iter().any(|planned| planned.index == index) {
            return Err(words::output_twice(name));
        }
        let spec = &specs[index];
        let OutputParameters { classification, binary, has_region } = parameters;
        if has_region && (binary || classification.is_some()) {
            let name = Bare(name);
            return Err(words::invalid(format!(
                "output '{name}': 'shared_memory_region' must not stand beside 'binary_data' or 'classification'"
            )));
        }
        if has_region {
            return Err(super::settings::no_shared_memory());
        }
        if classification.is_some() && !can_classify(spec.dtype) {
            let (name, dtype) = (Bare(name), spec.dtype);
            return Err(words::invalid(format!("output '{name}' of type {dtype} cannot be classified")));
        }
        if let (Some(_), Some(counts)) = (classification, &spec.ragged_by) {
            let (name, counts) = (Bare(name), Bare(counts));
            return Err(words::invalid(format!(
                "output '{name}' cannot be classified: its rows belong to instances as '{counts}' counts them"
            )));
        }
        let is_batched = spec.batch_axis == Some(0);
        self.planned.push(PlannedOutput { name: Arc::clone(&spec.name), index, classification, binary, is_batched });
        Ok(())
    }

    /// The plan: the outputs listed, or all of them where none is, then in binary form if `binary` says so.
    pub fn finish(self, binary: bool) -> OutputPlan {
        if !self.planned.is_empty() {
            return OutputPlan { outputs: self.planned, is_all: false };
        }
        let all = self.signature.outputs().iter().enumerate().map(|(index, spec)| PlannedOutput {
            name: Arc::clone(&spec.name),
            index,
            classification: None,
            binary,
            is_batched: spec.batch_axis == Some(0),
        });
        OutputPlan { outputs: all.collect(), is_all: true }
    }
}

impl OutputPlan {
    /// What to ask the servable for.
    pub fn wanted(&self) -> Wanted {
        if self.is_all { Wanted::All } else { Wanted::Only(self.outputs.iter().map(|planned| planned.index).collect()) }
    }

    /// The tensors of the answer, in the plan's order, from those that the servable gave for [`wanted`](Self::wanted).
    ///
    /// # Errors
    /// `BackendBroken` when there are more or fewer than were wanted, or one cannot be classified; `TooLarge` when a
    /// classification would be.
    pub fn apply<'t>(&self, tensors: &'t [Tensor]) -> Result<Cow<'t, [Tensor]>, Refusal> {
        if tensors.len() != self.outputs.len() {
            let (expected, got) = (self.outputs.len(), tensors.len());
            return Err(Refusal::new(Reason::BackendBroken, format!("the model gave {got} outputs of {expected}")));
        }
        if self.outputs.iter().all(|planned| planned.classification.is_none()) {
            return Ok(Cow::Borrowed(tensors));
        }
        let apply = |(planned, tensor): (&PlannedOutput, &Tensor)| match planned.classification {
            Some(most) => classify(tensor, most, planned.is_batched),
            None => Ok(tensor.clone()),
        };
        self.outputs.iter().zip(tensors).map(apply).collect()
    }
}

/// Whether elements of `dtype` have a largest one and a text.
fn can_classify(dtype: DType) -> bool {
    match dtype {
        DType::Bool | DType::Fp16 | DType::Bf16 | DType::Bytes => false,
        DType::Uint8
        | DType::Uint16
        | DType::Uint32
        | DType::Uint64
        | DType::Int8
        | DType::Int16
        | DType::Int32
        | DType::Int64
        | DType::Fp32
        | DType::Fp64 => true,
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::{DType, Dim, ModelName, Reason, Signature, Tensor, TensorSpec, Wanted};

    use super::{OutputParameters, Outputs};
    use crate::oip::Parameter;

    fn signature() -> Signature {
        let spec = |name: &str, dtype| TensorSpec::new(name, dtype, [Dim::symbol("N"), Dim::Fixed(3)]);
        let outputs = vec![spec("scores", DType::Fp32), spec("words", DType::Bytes), spec("half", DType::Fp16)];
        Signature::new(vec![spec("x", DType::Fp32)], outputs).unwrap()
    }

    fn parameters(given: &[(&str, Parameter<'_>)]) -> OutputParameters {
        let mut parameters = OutputParameters::default();
        given.iter().for_each(|(name, value)| parameters.set(name, value).unwrap());
        parameters
    }

    #[test]
    fn no_list_means_all_in_order_and_the_requests_form() {
        let (model, signature): (ModelName, _) = ("m".parse().unwrap(), signature());
        let plan = Outputs::new(&model, &signature).finish(true);
        assert_eq!(plan.wanted(), Wanted::All);
        assert!(plan.outputs.iter().all(|planned| planned.binary && planned.is_batched));
    }

    #[test]
    fn a_listed_output_has_its_own_form_and_place() {
        let (model, signature): (ModelName, _) = ("m".parse().unwrap(), signature());
        let mut outputs = Outputs::new(&model, &signature);
        outputs.ask("words", parameters(&[])).unwrap();
        outputs.ask("scores", parameters(&[("binary_data", Parameter::Bool(true))])).unwrap();
        let plan = outputs.finish(true);
        assert_eq!(plan.wanted(), Wanted::Only([1, 0].into_iter().collect()));
        assert_eq!(plan.outputs.iter().map(|planned| planned.binary).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn an_output_that_is_unknown_or_asked_twice_or_cannot_be_classified_is_refused() {
        let (model, signature): (ModelName, _) = ("m".parse().unwrap(), signature());
        let mut outputs = Outputs::new(&model, &signature);
        let unknown = outputs.ask("nope", parameters(&[])).unwrap_err();
        assert!(unknown.message().starts_with("unexpected inference output 'nope' for model 'm'"), "{unknown}");
        outputs.ask("scores", parameters(&[])).unwrap();
        assert_eq!(outputs.ask("scores", parameters(&[])).unwrap_err().reason(), Reason::InvalidInput);
        for name in ["words", "half"] {
            let classified = parameters(&[("classification", Parameter::Int(2))]);
            assert_eq!(outputs.ask(name, classified).unwrap_err().reason(), Reason::InvalidInput, "{name}");
        }
    }

    #[test]
    fn ragged_outputs_are_not_classified_and_neither_they_nor_their_order_have_a_batch_axis() {
        let spec = |name, dtype| TensorSpec::new(name, dtype, [Dim::symbol("N")]);
        let scores = TensorSpec::new("scores", DType::Fp32, [Dim::Unknown]).ragged_by("counts");
        let inputs = vec![spec("image", DType::Bytes)];
        let signature = Signature::new(inputs, vec![scores, spec("counts", DType::Int32)]).unwrap();
        let model: ModelName = "m".parse().unwrap();
        let mut outputs = Outputs::new(&model, &signature);
        let classified = parameters(&[("classification", Parameter::Int(2))]);
        let refused = outputs.ask("scores", classified).unwrap_err();
        assert_eq!(
            (refused.reason(), refused.message()),
            (
                Reason::InvalidInput,
                "output 'scores' cannot be classified: its rows belong to instances as 'counts' counts them"
            )
        );
        outputs.ask("counts", classified).unwrap();
        outputs.ask("scores", parameters(&[])).unwrap();
        let plan = outputs.finish(false);
        assert_eq!(plan.wanted(), Wanted::Only([1, 0].into_iter().collect()));
        assert_eq!(plan.outputs.iter().map(|planned| planned.is_batched).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn parameters_of_another_type_and_shared_memory_are_refused() {
        let mut parameters_of_one = OutputParameters::default();
        for (name, value) in [
            ("classification", Parameter::Int(0)),
            ("classification", Parameter::Int(-1)),
            ("classification", Parameter::String("2".into())),
            ("binary_data", Parameter::Int(1)),
        ] {
            assert_eq!(parameters_of_one.set(name, &value).unwrap_err().reason(), Reason::InvalidInput, "{name}");
        }
        let (model, signature): (ModelName, _) = ("m".parse().unwrap(), signature());
        let mut outputs = Outputs::new(&model, &signature);
        let region = ("shared_memory_region", Parameter::String("r".into()));
        assert_eq!(
            outputs.ask("scores", parameters(std::slice::from_ref(&region))).unwrap_err().reason(),
            Reason::Unsupported
        );
        let both = [region, ("binary_data", Parameter::Bool(true))];
        assert_eq!(outputs.ask("scores", parameters(&both)).unwrap_err().reason(), Reason::InvalidInput);
    }

    #[test]
    fn the_tensors_that_come_back_are_classified_where_asked() {
        let (model, signature): (ModelName, _) = ("m".parse().unwrap(), signature());
        let mut outputs = Outputs::new(&model, &signature);
        outputs.ask("scores", parameters(&[("classification", Parameter::Int(2))])).unwrap();
        let plan = outputs.finish(false);
        let scores = Tensor::from_vec(&[1, 3], vec![0.1_f32, 0.7, 0.2]).unwrap();
        let answer = plan.apply(std::slice::from_ref(&scores)).unwrap();
        assert_eq!(answer[0].strings().unwrap().get(0), Some(&b"0.700000:1"[..]));
        let two = [scores.clone(), scores];
        assert_eq!(plan.apply(&two).unwrap_err().reason(), Reason::BackendBroken);
    }
}
