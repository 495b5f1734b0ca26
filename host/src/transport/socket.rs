//! The socket of a connection: finds out what is spoken on it, reports what is received, and gives up a client that takes nothing for
//! too long.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::header_blocks::HeaderBlocks;
use super::message_framing::MessageFraming;
use crate::config::Limits;

/// How long a client may go on sending after an answer that ends its connection, how long it may send nothing meanwhile, and
/// how long it has when the host is asked to end. nginx has 30 s and 5 s (`lingering_time`, `lingering_timeout`).
const LINGER_MAX: Duration = Duration::from_secs(30);
const LINGER_IDLE: Duration = Duration::from_secs(5);
const LINGER_CLOSING: Duration = Duration::from_secs(1);
/// What it may send then, in bytes: more than any upload that a proxy sends whole before it looks for the answer.
const LINGER_BYTES: usize = 256 * 1024 * 1024;

/// What every HTTP/2 client sends first (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The socket of an accepted connection.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    activity: Arc<Activity>,
    /// What the client said first, as far as it is not passed on: [`Socket::speaks_http2`] has read it.
    said: Said,
    framing: Framing,
    /// How long a client may take nothing of what is ready for it.
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    /// Everything was written, and the client has been told that no more comes.
    shut: bool,
}

/// Where requests begin and end.
#[derive(Debug)]
enum Framing {
    Http1(MessageFraming),
    Http2(HeaderBlocks),
}

/// The beginning of what a client says, and how much of that was passed on.
#[derive(Debug, Default)]
struct Said {
    bytes: [u8; HTTP2_PREFACE.len()],
    length: usize,
    passed_on: usize,
}

impl Socket {
    /// A socket with the limits of its connection.
    pub(crate) fn new(stream: TcpStream, activity: Arc<Activity>, limits: &Limits) -> Self {
        let framing = Framing::Http1(MessageFraming::new(limits.max_header_size));
        let (said, write_timeout) = (Said::default(), limits.write_timeout);
        Self { stream, activity, said, framing, write_timeout, stalled: None, shut: false }
    }

    /// Whether the client starts with the preface of HTTP/2. What it takes to know that is read here, once, and passed on later.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(crate) async fn speaks_http2(&mut self) -> std::io::Result<bool> {
        while let Some(said) = self.said.bytes.get(..self.said.length)
            && HTTP2_PREFACE.starts_with(said)
        {
            if said.len() == HTTP2_PREFACE.len() {
                self.activity.set_http2();
                self.framing = Framing::Http2(HeaderBlocks::default());
                return Ok(true);
            }
            let room = self.said.bytes.get_mut(self.said.length..).unwrap_or_default();
            match self.stream.read(room).await? {
                0 => break, // hyper will find out
                count => self.said.length += count,
            }
        }
        Ok(false)
    }

    fn received(&mut self, bytes: &[u8]) {
        match &mut self.framing {
            Framing::Http1(framing) => {
                framing.received(bytes);
                self.activity.received(framing.is_within_head());
                self.activity.set_body_open(framing.is_within_body());
                if let Some(refused) = framing.refused() {
                    self.activity.refuse(refused);
                }
            }
            Framing::Http2(blocks) => {
                blocks.received(bytes);
                self.activity.received(blocks.is_within_head());
            }
        }
    }

    fn bounded<T>(&mut self, context: &mut Context<'_>, write: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        if write.is_ready() {
            self.activity.written();
            if self.stalled.take().is_some() {
                self.activity.set_blocked(false);
            }
            return write;
        }
        self.activity.set_blocked(true);
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        if stalled.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.activity.stalled();
        Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl Said {
    /// Passes on what the buffer has room for.
    fn pass_on(&mut self, buffer: &mut ReadBuf<'_>) {
        let rest = self.bytes.get(self.passed_on..self.length).unwrap_or_default();
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(rest.get(..count).unwrap_or_default());
        self.passed_on += count;
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.activity.has_read_enough() {
            context.waker().wake_by_ref(); // it goes on in the next turn
            return Poll::Pending;
        }
        let mut before = buffer.filled().len();
        let mut passed_on = false;
        if self.said.passed_on < self.said.length {
            self.said.pass_on(buffer);
            passed_on = true;
            if self.activity.is_http2() {
                before = buffer.filled().len(); // the preface is no frame
            }
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(bytes @ [_, ..]) = buffer.filled().get(before..) {
            self.activity.read(bytes.len());
            self.received(bytes);
        }
        // What there is goes on; whatever else the socket has to say, it says to the next who asks.
        if passed_on { Poll::Ready(Ok(())) } else { read }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.shut = true;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Drop for Socket {
    /// A socket that is closed with something unread resets the connection, and with it goes what was written last: the answer.
    /// So one that ends within a request stays open for [`linger`].
    fn drop(&mut self) {
        let within = matches!(&self.framing, Framing::Http1(framing) if framing.is_within_message());
        if !self.shut || !within {
            return;
        }
        let copy = rustix::io::dup(&self.stream).map_err(std::io::Error::from);
        if let Ok(stream) = copy.and_then(|copy| TcpStream::from_std(copy.into())) {
            self.activity.leave_unread(stream);
        }
    }
}

/// Reads what a client still sends and throws it away, until the client has closed, sends nothing for [`LINGER_IDLE`], or has
/// had [`LINGER_MAX`] or sent [`LINGER_BYTES`] (RFC 9112, 9.6). When the host is asked to end, a second is enough.
pub(crate) async fn linger(mut stream: TcpStream, closing: &CancellationToken) {
    let (began, mut left, mut unread) = (Instant::now(), LINGER_BYTES, vec![0; 16 * 1024]);
    loop {
        let limit = if closing.is_cancelled() { LINGER_CLOSING } else { LINGER_MAX };
        let until = (began + limit).min(Instant::now() + LINGER_IDLE);
        match timeout_at(until, stream.read(&mut unread)).await {
            Ok(Ok(count)) if count > 0 && count < left => left -= count,
            _ => return,
        }
    }
}
