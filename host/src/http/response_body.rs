//! The body of every answer: the host's own or the guest's, with an observer that lives until its last byte. `is_end_stream` and
//! `size_hint` are passed on: the framing of HEAD, 204 and 304 needs them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};

use super::framing::content_length;
use crate::error::Error;

/// A response body: one of the host's own answers, or a stream.
#[derive(Debug)]
pub(crate) enum ResponseBody<B> {
    /// A body that is there whole.
    Whole(Full<Bytes>),
    /// What a guest writes.
    Stream(B),
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for ResponseBody<B> {
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

/// A body that knows whether anybody has still to make some of it.
pub(crate) trait Made {
    /// What is left of it, in bytes; `None` while a guest writes it.
    fn left(&self) -> Option<usize>;
}

impl<B: Made> Made for ResponseBody<B> {
    fn left(&self) -> Option<usize> {
        match self {
            Self::Whole(body) => Some(usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)),
            Self::Stream(body) => body.left(),
        }
    }
}

/// Told how the sending of a response body goes.
pub(crate) trait BodyObserver {
    /// A frame with this many bytes of data goes out; the next one is asked for when the client has room for it. `left` are the
    /// bytes that come after it, where they are made already.
    fn sent(&mut self, bytes: usize, left: Option<usize>);

    /// The client has room, and the body has nothing yet.
    fn waiting(&mut self);

    /// The body is over: whole, or cut by an error. Without this call the client has left.
    fn finish(&mut self, result: Result<(), &Error>);
}

/// A response body that holds its observer until its last byte, or until the client's leaving drops it.
#[derive(Debug)]
pub(crate) struct ObservedBody<B, O> {
    body: B,
    observer: O,
    /// Bytes that `content-length` still promises: hyper drops a body that has them all without asking for its end.
    promised: Option<u64>,
}

impl<B: Body, O: BodyObserver> ObservedBody<B, O> {
    /// Puts the observer into a response's body. A body that is over already, such as that of a 204, is finished at once:
    /// hyper does not ask for a frame of it.
    pub(crate) fn wrap(response: Response<B>, mut observer: O) -> Response<Self> {
        let promised = content_length(response.headers());
        response.map(|body| {
            if body.is_end_stream() {
                observer.finish(Ok(()));
            }
            Self { body, observer, promised }
        })
    }
}

impl<B, O> Body for ObservedBody<B, O>
where
    B: Body<Data = Bytes, Error = Error> + Made + Unpin,
    O: BodyObserver + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            self.observer.waiting();
            return Poll::Pending;
        };
        match &frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                let left = self.body.left();
                self.observer.sent(length, left);
                self.promised = self.promised.map(|promised| promised.saturating_sub(length as u64));
                if frame.is_trailers() || self.promised == Some(0) || self.body.is_end_stream() {
                    self.observer.finish(Ok(())); // hyper asks for no further frame
                }
            }
            Some(Err(error)) => self.observer.finish(Err(error)),
            None => self.observer.finish(Ok(())),
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use hyper::header::CONTENT_LENGTH;

    use super::*;

    /// A body of these frames; `None` is a wait.
    struct Frames(VecDeque<Option<Result<Frame<Bytes>, Error>>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            match self.0.pop_front() {
                Some(None) => Poll::Pending,
                Some(frame) => Poll::Ready(frame),
                None => Poll::Ready(None),
            }
        }
    }

    impl Made for Frames {
        fn left(&self) -> Option<usize> {
            None
        }
    }

    #[derive(Default, Clone)]
    struct Observations(Arc<Mutex<Vec<String>>>);

    impl BodyObserver for Observations {
        fn sent(&mut self, bytes: usize, _left: Option<usize>) {
            self.0.lock().unwrap().push(format!("sent {bytes}"));
        }

        fn waiting(&mut self) {
            self.0.lock().unwrap().push("waiting".to_owned());
        }

        fn finish(&mut self, result: Result<(), &Error>) {
            self.0.lock().unwrap().push(result.map_or_else(|error| error.reason().to_owned(), |()| "whole".to_owned()));
        }
    }

    /// What the observer of such a body hears when hyper polls it so often.
    fn observed(length: Option<&str>, frames: Vec<Option<Result<Frame<Bytes>, Error>>>, polls: usize) -> Vec<String> {
        let mut response = Response::new(Frames(frames.into()));
        if let Some(length) = length {
            response.headers_mut().insert(CONTENT_LENGTH, length.parse().unwrap());
        }
        let observer = Observations::default();
        let mut body = ObservedBody::wrap(response, observer.clone()).into_body();
        for _ in 0..polls {
            let _ = Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
        }
        drop(body);
        observer.0.lock().unwrap().clone()
    }

    fn data(bytes: &'static [u8]) -> Option<Result<Frame<Bytes>, Error>> {
        Some(Ok(Frame::data(Bytes::from_static(bytes))))
    }

    #[test]
    fn a_body_without_a_length_is_whole_at_its_end() {
        assert_eq!(observed(None, vec![data(b"abc"), None, data(b"d")], 4), ["sent 3", "waiting", "sent 1", "whole"]);
    }

    #[test]
    fn a_body_with_a_length_is_whole_with_its_last_byte_since_hyper_does_not_ask_for_the_end() {
        assert_eq!(observed(Some("4"), vec![data(b"abc"), data(b"d")], 2), ["sent 3", "sent 1", "whole"]);
        assert_eq!(observed(Some("4"), vec![data(b"abc")], 1), ["sent 3"], "a client that leaves hears no end");
    }

    #[test]
    fn trailers_are_the_end_and_an_error_is_told_with_its_reason() {
        let trailers = || Some(Ok(Frame::trailers(hyper::HeaderMap::new())));
        assert_eq!(observed(None, vec![data(b"a"), trailers()], 2), ["sent 1", "sent 0", "whole"]);
        assert_eq!(observed(None, vec![data(b"a"), Some(Err(Error::GuestDeadline))], 2), ["sent 1", "guest_deadline"]);
    }

    #[test]
    fn a_body_that_is_over_from_the_start_is_whole_without_a_poll() {
        let observer = Observations::default();
        let empty = ResponseBody::<Frames>::Whole(Full::default());
        drop(ObservedBody::wrap(Response::new(empty), observer.clone()));
        assert_eq!(*observer.0.lock().unwrap(), ["whole"]);
    }
}
