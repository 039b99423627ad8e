//! The backend from outside: golden cases, files that must be refused, forests against a plain evaluator.
#![cfg(test)]

mod builder;
mod conformance;
mod forests;
mod golden;
mod hostile;
mod support;
