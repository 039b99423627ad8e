//! The backend from outside: golden cases, files that must be refused, requests that must be refused, plans.
#![cfg(test)]

mod builder;
mod conformance;
mod golden;
mod hostile;
mod pictures;
mod plans;
mod precision;
mod refused;
mod requests;
mod support;
