//! HTTP/1.1 and HTTP/2 on one port: how hyper is set up for each.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use tokio::task::coop::unconstrained;

use crate::config::Limits;
use crate::transport::unsent::{Unsent, Waiting};

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
        .max_buf_size(limits.head_buffer())
        .max_headers(limits.max_headers * 2);
    builder
}

pub(crate) fn http2(limits: &Limits, unsent: Arc<Unsent>) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor { unsent, woken: Arc::default() });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_max_streams)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(HTTP2_LOCAL_RESETS)
        .max_header_list_size(u32::try_from(limits.head_buffer()).unwrap_or(u32::MAX))
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_send_buf_size(HTTP2_SEND_BUFFER);
    builder
}

/// Runs each stream of HTTP/2 as a task, and ends the task when its response is to be aborted: the stream is reset then.
///
/// A stream's first turn is taken at once, by the connection that has read its head: a request that is refused is answered and
/// gone before the next head is looked at, however many heads have come. While there are slots enough, a request that is admitted
/// ends that turn and becomes a task of its own; with few of them left its guest runs as far as it can, and may be done.
#[derive(Debug, Clone)]
pub(crate) struct StreamExecutor {
    unsent: Arc<Unsent>,
    woken: Arc<Woken>,
}

/// A stream that has asked to be polled again, while its connection polls it.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// How often a stream that goes on by itself is polled in its first turn. A guest of WASI 0.3 needs three.
const FIRST_POLLS: usize = 8;

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut waiting = Waiting::new(self.unsent.clone());
        let mut stream = Box::pin(stream);
        let waker = Waker::from(self.woken.clone()); // as a task it is polled again before it waits for anything
        let mut context = Context::from_waker(&waker);
        for _ in 0..FIRST_POLLS {
            self.woken.0.store(false, Relaxed);
            // With a share of its own: that of the task is the connection's, and a guest is not to be stopped by the others' use of it.
            let mut turn = pin!(unconstrained(stream.as_mut()));
            if waiting.scope(|| turn.as_mut().poll(&mut context)).is_ready() {
                return;
            }
            let _ = waiting.poll(&mut context); // an answer that waits for its client alone gives its slot back, for the next head
            if !self.woken.0.load(Relaxed) {
                break;
            }
        }
        waiting.change_task();
        tokio::spawn(async move {
            poll_fn(|context| match waiting.scope(|| stream.as_mut().poll(context)) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => waiting.poll(context),
            })
            .await;
        });
    }
}
