//! The ways of running one model: one plan for any sizes, and a few specialised ones.
//!
//! A specialised plan is made off the request path and found by a short look under a read lock; nothing is held while a
//! plan is made or run.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millrace_core::{Group, LoadError, LoadErrorKind, Prepared, Signature, guarded};
use parking_lot::RwLock;
use smallvec::SmallVec;
use tract_onnx::prelude::{Symbol, TDim, TractResult, TypedModel, TypedSimplePlan};
use tract_onnx::tract_core::ops::konst::Const;

use crate::rewrite::{divides_work, held_bytes, is_mostly_ours};

/// A plan that several threads run at once, each with its own state.
pub(crate) type Plan = Arc<TypedSimplePlan>;

#[derive(Debug)]
struct Special {
    group: Group,
    rows: usize,
    plan: Plan,
    bytes: u64,
    /// When it was last found, in looks. Relaxed: a wrong order only evicts the second-oldest plan.
    used: AtomicU64,
}

/// The plans of one model.
#[derive(Debug)]
pub(crate) struct Plans {
    model: TypedModel,
    /// The batch symbol, if any, and the others in the order of a group's values.
    batch: Option<Symbol>,
    symbols: Vec<Symbol>,
    symbolic: Option<Plan>,
    special: RwLock<Vec<Special>>,
    limit: usize,
    /// Whether a plan for exact sizes is faster than the symbolic one.
    special_pays: bool,
    looks: AtomicU64,
    generation: AtomicU64,
}

impl Plans {
    /// Plans over the decluttered `model`: the symbolic one now, and one for a single row where rows are all that varies.
    ///
    /// # Errors
    /// [`LoadError`] when neither can be made.
    pub(crate) fn new(model: TypedModel, signature: &Signature, limit: usize) -> Result<Self, LoadError> {
        let find = |name: &Arc<str>| {
            let missing = || LoadError::new(LoadErrorKind::Engine, format!("the symbol `{name}` is not in the graph"));
            model.symbols.get(name).ok_or_else(missing)
        };
        let batch = signature.batch_symbol().map(find).transpose()?;
        let symbols = signature.symbols().iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let special_is_idle = is_mostly_ours(&model);
        let symbolic = plan(model.clone());
        let mut plans = Self {
            model,
            batch,
            symbols,
            symbolic: None,
            special: RwLock::default(),
            limit: limit.max(1),
            special_pays: symbolic.is_err() || !special_is_idle,
            looks: AtomicU64::new(0),
            generation: AtomicU64::new(0),
        };
        let single =
            (plans.batch.is_some() && plans.symbols.is_empty()).then(|| plans.make(&Group::default(), 1).map(|_| ()));
        match (symbolic, single) {
            (Ok(symbolic), Some(Err(error))) => {
                tracing::warn!(%error, "no plan for one row; the symbolic plan runs all sizes");
                plans.symbolic = Some(symbolic);
            }
            (Ok(symbolic), _) => plans.symbolic = Some(symbolic),
            (Err(error), Some(Ok(()))) => {
                tracing::warn!(%error, "no symbolic plan; each size is planned when it first comes");
            }
            (Err(error), _) => return Err(error),
        }
        Ok(plans)
    }

    /// The decluttered model that every plan is made from.
    pub(crate) fn model(&self) -> &TypedModel {
        &self.model
    }

    /// The plan for any sizes, where the engine could make one.
    pub(crate) fn symbolic(&self) -> Option<&Plan> {
        self.symbolic.as_ref()
    }

    /// Grows each time that the set of specialised plans changes.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether `plan` is still among these.
    pub(crate) fn holds(&self, plan: &Plan) -> bool {
        let same = |other: &Plan| Arc::ptr_eq(plan, other);
        self.symbolic.as_ref().is_some_and(same) || self.special.read().iter().any(|special| same(&special.plan))
    }

    /// The best plan for `rows` rows of `group`.
    ///
    /// # Errors
    /// [`LoadError`] where only specialised plans exist and the one for these sizes cannot be made.
    pub(crate) fn find(&self, group: &Group, rows: usize) -> Result<Plan, LoadError> {
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        if let Some(special) =
            self.special.read().iter().find(|special| special.rows == rows && special.group == *group)
        {
            special.used.store(look, Ordering::Relaxed);
            return Ok(Arc::clone(&special.plan));
        }
        if let Some(symbolic) = &self.symbolic {
            return Ok(Arc::clone(symbolic));
        }
        self.make(group, rows)
    }

    /// The row counts of `group` with a plan of their own.
    pub(crate) fn prepared(&self, group: &Group) -> Prepared {
        if !self.special_pays || (self.batch.is_none() && self.symbols.is_empty()) {
            return Prepared::Any;
        }
        let special = self.special.read();
        let mut sizes: SmallVec<[usize; 8]> =
            special.iter().filter(|special| special.group == *group).map(|special| special.rows).collect();
        sizes.sort_unstable();
        Prepared::Sizes(sizes)
    }

    /// Makes the plan for `rows` rows of `group`, unless it is there.
    ///
    /// # Errors
    /// [`LoadError`] when the engine cannot.
    pub(crate) fn prepare(&self, group: &Group, rows: usize) -> Result<(), LoadError> {
        let known = self.special.read().iter().any(|special| special.rows == rows && special.group == *group);
        if known || !self.special_pays || (self.batch.is_none() && self.symbols.is_empty()) {
            return Ok(());
        }
        self.make(group, rows).map(|_| ())
    }

    /// Whether rows are as fast one after the other as together.
    pub(crate) fn may_run_apart(&self) -> bool {
        !self.special_pays
    }

    /// Whether runs are shorter with more threads.
    pub(crate) fn divide_work(&self) -> bool {
        self.may_run_apart() && divides_work(&self.model)
    }

    /// Bytes that the plans hold beside the model's own weights.
    pub(crate) fn bytes(&self) -> u64 {
        let symbolic = self.symbolic.as_ref().map_or(0, |plan| plan_bytes(plan, &self.model));
        symbolic + self.special.read().iter().map(|special| special.bytes).sum::<u64>()
    }

    fn make(&self, group: &Group, rows: usize) -> Result<Plan, LoadError> {
        let size = |size: usize| i64::try_from(size).map(TDim::Val);
        let values = self.symbols.iter().zip(&group.0).map(|(symbol, value)| (symbol, *value));
        let all = self.batch.iter().map(|symbol| (symbol, rows)).chain(values);
        let fixed = all.map(|(symbol, value)| size(value).map(|value| (symbol.clone(), value)));
        let fixed: HashMap<Symbol, TDim> = fixed.collect::<Result<_, _>>().map_err(|_| {
            LoadError::new(LoadErrorKind::TooLarge, format!("{rows} rows of {:?} do not fit in 64 bits", group.0))
        })?;
        let substituted = guarded(|| self.model.set_symbols(&fixed));
        let plan = plan(flatten(substituted, "fixing the sizes")?)?;
        let bytes = plan_bytes(&plan, &self.model);
        let used = AtomicU64::new(self.looks.fetch_add(1, Ordering::Relaxed));
        let mut special = self.special.write();
        if let Some(other) = special.iter().find(|special| special.rows == rows && special.group == *group) {
            return Ok(Arc::clone(&other.plan)); // somebody else was faster
        }
        special.push(Special { group: group.clone(), rows, plan: Arc::clone(&plan), bytes, used });
        if special.len() > self.limit {
            // The plan for a single row stays: it is what keeps the latency of a lone request low.
            let oldest = |special: &&(usize, u64)| special.1;
            let candidates: Vec<(usize, u64)> = special
                .iter()
                .enumerate()
                .filter(|(_, special)| special.rows != 1 || !special.group.0.is_empty())
                .map(|(index, special)| (index, special.used.load(Ordering::Relaxed)))
                .collect();
            if let Some(&(index, _)) = candidates.iter().min_by_key(oldest) {
                special.remove(index);
            }
        }
        drop(special);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(plan)
    }
}

fn plan(model: TypedModel) -> Result<Plan, LoadError> {
    flatten(guarded(|| TypedSimplePlan::new(model.into_optimized()?)), "planning")
}

/// One error of what the engine refused and of what made it panic.
pub(crate) fn flatten<T>(
    outcome: Result<TractResult<T>, millrace_core::Panicked>,
    doing: &str,
) -> Result<T, LoadError> {
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let text = shortened(&format!("{doing} failed: {}; {}", error, error.root_cause()));
            Err(LoadError::new(LoadErrorKind::Unsupported, text).with_cause(error))
        }
        Err(panicked) => {
            let text = shortened(&format!("{doing} failed: {panicked}"));
            Err(LoadError::new(LoadErrorKind::Engine, text).with_cause(panicked))
        }
    }
}

/// The engine's texts may hold whole graphs.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 400;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Bytes of the constants in `plan` that `model` does not share: repacked weights.
fn plan_bytes(plan: &TypedSimplePlan, model: &TypedModel) -> u64 {
    let constants = |model: &TypedModel| -> Vec<(usize, u64)> {
        let value = |op: &Const| {
            let tensor = op.val();
            (Arc::as_ptr(tensor).addr(), tensor.volume().saturating_mul(tensor.datum_type().size_of()) as u64)
        };
        model.nodes().iter().filter_map(|node| node.op_as::<Const>().map(value)).collect()
    };
    let shared: std::collections::HashSet<usize> = constants(model).into_iter().map(|(address, _)| address).collect();
    constants(plan.model()).iter().filter(|(address, _)| !shared.contains(address)).map(|(_, bytes)| bytes).sum()
}

/// Bytes of the constants in `model`.
pub(crate) fn weight_bytes(model: &TypedModel) -> u64 {
    let bytes = |op: &Const| (op.val().volume().saturating_mul(op.val().datum_type().size_of())) as u64;
    model.nodes().iter().filter_map(|node| node.op_as::<Const>().map(bytes)).sum::<u64>() + held_bytes(model)
}
