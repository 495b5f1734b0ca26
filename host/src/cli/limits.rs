//! The flags for the limits, made from the rows of `config/limits.rs`.

use clap::Args;

use super::faults::Faults;
use super::values::{auto_or_count, count, memory_size, positive_duration, size, size_count};
use crate::config::limits::{guest_limits, instance_limits, outbound_limits, request_limits};
use crate::config::{GuestLimits, Limits, OutboundLimits, Reuse};

/// Makes the flags of some rows, and their check.
macro_rules! limit_flags {
    ($(#[$about:meta])+ $name:ident $flags:ident $heading:literal; $(
        $(#[$help:meta])+
        $field:ident: $type:ty, $read:ident, $unit:literal, $flag:literal, $variable:literal, $default:literal, $enforcer:literal;
    )+) => {
        $(#[$about])+
        #[derive(Debug, Clone, Args)]
        #[command(next_help_heading = $heading)]
        pub(crate) struct $flags {
            $(
                $(#[$help])+
                #[arg(id = $flag, long = $flag, value_name = $unit, default_value = $default, env = $variable)]
                $field: String,
            )+
        }

        impl $flags {
            /// Reads all of them; faults go to `faults`.
            pub(crate) fn check(&self, faults: &mut Faults) -> Option<$name> {
                $(let $field = faults.read(concat!("--", $flag), &self.$field, $read);)+
                Some($name { $($field: $field?,)+ })
            }
        }
    };
}

request_limits!(limit_flags);
guest_limits!(limit_flags);
instance_limits!(limit_flags);
outbound_limits!(limit_flags);

impl InstanceFlags {
    /// Reads all of them, and what they say together; faults go to `faults`.
    pub(crate) fn check_together(&self, faults: &mut Faults) -> Option<Reuse> {
        let reuse = self.check(faults)?;
        if reuse.concurrency > reuse.requests {
            faults.add(
                "--instance-concurrency",
                "is more than --instance-reuse, the requests that an instance answers in all",
            );
        }
        Some(reuse)
    }
}
