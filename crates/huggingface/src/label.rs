//! The labels of a classification: `id2label`, or what stands in its place.

use serde_json::{Map, Value};

use crate::error::HuggingFaceError;
use crate::fields::Fields;

/// More labels than any data set of pictures or texts has.
const MAX_LABELS: usize = 1 << 20;

/// The labels in the order of the outputs.
pub(crate) fn labels(fields: &Fields) -> Result<Vec<String>, HuggingFaceError> {
    let declared = fields.size("num_labels", 1..=MAX_LABELS)?;
    let named = match (fields.object("id2label")?, fields.object("label2id")?) {
        (Some(by_id), _) if !by_id.is_empty() => Some(("id2label", in_order(by_id))),
        (_, Some(by_label)) if !by_label.is_empty() => Some(("label2id", inverted(by_label))),
        _ => None,
    };
    let Some((key, labels)) = named else {
        return Ok((0..declared.unwrap_or(2)).map(|index| format!("LABEL_{index}")).collect());
    };
    let labels = labels.ok_or_else(|| fields.wrong(key, "the numbers 0, 1, 2 and so on, each with one label"))?;
    match declared {
        Some(declared) if declared != labels.len() => {
            Err(fields.wrong(key, format!("{declared} labels, as `num_labels` says")))
        }
        _ => Ok(labels),
    }
}

/// `{"0": "no", "1": "yes"}`
fn in_order(by_id: &Map<String, Value>) -> Option<Vec<String>> {
    let mut labels = vec![None; by_id.len()];
    for (id, label) in by_id {
        let slot = labels.get_mut(id.parse::<usize>().ok()?)?;
        // Numbers as labels do occur; they are meant as they are written.
        let label =
            label.as_str().map_or_else(|| label.is_number().then(|| label.to_string()), |text| Some(text.to_owned()));
        *slot = Some(label?);
    }
    labels.into_iter().collect()
}

/// `{"no": 0, "yes": 1}`
fn inverted(by_label: &Map<String, Value>) -> Option<Vec<String>> {
    let mut labels = vec![None; by_label.len()];
    for (label, id) in by_label {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok())?;
        *labels.get_mut(id)? = Some(label.clone());
    }
    labels.into_iter().collect()
}
