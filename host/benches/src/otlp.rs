//! What a trace collector costs that is not there, or accepts and never answers: it must not slow the traffic.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::report::table;
use crate::results::{self, Results};
use crate::rounds::{self, Settings};
use crate::servers::artifacts::Artifacts;
use crate::servers::server;

/// Measures it. False when something could not be measured.
///
/// # Errors
/// When no port can be had.
pub fn measure(artifacts: &Artifacts, settings: &Settings) -> anyhow::Result<bool> {
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?; // closed again at once
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let silent = listener.local_addr()?;
    let called = Arc::new(AtomicUsize::new(0));
    thread::spawn({
        let called = called.clone();
        move || {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                called.fetch_add(1, Ordering::Relaxed);
                kept.push(stream);
            }
        }
    });
    let variants = server::collectors(&closed.to_string(), &silent.to_string());
    let results = rounds::compare(artifacts, &variants, "otlp", "GET /app, 32 connections", settings);
    print!("\n{}{}", table::throughput(&results), results::notes(&[&results]));
    Ok(results.complete() && was_called(&results, called.load(Ordering::Relaxed)))
}

/// Without a call to the collector the comparison would compare nothing.
fn was_called(results: &Results, calls: usize) -> bool {
    if results.0.iter().any(|series| series.skipped.is_some()) {
        return true; // the table says what is not built yet
    }
    println!("\nThe silent collector was called {calls} times.");
    if calls == 0 {
        println!("FAILED: taffrail never called it, so nothing was compared.");
    }
    calls > 0
}
