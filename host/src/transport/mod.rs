//! What lies under HTTP: the socket, what its connection is doing, and the times that bound a client that stalls.

pub(crate) mod activity;
pub(crate) mod deadline;
pub(crate) mod header_blocks;
pub(crate) mod message_framing;
pub(crate) mod socket;
pub(crate) mod unsent;
