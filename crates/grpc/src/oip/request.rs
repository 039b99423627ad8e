//! Reads a `ModelInferRequest` from its bytes: what it holds stays where it is until the model is known.
//!
//! By hand and not by the generated type: raw tensors and lists of numbers become slices of the message, and a message
//! of a million empty inputs is refused before anything is made of them.

use bytes::Bytes;
use millrace_core::{MAX_RANK, Reason, Refusal, Servable, ShapeError, TensorList};
use millrace_protocol::oip::{
    EXPLAIN_PARAMETER, Inputs, OutputParameters, OutputPlan, Outputs, Parameter, Parameters, TIMING_PARAMETER,
    no_shared_memory,
};
use millrace_protocol::tfs::Bare;
use smallvec::SmallVec;

use super::contents;
use crate::wire::{Fields, Value, WireError};

/// How often a repeated field may stand in a request. No model has as many tensors.
const MOST: usize = 4096;

/// Bytes of a name or an id. They come back in answers, so a large one would be sent twice.
const LONGEST_NAME: usize = 64 << 10;

/// A request's parts, as slices of its message.
#[derive(Debug, Default)]
pub(super) struct Outline<'m> {
    pub(super) model_name: &'m str,
    pub(super) model_version: &'m str,
    pub(super) id: &'m str,
    parameters: SmallVec<[&'m [u8]; 4]>,
    inputs: SmallVec<[&'m [u8]; 4]>,
    outputs: SmallVec<[&'m [u8]; 4]>,
    raw: SmallVec<[&'m [u8]; 4]>,
}

/// What a request asks of its model.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) inputs: TensorList,
    pub(super) plan: OutputPlan,
    pub(super) parameters: Parameters,
}

impl<'m> Outline<'m> {
    /// Takes a message apart.
    ///
    /// # Errors
    /// A [`WireError`] where it is none, or has more parts than any model.
    pub(super) fn read(message: &'m [u8]) -> Result<Self, WireError> {
        let mut outline = Self::default();
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            let list = match number {
                1..=3 => {
                    let text = value.text(number)?;
                    if text.len() > LONGEST_NAME {
                        return Err(WireError::Long { field: number, limit: LONGEST_NAME });
                    }
                    match number {
                        1 => outline.model_name = text,
                        2 => outline.model_version = text,
                        _ => outline.id = text,
                    }
                    continue;
                }
                4 => &mut outline.parameters,
                5 => &mut outline.inputs,
                6 => &mut outline.outputs,
                7 => &mut outline.raw,
                _ => continue,
            };
            if list.len() == MOST {
                return Err(WireError::Count { field: number, limit: MOST });
            }
            list.push(value.bytes(number)?);
        }
        Ok(outline)
    }

    /// Whether the parameters ask for the stages and for everything, as far as they say.
    ///
    /// # Errors
    /// A [`Refusal`] of anything but on and off.
    pub(super) fn asks(&self) -> Result<(Option<bool>, Option<bool>), Refusal> {
        let (mut timing, mut explain) = (None, None);
        for entry in &self.parameters {
            match parameter(entry)? {
                (TIMING_PARAMETER, value) => timing = Some(value.switch(TIMING_PARAMETER)?),
                (EXPLAIN_PARAMETER, value) => explain = Some(value.switch(EXPLAIN_PARAMETER)?),
                _ => {}
            }
        }
        Ok((timing, explain))
    }

    /// Bytes that have to be converted, not shared: lists of elements rather than raw ones. Strings among the raw ones are
    /// known only with the model, and count.
    pub(super) fn weight(&self, servable: &dyn Servable) -> usize {
        let has_strings = servable
            .signatures()
            .get(0)
            .is_some_and(|signature| signature.inputs().iter().any(|input| input.dtype == millrace_core::DType::Bytes));
        let typed: usize = self.inputs.iter().map(|input| input.len()).sum();
        let raw: usize = if has_strings { self.raw.iter().map(|raw| raw.len()).sum() } else { 0 };
        typed + raw
    }

    /// The question to `servable`. `message` is what this was read from.
    ///
    /// # Errors
    /// A [`Refusal`] that says what does not fit the model.
    pub(super) fn question(&self, message: &Bytes, servable: &dyn Servable) -> Result<Question, Refusal> {
        let (model, signatures) = (servable.model(), servable.signatures());
        let signature =
            signatures.get(0).ok_or_else(|| Refusal::new(Reason::BackendBroken, "a model has no signature"))?;
        let mut parameters = Parameters::grpc();
        for entry in &self.parameters {
            let (name, value) = parameter(entry)?;
            parameters.set(name, &value)?;
        }
        let mut inputs = Inputs::new(model, signature);
        let mut raw = self.raw.iter();
        for bytes in &self.inputs {
            let input = Input::read(bytes)?;
            let declared = inputs.declare(input.name, input.datatype, &input.sizes)?;
            if input.is_shared {
                return Err(no_shared_memory());
            }
            match input.contents {
                Some(contents) if self.raw.is_empty() => {
                    let tensor = contents::tensor(message, contents, declared.spec, &declared.shape)?;
                    inputs.put(declared.index, tensor);
                }
                Some(_) => {
                    let name = Bare(input.name);
                    return Err(invalid(format!(
                        "contents field must not be specified when using raw_input_contents, as input '{name}' does"
                    )));
                }
                None => {
                    let bytes = raw.next().ok_or_else(|| {
                        let name = Bare(input.name);
                        invalid(format!(
                            "unable to find data for input tensor '{name}' for model '{model}' in request."
                        ))
                    })?;
                    inputs.put_raw(declared, message.slice_ref(bytes))?;
                }
            }
        }
        let inputs = inputs.finish()?;
        let left = raw.count();
        if left > 0 {
            let (expected, got) = (self.raw.len() - left, self.raw.len());
            return Err(invalid(format!(
                "expected {expected} entries of raw_input_contents for model '{model}', got {got}"
            )));
        }
        let mut outputs = Outputs::new(model, signature);
        for bytes in &self.outputs {
            let (name, parameters) = output(bytes)?;
            outputs.ask(name, parameters)?;
        }
        Ok(Question { inputs, plan: outputs.finish(true), parameters })
    }
}

/// One input, as slices of its message.
#[derive(Debug, Default)]
struct Input<'m> {
    name: &'m str,
    datatype: &'m str,
    sizes: SmallVec<[i64; 8]>,
    contents: Option<&'m [u8]>,
    is_shared: bool,
}

impl<'m> Input<'m> {
    fn read(message: &'m [u8]) -> Result<Self, Refusal> {
        let mut input = Self::default();
        let mut rank = 0;
        let mut n_parameters = 0;
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => input.name = value.text(number)?,
                2 => input.datatype = value.text(number)?,
                3 => {
                    for_each_varint(number, value, |size| {
                        rank += 1;
                        if rank <= MAX_RANK {
                            input.sizes.push(size.cast_signed());
                        }
                    })?;
                }
                4 => {
                    n_parameters += 1;
                    if n_parameters > MOST {
                        return Err(WireError::Count { field: number, limit: MOST }.refusal());
                    }
                    let (name, _) = parameter(value.bytes(number)?)?;
                    input.is_shared |= name.starts_with("shared_memory_");
                }
                // No data and none asked for are the same thing.
                5 => {
                    let contents = Some(value.bytes(number)?).filter(|contents| !contents.is_empty());
                    if input.contents.is_some() && contents.is_some() {
                        return Err(invalid(format!("input '{}' has its contents twice", Bare(input.name))));
                    }
                    input.contents = input.contents.or(contents);
                }
                _ => {}
            }
        }
        if rank > MAX_RANK {
            return Err(invalid(format!("input '{}': {}", Bare(input.name), ShapeError::Rank { rank })));
        }
        Ok(input)
    }
}

/// The name and the parameters of a requested output.
fn output(message: &[u8]) -> Result<(&str, OutputParameters), Refusal> {
    let mut name = "";
    let mut parameters = OutputParameters::default();
    let mut n_parameters = 0;
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => name = value.text(number)?,
            2 => {
                n_parameters += 1;
                if n_parameters > MOST {
                    return Err(WireError::Count { field: number, limit: MOST }.refusal());
                }
                let (name, value) = parameter(value.bytes(number)?)?;
                parameters.set(name, &value)?;
            }
            _ => {}
        }
    }
    Ok((name, parameters))
}

/// An entry of a map from names to parameters.
fn parameter(entry: &[u8]) -> Result<(&str, Parameter<'_>), Refusal> {
    let (mut name, mut message) = ("", &[][..]);
    let mut fields = Fields::new(entry);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => name = value.text(number)?,
            2 => message = value.bytes(number)?,
            _ => {}
        }
    }
    let mut found = None;
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        found = match (number, value) {
            (1, value) => Some(Parameter::Bool(value.varint(number)? != 0)),
            (2, value) => Some(Parameter::Int(value.int64(number)?)),
            (3, value) => Some(Parameter::String(value.text(number)?.into())),
            (4, Value::Fixed64(bytes)) => Some(Parameter::Double(f64::from_le_bytes(bytes))),
            (4, _) => return Err(WireError::Form(number).refusal()),
            (5, value) => Some(Parameter::Uint(value.varint(number)?)),
            (_, _) => found,
        };
    }
    let found = found.ok_or_else(|| invalid(format!("parameter '{}' has no value", Bare(name))))?;
    Ok((name, found))
}

/// Calls `visit` with each number of a repeated field of varints, packed or not.
pub(super) fn for_each_varint(number: u32, value: Value<'_>, mut visit: impl FnMut(u64)) -> Result<(), WireError> {
    match value {
        Value::Varint(value) => visit(value),
        Value::Bytes(mut packed) => {
            while !packed.is_empty() {
                visit(crate::wire::varint(&mut packed)?);
            }
        }
        Value::Fixed32(_) | Value::Fixed64(_) => return Err(WireError::Form(number)),
    }
    Ok(())
}

fn invalid(text: String) -> Refusal {
    Refusal::new(Reason::InvalidInput, text)
}
