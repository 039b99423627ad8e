//! Skeleton.

pub mod json;
