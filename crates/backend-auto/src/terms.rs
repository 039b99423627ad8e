//! Whether two engines' signatures of one model say the same, and how one's symbols are found from the other's.
//!
//! Names, dtypes, ranks and order must be equal. Symbols may be named differently, and an engine may leave open what the
//! served signature fixes: whatever request fits the served signature must fit the engine's.

use millrace_core::{Admission, Dim, Group, Signature, TensorSpec};

/// How an engine's own [`Admission`] is made from one of the served signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    symbols: Vec<Term>,
}

/// Where the value of an engine's symbol comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Term {
    Rows,
    Symbol(usize),
    Fixed(usize),
}

impl Terms {
    /// Compares what `engine` takes and gives with what is `served`.
    ///
    /// # Errors
    /// What differs, in words.
    pub(crate) fn agree(served: &Signature, engine: &Signature) -> Result<Self, String> {
        same("inputs", served.inputs(), engine.inputs())?;
        same("outputs", served.outputs(), engine.outputs())?;
        if served.is_batched() != engine.is_batched() {
            let (one, other) =
                if served.is_batched() { ("dependent", "independent") } else { ("independent", "dependent") };
            return Err(format!("it calls rows {one}, another engine calls them {other}"));
        }
        if served.is_mixed() != engine.is_mixed() {
            let (one, other) =
                if served.is_mixed() { ("of one length", "of any") } else { ("of any length", "of one") };
            return Err(format!("its runs are of requests {one}, another engine's {other}"));
        }
        let mut symbols = vec![None; engine.symbols().len()];
        for (outer, own) in served.inputs().iter().zip(engine.inputs()) {
            for (axis, (outer_dim, own_dim)) in outer.shape.iter().zip(&own.shape).enumerate() {
                let term = match (own_dim, outer_dim) {
                    (Dim::Fixed(own), Dim::Fixed(outer)) if own == outer => continue,
                    (Dim::Symbol(_), Dim::Fixed(size)) => Term::Fixed(*size),
                    (Dim::Symbol(_), Dim::Symbol(name)) => match position(served, name) {
                        Some(index) => Term::Symbol(index),
                        None => Term::Rows,
                    },
                    _ => {
                        return Err(format!(
                            "its input `{}` wants {own_dim} along axis {axis}, not {outer_dim}",
                            own.name
                        ));
                    }
                };
                let Dim::Symbol(name) = own_dim else { continue };
                // The batch symbol stands for the rows in both.
                let Some(index) = position(engine, name) else { continue };
                if *symbols[index].get_or_insert(term) != term {
                    return Err(format!("its axes {own_dim} must be equal, which nothing else asks for"));
                }
            }
        }
        Ok(Self { symbols: symbols.into_iter().map(|term| term.unwrap_or(Term::Fixed(0))).collect() })
    }

    /// The engine's view of a request.
    pub(crate) fn admission(&self, served: &Admission) -> Admission {
        Admission { rows: served.rows, group: self.group(&served.group, served.rows) }
    }

    /// The engine's group for `rows` rows of a served one.
    pub(crate) fn group(&self, served: &Group, rows: usize) -> Group {
        let value = |term: &Term| match term {
            Term::Rows => rows,
            Term::Symbol(index) => served.0.get(*index).copied().unwrap_or_default(),
            Term::Fixed(size) => *size,
        };
        Group(self.symbols.iter().map(value).collect())
    }
}

fn position(signature: &Signature, symbol: &str) -> Option<usize> {
    signature.symbols().iter().position(|known| &**known == symbol)
}

fn same(what: &str, served: &[TensorSpec], engine: &[TensorSpec]) -> Result<(), String> {
    let key = |spec: &TensorSpec| (spec.name.clone(), spec.dtype, spec.shape.len());
    if served.iter().map(key).eq(engine.iter().map(key)) {
        return Ok(());
    }
    let list = |specs: &[TensorSpec]| specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(format!("its {what} are {}, another engine's {}", list(engine), list(served)))
}

#[cfg(test)]
mod tests {
    use millrace_core::{Admission, DType, Dim, Group, Signature, TensorSpec};

    use super::Terms;

    /// A signature from shapes such as `N,4`, where a letter is a symbol.
    fn signature(inputs: &[&str], output: &str) -> Signature {
        let dims = |text: &str| -> Vec<Dim> {
            text.split(',').map(|part| part.parse().map_or_else(|_| Dim::symbol(part), Dim::Fixed)).collect()
        };
        let inputs = inputs.iter().enumerate();
        let inputs = inputs.map(|(index, shape)| TensorSpec::new(format!("x{index}"), DType::Fp32, dims(shape)));
        Signature::new(inputs.collect(), vec![TensorSpec::new("y", DType::Fp32, dims(output))]).unwrap()
    }

    fn admission(rows: usize, group: &[usize]) -> Admission {
        Admission { rows, group: Group(group.iter().copied().collect()) }
    }

    #[test]
    fn symbols_of_other_names_and_orders_are_found() {
        let served = signature(&["N,S,T", "N,T"], "N");
        let engine = signature(&["b,s,t", "b,t"], "b");
        let terms = Terms::agree(&served, &engine).unwrap();
        assert_eq!(terms.admission(&admission(3, &[5, 7])), admission(3, &[5, 7]));
        let looser = signature(&["N,p,q", "N,r"], "N");
        let terms = Terms::agree(&signature(&["N,4,T", "N,T"], "N"), &looser).unwrap();
        assert_eq!(terms.admission(&admission(3, &[7])), admission(3, &[4, 7, 7]));
    }

    #[test]
    fn what_asks_for_more_is_told() {
        let check = |served: Signature, engine: Signature| Terms::agree(&served, &engine).unwrap_err();
        let text = check(signature(&["N,T"], "N"), signature(&["N,4"], "N"));
        assert_eq!(text, "its input `x0` wants 4 along axis 1, not T");
        let text = check(signature(&["N,S", "N,T"], "N"), signature(&["N,S", "N,S"], "N"));
        assert!(text.contains("must be equal"), "{text}");
        let text = check(signature(&["N,S"], "N"), signature(&["N,S"], "N").unbatched());
        assert!(text.contains("rows"), "{text}");
        let text = check(signature(&["N,S"], "N").mixed("S").unwrap(), signature(&["N,S"], "N"));
        assert_eq!(text, "its runs are of requests of one length, another engine's of any");
        let text = check(signature(&["N,S"], "N"), signature(&["N,S"], "N,1"));
        assert_eq!(text, "its outputs are y FP32[N,1], another engine's y FP32[N]");
    }
}
