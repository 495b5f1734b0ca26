//! The flags for what the component may call.

use std::path::PathBuf;

use clap::Args;

use super::Faults;
use crate::allowlist::Allowed;
use crate::settings::OutboundLimits;
use crate::values::{count, network, positive_duration};

/// Whom the component may call, how many at a time, and how long that may take.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What the component may call")]
pub struct OutboundFlags {
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

    /// Time for a connection to a server: its name, TCP and TLS
    #[arg(long, value_name = "DURATION", default_value = "2s", env = "TAFFRAIL_OUTBOUND_CONNECT_TIMEOUT")]
    outbound_connect_timeout: String,

    /// Time for the head of a server's answer
    #[arg(long, value_name = "DURATION", default_value = "15s", env = "TAFFRAIL_OUTBOUND_FIRST_BYTE_TIMEOUT")]
    outbound_first_byte_timeout: String,

    /// Time between two pieces of a server's answer
    #[arg(long, value_name = "DURATION", default_value = "30s", env = "TAFFRAIL_OUTBOUND_BETWEEN_BYTES_TIMEOUT")]
    outbound_between_bytes_timeout: String,

    /// Calls under way at the same time, of all requests together
    #[arg(long, value_name = "COUNT", default_value = "1000", env = "TAFFRAIL_MAX_OUTBOUND")]
    max_outbound: String,

    /// Calls under way at the same time, of one request
    #[arg(long, value_name = "COUNT", default_value = "16", env = "TAFFRAIL_MAX_OUTBOUND_PER_REQUEST")]
    max_outbound_per_request: String,
}

impl OutboundFlags {
    /// Checks them; faults go to `faults`.
    pub fn check(&self, faults: &mut Faults) -> Option<OutboundLimits> {
        let mut list = |flag, texts: &[String]| -> Vec<_> {
            texts.iter().filter_map(|text| faults.read(flag, text, Allowed::parse)).collect()
        };
        let allowed = list("--allow-outbound", &self.allow_outbound);
        let networks = self.outbound_network.iter();
        let networks = networks.filter_map(|text| faults.read("--outbound-network", text, network)).collect();
        let connect = faults.read("--outbound-connect-timeout", &self.outbound_connect_timeout, positive_duration);
        let first = &self.outbound_first_byte_timeout;
        let first = faults.read("--outbound-first-byte-timeout", first, positive_duration);
        let between = &self.outbound_between_bytes_timeout;
        let between = faults.read("--outbound-between-bytes-timeout", between, positive_duration);
        let all = faults.read("--max-outbound", &self.max_outbound, count);
        let one = faults.read("--max-outbound-per-request", &self.max_outbound_per_request, count);
        Some(OutboundLimits {
            allowed,
            networks,
            ca_file: self.ca_file.clone(),
            connect_timeout: connect?,
            first_byte_timeout: first?,
            between_bytes_timeout: between?,
            max_in_flight: all?,
            max_per_request: one?,
        })
    }
}
