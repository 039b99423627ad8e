//! An inference request's document, read in one pass: what is known goes where it belongs, what is not is skipped.
//!
//! Keys may come in any order. The elements of an input are read where they are met if its name stands before them or the
//! model has only one input; else their place is kept and they are read at the end of the input. Inputs in binary form are
//! slices of the body; a document with no others that has just been read is known `again`.

use std::borrow::Cow;

use bytes::Bytes;
use millrace_core::{
    DType, MAX_RANK, ModelName, Reason, Refusal, Servable, Shape, Signature, Tensor, TensorList, TensorSpec,
};
use millrace_json::{JsonError, Key, Kind, Reader, Scalar};
use millrace_protocol::oip::{
    Declared, Inputs, OutputParameters, OutputPlan, Outputs, Parameter, Parameters, no_shared_memory,
};
use millrace_protocol::tfs::Bare;
use smallvec::SmallVec;

use super::again::{self, BinaryInput, BinaryInputs, Said, Words};
use super::document::{Wrong, invalid, once, string, want};

/// The most parameters of one object; more than any request needs.
const MOST_PARAMETERS: usize = 256;

/// What a body asks.
#[derive(Debug)]
pub(super) struct Request {
    /// In the order of the signature.
    pub(super) inputs: TensorList,
    pub(super) parameters: Parameters,
    pub(super) plan: OutputPlan,
    /// To be sent back; never empty.
    pub(super) id: Option<Box<str>>,
}

/// Reads `body`, whose first `header` bytes are the document and whose others are the inputs in binary form.
///
/// # Errors
/// A [`Refusal`] that says what is wrong with it.
pub(super) fn read(servable: &dyn Servable, body: &Bytes, header: usize, max_depth: usize) -> Result<Request, Refusal> {
    let (model, signature) = (servable.model(), default_signature(servable)?);
    let document = body.get(..header).unwrap_or_default();
    let words = Words { document, max_depth, signature };
    let blobs = || Blobs { model, rest: body.slice(document.len()..) };
    if let Some(request) = again::recall(words, |said| recalled(said, Inputs::new(model, signature), blobs())) {
        return request;
    }
    let reading = Reading {
        id: None,
        parameters: None,
        inputs: Inputs::new(model, signature),
        has_inputs: false,
        binary: Some(SmallVec::new()),
        outputs: Outputs::new(model, signature),
        has_outputs: false,
        blobs: blobs(),
    };
    let (request, binary) = reading.read(Reader::new(document, max_depth)).map_err(|wrong| match wrong {
        Wrong::Json(error) => error.refusal(model),
        Wrong::Refused(refusal) => refusal,
    })?;
    if let Some(inputs) = binary.filter(|inputs| !inputs.is_empty() && request.id.is_none()) {
        again::keep(words, Said { inputs, parameters: request.parameters, plan: request.plan.clone() });
    }
    Ok(request)
}

/// The request whose document said `said`, with the bytes that follow it this time.
fn recalled(said: &Said, mut inputs: Inputs<'_>, mut blobs: Blobs<'_>) -> Result<Request, Refusal> {
    for BinaryInput { index, shape, size } in &said.inputs {
        let declared = inputs.declared(*index, shape.clone());
        let bytes = blobs.take(declared.name(), *size)?;
        inputs.put_raw(declared, bytes)?;
    }
    let inputs = inputs.finish()?;
    blobs.finish()?;
    Ok(Request { inputs, parameters: said.parameters, plan: said.plan.clone(), id: None })
}

/// Reads a body that is nothing but the bytes of the model's only input. Its answer comes in binary form.
///
/// # Errors
/// A [`Refusal`] that says why it cannot be that.
pub(super) fn read_raw(servable: &dyn Servable, body: &Bytes) -> Result<Request, Refusal> {
    let (model, signature) = (servable.model(), default_signature(servable)?);
    Ok(Request {
        inputs: Inputs::new(model, signature).only_raw(body.clone())?,
        parameters: Parameters::rest(),
        plan: Outputs::new(model, signature).finish(true),
        id: None,
    })
}

/// The signature that every request of this protocol means.
pub(super) fn default_signature(servable: &dyn Servable) -> Result<&Signature, Refusal> {
    servable
        .signatures()
        .get(0)
        .ok_or_else(|| Refusal::new(Reason::BackendBroken, format!("model '{}' has no signature", servable.model())))
}

/// A request of which some has been read.
struct Reading<'s> {
    id: Option<Box<str>>,
    parameters: Option<Parameters>,
    inputs: Inputs<'s>,
    has_inputs: bool,
    /// The inputs so far, while all of them are in binary form.
    binary: Option<BinaryInputs>,
    outputs: Outputs<'s>,
    has_outputs: bool,
    blobs: Blobs<'s>,
}

impl Reading<'_> {
    fn read(mut self, mut reader: Reader<'_>) -> Result<(Request, Option<BinaryInputs>), Wrong> {
        reader.object(|reader, key| self.member(reader, key))?;
        reader.finish()?;
        if !self.has_inputs {
            return Err(invalid("Unable to parse 'inputs': the request has none".to_owned()));
        }
        let parameters = self.parameters.unwrap_or_else(Parameters::rest);
        let inputs = self.inputs.finish()?;
        self.blobs.finish()?;
        let plan = self.outputs.finish(parameters.binary_outputs);
        let request = Request { inputs, parameters, plan, id: self.id.filter(|id| !id.is_empty()) };
        Ok((request, self.binary))
    }

    fn member<'a>(&mut self, reader: &mut Reader<'a>, key: Key<'a>) -> Result<(), Wrong> {
        if key.is("inputs") {
            if std::mem::replace(&mut self.has_inputs, true) {
                return Err(invalid("duplicate key 'inputs'".to_owned()));
            }
            want(reader, Kind::List, "Unable to parse 'inputs': expected an array")?;
            reader.list(|reader, index| self.input(reader, index))
        } else if key.is("outputs") {
            if std::mem::replace(&mut self.has_outputs, true) {
                return Err(invalid("duplicate key 'outputs'".to_owned()));
            }
            want(reader, Kind::List, "Unable to parse 'outputs': expected an array")?;
            reader.list(|reader, index| self.output(reader, index))
        } else if key.is("parameters") {
            let mut parameters = Parameters::rest();
            each_parameter(reader, "the request", |name, value| Ok(parameters.set(name, &value)?))?;
            once(&mut self.parameters, "parameters", parameters)
        } else if key.is("id") {
            let id = string(reader, "'id' must be a string")?.into();
            once(&mut self.id, "id", id)
        } else {
            Ok(reader.skip()?)
        }
    }

    fn input(&mut self, reader: &mut Reader<'_>, index: usize) -> Result<(), Wrong> {
        want(reader, Kind::Object, "Unable to parse 'inputs': expected an array of objects")?;
        let mut input = Input::default();
        reader.object(|reader, key| input.member(reader, key, &self.inputs))?;
        let (declared, data) = input.finish(index, &self.inputs)?;
        match (&data, &mut self.binary) {
            (Data::Binary(size), Some(binary)) => {
                binary.push(BinaryInput { index: declared.index, shape: declared.shape.clone(), size: *size });
            }
            _ => self.binary = None,
        }
        match data {
            Data::Read(tensor) => self.inputs.put(declared.index, tensor),
            Data::Flat(tensor) => self.inputs.put(declared.index, shaped(&tensor, &declared)?),
            Data::Later(mut reader) => {
                let tensor = elements(&mut reader, declared.spec, Some(&declared.shape))?;
                self.inputs.put(declared.index, tensor);
            }
            Data::Binary(size) => {
                let bytes = self.blobs.take(declared.name(), size)?;
                self.inputs.put_raw(declared, bytes)?;
            }
        }
        Ok(())
    }

    fn output(&mut self, reader: &mut Reader<'_>, index: usize) -> Result<(), Wrong> {
        want(reader, Kind::Object, "Unable to parse 'outputs': expected an array of objects")?;
        let (mut name, mut parameters) = (None, None);
        reader.object(|reader, key| {
            if key.is("name") {
                let text = string(reader, "the 'name' of an output must be a string")?;
                once(&mut name, "name", text)
            } else if key.is("parameters") {
                let mut known = OutputParameters::default();
                each_parameter(reader, "an output", |name, value| Ok(known.set(name, &value)?))?;
                once(&mut parameters, "parameters", known)
            } else {
                Ok(reader.skip()?)
            }
        })?;
        let name = name.ok_or_else(|| invalid(format!("output {index} has no 'name'")))?;
        Ok(self.outputs.ask(&name, parameters.unwrap_or_default())?)
    }
}

/// One input of which some has been read.
#[derive(Default)]
struct Input<'a, 's> {
    name: Option<Cow<'a, str>>,
    datatype: Option<Cow<'a, str>>,
    sizes: Option<SmallVec<[i64; 8]>>,
    declared: Option<Declared<'s>>,
    data: Option<Data<'a>>,
    parameters: Option<()>,
    binary_size: Option<Parameter<'a>>,
    has_region: bool,
}

/// Where the elements of an input are.
enum Data<'a> {
    /// Here.
    Read(Tensor),
    /// Here, in one axis.
    Flat(Tensor),
    /// There, as text.
    Later(Reader<'a>),
    /// In so many bytes behind the document.
    Binary(u64),
}

impl<'a, 's> Input<'a, 's> {
    fn member(&mut self, reader: &mut Reader<'a>, key: Key<'a>, inputs: &Inputs<'s>) -> Result<(), Wrong> {
        if key.is("data") {
            let data = self.data(reader, inputs)?;
            once(&mut self.data, "data", data)
        } else if key.is("name") {
            let name = string(reader, "the 'name' of an input must be a string")?;
            once(&mut self.name, "name", name)
        } else if key.is("datatype") {
            let datatype = string(reader, "the 'datatype' of an input must be a string")?;
            once(&mut self.datatype, "datatype", datatype)
        } else if key.is("shape") {
            let sizes = shape(reader)?;
            once(&mut self.sizes, "shape", sizes)
        } else if key.is("parameters") {
            once(&mut self.parameters, "parameters", ())?;
            each_parameter(reader, "an input", |name, value| {
                match name {
                    "binary_data_size" => self.binary_size = Some(value),
                    "shared_memory_region" => self.has_region = true,
                    _ => {}
                }
                Ok(())
            })
        } else {
            Ok(reader.skip()?)
        }
    }

    /// The elements, read here and now where it is known of what type they are.
    fn data(&mut self, reader: &mut Reader<'a>, inputs: &Inputs<'s>) -> Result<Data<'a>, Wrong> {
        if let Some(declared) = self.declare(inputs)? {
            return Ok(Data::Read(elements(reader, declared.spec, Some(&declared.shape))?));
        }
        let spec = match &self.name {
            Some(name) => Some(inputs.find(name)?.1),
            // Which one it is is still to come, but there is only one that it can be.
            None => inputs.only(),
        };
        if let Some(spec) = spec {
            return Ok(Data::Flat(elements(reader, spec, None)?));
        }
        let here = *reader;
        reader.skip()?;
        Ok(Data::Later(here))
    }

    /// The input as it is declared, once that is known.
    fn declare(&mut self, inputs: &Inputs<'s>) -> Result<Option<&Declared<'s>>, Wrong> {
        if let (None, Some(name), Some(datatype), Some(sizes)) =
            (&self.declared, &self.name, &self.datatype, &self.sizes)
        {
            self.declared = Some(inputs.declare(name, datatype, sizes)?);
        }
        Ok(self.declared.as_ref())
    }

    /// The whole input. `index` is its position in the request.
    fn finish(mut self, index: usize, inputs: &Inputs<'s>) -> Result<(Declared<'s>, Data<'a>), Wrong> {
        self.declare(inputs)?;
        let Some(name) = self.name else { return Err(invalid(format!("input {index} has no 'name'"))) };
        let name = Bare(&name);
        let Some(declared) = self.declared else {
            let missing = if self.datatype.is_none() { "datatype" } else { "shape" };
            return Err(invalid(format!("input '{name}' has no '{missing}'")));
        };
        let data = match (self.data, self.binary_size, self.has_region) {
            (Some(data), None, false) => data,
            (None, Some(size), false) => {
                let wrong = || invalid(format!("the 'binary_data_size' of input '{name}' must be an unsigned integer"));
                Data::Binary(size.unsigned().ok_or_else(wrong)?)
            }
            (None, None, true) => return Err(no_shared_memory().into()),
            (None, None, false) => return Err(invalid(format!("input '{name}' has no data"))),
            (_, _, _) => {
                let ways = "'data', 'binary_data_size' and 'shared_memory_region'";
                return Err(invalid(format!("input '{name}' has its data in more than one of {ways}")));
            }
        };
        Ok((declared, data))
    }
}

/// Reads the elements of an input from text.
fn elements(reader: &mut Reader<'_>, spec: &TensorSpec, shape: Option<&Shape>) -> Result<Tensor, Wrong> {
    if matches!(spec.dtype, DType::Fp16 | DType::Bf16) {
        let (dtype, name) = (spec.dtype, Bare(&spec.name));
        return Err(invalid(format!(
            "receiving {dtype} data via JSON is not supported. Please use the binary data format for input '{name}'"
        )));
    }
    Ok(reader.elements(spec, shape)?)
}

/// The elements in the shape that the request declares.
fn shaped(tensor: &Tensor, declared: &Declared<'_>) -> Result<Tensor, Wrong> {
    let (input, expected, got) = (declared.name(), declared.shape.n_elements(), tensor.shape().n_elements());
    if expected != got {
        return Err(JsonError::Count { input: input.clone(), expected, got: got.to_string() }.into());
    }
    tensor.reshaped(&declared.shape).map_err(|error| JsonError::Tensor { input: input.clone(), error }.into())
}

fn shape(reader: &mut Reader<'_>) -> Result<SmallVec<[i64; 8]>, Wrong> {
    want(reader, Kind::List, "the 'shape' of an input must be an array of sizes")?;
    let mut sizes = SmallVec::new();
    reader.list(|reader, _| {
        if sizes.len() == MAX_RANK {
            return Err(invalid(format!("the rank of an input is above the limit of {MAX_RANK}")));
        }
        let here = *reader;
        match reader.scalar()? {
            Some(Scalar::Int(size)) => sizes.push(size),
            _ => return Err(invalid(format!("bad dimension {} in the 'shape' of an input", here.shown()))),
        }
        Ok(())
    })?;
    Ok(sizes)
}

/// Reads an object of parameters, those of `whose`.
fn each_parameter<'a>(
    reader: &mut Reader<'a>,
    whose: &str,
    mut take: impl FnMut(&str, Parameter<'a>) -> Result<(), Wrong>,
) -> Result<(), Wrong> {
    if reader.kind()? != Kind::Object {
        return Err(invalid(format!("the 'parameters' of {whose} must be an object, got {}", reader.shown())));
    }
    let mut seen: SmallVec<[Cow<'a, str>; 8]> = SmallVec::new();
    reader.object(|reader, key| {
        let name = key.text();
        if seen.contains(&name) {
            return Err(invalid(format!("duplicate key '{}'", Bare(&name))));
        }
        if seen.len() == MOST_PARAMETERS {
            return Err(invalid(format!("the 'parameters' of {whose} are more than the limit of {MOST_PARAMETERS}")));
        }
        let here = *reader;
        let value = reader.scalar()?.and_then(parameter);
        let value = value.ok_or_else(|| {
            let (name, value) = (Bare(&name), here.shown());
            invalid(format!("parameter '{name}' must be a string, a number or a boolean, got {value}"))
        })?;
        take(&name, value)?;
        seen.push(name);
        Ok(())
    })
}

fn parameter(scalar: Scalar<'_>) -> Option<Parameter<'_>> {
    Some(match scalar {
        Scalar::Null => return None,
        Scalar::Bool(value) => Parameter::Bool(value),
        Scalar::Int(value) => Parameter::Int(value),
        Scalar::Uint(value) => Parameter::Uint(value),
        Scalar::Double(value) => Parameter::Double(value),
        Scalar::String(value) => Parameter::String(value),
    })
}

/// What follows the document: the inputs in binary form, in the order of the request.
struct Blobs<'s> {
    model: &'s ModelName,
    rest: Bytes,
}

impl Blobs<'_> {
    fn take(&mut self, input: &str, size: u64) -> Result<Bytes, Refusal> {
        let (model, left) = (self.model, self.rest.len());
        let here = usize::try_from(size).ok().filter(|size| *size <= left).ok_or_else(|| {
            let missing = size.saturating_sub(left as u64);
            let input = Bare(input);
            let text = format!(
                "unexpected size for input '{input}', expecting {missing} additional bytes for model '{model}'"
            );
            Refusal::new(Reason::InvalidInput, text)
        })?;
        Ok(self.rest.split_to(here))
    }

    fn finish(self) -> Result<(), Refusal> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let (model, left) = (self.model, self.rest.len());
        let text = format!("unexpected additional input data for model '{model}': {left} trailing bytes");
        Err(Refusal::new(Reason::InvalidInput, text))
    }
}
