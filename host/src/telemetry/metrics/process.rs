//! The standard metrics of a process, which every client library of Prometheus has.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;

use super::gauges::gauge;

/// The standard metrics of a process, from `/proc`.
#[derive(Debug)]
pub(crate) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The fields after the name, which stands in brackets and may hold anything.
        let fields: Vec<f64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .map(|field| field.parse().unwrap_or(0.0))
            .collect();
        let field = |at: usize| fields.get(at - 4).copied().unwrap_or(0.0); // numbered as in proc(5)
        let ticks = 100.0; // Linux fixed USER_HZ for good
        let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok()).unwrap_or(0.0);
        let cpu = ConstCounter::new((field(14) + field(15)) / ticks);
        let described =
            encoder.encode_descriptor("process_cpu_seconds", "CPU time of the process", None, cpu.metric_type())?;
        cpu.encode(described)?;
        let page = rustix::param::page_size() as f64;
        gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory", field(24) * page)?;
        gauge(&mut encoder, "process_virtual_memory_bytes", "Address space, most of it only reserved", field(23))?;
        gauge(&mut encoder, "process_threads", "Threads", field(20))?;
        gauge(&mut encoder, "process_start_time_seconds", "Start, in seconds since 1970", boot + field(22) / ticks)?;
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        gauge(&mut encoder, "process_open_fds", "Open descriptors", open as f64)?;
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        gauge(&mut encoder, "process_max_fds", "Descriptors that may be open", most.unwrap_or(u64::MAX) as f64)
    }
}
