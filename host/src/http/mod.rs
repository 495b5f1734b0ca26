//! What HTTP asks of a message, whoever sends it: lengths, bodies and their bounds, targets, forwarding proxies, trace context.

pub(crate) mod cookies;
pub(crate) mod forwarded;
pub(crate) mod framing;
pub(crate) mod request_body;
pub(crate) mod response_body;
pub(crate) mod target;
pub(crate) mod trace_context;
pub(crate) mod uri;
