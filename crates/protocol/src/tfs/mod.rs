//! TensorFlow Serving's rules that are no wire format, whether REST and gRPC share them or not: version 0, the words for
//! what cannot be found, which inputs and outputs a request names, configurations, codes and their HTTP statuses, dtypes.

mod dtype;
mod examples;
mod names;
mod reload;
mod resolve;
mod spec;
mod status;
mod versions;

pub use dtype::{data_type, data_type_name, data_type_number};
pub use examples::{Task, model_of_tasks, refuse_examples, refuse_tasks, takes_tensors};
pub use names::{check_inputs, output_filter};
pub use reload::{ListedModel, ListedPolicy, check_unique, no_config_list, wanted_model};
pub use resolve::{Bare, Failure, Verb, resolve, signature_unknown};
pub use spec::{Chosen, ModelSpec, predict_signature};
pub use status::{code, rest_status, state_number};
pub use versions::model_status;

/// The label of a status code where `None` means success, as metrics and status answers spell it.
pub fn code_label(code: Option<millrace_core::Code>) -> &'static str {
    code.map_or("OK", millrace_core::Code::name)
}
