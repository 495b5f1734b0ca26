//! The flags for what the component may call.

use std::path::PathBuf;

use clap::Args;

use super::faults::Faults;
use super::limits::OutboundLimitFlags;
use super::values::network;
use crate::config::{Allowed, OutboundSettings};

/// Whom the component may call, how many at a time, and how long that may take.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What the component may call")]
pub(crate) struct OutboundFlags {
    /// A server that the component may call: scheme, host (perhaps *.example.com) and port
    /// (repeatable; the variable takes a list with commas). By default it may call none
    #[arg(long, value_name = "URL", env = "TAFFRAIL_ALLOW_OUTBOUND", value_delimiter = ',')]
    allow_outbound: Vec<String>,

    /// A network that is not public, which allowed names may lead to all the same, such as the
    /// cluster's (repeatable; the variable takes a list with commas). An address that
    /// --allow-outbound names itself needs none
    #[arg(long, value_name = "CIDR", env = "TAFFRAIL_OUTBOUND_NETWORK", value_delimiter = ',')]
    outbound_network: Vec<String>,

    /// Certificate authorities to trust beside the machine's, in PEM
    #[arg(long, value_name = "FILE", env = "TAFFRAIL_CA_FILE")]
    ca_file: Option<PathBuf>,

    #[command(flatten)]
    limits: OutboundLimitFlags,
}

impl OutboundFlags {
    /// Checks them; faults go to `faults`.
    pub(crate) fn check(&self, faults: &mut Faults) -> Option<OutboundSettings> {
        let mut list = |flag, texts: &[String]| -> Vec<_> {
            texts.iter().filter_map(|text| faults.read(flag, text, Allowed::parse)).collect()
        };
        let allowed = list("--allow-outbound", &self.allow_outbound);
        let networks = self.outbound_network.iter();
        let networks = networks.filter_map(|text| faults.read("--outbound-network", text, network)).collect();
        let limits = self.limits.check(faults);
        Some(OutboundSettings { allowed, networks, ca_file: self.ca_file.clone(), limits: limits? })
    }
}
