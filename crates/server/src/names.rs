//! The names of the metrics that the server itself records.

/// Open connections; label `listener`.
pub(crate) const CONNECTIONS: &str = "millrace_server_connections";
/// Connections over the limit; label `listener`.
pub(crate) const CONNECTIONS_REFUSED: &str = "millrace_server_connections_refused_total";
/// Failures to accept, such as running out of file descriptors; label `listener`.
pub(crate) const ACCEPT_ERRORS: &str = "millrace_server_accept_errors_total";
/// Always 1; label `version`.
pub(crate) const BUILD_INFO: &str = "millrace_server_build_info";
/// Seconds since the metrics were set up.
pub(crate) const UPTIME: &str = "millrace_server_uptime_seconds";
/// Resident memory of the process.
pub(crate) const RESIDENT: &str = "process_resident_memory_bytes";
/// Open file descriptors of the process.
pub(crate) const OPEN_FILES: &str = "process_open_fds";
