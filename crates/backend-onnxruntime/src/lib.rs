//! ONNX models through ONNX Runtime, for millrace.
//!
//! Nothing of the engine is linked: [`OnnxRuntimeBackend`] looks for its library on this machine when it is made, which
//! costs a look at some folders, and loads it when the first model needs it, which costs some ten milliseconds. Where
//! there is none, everything else works; [`OnnxRuntimeBackend::availability`] says in a line what was found, and a model
//! that asks for this engine fails with that line.
//!
//! A version directory holds one `*.onnx` file (`model.onnx` where there are several) and the files of its external data.
//! The engine never opens a file: it gets them all from memory, and tensors whose data lies outside of the version's
//! folder, or where the engine would open it by itself, are refused before it sees them.
//!
//! All instances of a model run one session, each run on its caller's thread: the weights are in memory once. A run that
//! is given several threads divides its rows among them; one that cannot be divided gets a second session, which is made
//! the first time that this would help. It takes the weights' memory again, which counts from the start, and there is
//! none where the budget does not hold both. Inputs are bound where they lie, or gathered once into the instance's buffer;
//! outputs stay in the engine's memory until the answer is gone.
//!
//! The first axis is the batch where it is one symbol in every input and output and a trial at load shows that rows do
//! not influence one another; `facts()` says why it is not.

mod backend;
mod constants;
mod convert;
mod external;
mod input;
mod instance;
mod library;
mod model;
mod options;
mod places;
mod probe;
mod raw;
mod session;
mod signature;

pub use backend::OnnxRuntimeBackend;
pub use library::{Availability, OnnxRuntimeConfig};
