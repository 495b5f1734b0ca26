//! `taffrail check-health`: a client for container health checks, where there is neither shell nor curl.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use super::faults::Faults;
use super::values::address;

/// How long to wait for each step. Docker waits for 30 s by default, Kubernetes for one.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);

/// The flags of `check-health`.
#[derive(Debug, Clone, Args)]
pub struct CheckHealth {
    /// Address of the host's admin listener, as it was given to it
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9090", env = "TAFFRAIL_ADMIN_LISTEN")]
    admin_listen: String,
}

impl CheckHealth {
    /// Asks whether the host is ready.
    ///
    /// # Errors
    /// When the address is none, when nobody answers there, or when the host is not ready, with its own reason.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let mut faults = Faults::default();
        let address = faults.read("--admin-listen", &self.admin_listen, address);
        run(address.ok_or(faults)?)
    }
}

/// Asks the admin listener at this address whether the host is ready. The address is the one that it listens on, so
/// one that means "every interface" is asked on the loopback.
///
/// # Errors
/// When it is not, with its own reason, or when nobody answers.
fn run(mut admin: SocketAddr) -> anyhow::Result<ExitCode> {
    match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => admin.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => admin.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let answer = ask(admin).with_context(|| format!("no answer from {admin}; is the host running there?"))?;
    let reason = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
    match answer.split_whitespace().nth(1) {
        Some("200") => Ok(ExitCode::SUCCESS),
        Some("503") => bail!("not ready: {reason}"),
        _ => bail!("what answers at {admin} is not Taffrail's admin listener"),
    }
}

fn ask(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, STEP_TIMEOUT)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
