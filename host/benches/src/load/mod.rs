//! The load generator: workloads, when their requests are due, HTTP clients, latencies.

pub mod cpu_time;
pub mod generator;
pub mod http1;
mod http2;
mod recorder;
pub mod schedule;
mod timer;
pub mod workload;
