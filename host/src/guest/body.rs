//! The body of a guest's response, which runs the guest as it is read.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::CONTENT_LENGTH;
use hyper::{Response, StatusCode};
use tokio::task::coop::unconstrained;
use wasmtime_wasi_http::WasiBody;

use super::response::{GuestResponse, Progress};
use super::run::Run;
use crate::error::Error;
use crate::http::framing::content_length;
use crate::http::request_body::BodyReport;
use crate::http::response_body::Made;

/// How much of a body may be taken before its head goes out, in bytes: a small one goes out whole, with its length. Twice
/// what a guest of WASI 0.2 can have written when it ends.
const AHEAD: usize = 256 * 1024;

/// The body of a guest's response, together with the guest that still writes it.
///
/// hyper drops a body as soon as it has as many bytes as `content-length` says, without asking for its end.
pub(crate) struct GuestBody {
    /// What was taken before hyper asked for it.
    ahead: VecDeque<Frame<Bytes>>,
    /// The rest; `None` when all of it was taken.
    live: Option<WasiBody>,
    /// Bytes that `content-length` still promises, of what is not taken yet.
    promised: Option<u64>,
    run: Run,
    report: BodyReport,
    progress: Option<Arc<Progress>>,
}

impl GuestBody {
    /// Puts head, body and the rest of the guest together. What the guest has written by now is taken at once: if that is
    /// not a whole response, and the guest has ended, then the client can still be told.
    ///
    /// # Errors
    /// How the response is broken, or how the guest failed.
    pub(crate) async fn respond(
        response: GuestResponse,
        run: Run,
        report: BodyReport,
        head_only: bool,
    ) -> Result<Response<Self>, Error> {
        let bodiless = response.is_bodiless(head_only);
        let GuestResponse { response, progress } = response;
        let (mut head, live) = response.into_parts();
        if head.status == StatusCode::NO_CONTENT {
            head.headers.remove(CONTENT_LENGTH); // RFC 9110, 8.6
        }
        let promised = if bodiless { None } else { content_length(&head.headers) };
        let live = (!bodiless).then_some(live);
        let mut body = Self { ahead: VecDeque::new(), live, promised, run, report, progress };
        if !bodiless && (body.run.is_over() || body.progress.is_some()) {
            body.take_ahead().await?;
        } else if body.live.as_ref().is_none_or(Body::is_end_stream) {
            body.end();
        }
        if body.promised == Some(0) && body.ahead.is_empty() {
            body.end(); // whole with its head, as hyper takes it over HTTP/1.1
        }
        if body.is_end_stream() {
            body.finish(); // hyper asks for no frame, so nothing else would run the rest of the guest
        }
        Ok(Response::from_parts(head, body))
    }

    /// Takes what there is without waiting, up to [`AHEAD`].
    async fn take_ahead(&mut self) -> Result<(), Error> {
        let mut length = 0;
        poll_fn(|context| {
            while length < AHEAD {
                match self.poll_guest(context) {
                    Poll::Ready(Some(frame)) => {
                        let frame = frame?;
                        length += frame.data_ref().map_or(0, Bytes::len);
                        self.ahead.push_back(frame);
                    }
                    Poll::Ready(None) => {
                        self.end();
                        // A guest of WASI 0.3 may have waited for just that.
                        return match self.run.poll(context) {
                            Poll::Pending => Poll::Ready(Ok(())),
                            ended => ended,
                        };
                    }
                    Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Runs the guest as far as it goes, then takes a frame of what it has written.
    fn poll_guest(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(Err(error)) = self.run.poll(context) {
            return Poll::Ready(Some(Err(error)));
        }
        let broken = |what| Poll::Ready(Some(Err(Error::GuestBodyBroken(what))));
        let frame = match self.poll_live(context) {
            Poll::Ready(frame) => frame,
            // The instance outlives the run, and holds a body open that nobody will end.
            Poll::Pending if self.run.end_instance() => ready!(self.poll_live(context)),
            // So does a guest of WASI 0.3; but perhaps its body is another's, which it only passes on.
            Poll::Pending if self.is_left_open() => return broken("the guest ended and left it open".to_owned()),
            Poll::Pending => return Poll::Pending,
        };
        match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.promised {
                    Some(promised) if promised < length => {
                        return broken("it is longer than its content-length".to_owned());
                    }
                    Some(promised) => self.promised = Some(promised - length),
                    None => {}
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => broken(error.to_string()),
            None => match self.promised {
                None | Some(0) => Poll::Ready(None),
                Some(missing) => broken(format!("{missing} bytes of its content-length are missing")),
            },
        }
    }

    /// A frame of what was written. Once the guest has ended, `Pending` would say that none will come; so tokio must not
    /// say it only because the task has had its share of this turn.
    fn poll_live(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, wasmtime_wasi_http::Error>>> {
        let Some(live) = &mut self.live else { return Poll::Ready(None) };
        self.report.begin_passing();
        pin!(unconstrained(poll_fn(|context| Pin::new(&mut *live).poll_frame(context)))).poll(context)
    }

    /// Whether the guest has ended and its body has not.
    fn is_left_open(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress.ended.load(Relaxed)) && !self.report.is_passing()
    }

    /// The whole body was taken from the guest.
    fn end(&mut self) {
        self.live = None;
        if let Some(progress) = self.progress.take() {
            progress.taken.cancel();
            self.run.settle();
        }
        self.run.body_taken();
    }

    /// The whole body was sent: only the guest goes on.
    fn finish(&mut self) {
        self.end();
        self.run.detach();
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        if self.ahead.is_empty() && (self.live.is_none() || self.promised == Some(0)) {
            self.finish(); // complete. Otherwise the client has left, and the guest stops.
        }
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match self.ahead.pop_front() {
            Some(frame) => Some(Ok(frame)),
            None => ready!(self.poll_guest(context)),
        };
        match &frame {
            Some(Ok(_)) => {}
            None => self.finish(),
            Some(Err(_)) => {
                self.live = None;
                self.promised = None;
                self.run = Run::over();
                if self.report.is_failed() {
                    return Poll::Ready(Some(Err(self.report.take_error())));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.live.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.ahead.iter().any(Frame::is_trailers) {
            return SizeHint::default();
        }
        let ahead: u64 = self.ahead.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        let live = self.live.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(live.lower() + ahead);
        if let Some(upper) = live.upper() {
            hint.set_upper(upper + ahead);
        }
        hint
    }
}

impl Made for GuestBody {
    fn left(&self) -> Option<usize> {
        let ahead = || self.ahead.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        self.live.is_none().then(ahead)
    }
}

impl std::fmt::Debug for GuestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestBody").field("promised", &self.promised).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::channel::Channel;
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    /// A response with this length, whose body is these bytes, of a guest that has ended.
    async fn respond(
        status: u16,
        length: Option<&str>,
        body: &'static str,
        head_only: bool,
    ) -> Result<(Option<u64>, String), &'static str> {
        let mut builder = Response::builder().status(status);
        if let Some(length) = length {
            builder = builder.header(CONTENT_LENGTH, length);
        }
        let body = Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {}).boxed_unsync();
        let response = GuestResponse::from(builder.body(body).unwrap());
        let responded = GuestBody::respond(response, Run::over(), BodyReport::default(), head_only).await;
        let (head, body) = responded.map_err(|error| error.reason())?.into_parts();
        assert_eq!(body.left(), Some(body.size_hint().lower() as usize), "a guest that has ended has made all of it");
        let text = body.collect().await.map_err(|error| error.reason())?.to_bytes();
        Ok((content_length(&head.headers), String::from_utf8(text.to_vec()).unwrap()))
    }

    #[tokio::test]
    async fn a_body_is_as_long_as_its_length_or_no_answer() {
        assert_eq!(respond(200, Some("3"), "abc", false).await, Ok((Some(3), "abc".to_owned())));
        assert_eq!(respond(200, None, "abc", false).await, Ok((None, "abc".to_owned())));
        assert_eq!(respond(200, Some("2"), "abc", false).await, Err("guest_body_broken"));
        assert_eq!(respond(200, Some("4"), "abc", false).await, Err("guest_body_broken"));
        assert_eq!(respond(200, Some("0"), "", false).await, Ok((Some(0), String::new())));
        assert_eq!(respond(200, Some("0"), "abc", false).await, Err("guest_body_broken"));
    }

    #[tokio::test]
    async fn a_bodiless_answer_has_no_body_whatever_the_guest_writes() {
        assert_eq!(respond(200, Some("3"), "abc", true).await, Ok((Some(3), String::new())));
        assert_eq!(respond(304, Some("3"), "abc", false).await, Ok((Some(3), String::new())));
        assert_eq!(respond(204, Some("3"), "abc", false).await, Ok((None, String::new())), "RFC 9110, 8.6");
    }

    /// A guest that still runs: its body comes as it is written, and its failure cuts it.
    #[tokio::test]
    async fn the_failure_of_a_guest_comes_after_what_was_read_before_it() {
        let (mut sender, written) = Channel::<Bytes, wasmtime_wasi_http::Error>::new(1);
        let (fail, failed) = tokio::sync::oneshot::channel::<()>();
        let run = Run::new(async move {
            let _ = failed.await;
            Err(Error::GuestTrapped("trap".to_owned()))
        });
        let response = GuestResponse::from(Response::new(written.boxed_unsync()));
        let mut body = GuestBody::respond(response, run, BodyReport::default(), false).await.unwrap().into_body();
        sender.send_data(Bytes::from_static(b"first")).await.unwrap();
        assert_eq!(body.left(), None, "the guest goes on");
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.data_ref().unwrap(), "first");
        fail.send(()).unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap_err().reason(), "guest_trapped");
    }
}
