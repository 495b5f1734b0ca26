//! Bodies around bodies: the request's, which remembers what went wrong with it, and the response's, which keeps a guard
//! alive until its last byte. Both pass on `is_end_stream` and `size_hint`: the framing of HEAD, 204 and 304 needs them.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::CONTENT_LENGTH;
use hyper::{HeaderMap, Response};
use tokio::time::{Sleep, sleep};

use crate::error::Error;

/// The length that headers announce, in bytes.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// How a request body goes, for the side that answers: the guest sees only that its stream failed, but the client is to
/// be told the cause. Clones are the same body's.
#[derive(Debug, Clone, Default)]
pub struct BodyReport(Arc<Report>);

#[derive(Debug, Default)]
struct Report {
    failed: AtomicBool,
    fault: Mutex<Option<Error>>,
    waiting: AtomicBool,
    computing: AtomicBool,
    passing: AtomicBool,
    received: AtomicU64,
}

impl BodyReport {
    /// Whether it failed.
    pub fn is_failed(&self) -> bool {
        self.0.failed.load(Relaxed)
    }

    /// A turn of the guest begins. With `asks_again`, one that still waits for its client asks for more in each.
    pub fn begin_turn(&self, asks_again: bool) {
        self.0.computing.store(false, Relaxed);
        if asks_again {
            self.0.waiting.store(false, Relaxed);
        }
    }

    /// The guest had to be stopped in the midst of this turn.
    pub fn computes(&self) {
        self.0.computing.store(true, Relaxed);
    }

    /// Whether the guest waits for the client: it asked for more, nothing was there, and it has not computed since.
    pub fn is_waiting(&self) -> bool {
        self.0.waiting.load(Relaxed) && !self.0.computing.load(Relaxed)
    }

    /// The guest's response is asked for a frame.
    pub fn begin_passing(&self) {
        self.0.passing.store(false, Relaxed);
    }

    /// A body that comes from outside has nothing yet.
    pub fn waits_outside(&self) {
        self.0.passing.store(true, Relaxed);
    }

    /// Whether the response waits for a body from outside, which the guest passes on as it is.
    pub fn is_passing(&self) -> bool {
        self.0.passing.load(Relaxed)
    }

    /// Bytes that were received.
    pub fn received(&self) -> u64 {
        self.0.received.load(Relaxed)
    }

    /// Takes the cause of the failure.
    pub fn take_error(&self) -> Error {
        let fault = self.0.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        fault.unwrap_or_else(|| Error::ClientBodyBroken("it failed before".to_owned()))
    }

    fn fail(&self, error: Error) {
        let mut fault = self.0.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.0.failed.swap(true, Relaxed) {
            *fault = Some(error); // the first fault is the cause
        }
    }
}

/// The body of a request on its way to the guest.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    limit: u64,
    timeout: Duration,
    /// Ends the present wait, if there is one.
    waiting: Option<Pin<Box<Sleep>>>,
    report: BodyReport,
}

/// The guest's side of a fault: its stream ends in an error.
#[derive(Debug, thiserror::Error)]
#[error("the request body failed")]
pub struct RequestBodyError;

impl RequestBody {
    /// Wraps what hyper reads; `limit` is the most bytes that it may have, `timeout` the longest wait for the next ones.
    ///
    /// # Errors
    /// When its announced length is larger. Nothing was read then, and no `100 Continue` was sent.
    pub fn new(incoming: Incoming, limit: u64, timeout: Duration) -> Result<(Self, BodyReport), Error> {
        if incoming.size_hint().lower() > limit {
            return Err(Error::ClientBodyTooLarge(limit));
        }
        let report = BodyReport::default();
        Ok((Self { incoming, limit, timeout, waiting: None, report: report.clone() }, report))
    }

    /// The next frame, unless it is one too many or comes too late.
    fn poll_bounded(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(context);
        self.report.0.waiting.store(frame.is_pending(), Relaxed);
        match frame {
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(frame)) => {
                self.waiting = None;
                let frame = frame.map_err(|error| Error::ClientBodyBroken(error.to_string()));
                Poll::Ready(Some(frame.and_then(|frame| self.admit(frame))))
            }
            Poll::Pending => {
                self.report.waits_outside();
                let timeout = self.timeout;
                let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(timeout)));
                waiting.as_mut().poll(context).map(|()| Some(Err(Error::ClientBodyTimeout)))
            }
        }
    }

    fn admit(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Error> {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        if self.report.0.received.fetch_add(length, Relaxed) + length > self.limit {
            Err(Error::ClientBodyTooLarge(self.limit))
        } else {
            Ok(frame)
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        loop {
            match ready!(self.poll_bounded(context)) {
                None => return Poll::Ready(None),
                // An empty frame is nothing to a guest, and a row of them (HTTP/2 allows it) would use up the attempts
                // after which wasmtime-wasi-io gives a blocking read up.
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(error)) => {
                    self.report.fail(error);
                    return Poll::Ready(Some(Err(RequestBodyError)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// A response body: one of the host's own answers, or a stream.
#[derive(Debug)]
pub enum Answer<B> {
    /// All of it, at once.
    Whole(Full<Bytes>),
    /// What a guest writes.
    Stream(B),
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut *self {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Stream(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// Told how a response body goes.
pub trait Guard {
    /// A frame with this many bytes of data goes out; the next one is asked for when the client has room for it.
    fn sent(&mut self, bytes: usize);

    /// The client has room, and the body has nothing yet.
    fn waiting(&mut self);

    /// The body is over: whole, or cut by an error. Without this call the client has left.
    fn finish(&mut self, result: Result<(), &Error>);
}

/// A response body that holds a guard until its last byte, or until the client's leaving drops it.
#[derive(Debug)]
pub struct Guarded<B, G> {
    body: B,
    guard: G,
    /// Bytes that `content-length` still promises: hyper drops a body that has them all without asking for its end.
    promised: Option<u64>,
}

impl<B: Body, G: Guard> Guarded<B, G> {
    /// Puts the guard into a response's body. A body that is over already, such as that of a 204, is finished at once:
    /// hyper does not ask for a frame of it.
    pub fn wrap(response: Response<B>, mut guard: G) -> Response<Self> {
        let promised = content_length(response.headers());
        response.map(|body| {
            if body.is_end_stream() {
                guard.finish(Ok(()));
            }
            Self { body, guard, promised }
        })
    }
}

impl<B, G> Body for Guarded<B, G>
where
    B: Body<Data = Bytes, Error = Error> + Unpin,
    G: Guard + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            self.guard.waiting();
            return Poll::Pending;
        };
        match &frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.guard.sent(length);
                self.promised = self.promised.map(|promised| promised.saturating_sub(length as u64));
                if frame.is_trailers() || self.promised == Some(0) || self.body.is_end_stream() {
                    self.guard.finish(Ok(())); // hyper asks for no further frame
                }
            }
            Some(Err(error)) => self.guard.finish(Err(error)),
            None => self.guard.finish(Ok(())),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
