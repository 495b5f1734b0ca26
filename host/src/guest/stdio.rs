//! What a guest prints becomes log lines of the host, with the ids of the request and of its trace.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::http::trace_context::TraceId;
use crate::telemetry::rate_limit::{Pass, RateLimit};

/// The longest log line; a longer one is split. Also what the guest may write at once.
const LINE_MAX: usize = 8 * 1024;

/// The request and the trace that printed lines are logged with.
#[derive(Debug, Clone)]
pub(crate) struct Printer {
    request_id: Arc<str>,
    trace_id: TraceId,
}

impl Printer {
    /// A guest that runs for this request.
    pub(crate) fn new(request_id: Arc<str>, trace_id: TraceId) -> Self {
        Self { request_id, trace_id }
    }
}

/// One of a guest's two output streams. Clones are the same stream: a guest's runtime opens a new handle for every
/// write, so a line may come through many of them.
#[derive(Debug, Clone)]
pub(crate) struct GuestOutput(Arc<Mutex<Lines>>);

impl GuestOutput {
    /// `stream` is `stdout` or `stderr`; `rate` is for the lines of all guests together.
    pub(crate) fn new(stream: &'static str, printer: Printer, rate: Arc<RateLimit>) -> Self {
        Self(Arc::new(Mutex::new(Lines { stream, printer, rate, partial: Vec::new() })))
    }

    /// What is written from now on is another's.
    pub(crate) fn hand_over(&self, printer: &Printer) {
        let mut lines = self.lock();
        lines.end();
        lines.printer = printer.clone();
    }

    /// Logs a rest that has no newline.
    pub(crate) fn flush_line(&self) {
        self.lock().end();
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts what is written into lines. A rest without a newline is logged when the guest has ended.
#[derive(Debug)]
struct Lines {
    stream: &'static str,
    printer: Printer,
    rate: Arc<RateLimit>,
    partial: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            for chunk in text.chunks(LINE_MAX) {
                if self.partial.len() + chunk.len() > LINE_MAX {
                    self.log();
                }
                self.partial.extend_from_slice(chunk);
            }
            if ended {
                self.log();
            }
        }
    }

    /// A rest without a newline is a line, too.
    fn end(&mut self) {
        if !self.partial.is_empty() {
            self.log();
        }
    }

    fn log(&mut self) {
        let line = std::mem::take(&mut self.partial);
        match self.rate.pass() {
            Pass::No => return,
            Pass::Yes { dropped_before: 0 } => {}
            Pass::Yes { dropped_before } => tracing::warn!(
                target: "guest",
                dropped = dropped_before,
                "the component printed more lines than --guest-log-rate lets pass"
            ),
        }
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line));
        let (stream, request_id, trace_id) = (self.stream, &*self.printer.request_id, self.printer.trace_id);
        if request_id.is_empty() {
            tracing::info!(target: "guest", stream, "{line}"); // of an instance that answers several at the same time
        } else {
            tracing::info!(target: "guest", stream, request_id, %trace_id, "{line}");
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.end();
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.lock().push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LINE_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

impl AsyncWrite for GuestOutput {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.lock().push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
