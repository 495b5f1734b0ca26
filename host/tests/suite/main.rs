//! The suite: one binary, one file per promise. Real sockets, real components, port 0; order comes from handshakes.

mod drain;
mod failures;
mod health;
mod process;
mod routes;
mod rules;
mod sandbox;
mod startup;
mod streams;
mod support;
