//! What TensorFlow Serving's requests say of models, and where their inputs are; the inputs themselves are read once it
//! is known which model they are for.

use millrace_protocol::tfs::{Chosen, ModelSpec, Task};
use smallvec::SmallVec;

use crate::outline::{Outline, check_room};
use crate::wire::WireError;

/// A predict request.
#[derive(Debug, Default)]
pub(super) struct Predict<'a> {
    pub(super) spec: Option<ModelSpec<'a>>,
    /// Names and `TensorProto`s.
    pub(super) inputs: SmallVec<[(&'a str, &'a [u8]); 4]>,
    pub(super) filter: SmallVec<[&'a str; 4]>,
}

impl<'a> Predict<'a> {
    /// Finds the parts of `message`.
    pub(super) fn read(message: &'a [u8]) -> Result<Self, WireError> {
        let mut request = Self::default();
        Outline::new().each(message, |outline, number, value| {
            match number {
                1 => read_spec(outline, value.bytes(number)?, request.spec.get_or_insert_default())?,
                2 => {
                    check_room(request.inputs.len(), number)?;
                    request.inputs.push(outline.entry(value.bytes(number)?)?);
                }
                3 => {
                    check_room(request.filter.len(), number)?;
                    request.filter.push(value.text(number)?);
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(request)
    }
}

/// The model specification of a classify or regress request. Their examples are not looked at: no model takes any.
pub(super) fn read_spec_only(message: &[u8]) -> Result<Option<ModelSpec<'_>>, WireError> {
    let mut spec = None;
    Outline::new().each(message, |outline, number, value| {
        if number == 1 {
            read_spec(outline, value.bytes(number)?, spec.get_or_insert_default())?;
        }
        Ok(())
    })?;
    Ok(spec)
}

/// The tasks of a multi-inference request.
pub(super) fn read_tasks(message: &[u8]) -> Result<Vec<Task<'_>>, WireError> {
    let mut tasks = Vec::new();
    Outline::new().each(message, |outline, number, value| {
        if number == 1 {
            check_room(tasks.len(), number)?;
            tasks.push(read_task(outline, value.bytes(number)?)?);
        }
        Ok(())
    })?;
    Ok(tasks)
}

fn read_task<'a>(outline: &mut Outline, message: &'a [u8]) -> Result<Task<'a>, WireError> {
    let mut task = Task { spec: None, method: "" };
    outline.each(message, |outline, number, value| {
        match number {
            1 => read_spec(outline, value.bytes(number)?, task.spec.get_or_insert_default())?,
            2 => task.method = value.text(number)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(task)
}

fn read_spec<'a>(outline: &mut Outline, message: &'a [u8], spec: &mut ModelSpec<'a>) -> Result<(), WireError> {
    outline.each(message, |outline, number, value| {
        match number {
            1 => spec.name = value.text(number)?,
            2 => {
                let mut version = 0;
                outline.each(value.bytes(number)?, |_, number, value| {
                    if number == 1 {
                        version = value.int64(number)?;
                    }
                    Ok(())
                })?;
                spec.version = Chosen::Version(version);
            }
            3 => spec.signature = value.text(number)?,
            4 => spec.version = Chosen::Label(value.text(number)?),
            _ => {}
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use millrace_proto::tensorflow::TensorProto;
    use millrace_proto::tensorflow::serving::{self, InferenceTask, MultiInferenceRequest, PredictRequest};
    use millrace_protocol::tfs::{Chosen, ModelSpec};
    use prost::Message as _;

    use super::{Predict, read_spec_only, read_tasks};
    use crate::outline::MOST_PARTS;
    use crate::wire::WireError;

    fn spec(version_choice: Option<serving::model_spec::VersionChoice>) -> serving::ModelSpec {
        serving::ModelSpec { name: "m".to_owned(), signature_name: "s".to_owned(), version_choice }
    }

    #[test]
    fn a_request_is_taken_apart_and_its_tensors_left_alone() {
        let proto = TensorProto { dtype: 1, float_val: vec![1.0], ..TensorProto::default() };
        let request = PredictRequest {
            model_spec: Some(spec(Some(serving::model_spec::VersionChoice::Version(-7)))),
            inputs: [("x".to_owned(), proto.clone())].into(),
            output_filter: vec!["y".to_owned(), "z".to_owned()],
        };
        let message = request.encode_to_vec();
        let read = Predict::read(&message).unwrap();
        assert_eq!(read.spec, Some(ModelSpec { name: "m", version: Chosen::Version(-7), signature: "s" }));
        assert_eq!(read.inputs.as_slice(), [("x", &proto.encode_to_vec()[..])]);
        assert_eq!(read.filter.as_slice(), ["y", "z"]);
        assert_eq!(read_spec_only(&message).unwrap(), read.spec);
        assert!(Predict::read(&[]).unwrap().spec.is_none());
    }

    #[test]
    fn the_last_of_two_choices_of_a_version_counts_and_an_empty_one_is_0() {
        let label = spec(Some(serving::model_spec::VersionChoice::VersionLabel("stable".to_owned())));
        let tasks = MultiInferenceRequest {
            tasks: vec![
                InferenceTask { model_spec: Some(label), method_name: "f".to_owned() },
                InferenceTask::default(),
            ],
            ..MultiInferenceRequest::default()
        };
        let message = tasks.encode_to_vec();
        let read = read_tasks(&message).unwrap();
        assert_eq!(read[0].spec.unwrap().version, Chosen::Label("stable"));
        assert_eq!((read[0].method, read[1].spec), ("f", None));
        let version = |spec: &[u8]| {
            let message = [&[0x0a, u8::try_from(spec.len()).unwrap()], spec].concat();
            read_spec_only(&message).unwrap().unwrap().version == Chosen::Version(0)
        };
        assert!(version(&[0x22, 1, b'l', 0x12, 0]));
        assert!(!version(&[0x12, 0, 0x22, 1, b'l']));
    }

    #[test]
    fn what_there_is_too_much_of_is_refused_without_room_for_it() {
        for (part, field) in [(&[0x12, 0][..], 2), (&[0x1a, 0], 3)] {
            let error = Predict::read(&part.repeat(200_000)).unwrap_err();
            assert_eq!(error, WireError::Count { field, limit: MOST_PARTS });
        }
        let error = read_tasks(&[0x0a, 0].repeat(MOST_PARTS + 1)).unwrap_err();
        assert_eq!(error, WireError::Count { field: 1, limit: MOST_PARTS });
        // Unknown fields, within the specification of the model.
        let spec = [0x98, 0x06, 0].repeat(1000);
        let message = [&[0x0a, 0xb8, 0x17], &spec[..]].concat();
        assert!(Predict::read(&message.repeat(60)).is_ok());
        assert!(matches!(Predict::read(&message.repeat(70)), Err(WireError::Count { .. })));
    }
}
