//! HTTP/1.1 and HTTP/2 on one port: how hyper is set up for each.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;

use crate::config::Limits;
use crate::transport::unsent::{Unsent, Waiting};

/// What hyper may buffer of a connection, in bytes. The limit of the head is checked with the request; twice as much
/// leaves room for that answer, and hyper's own 431 comes beyond it.
fn buffer_max(limits: &Limits) -> usize {
    (limits.max_header_size * 2).max(16 * 1024) // hyper takes no less than 8 KiB
}

/// HTTP/2: how much of a stream, and of all streams of a connection, a client may send ahead of the guest's reading.
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// HTTP/2: what is buffered of a response that the client does not read, in bytes.
const HTTP2_SEND_BUFFER: usize = 64 * 1024;
/// HTTP/2: resets by the client that wait for us (CVE-2023-44487), and resets that it provoked (CVE-2025-8671), before
/// the connection is closed. hyper's own numbers, written down so that an upgrade cannot change them unseen.
const HTTP2_PENDING_RESETS: usize = 20;
const HTTP2_LOCAL_RESETS: usize = 1024;

pub(crate) fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Activity bounds the time of a head; hyper's own clock, which would bound idle time by the same number, is off.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(buffer_max(limits))
        .max_headers(limits.max_headers * 2);
    builder
}

pub(crate) fn http2(limits: &Limits, unsent: Arc<Unsent>) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor(unsent));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_max_streams)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(HTTP2_LOCAL_RESETS)
        .max_header_list_size(u32::try_from(buffer_max(limits)).unwrap_or(u32::MAX))
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_send_buf_size(HTTP2_SEND_BUFFER);
    builder
}

/// Runs each stream of HTTP/2 as a task, and ends the task when its response is to be aborted: the stream is reset then.
#[derive(Debug, Clone)]
pub(crate) struct StreamExecutor(Arc<Unsent>);

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut waiting = Waiting::new(self.0.clone());
        tokio::spawn(async move {
            let mut stream = pin!(stream);
            poll_fn(|context| match waiting.scope(|| stream.as_mut().poll(context)) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => waiting.poll(context),
            })
            .await;
        });
    }
}
