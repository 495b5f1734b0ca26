//! Every limit, written once: a row says what it bounds, its type, how its text is read, its unit, flag, variable and default, and
//! which file below `src` enforces it. The structs here and the flags of `cli/limits.rs` are made from the rows.

use std::time::Duration;

/// Hands the rows of a request's limits to a macro.
macro_rules! request_limits {
    ($make:ident) => {
        $make! {
            /// What one request, and all of them together, may cost.
            Limits RequestLimitFlags "Limits";

            /// The time of a whole request: admission, body, the component's work and the response
            deadline: Duration, positive_duration, "DURATION", "deadline", "TAFFRAIL_DEADLINE", "30s",
                "guest/mod.rs for the component's run, request/record.rs for a response that is not read";
            /// Requests in flight at the same time; more are answered 503 at once. auto: what the memory
            /// (the cgroup's) holds, 1000 at the most; the log shows it at start
            max_in_flight: Option<u32>, auto_or_count, "COUNT", "max-in-flight", "TAFFRAIL_MAX_IN_FLIGHT", "auto",
                "request/mod.rs; capacity.rs derives `auto`, which is None here";
            /// Connections open at the same time. For one more the longest idle makes room; where none is
            /// idle, it waits in the backlog. auto: 10000, or what memory holds. Never more than the limit
            /// of file descriptors allows
            max_connections: Option<u32>, auto_or_count, "COUNT", "max-connections", "TAFFRAIL_MAX_CONNECTIONS", "auto",
                "server/mod.rs; capacity.rs derives `auto`, which is None here";
            /// Time for a request's head, from its first byte; for the first one, from the start of the connection
            header_timeout: Duration, positive_duration, "DURATION", "header-timeout", "TAFFRAIL_HEADER_TIMEOUT", "10s",
                "server/connection.rs";
            /// Time between two requests of a connection
            idle_timeout: Duration, positive_duration, "DURATION", "idle-timeout", "TAFFRAIL_IDLE_TIMEOUT", "75s",
                "server/connection.rs";
            /// Time between two pieces of a request body; a slower one is answered 408
            body_timeout: Duration, positive_duration, "DURATION", "body-timeout", "TAFFRAIL_BODY_TIMEOUT", "30s",
                "http/request_body.rs";
            /// Time for which a client may take nothing of its response; then the connection is closed, over
            /// HTTP/2 the stream is reset
            write_timeout: Duration, positive_duration, "DURATION", "write-timeout", "TAFFRAIL_WRITE_TIMEOUT", "60s",
                "transport/socket.rs for a connection, request/record.rs and transport/unsent.rs for a response";
            /// Largest request line and header together; a larger one is answered 431
            max_header_size: usize, memory_size, "SIZE", "max-header-size", "TAFFRAIL_MAX_HEADER_SIZE", "32KiB",
                "request/admission.rs";
            /// Most header fields of a request; more are answered 431
            max_headers: usize, size_count, "COUNT", "max-headers", "TAFFRAIL_MAX_HEADERS", "100",
                "request/admission.rs";
            /// Largest request body; a larger one is answered 413
            max_body: u64, size, "SIZE", "max-body", "TAFFRAIL_MAX_BODY", "10MiB",
                "http/request_body.rs";
            /// Largest header of the component's response; a larger one becomes 502
            max_response_header_size: usize, memory_size, "SIZE", "max-response-header-size",
                "TAFFRAIL_MAX_RESPONSE_HEADER_SIZE", "64KiB",
                "request/admission.rs";
            /// HTTP/2 streams of one connection at the same time
            http2_max_streams: u32, count, "COUNT", "http2-max-streams", "TAFFRAIL_HTTP2_MAX_STREAMS", "128",
                "server/protocol.rs";
        }
    };
}

/// Hands the rows of a guest's limits to a macro.
macro_rules! guest_limits {
    ($make:ident) => {
        $make! {
            /// What one guest may use.
            GuestLimits GuestLimitFlags "Limits";

            /// Memory of one instance of the component: its linear memory, its tables, and the fields and bodies that it
            /// has the host hold
            memory: usize, memory_size, "SIZE", "guest-memory", "TAFFRAIL_GUEST_MEMORY", "128MiB",
                "guest/limits.rs, all of an instance together";
            /// Elements of one table of an instance
            table_elements: usize, size_count, "COUNT", "guest-table-elements", "TAFFRAIL_GUEST_TABLE_ELEMENTS", "100000",
                "guest/limits.rs";
            /// Handles (requests, fields, streams, …) that an instance may hold at the same time
            handles: usize, size_count, "COUNT", "guest-handles", "TAFFRAIL_GUEST_HANDLES", "10000",
                "guest/store.rs";
            /// Bytes that an instance may hand to the host in one call
            call_size: usize, memory_size, "SIZE", "guest-call-size", "TAFFRAIL_GUEST_CALL_SIZE", "4MiB",
                "guest/store.rs";
            /// Lines a second that all instances together may print to the log; the rest is counted
            log_rate: u32, count, "COUNT", "guest-log-rate", "TAFFRAIL_GUEST_LOG_RATE", "1000",
                "guest/stdio.rs";
        }
    };
}

/// Hands the rows of the limits of instances to a macro.
macro_rules! instance_limits {
    ($make:ident) => {
        $make! {
            /// How many requests an instance of the component may answer, and how long it is kept for the next one.
            Reuse InstanceFlags "Instances";

            /// Requests that one instance of the component may answer. 1: every request gets a fresh sandbox.
            /// More is faster, and what a request leaves in memory the next one finds; not every component
            /// can do it
            requests: u32, count, "COUNT", "instance-reuse", "TAFFRAIL_INSTANCE_REUSE", "1",
                "guest/pool.rs, and guest/shared.rs with --instance-concurrency";
            /// Requests that one instance of a component of WASI 0.3 may answer at the same time; --instance-reuse
            /// must be at least as many. More than 1 saves memory where requests wait for others, and a
            /// failure of one ends all that share its instance
            concurrency: u32, count, "COUNT", "instance-concurrency", "TAFFRAIL_INSTANCE_CONCURRENCY", "1",
                "guest/shared.rs";
            /// How long an instance may wait for its next request before it ends
            idle: Duration, positive_duration, "DURATION", "instance-idle", "TAFFRAIL_INSTANCE_IDLE", "60s",
                "guest/pool.rs, and guest/shared.rs with --instance-concurrency";
            /// Linear memory above which an instance ends after its request
            memory: usize, memory_size, "SIZE", "instance-memory", "TAFFRAIL_INSTANCE_MEMORY", "32MiB",
                "guest/pool.rs, and guest/shared.rs with --instance-concurrency";
        }
    };
}

/// Hands the rows of the limits of outbound calls to a macro.
macro_rules! outbound_limits {
    ($make:ident) => {
        $make! {
            /// How long outbound calls may take, and how many may be under way.
            OutboundLimits OutboundLimitFlags "What the component may call";

            /// Time for a connection to a server: its name, TCP and TLS
            connect_timeout: Duration, positive_duration, "DURATION", "outbound-connect-timeout",
                "TAFFRAIL_OUTBOUND_CONNECT_TIMEOUT", "2s",
                "guest/outbound/connector.rs";
            /// Time for the head of a server's answer
            first_byte_timeout: Duration, positive_duration, "DURATION", "outbound-first-byte-timeout",
                "TAFFRAIL_OUTBOUND_FIRST_BYTE_TIMEOUT", "15s",
                "guest/outbound/call.rs";
            /// Time between two pieces of a server's answer
            between_bytes_timeout: Duration, positive_duration, "DURATION", "outbound-between-bytes-timeout",
                "TAFFRAIL_OUTBOUND_BETWEEN_BYTES_TIMEOUT", "30s",
                "guest/outbound/call.rs";
            /// Calls under way at the same time, of all requests together
            max_in_flight: u32, count, "COUNT", "max-outbound", "TAFFRAIL_MAX_OUTBOUND", "1000",
                "guest/outbound/hooks.rs";
            /// Calls under way at the same time, of one request
            max_per_request: u32, count, "COUNT", "max-outbound-per-request", "TAFFRAIL_MAX_OUTBOUND_PER_REQUEST", "16",
                "guest/outbound/hooks.rs";
        }
    };
}

pub(crate) use {guest_limits, instance_limits, outbound_limits, request_limits};

/// Makes the struct of some rows.
macro_rules! limits_struct {
    ($(#[$about:meta])+ $name:ident $flags:ident $heading:literal; $(
        $(#[$help:meta])+
        $field:ident: $type:ty, $read:ident, $unit:literal, $flag:literal, $variable:literal, $default:literal, $enforcer:literal;
    )+) => {
        $(#[$about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name {
            $(
                $(#[$help])+
                #[doc = concat!("(`--", $flag, "`, by default ", $default, "). Enforced in ", $enforcer, ".")]
                pub $field: $type,
            )+
        }
    };
}

request_limits!(limits_struct);
guest_limits!(limits_struct);
instance_limits!(limits_struct);
outbound_limits!(limits_struct);

impl Limits {
    /// What hyper and h2 may buffer of a head, in bytes. The limit of the head is checked with the request; twice as much
    /// leaves room for that answer, and their own 431 comes beyond it.
    pub(crate) fn head_buffer(&self) -> usize {
        self.max_header_size.saturating_mul(2).max(16 * 1024) // hyper takes no less than 8 KiB
    }
}
