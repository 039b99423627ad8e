//! Test helpers that every crate of the workspace shares. For tests only: helpers panic where a test should fail.
//!
//! - [`FakeBackend`], [`FakeModel`]: a real, tiny engine whose misbehaviour a test chooses.
//! - [`FakeServable`], [`FullQueue`], [`resolve_among`], [`spec`], [`InlineCompute`]: what stands behind a front-end.
//! - [`FakeFaces`]: answers with another number of rows for each instance, without an engine.
//! - [`FakePipelineFactory`], [`FakeAdapterFactory`]: a pipeline over two models, and an input in another form.
//! - [`CountingAllocator`]: how often a thread allocates.
//! - [`run`] and its kin: several requests to a model as one batch.
//! - [`Gate`]: holds threads until the test lets them go, so that no test sleeps.
//! - [`Case`]: the neutral golden cases under `fixtures/cases`.
//! - [`conformance`]: what every backend must do.

mod allocations;
mod asking;
mod case;
pub mod conformance;
mod fake;
mod fake_adapter;
mod fake_faces;
mod fake_front;
mod fake_pipeline;
mod fixture;
mod gate;

pub use allocations::CountingAllocator;
pub use asking::{arranged, batch, by_name, run, run_with};
pub use case::{Case, assert_close};
pub use fake::{FakeBackend, FakeModel, FakeModelBuilder, Misbehaviour};
pub use fake_adapter::FakeAdapterFactory;
pub use fake_faces::FakeFaces;
pub use fake_front::{FakeServable, FullQueue, InlineCompute, resolve_among, spec};
pub use fake_pipeline::FakePipelineFactory;
pub use fixture::{fixture, fixture_source, fixtures};
pub use gate::Gate;
