//! Pipelines among the models: they come after the models that they ask, and are tried again when those change.

use millrace_core::{ModelName, OwnedModelRef};

use super::{Phase, Table, Version};

impl<L> Table<L> {
    /// Something about `model` has changed: pipelines over it that failed are tried again without waiting for their turn, and
    /// those that are being made, should they fail.
    pub(super) fn wake_pipelines(&mut self, model: &ModelName) {
        for (name, entry) in &mut self.models {
            let pipeline = entry.config.as_ref().and_then(|config| config.pipeline.as_ref());
            if !pipeline.is_some_and(|pipeline| pipeline.models.values().any(|inner| inner.name() == model)) {
                continue;
            }
            entry.versions.values_mut().for_each(|version| version.retry = None);
            let own = self.loading.values_mut().filter(|load| load.model == *name);
            own.for_each(|load| load.is_overtaken = true);
        }
    }

    /// Whether `name` is a pipeline over a model of which a version is about to come or to fail.
    fn must_wait(&self, name: &ModelName) -> bool {
        let config = self.models.get(name).and_then(|model| model.config.as_ref());
        let Some(pipeline) = config.and_then(|config| config.pipeline.as_ref()) else { return false };
        let is_coming = |version: &Version<L>| matches!(version.phase, Phase::Start | Phase::Loading(_));
        let inner = pipeline.models.values().map(OwnedModelRef::name).filter(|inner| *inner != name);
        inner.filter_map(|inner| self.models.get(inner)).any(|inner| inner.versions.values().any(is_coming))
    }

    /// The next of the queue. Pipelines come after the models that they ask.
    pub(super) fn pop(&mut self) -> Option<(ModelName, u64)> {
        let free = self.queue.iter().position(|(name, _)| !self.must_wait(name));
        // Where all wait and nothing loads, they wait for one another. The first one then says what it misses.
        let index = free.or_else(|| self.loading.is_empty().then_some(0))?;
        self.queue.remove(index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::{Duration, Instant, SystemTime};

    use millrace_core::{Code, DType, Dim, ModelName, Signature, Signatures, TensorSpec, VersionFailure};

    use crate::desired::Orders;
    use crate::scan::{FoundModel, FoundVersion, Place, Scan};
    use crate::table::{Facts, LoadOrder, LoadOutcome, Progress, Table, TableConfig};
    use crate::{ModelConfig, RetryConfig};

    struct Bench {
        table: Table<()>,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let retry = RetryConfig { first: Duration::from_secs(3600), max: Duration::from_secs(3600) };
            let config =
                TableConfig { quiet_period: Duration::ZERO, retry, memory_budget: None, listed: BTreeMap::new() };
            #[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning")]
            let now = Instant::now();
            Self { table: Table::new(config, Orders::default()), now }
        }

        /// Version 1 of each of `models`; those that name another are pipelines over it.
        fn scan(&mut self, models: &[(&str, Option<&str>)]) {
            let mut scan = Scan::default();
            for (name, inner) in models {
                let toml = |inner: &&str| format!("kind = \"pipeline\"\npipeline = \"p\"\n[models]\nm = \"{inner}\"");
                let config = ModelConfig::parse(&inner.as_ref().map(toml).unwrap_or_default()).unwrap();
                let place = Place { root: Arc::from(Path::new("/")), below: (*name).to_owned(), file: None };
                let version = FoundVersion { place, fingerprint: None, is_registered: false };
                let model = FoundModel {
                    config: Ok(Arc::new(config)),
                    versions: BTreeMap::from([(1, version)]),
                    path: (*name).to_owned(),
                    is_registered: false,
                };
                scan.models.insert(name.parse().unwrap(), model);
            }
            self.table.scanned(scan, true, self.now);
            self.advance();
        }

        fn advance(&mut self) {
            drop(self.table.reconcile(self.now));
        }

        #[track_caller]
        fn next(&mut self, expected: &str) -> LoadOrder {
            let order = self.table.next_load().expect("something can be loaded");
            assert_eq!(order.model.as_str(), expected);
            order
        }

        #[track_caller]
        fn nothing_yet(&mut self) {
            assert!(self.table.next_load().is_none());
            assert!(!self.table.is_settled());
        }

        fn good(&mut self, order: &LoadOrder) {
            let spec = |name| vec![TensorSpec::new(name, DType::Fp32, vec![Dim::symbol("N")])];
            let facts = Facts {
                choice: None,
                backend: Arc::from("fake"),
                signatures: Arc::new(Signatures::single(Signature::new(spec("x"), spec("y")).unwrap())),
                memory: 0,
                load_time: Duration::ZERO,
                loaded_at: SystemTime::now(),
                max_batch_size: 0,
                batch_delay: None,
            };
            assert!(self.table.loaded(order.id, LoadOutcome::Ready((), facts), self.now).is_none());
            self.advance();
        }

        fn bad(&mut self, order: &LoadOrder) {
            let failure = VersionFailure { code: Code::NotFound, message: "missing".to_owned() };
            assert!(self.table.loaded(order.id, LoadOutcome::Failed(failure), self.now).is_none());
            self.advance();
        }

        fn progress(&self, model: &str) -> Progress {
            self.table.progress(&model.parse::<ModelName>().unwrap(), 1)
        }
    }

    #[test]
    fn pipelines_wait_for_their_models_and_for_no_other() {
        let mut bench = Bench::new();
        bench.scan(&[("a", Some("b")), ("b", Some("y")), ("c", Some("z")), ("y", None), ("z", None)]);
        let (y, z) = (bench.next("y"), bench.next("z"));
        bench.nothing_yet();
        bench.good(&z);
        let c = bench.next("c");
        bench.nothing_yet();
        bench.bad(&y);
        let b = bench.next("b");
        bench.nothing_yet();
        bench.good(&b);
        let a = bench.next("a");
        bench.good(&a);
        bench.good(&c);
        assert!(bench.table.is_settled());
    }

    #[test]
    fn a_circle_is_gone_round_once() {
        let mut bench = Bench::new();
        bench.scan(&[("a", Some("b")), ("b", Some("a")), ("c", Some("c"))]);
        // One that asks itself waits for nobody.
        let own = bench.next("c");
        bench.nothing_yet();
        bench.bad(&own);
        let a = bench.next("a");
        bench.nothing_yet();
        bench.bad(&a);
        let b = bench.next("b");
        bench.bad(&b);
        assert!(bench.table.is_settled() && bench.table.next_load().is_none());
    }

    #[test]
    fn a_model_that_comes_wakes_the_pipelines_over_it_even_while_they_fail() {
        let mut bench = Bench::new();
        bench.scan(&[("p", Some("m")), ("q", Some("n"))]);
        let (p, q) = (bench.next("p"), bench.next("q"));
        bench.bad(&q);
        bench.scan(&[("p", Some("m")), ("q", Some("n")), ("m", None)]);
        let m = bench.next("m");
        bench.good(&m);
        // It looked for its model before that came.
        bench.bad(&p);
        let again = bench.next("p");
        bench.good(&again);
        assert!(matches!(bench.progress("q"), Progress::Failed(_)), "nothing that it asks has come");
        assert!(bench.table.is_settled());
    }

    #[test]
    fn a_pipeline_that_became_another_meanwhile_is_made_again() {
        let mut bench = Bench::new();
        bench.scan(&[("p", Some("m")), ("m", None), ("n", None)]);
        let (m, n) = (bench.next("m"), bench.next("n"));
        bench.good(&m);
        bench.good(&n);
        let p = bench.next("p");
        bench.scan(&[("p", Some("n")), ("m", None), ("n", None)]);
        let facts = bench.table.model(&"m".parse().unwrap()).unwrap().versions()[&1].facts.clone().unwrap();
        assert_eq!(bench.table.loaded(p.id, LoadOutcome::Ready((), facts), bench.now), Some(()), "nobody wants it");
        bench.advance();
        let again = bench.next("p");
        bench.good(&again);
        assert_eq!(bench.progress("p"), Progress::Available);
    }
}
