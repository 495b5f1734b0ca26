//! How much the host may take on, from what the machine gives it: memory and file descriptors. So that a pod is never
//! killed by its own defaults.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

const MIB: u64 = 1024 * 1024;

/// Connections, unless the flag, the descriptors or the memory say less.
const CONNECTIONS: u64 = 10_000;
/// Requests in flight, unless the flag or the memory say less. Two cores saturate far below; the address space of the
/// pool (8 GiB for each) is the reason not to go higher unasked.
pub(crate) const IN_FLIGHT: u32 = 1000;
/// Descriptors that are not connections: listeners, pollers, the log, files, admin connections (128).
const OTHER_DESCRIPTORS: u64 = 160;
/// What a connection may hold in the host beside the head that it buffers: its task, the states of hyper, h2 and HPACK. Most is taken
/// over HTTP/2 within a head; one that is idle has half of it.
const CONNECTION_COST: u64 = 32 * 1024;
/// What a request may hold in the host beside its guest's memory: the touched part of its stack, its store, two chunks of
/// its response body; and a share of the account of answers that wait for their clients, when it is over.
const REQUEST_COST: u64 = 256 * 1024;
/// That share.
const UNSENT_COST: u64 = 64 * 1024;

/// What the machine gives this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Memory in bytes, and where the number comes from.
    pub(crate) memory: u64,
    /// Which limit `memory` is, as the log names it.
    pub(crate) memory_source: &'static str,
    /// What the process has resident now, in bytes.
    pub(crate) resident: u64,
    /// File descriptors that it may have open.
    pub(crate) descriptors: u64,
}

/// What the host takes on. Shown in the log at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Open connections; more wait in the backlog.
    pub(crate) connections: u32,
    /// What one of them may hold in the host, in bytes.
    pub(crate) connection_cost: u64,
    /// Requests in flight; more are shed.
    pub(crate) in_flight: u32,
    /// What answers may hold that wait for their clients after their guests have ended, all together, in bytes.
    pub(crate) unsent: u64,
    /// Linear memory of all guests together, in bytes.
    pub(crate) guest_memory: u64,
}

impl Machine {
    /// Reads the limits of this process. Raises the soft limit of file descriptors to the hard one on the way.
    pub(crate) fn detect() -> Self {
        let (memory, memory_source) = memory_limit(Path::new("/"));
        let resident = read_number(Path::new("/proc/self/statm"), |text| text.split(' ').nth(1)).unwrap_or(0) * 4096;
        Self { memory, memory_source, resident, descriptors: descriptors() }
    }

    /// What to take on. `limits` are the flags; `initial` is the linear memory with which a guest starts, in bytes.
    ///
    /// A tenth of the memory stays free for the kernel's own (page tables, sockets) and the allocator's slack, and
    /// connections get a quarter at the most. What the process has already, code and compiled component, is taken off.
    pub(crate) fn capacity(&self, limits: &Limits, initial: u64) -> Capacity {
        let connection_cost = connection_cost(limits);
        let for_descriptors = self.descriptors.saturating_sub(OTHER_DESCRIPTORS).max(1);
        let for_memory = (self.memory / 4 / connection_cost).max(16);
        let asked = limits.max_connections.map_or(CONNECTIONS.min(for_memory), u64::from);
        let connections = u32::try_from(asked.min(for_descriptors)).unwrap_or(u32::MAX);

        let reserved = self.memory / 10 + u64::from(connections) * connection_cost + self.resident;
        let for_guests = self.memory.saturating_sub(reserved);
        let fitting = u32::try_from(for_guests / (initial + REQUEST_COST)).unwrap_or(u32::MAX).max(1);
        let in_flight = limits.max_in_flight.unwrap_or(fitting.min(IN_FLIGHT));
        let guest_memory = for_guests.saturating_sub(u64::from(in_flight) * REQUEST_COST).max(initial.max(MIB));
        let unsent = u64::from(in_flight) * UNSENT_COST;
        Capacity { connections, connection_cost, in_flight, unsent, guest_memory }
    }
}

/// What a connection may hold in the host, in bytes: the head that is buffered, with the slack of a buffer that grows, and the rest.
/// `costs` of the suite measures it.
fn connection_cost(limits: &Limits) -> u64 {
    let buffer = limits.head_buffer() as u64;
    CONNECTION_COST + buffer + buffer / 4
}

/// The tightest memory limit on this process: cgroup v2, else v1, else the machine's memory.
fn memory_limit(root: &Path) -> (u64, &'static str) {
    let physical = read_number(&root.join("proc/meminfo"), |text| {
        text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")
    });
    let physical = physical.map_or(512 * MIB, |kib| kib * 1024);
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let path_of =
        |prefix: &str| groups.lines().find_map(|line| line.split_once(prefix).map(|(_, path)| path.to_owned()));
    let v2 = path_of("0::").and_then(|path| tightest(&root.join("sys/fs/cgroup"), &path, "memory.max"));
    let v1 = || {
        path_of(":memory:")
            .and_then(|path| tightest(&root.join("sys/fs/cgroup/memory"), &path, "memory.limit_in_bytes"))
    };
    match (v2.filter(|limit| *limit < physical), v1().filter(|limit| *limit < physical)) {
        (Some(limit), _) => (limit, "cgroup v2 memory.max"),
        (None, Some(limit)) => (limit, "cgroup v1 memory.limit_in_bytes"),
        (None, None) => (physical, "the machine's memory: no cgroup limits it"),
    }
}

/// The smallest number in a file of this name, from a group up to the root of its hierarchy. In a container the group's
/// path may be the host's, which is not there: then the root is the group.
fn tightest(hierarchy: &Path, group: &str, file: &str) -> Option<u64> {
    let group: PathBuf = hierarchy.join(group.trim_start_matches('/'));
    let levels = group.ancestors().take_while(|level| level.starts_with(hierarchy));
    levels.filter_map(|level| read_number(&level.join(file), |text| Some(text))).min()
}

fn read_number(file: &Path, pick: impl FnOnce(&str) -> Option<&str>) -> Option<u64> {
    pick(&fs::read_to_string(file).ok()?)?.trim().parse().ok()
}

fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    now.current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Command, CommandLine};

    const GIB: u64 = 1024 * MIB;

    fn machine(memory: u64, descriptors: u64) -> Machine {
        Machine { memory, memory_source: "a test", resident: 30 * MIB, descriptors }
    }

    fn limits(max_connections: Option<u32>, max_in_flight: Option<u32>) -> Limits {
        let Ok(Command::Serve(flags)) =
            CommandLine::try_parse_from(["taffrail", "serve", "x"]).map(|line| line.command)
        else {
            unreachable!("serve is a command");
        };
        Limits { max_connections, max_in_flight, ..flags.check().unwrap().limits }
    }

    /// The worst that the derived numbers can cost.
    fn worst(capacity: Capacity) -> u64 {
        u64::from(capacity.connections) * capacity.connection_cost
            + u64::from(capacity.in_flight) * REQUEST_COST
            + capacity.guest_memory
            + 30 * MIB
    }

    #[test]
    fn a_large_machine_gets_the_defaults() {
        let capacity = machine(24 * GIB, 1_000_000).capacity(&limits(None, None), MIB);
        assert_eq!((capacity.connections, capacity.in_flight), (10_000, IN_FLIGHT));
        assert!(capacity.guest_memory > 19 * GIB);
    }

    #[test]
    fn the_worst_case_fits_into_every_pod_size() {
        for memory in [128 * MIB, 256 * MIB, 512 * MIB, GIB, 4 * GIB] {
            for initial in [64 * 1024, MIB, 4 * MIB] {
                let capacity = machine(memory, 1_000_000).capacity(&limits(None, None), initial);
                assert!(worst(capacity) <= memory - memory / 10, "{memory}: {capacity:?}");
                assert!(capacity.in_flight >= 8, "{memory}, {initial}: {capacity:?}");
            }
        }
    }

    #[test]
    fn connections_never_exceed_the_descriptors() {
        assert_eq!(machine(24 * GIB, 1024).capacity(&limits(None, None), MIB).connections, 1024 - 160);
        assert_eq!(machine(24 * GIB, 1024).capacity(&limits(Some(5000), None), MIB).connections, 1024 - 160);
        assert_eq!(machine(24 * GIB, 8).capacity(&limits(None, None), MIB).connections, 1);
    }

    #[test]
    fn flags_are_taken_at_their_word() {
        let capacity = machine(128 * MIB, 1_000_000).capacity(&limits(Some(7), Some(5000)), MIB);
        assert_eq!((capacity.connections, capacity.in_flight), (7, 5000));
        assert_eq!(capacity.guest_memory, MIB, "no room is left, and one guest may still try");
    }

    #[test]
    fn the_tightest_group_counts_and_the_source_is_named() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB\n");
        assert_eq!(memory_limit(root.path()), (16_384_000 * 1024, "the machine's memory: no cgroup limits it"));
        write("proc/self/cgroup", "4:memory:/a/b\n0::/\n");
        write("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
        write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "268435456\n");
        assert_eq!(memory_limit(root.path()), (256 * MIB, "cgroup v1 memory.limit_in_bytes"));
        write("proc/self/cgroup", "0::/pod/container\n");
        write("sys/fs/cgroup/pod/container/memory.max", "max\n");
        write("sys/fs/cgroup/pod/memory.max", "134217728\n");
        assert_eq!(memory_limit(root.path()), (128 * MIB, "cgroup v2 memory.max"));
        write("proc/self/cgroup", "0::/not/seen/from/here\n");
        write("sys/fs/cgroup/memory.max", "67108864\n");
        assert_eq!(memory_limit(root.path()), (64 * MIB, "cgroup v2 memory.max"));
    }
}
