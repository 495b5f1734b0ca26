//! Cold starts: from exec to the first 200.

use std::time::Instant;

use crate::load::http1;
use crate::load::workload::WORKLOADS;
use crate::results::{Figures, Results, Series};
use crate::servers::artifacts::Artifacts;
use crate::servers::launch;
use crate::servers::server::{Component, Form, Server};

const MIB: f64 = 1024.0 * 1024.0;

/// Starts every server `count` times, by turns.
pub fn measure(artifacts: &Artifacts, servers: &[Server], count: usize) -> Results {
    let mut results = Vec::new();
    for server in servers {
        let skipped = artifacts.missing(server, Component::Hello).map(|what| format!("not built yet: {what}"));
        let mut series = Series::new(("start", "exec to first 200"), (server.id, server.title), skipped);
        if series.skipped.is_none() && server.form == Form::Precompiled {
            let refused = launch::precompile(artifacts, server.program).err();
            series.errors.extend(refused.map(|error| format!("{error:#}")));
        }
        results.push(series);
    }
    for round in 0..count {
        eprintln!("start {} of {count}", round + 1);
        for (server, series) in servers.iter().zip(&mut results).filter(|(_, series)| series.skipped.is_none()) {
            let started = start(artifacts, server);
            series.errors.extend(started.as_ref().err().map(|error| format!("{error:#}")));
            series.rounds.push(started.ok());
        }
    }
    Results(results)
}

fn start(artifacts: &Artifacts, server: &Server) -> anyhow::Result<Figures> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begin = Instant::now();
    let process = launch::start(artifacts, server, Component::Hello)?;
    runtime.block_on(http1::Client::new(process.address, &WORKLOADS[0], &artifacts.token).request())?;
    let took = begin.elapsed();
    Ok(Figures::from([
        ("start_ms", took.as_secs_f64() * 1e3),
        ("idle_rss_mib", process.memory()? as f64 / MIB),
        ("start_cpu_ms", process.cpu()?.as_secs_f64() * 1e3),
    ]))
}
