//! CPU time: that of the generator, and that of the whole machine.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of this process until now.
pub fn of_this_process() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// CPU time of all processes until now: user, nice and system of `/proc/stat`. The kernel's own share of the network,
/// where it is counted apart, belongs to nobody.
///
/// # Errors
/// When the kernel does not tell.
pub fn of_all_processes() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(3);
    let ticks = fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}
