//! Which inputs a predict request brings and which outputs it wants: TensorFlow Serving's rules about names.

use std::fmt::{self, Write as _};

use millrace_core::{Reason, Refusal, Signature, Wanted};
use smallvec::SmallVec;

use super::resolve::Bare;

/// Names that one list in a message shows.
const MOST_SHOWN: usize = 16;

/// Whether the inputs called `sent`, each once, are those of `signature`.
///
/// # Errors
/// `InvalidInput`, with what is too much and what is missing.
pub fn check_inputs(signature: &Signature, sent: &[&str]) -> Result<(), Refusal> {
    let mut extra = sent.iter().copied().filter(|name| signature.input_index(name).is_none()).peekable();
    let inputs = signature.inputs().iter().map(|spec| &*spec.name);
    let mut missing = inputs.clone().filter(|name| !sent.contains(name)).peekable();
    if extra.peek().is_none() && missing.peek().is_none() {
        return Ok(());
    }
    let known = List(inputs.clone());
    let message = match missing.peek() {
        Some(alias) if sent.len() == inputs.len() => format!(
            "Signature input alias: {} not found in request and no default value provided. Inputs expected to be in the \
             set {known}.",
            Bare(alias)
        ),
        _ => {
            let (n_sent, n_wanted, extra, missing) = (sent.len(), inputs.len(), List(extra), List(missing));
            format!(
                "input size does not match signature: {n_sent}!={n_wanted} len({known}). Sent extra: {extra}. Missing \
                 but required: {missing}."
            )
        }
    };
    Err(Refusal::new(Reason::InvalidInput, message))
}

/// The outputs that a filter lets through, in its order; an empty one lets all through.
///
/// # Errors
/// `InvalidInput` for a name that is no output's, and for one that stands twice.
pub fn output_filter<'a>(signature: &Signature, filter: impl Iterator<Item = &'a str>) -> Result<Wanted, Refusal> {
    let mut wanted: SmallVec<[usize; 4]> = SmallVec::new();
    for name in filter {
        let refused = |what: &str| Refusal::new(Reason::InvalidInput, format!("{what}: {}", Bare(name)));
        let index =
            signature.output_index(name).ok_or_else(|| refused("output tensor alias not found in signature"))?;
        if wanted.contains(&index) {
            return Err(refused("duplicate output tensor alias"));
        }
        wanted.push(index);
    }
    Ok(if wanted.is_empty() { Wanted::All } else { Wanted::Only(wanted) })
}

/// Names between braces, the first of them if there are many.
struct List<I>(I);

impl<'a, I: Iterator<Item = &'a str> + Clone> fmt::Display for List<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('{')?;
        for (index, name) in self.0.clone().take(MOST_SHOWN).enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}", Bare(name))?;
        }
        f.write_str(if self.0.clone().nth(MOST_SHOWN).is_some() { ",…}" } else { "}" })
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::{DType, Dim, Signature, TensorSpec, Wanted};

    use super::{check_inputs, output_filter};

    fn signature() -> Signature {
        let specs = |names: [&str; 2]| names.map(|name| TensorSpec::new(name, DType::Fp32, [Dim::symbol("N")])).into();
        Signature::new(specs(["a", "b"]), specs(["s", "d"])).unwrap()
    }

    #[test]
    fn inputs_are_all_there_and_no_others() {
        let check = |sent: &[&str]| check_inputs(&signature(), sent).map_err(|error| error.to_string());
        assert_eq!(check(&["b", "a"]), Ok(()));
        let expected =
            "input size does not match signature: 1!=2 len({a,b}). Sent extra: {}. Missing but required: {b}.";
        assert_eq!(check(&["a"]).unwrap_err(), expected);
        let message = check(&["a", "b", "c\n"]).unwrap_err();
        assert!(message.ends_with("Sent extra: {c\\n}. Missing but required: {}."), "{message}");
        let message = check(&["a", "c"]).unwrap_err();
        assert!(message.starts_with("Signature input alias: b not found in request"), "{message}");
        let strangers: Vec<String> = (0..10_000).map(|number| format!("stranger {number}")).collect();
        let message = check(&strangers.iter().map(String::as_str).collect::<Vec<_>>()).unwrap_err();
        assert!(message.len() < 1024 && message.contains(",…}"), "{message}");
    }

    #[test]
    fn a_filter_picks_outputs_in_its_order() {
        let filter = |names: &[&str]| output_filter(&signature(), names.iter().copied()).map_err(|e| e.to_string());
        assert_eq!(filter(&[]), Ok(Wanted::All));
        assert_eq!(filter(&["d", "s"]), Ok(Wanted::Only([1, 0].into_iter().collect())));
        assert_eq!(filter(&["s", "y"]), Err("output tensor alias not found in signature: y".to_owned()));
        assert_eq!(filter(&["s", "s"]), Err("duplicate output tensor alias: s".to_owned()));
    }
}
