//! The suite: one binary, one file per promise. Real sockets, real components, port 0; order comes from handshakes.

mod composition;
mod concurrency;
mod docs;
mod drain;
mod failures;
mod foreign;
mod framing;
mod health;
mod hostile;
mod limits;
mod metrics;
mod outbound;
mod precompiled;
mod process;
mod protocol;
mod reuse;
mod routes;
mod rules;
mod sandbox;
mod soak;
mod startup;
mod status;
mod streams;
mod support;
mod traces;
mod upstream;
