//! The flags for the instances of the component.

use clap::Args;

use super::Faults;
use crate::settings::Reuse;
use crate::values::{count, memory_size, positive_duration};

/// How many requests an instance answers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Instances")]
pub struct InstanceFlags {
    /// Requests that one instance of the component may answer. 1: every request gets a fresh sandbox.
    /// More is faster, and what a request leaves in memory the next one finds; not every component
    /// can do it
    #[arg(long, value_name = "COUNT", default_value = "1", env = "TAFFRAIL_INSTANCE_REUSE")]
    instance_reuse: String,

    /// Requests that one instance of a component of WASI 0.3 may answer at the same time; --instance-reuse
    /// must be at least as many. More than 1 saves memory where requests wait for others, and a
    /// failure of one ends all that share its instance
    #[arg(long, value_name = "COUNT", default_value = "1", env = "TAFFRAIL_INSTANCE_CONCURRENCY")]
    instance_concurrency: String,

    /// How long an instance may wait for its next request before it ends
    #[arg(long, value_name = "DURATION", default_value = "60s", env = "TAFFRAIL_INSTANCE_IDLE")]
    instance_idle: String,

    /// Linear memory above which an instance ends after its request
    #[arg(long, value_name = "SIZE", default_value = "32MiB", env = "TAFFRAIL_INSTANCE_MEMORY")]
    instance_memory: String,
}

impl InstanceFlags {
    /// Checks them; faults go to `faults`.
    pub fn check(&self, faults: &mut Faults) -> Option<Reuse> {
        let requests = faults.read("--instance-reuse", &self.instance_reuse, count);
        let idle = faults.read("--instance-idle", &self.instance_idle, positive_duration);
        let concurrency = faults.read("--instance-concurrency", &self.instance_concurrency, count);
        if let (Some(requests), Some(concurrency)) = (requests, concurrency)
            && concurrency > requests
        {
            faults.add(
                "--instance-concurrency",
                "is more than --instance-reuse, the requests that an instance answers in all",
            );
        }
        let memory = faults.read("--instance-memory", &self.instance_memory, memory_size);
        Some(Reuse { requests: requests?, concurrency: concurrency?, idle: idle?, memory: memory? })
    }
}
