//! The whole server over real sockets, and the binary as a process.
//!
//! A test's name is what it promises. Time limits under test are configured short; whatever a test waits for, it waits
//! for on a socket, a gate or a process, never by sleeping.

#![cfg(test)]
#![expect(unused_crate_dependencies, reason = "the library's dependencies are visible to its tests")]

#[cfg(feature = "tract")]
mod account;
mod cancellation;
mod clients;
mod config;
mod connections;
mod described;
#[cfg(target_os = "linux")]
mod disk;
mod drain;
#[cfg(all(feature = "tract", feature = "trees"))]
mod engines;
mod face;
mod faults;
#[cfg(target_os = "linux")]
mod floods;
#[cfg(target_os = "linux")]
mod footprint;
mod golden;
mod grpc;
mod http2;
mod image_model;
mod listeners;
mod malformed;
mod observability;
mod platform;
mod process;
mod protocols;
#[cfg(target_os = "linux")]
mod refusals;
#[cfg(target_os = "linux")]
mod robustness;
mod support;
#[cfg(all(feature = "candle", feature = "text"))]
mod text;
#[cfg(all(feature = "candle", feature = "text", feature = "tract"))]
mod text_model;
