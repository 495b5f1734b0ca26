//! The body of a request on its way to the guest: bounded in size and pace, and with a report of what went wrong with it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::error::Error;

/// How a request body goes, for the side that answers: the guest sees only that its stream failed, but the client is to
/// be told the cause. Clones are the same body's.
#[derive(Debug, Clone, Default)]
pub(crate) struct BodyReport(Arc<Report>);

#[derive(Debug, Default)]
struct Report {
    failed: AtomicBool,
    fault: Mutex<Option<Error>>,
    waiting: AtomicBool,
    computing: AtomicBool,
    passing: AtomicBool,
    left: AtomicBool,
    received: AtomicU64,
}

impl BodyReport {
    /// Whether it failed.
    pub(crate) fn is_failed(&self) -> bool {
        self.0.failed.load(Relaxed)
    }

    /// A turn of the guest begins. With `asks_again`, one that still waits for its client asks for more in each.
    pub(crate) fn begin_turn(&self, asks_again: bool) {
        self.0.computing.store(false, Relaxed);
        if asks_again {
            self.0.waiting.store(false, Relaxed);
        }
    }

    /// The guest had to be stopped in the midst of this turn.
    pub(crate) fn computes(&self) {
        self.0.computing.store(true, Relaxed);
    }

    /// Whether the guest waits for the client: it asked for more, nothing was there, and it has not computed since.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.waiting.load(Relaxed) && !self.0.computing.load(Relaxed)
    }

    /// The guest's response is asked for a frame.
    pub(crate) fn begin_passing(&self) {
        self.0.passing.store(false, Relaxed);
    }

    /// A body that comes from outside has nothing yet.
    pub(crate) fn waits_outside(&self) {
        self.0.passing.store(true, Relaxed);
    }

    /// Whether the response waits for a body from outside, which the guest passes on as it is.
    pub(crate) fn is_passing(&self) -> bool {
        self.0.passing.load(Relaxed)
    }

    /// Whether nobody will read what is left of it.
    pub(crate) fn is_left(&self) -> bool {
        self.0.left.load(Relaxed)
    }

    /// Bytes that were received.
    pub(crate) fn received(&self) -> u64 {
        self.0.received.load(Relaxed)
    }

    /// Takes the cause of the failure.
    pub(crate) fn take_error(&self) -> Error {
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
pub(crate) struct RequestBody {
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
pub(crate) struct RequestBodyError;

impl RequestBody {
    /// Wraps what hyper reads; `limit` is the most bytes that it may have, `timeout` the longest wait for the next ones.
    ///
    /// # Errors
    /// When its announced length is larger. Nothing was read then, and no `100 Continue` was sent.
    pub(crate) fn new(incoming: Incoming, limit: u64, timeout: Duration) -> Result<(Self, BodyReport), Error> {
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

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.report.0.left.store(true, Relaxed);
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
