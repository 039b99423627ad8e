//! Finds the metric handles of a resolved version without hashing a name.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use millrace_core::{ModelName, Servable};
use parking_lot::Mutex;

use super::Series;

/// The handles of every version that was asked for, bounded by configuration.
pub struct Table {
    /// Sorted by [`Entry::key`].
    entries: ArcSwap<Vec<Entry>>,
    /// The versions that have series of their own. Exporters never forget a series, so neither does this.
    named: Mutex<HashSet<(ModelName, u64)>>,
    limit: usize,
    /// That of this machine, which is a label of some families.
    hostname: Arc<str>,
    other: OnceLock<Arc<Series>>,
}

#[derive(Clone)]
struct Entry {
    /// Keeps the name's text where it is, so that its address means this name and no other.
    model: ModelName,
    version: u64,
    series: Arc<Series>,
}

impl Entry {
    /// The address of the name's text and the version: two numbers to compare, not a string.
    fn key(&self) -> (usize, u64) {
        (address(&self.model), self.version)
    }
}

fn address(model: &ModelName) -> usize {
    model.as_str().as_ptr().addr()
}

impl Table {
    /// A table where at most `limit` versions get series of their own, on the machine called `hostname`.
    pub fn new(limit: usize, hostname: &str) -> Self {
        let (entries, named) = (ArcSwap::default(), Mutex::default());
        Self { entries, named, limit, hostname: Arc::from(hostname), other: OnceLock::new() }
    }

    /// The handles of `servable`.
    pub fn of(&self, servable: &dyn Servable) -> Arc<Series> {
        let key = (address(servable.model()), servable.version());
        let entries = self.entries.load();
        match entries.binary_search_by_key(&key, Entry::key) {
            Ok(index) => Arc::clone(&entries[index].series),
            Err(_) => self.add(servable),
        }
    }

    /// The handles shared by everything that has none of its own.
    pub fn other(&self) -> Arc<Series> {
        Arc::clone(self.other.get_or_init(|| Arc::new(Series::other(&self.hostname))))
    }

    fn add(&self, servable: &dyn Servable) -> Arc<Series> {
        let mut named = self.named.lock();
        let (model, version) = (servable.model(), servable.version());
        let mut entries = Vec::clone(&self.entries.load());
        // The same version under another address: it was loaded again, or another thread was faster.
        let before = entries.iter().position(|entry| entry.model == *model && entry.version == version);
        let series = before.map(|index| entries.remove(index).series);
        let series = series.unwrap_or_else(|| {
            let pair = (model.clone(), version);
            if named.contains(&pair) || (named.len() < self.limit && named.insert(pair)) {
                Arc::new(Series::of(servable, &self.hostname))
            } else {
                self.other()
            }
        });
        // Versions come and go for as long as the server runs; those in use find their way back in.
        if entries.len() > 2 * self.limit {
            entries.clear();
        }
        let entry = Entry { model: model.clone(), version, series: Arc::clone(&series) };
        let index = entries.binary_search_by_key(&entry.key(), Entry::key).unwrap_or_else(|index| index);
        entries.insert(index, entry);
        self.entries.store(Arc::new(entries));
        series
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("entries", &self.entries.load().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millrace_core::{
        DType, Dim, InferFuture, InferRequest, ModelName, Reason, Refusal, Servable, Signature, Signatures, TensorSpec,
    };

    use super::Table;

    #[derive(Debug)]
    struct Named(ModelName, u64, Signatures);

    impl Servable for Named {
        fn model(&self) -> &ModelName {
            &self.0
        }
        fn version(&self) -> u64 {
            self.1
        }
        fn signatures(&self) -> &Signatures {
            &self.2
        }
        fn infer(&self, _request: InferRequest) -> InferFuture {
            InferFuture::refused(Refusal::new(Reason::Unsupported, "never asked"))
        }
    }

    fn named(name: &str, version: u64) -> Named {
        let spec = |name| TensorSpec::new(name, DType::Fp32, vec![Dim::symbol("N")]);
        let signature = Signature::new(vec![spec("x")], vec![spec("y")]).unwrap();
        Named(name.parse().unwrap(), version, Signatures::single(signature))
    }

    #[test]
    fn one_version_has_one_set_of_handles_even_when_loaded_again() {
        let table = Table::new(10, "here");
        let first = table.of(&named("m", 1));
        assert!(Arc::ptr_eq(&first, &table.of(&named("m", 1))), "the same name at another address");
        assert!(!Arc::ptr_eq(&first, &table.of(&named("m", 2))));
        assert!(!Arc::ptr_eq(&first, &table.of(&named("n", 1))));
        assert_eq!(table.entries.load().len(), 3);
    }

    #[test]
    fn beyond_the_limit_versions_share_other_and_the_table_stays_small() {
        let table = Table::new(3, "here");
        for version in 0..1000 {
            let series = table.of(&named("m", version));
            assert_eq!(Arc::ptr_eq(&series, &table.other()), version >= 3, "{version}");
        }
        assert!(table.entries.load().len() <= 7);
        assert_eq!(&*table.of(&named("m", 2)).version, "2", "those named first keep their series");
    }
}
