//! The guard of CI: whether Taffrail still reaches its floor beside a host that has nothing but Wasmtime.

use anyhow::{Context as _, ensure};

use crate::report::table;
use crate::results;
use crate::rounds::{self, Settings};
use crate::servers::artifacts::Artifacts;
use crate::servers::launch;
use crate::servers::server::{self, Program};

/// Three tries; the best one decides. Throughput alone would be fooled: a busy neighbour slows the one more than the other.
/// So the CPU that a request costs on both sides has to keep the floor too; on a quiet machine the two ratios are the same.
/// Native hyper is measured beside them and decides nothing: how much dearer a sandbox is than none depends on the CPU
/// (`servers/bare.rs`).
///
/// # Errors
/// When something could not be measured, or requests failed.
pub fn hold(artifacts: &Artifacts, settings: &Settings, floor: f64) -> anyhow::Result<bool> {
    launch::precompile(artifacts, Program::Taffrail)?;
    let servers = server::guarded();
    let mut best = f64::MIN;
    for number in 1..=3 {
        let results = rounds::compare(artifacts, &servers, "guard", "GET /app, 32 connections", settings);
        print!("\nTry {number} of 3\n\n{}{}", table::throughput(&results), results::notes(&[&results]));
        ensure!(results.errors().is_empty(), "requests failed: the ratio says nothing");
        let ours = results.find("guard", "taffrail").context("taffrail was not measured")?;
        println!();
        for id in ["native", "bare"] {
            let peer = results.find("guard", id).with_context(|| format!("{id} was not measured"))?;
            let rate = ours.ratio("requests_per_second", peer).context("no round was measured")?.median;
            let cost = peer.ratio("both_cpu_us_per_request", ours).context("no round was measured")?.median;
            println!("taffrail ÷ {}: {rate:.3} by requests a second, {cost:.3} by CPU.", peer.server_title);
            if id == "bare" {
                best = best.max(rate.min(cost));
            }
        }
        if best >= floor {
            println!("At or above the floor of {floor} beside bare wasmtime.");
            return Ok(true);
        }
    }
    println!("Below the floor of {floor} in three tries, {best:.3} at best. A change has made requests dearer.");
    Ok(false)
}
