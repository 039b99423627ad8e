//! Evaluating many decision trees over many rows.
