//! TensorFlow Serving's rules that hold over REST and gRPC alike: version 0, the words for what cannot be found, codes
//! and their HTTP statuses, dtype names.

mod dtype;
mod resolve;
mod status;

pub use dtype::{data_type_name, data_type_number};
pub use resolve::{Bare, Failure, Verb, resolve, signature_unknown};
pub use status::{code, rest_status, state_number};

/// The label of a status code where `None` means success, as metrics and status answers spell it.
pub fn code_label(code: Option<millrace_core::Code>) -> &'static str {
    code.map_or("OK", millrace_core::Code::name)
}
