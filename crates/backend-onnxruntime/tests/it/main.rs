//! The public face of the engine, on the library of this machine. Where there is none, every test says so and passes:
//! see `support`.

mod builder;
mod conformance;
mod external;
mod golden;
mod hostile;
mod refused;
mod requests;
mod support;
mod threads;
