// The sources of the host that a target fuzzes, taken in by path: a dependency on the host would build wasmtime once more.

#[allow(dead_code, reason = "the host uses more of it")]
#[path = "../../src/cli"]
mod cli {
    mod config_dir;
    pub mod faults;
    mod limits;
    mod outbound;
    pub mod serve;
    mod values;
}
#[allow(dead_code, reason = "the host uses more of it")]
#[path = "../../src/config/mod.rs"]
mod config;
#[path = "../../src/http"]
mod http {
    pub mod uri;
}
#[path = "../../src/telemetry"]
mod telemetry {
    pub mod log_filter;
}

/// The command line of `taffrail serve`.
#[derive(Debug, clap::Parser)]
struct Serve {
    #[command(flatten)]
    flags: cli::serve::Flags,
}
