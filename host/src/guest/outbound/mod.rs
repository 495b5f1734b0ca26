//! What a guest may call: the servers that `--allow-outbound` names, bounded in time and number, over connections that
//! all guests share. Everything else is refused with `wasi:http`'s own error, and the log names the flag.

mod address;
mod call;
mod client;
mod connector;
mod hooks;
mod refusal;
mod resolver;

pub(crate) use client::OutboundClient;
pub(crate) use hooks::{BODY_AHEAD, OutboundHooks};
