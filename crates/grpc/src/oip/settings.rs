//! Shared memory, tracing and logging: what clients may ask of them, and why they may change nothing.

use std::collections::HashMap;

use millrace_core::{ModelRef, Reason, Refusal};
use millrace_proto::inference::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse, CudaSharedMemoryStatusRequest,
    CudaSharedMemoryStatusResponse, CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse,
    LogSettingsRequest, LogSettingsResponse, SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse,
    SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest,
    SystemSharedMemoryUnregisterResponse, TraceSettingRequest, TraceSettingResponse, log_settings_request,
    log_settings_response, trace_setting_response,
};
use millrace_protocol::oip::{self, LogSettings, Parameter};

use super::{Answered, failure};
use crate::call::Call;
use crate::service::Shared;

/// Refuses to share memory: a client must not make this process map anything.
macro_rules! refused {
    ($($name:ident: $request:ty => $response:ty),* $(,)?) => {$(
        pub(super) fn $name(_shared: &Shared, _call: Call<'_>, _request: &$request) -> Answered<$response> {
            Err(failure(oip::no_shared_memory()))
        }
    )*};
}

/// There is none, which is also true of any one that is asked for or given up.
macro_rules! nothing {
    ($($name:ident: $request:ty => $response:ty),* $(,)?) => {$(
        pub(super) fn $name(_shared: &Shared, _call: Call<'_>, _request: &$request) -> Answered<$response> {
            Ok(<$response>::default())
        }
    )*};
}

refused! {
    register_system_memory: SystemSharedMemoryRegisterRequest => SystemSharedMemoryRegisterResponse,
    register_cuda_memory: CudaSharedMemoryRegisterRequest => CudaSharedMemoryRegisterResponse,
}

nothing! {
    system_memory_status: SystemSharedMemoryStatusRequest => SystemSharedMemoryStatusResponse,
    cuda_memory_status: CudaSharedMemoryStatusRequest => CudaSharedMemoryStatusResponse,
    unregister_system_memory: SystemSharedMemoryUnregisterRequest => SystemSharedMemoryUnregisterResponse,
    unregister_cuda_memory: CudaSharedMemoryUnregisterRequest => CudaSharedMemoryUnregisterResponse,
}

pub(super) fn trace(shared: &Shared, _call: Call<'_>, request: &TraceSettingRequest) -> Answered<TraceSettingResponse> {
    if !request.model_name.is_empty() {
        oip::is_model_ready(&*shared.parts.catalog, &ModelRef::new(&request.model_name))?;
    }
    for (name, setting) in &request.settings {
        let values: Vec<&str> = setting.value.iter().map(String::as_str).collect();
        oip::check_trace_setting(name, &values).map_err(failure)?;
    }
    let setting = |(name, value): (&str, &str)| {
        let value = if value.is_empty() { Vec::new() } else { vec![value.to_owned()] };
        (name.to_owned(), trace_setting_response::SettingValue { value })
    };
    Ok(TraceSettingResponse { settings: oip::TRACE_SETTINGS.into_iter().map(setting).collect() })
}

pub(super) fn log(_shared: &Shared, _call: Call<'_>, request: &LogSettingsRequest) -> Answered<LogSettingsResponse> {
    use log_settings_request::setting_value::ParameterChoice as Asked;
    use log_settings_response::SettingValue;
    use log_settings_response::setting_value::ParameterChoice;
    let current = LogSettings::current();
    for (name, setting) in &request.settings {
        let value = match &setting.parameter_choice {
            Some(Asked::BoolParam(value)) => Parameter::Bool(*value),
            Some(Asked::Uint32Param(value)) => Parameter::Uint((*value).into()),
            Some(Asked::StringParam(value)) => Parameter::String(value.into()),
            None => return Err(failure(Refusal::new(Reason::InvalidInput, "a log setting has no value"))),
        };
        current.check(name, &value).map_err(failure)?;
    }
    let setting = |(name, value): (&str, Parameter<'_>)| {
        let choice = match value {
            Parameter::Bool(value) => ParameterChoice::BoolParam(value),
            Parameter::String(value) => ParameterChoice::StringParam(value.into_owned()),
            Parameter::Int(_) | Parameter::Uint(_) | Parameter::Double(_) => {
                let number = value.unsigned().and_then(|number| u32::try_from(number).ok());
                ParameterChoice::Uint32Param(number.unwrap_or_default())
            }
        };
        (name.to_owned(), SettingValue { parameter_choice: Some(choice) })
    };
    let settings: HashMap<_, _> = current.values().into_iter().map(setting).collect();
    Ok(LogSettingsResponse { settings })
}
