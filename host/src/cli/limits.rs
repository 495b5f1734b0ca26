//! The flags for the limits.

use clap::Args;

use super::Faults;
use crate::settings::{GuestLimits, Limits};
use crate::values::{auto_or_count, count, memory_size, positive_duration, size};

/// What one request, one guest, and all of them together may cost.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitFlags {
    /// The time of a whole request: admission, body, the component's work and the response
    #[arg(long, value_name = "DURATION", default_value = "30s", env = "TAFFRAIL_DEADLINE")]
    deadline: String,

    /// Requests in flight at the same time; more are answered 503 at once. auto: what the memory
    /// (the cgroup's) holds, 1000 at the most; the log shows it at start
    #[arg(long, value_name = "COUNT", default_value = "auto", env = "TAFFRAIL_MAX_IN_FLIGHT")]
    max_in_flight: String,

    /// Connections open at the same time; more wait in the backlog. auto: 10000, or what memory
    /// holds. Never more than the limit of file descriptors allows
    #[arg(long, value_name = "COUNT", default_value = "auto", env = "TAFFRAIL_MAX_CONNECTIONS")]
    max_connections: String,

    /// Time for a request's head, from its first byte
    #[arg(long, value_name = "DURATION", default_value = "10s", env = "TAFFRAIL_HEADER_TIMEOUT")]
    header_timeout: String,

    /// Time between two requests of a connection
    #[arg(long, value_name = "DURATION", default_value = "75s", env = "TAFFRAIL_IDLE_TIMEOUT")]
    idle_timeout: String,

    /// Time between two pieces of a request body; a slower one is answered 408
    #[arg(long, value_name = "DURATION", default_value = "30s", env = "TAFFRAIL_BODY_TIMEOUT")]
    body_timeout: String,

    /// Time for which a client may read nothing of its response; then the connection is closed
    #[arg(long, value_name = "DURATION", default_value = "60s", env = "TAFFRAIL_WRITE_TIMEOUT")]
    write_timeout: String,

    /// Largest request line and header together; a larger one is answered 431
    #[arg(long, value_name = "SIZE", default_value = "32KiB", env = "TAFFRAIL_MAX_HEADER_SIZE")]
    max_header_size: String,

    /// Most header fields of a request; more are answered 431
    #[arg(long, value_name = "COUNT", default_value = "100", env = "TAFFRAIL_MAX_HEADERS")]
    max_headers: String,

    /// Largest request body; a larger one is answered 413
    #[arg(long, value_name = "SIZE", default_value = "10MiB", env = "TAFFRAIL_MAX_BODY")]
    max_body: String,

    /// Largest header of the component's response; a larger one becomes 502
    #[arg(long, value_name = "SIZE", default_value = "64KiB", env = "TAFFRAIL_MAX_RESPONSE_HEADER_SIZE")]
    max_response_header_size: String,

    /// HTTP/2 streams of one connection at the same time
    #[arg(long, value_name = "COUNT", default_value = "128", env = "TAFFRAIL_HTTP2_MAX_STREAMS")]
    http2_max_streams: String,

    /// Linear memory of one instance of the component
    #[arg(long, value_name = "SIZE", default_value = "128MiB", env = "TAFFRAIL_GUEST_MEMORY")]
    guest_memory: String,

    /// Elements of one table of an instance
    #[arg(long, value_name = "COUNT", default_value = "100000", env = "TAFFRAIL_GUEST_TABLE_ELEMENTS")]
    guest_table_elements: String,

    /// Handles (requests, fields, streams, …) that an instance may hold at the same time
    #[arg(long, value_name = "COUNT", default_value = "10000", env = "TAFFRAIL_GUEST_HANDLES")]
    guest_handles: String,

    /// Bytes that an instance may hand to the host in one call
    #[arg(long, value_name = "SIZE", default_value = "4MiB", env = "TAFFRAIL_GUEST_CALL_SIZE")]
    guest_call_size: String,

    /// Lines a second that all instances together may print to the log; the rest is counted
    #[arg(long, value_name = "COUNT", default_value = "1000", env = "TAFFRAIL_GUEST_LOG_RATE")]
    guest_log_rate: String,
}

impl LimitFlags {
    /// Checks those of a request; faults go to `faults`.
    pub fn check(&self, faults: &mut Faults) -> Option<Limits> {
        let deadline = faults.read("--deadline", &self.deadline, positive_duration);
        let max_in_flight = faults.read("--max-in-flight", &self.max_in_flight, auto_or_count);
        let max_connections = faults.read("--max-connections", &self.max_connections, auto_or_count);
        let header_timeout = faults.read("--header-timeout", &self.header_timeout, positive_duration);
        let idle_timeout = faults.read("--idle-timeout", &self.idle_timeout, positive_duration);
        let body_timeout = faults.read("--body-timeout", &self.body_timeout, positive_duration);
        let write_timeout = faults.read("--write-timeout", &self.write_timeout, positive_duration);
        let max_header_size = faults.read("--max-header-size", &self.max_header_size, memory_size);
        let max_headers = faults.read("--max-headers", &self.max_headers, count);
        let max_body = faults.read("--max-body", &self.max_body, size);
        let response_header = &self.max_response_header_size;
        let max_response_header_size = faults.read("--max-response-header-size", response_header, memory_size);
        let http2_max_streams = faults.read("--http2-max-streams", &self.http2_max_streams, count);
        Some(Limits {
            deadline: deadline?,
            max_in_flight: max_in_flight?,
            max_connections: max_connections?,
            header_timeout: header_timeout?,
            idle_timeout: idle_timeout?,
            body_timeout: body_timeout?,
            write_timeout: write_timeout?,
            max_header_size: max_header_size?,
            max_headers: max_headers? as usize,
            max_body: max_body?,
            max_response_header_size: max_response_header_size?,
            http2_max_streams: http2_max_streams?,
        })
    }

    /// Checks those of a guest; faults go to `faults`.
    pub fn check_guest(&self, faults: &mut Faults) -> Option<GuestLimits> {
        let memory = faults.read("--guest-memory", &self.guest_memory, memory_size);
        let table_elements = faults.read("--guest-table-elements", &self.guest_table_elements, count);
        let handles = faults.read("--guest-handles", &self.guest_handles, count);
        let call_size = faults.read("--guest-call-size", &self.guest_call_size, memory_size);
        let log_rate = faults.read("--guest-log-rate", &self.guest_log_rate, count);
        Some(GuestLimits {
            memory: memory?,
            table_elements: table_elements? as usize,
            handles: handles? as usize,
            call_size: call_size?,
            log_rate: log_rate?,
        })
    }
}
