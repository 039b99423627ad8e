//! The backend from outside: golden cases, files that must be refused, requests that must be refused.
#![cfg(test)]

mod golden;
mod refused;
mod support;
