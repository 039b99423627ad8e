//! The services driven directly with requests, without sockets: what a client sees, row by row.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod account;
mod admin;
mod allocations;
mod compression;
mod cors;
mod deadlines;
mod failures;
mod general;
mod harness;
mod health;
mod knocking;
mod kserve;
mod limits;
mod metrics;
mod names;
mod oip;
mod oip_binary;
mod oip_edges;
mod oip_property;
mod oip_views;
mod openapi;
mod over_hyper;
mod platform;
mod predict;
mod ragged;
mod status;
mod text;
mod torchserve;
mod torchserve_management;
