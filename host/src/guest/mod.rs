//! The guest: a component that is loaded once and run in a fresh sandbox for every request. This folder and
//! `outbound.rs` are the only places that know wasmtime.
//!
//! No task is spawned for a request. The task of the connection polls the guest's future until the guest sets its
//! response; if the guest is not finished then, the response body owns the rest of that future ([`Run`]) and polls it
//! whenever hyper polls the body. So backpressure is hyper's own, and a client that leaves drops the body and with it
//! the store, which stops the guest wherever it is.

mod engine;
mod revision;
mod stdio;
mod store;
mod wasi02;

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::oneshot;
use wasmtime::Engine;
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

pub use engine::Allocator;
pub use revision::Revision;
pub use store::OFFERED;

use crate::body::{BodyFault, RequestBody, content_length};
use crate::config::GuestConfig;
use crate::error::Error;
use store::State;

/// A loaded component, ready to be run.
pub struct Guest {
    engine: Engine,
    allocator: Allocator,
    linked: ProxyPre<State>,
    revision: Revision,
    config: Arc<WasiConfigVariables>,
}

/// What the host knows of a request when it calls the guest.
#[derive(Debug)]
pub struct Call<G> {
    /// For the lines that the guest prints.
    pub request_id: Arc<str>,
    /// Lives until the guest has ended, which may be after its response.
    pub guard: G,
}

impl Guest {
    /// Reads, compiles and links a component; `guests` is how many may run at the same time. Blocks the thread.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the file, or with the machine.
    pub fn load(file: &Path, config: &GuestConfig, guests: u32) -> anyhow::Result<Self> {
        let (engine, allocator) = engine::start(guests)?;
        let started = Instant::now();
        let (revision, linked) = revision::load(&engine, file)?;
        tracing::info!(
            file = %revision.file.display(),
            digest = revision.digest,
            size = revision.size,
            world = revision.world,
            seconds = started.elapsed().as_secs_f64(),
            "compiled the component"
        );
        let config = Arc::new(config.0.iter().map(|(key, value)| (key.clone(), value.clone())).collect());
        Ok(Self { engine, allocator, linked, revision, config })
    }

    /// Instantiates the component once and throws the instance away: proof that its start works.
    ///
    /// # Errors
    /// Why the component cannot be instantiated.
    pub async fn probe(&self) -> anyhow::Result<()> {
        let mut store = self.store(&Arc::from("start"));
        let instance = self.linked.instantiate_async(&mut store).await;
        instance
            .map(drop)
            .map_err(anyhow::Error::from)
            .with_context(|| format!("{} links, but its instantiation fails", self.revision.file.display()))
    }

    /// What is known of the component.
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// Where the memory of its instances comes from.
    pub fn allocator(&self) -> Allocator {
        self.allocator
    }

    /// Runs the component for one request, in a sandbox of its own. Returns as soon as the guest sets its response; the
    /// body carries the rest.
    ///
    /// # Errors
    /// How the guest, or the request's body, failed before there was a response.
    pub async fn handle<G: Send + 'static>(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        fault: BodyFault,
        call: Call<G>,
    ) -> Result<Response<GuestBody>, Error> {
        let head_only = request.method() == Method::HEAD;
        let (sender, mut receiver) = oneshot::channel();
        let mut run = self.start(request, sender, call);
        let mut unset = false; // the guest dropped its response-outparam
        let head = std::future::poll_fn(|context| {
            let ended = run.poll(context);
            if fault.is_set() {
                return Poll::Ready(Err(None)); // the client's fault outweighs what the guest makes of it
            }
            match ended {
                Poll::Ready(Ok(())) if unset => Poll::Ready(Err(Some(Error::GuestNoResponse))),
                Poll::Ready(Ok(())) => Poll::Ready(receiver.try_recv().map_err(|_| Some(Error::GuestNoResponse))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(Some(error))),
                Poll::Pending if unset => Poll::Pending,
                Poll::Pending => match Pin::new(&mut receiver).poll(context) {
                    Poll::Ready(Ok(head)) => Poll::Ready(Ok(head)),
                    Poll::Ready(Err(_)) => {
                        unset = true;
                        Poll::Pending
                    }
                    Poll::Pending => Poll::Pending,
                },
            }
        })
        .await;
        let head = match head {
            Ok(head) => head,
            Err(Some(error)) => return Err(error),
            Err(None) => {
                drop(run); // with the guest goes its half of the request body
                return Err(fault.into_error());
            }
        };
        let response = head.map_err(|code| Error::GuestError(format!("{code:?}")))?;
        Ok(response_body(response, run, fault, head_only))
    }

    fn store(&self, request_id: &Arc<str>) -> wasmtime::Store<State> {
        store::new(&self.engine, self.config.clone(), request_id, engine::GUEST_MEMORY_MAX)
    }

    fn start<G: Send + 'static>(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        head: oneshot::Sender<wasi02::Head>,
        call: Call<G>,
    ) -> Run {
        let guest = self.clone();
        Run(Some(Box::pin(async move {
            let store = guest.store(&call.request_id);
            let ended = wasi02::run(&guest.linked, store, request, head).await;
            drop(call.guard);
            ended
        })))
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// The rest of a guest's run. Dropping it stops the guest; when it is over, polling it is free.
struct Run(Option<Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>>);

impl Run {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(run) = &mut self.0 else { return Poll::Ready(Ok(())) };
        let ended = run.as_mut().poll(context);
        if ended.is_ready() {
            self.0 = None;
        }
        ended
    }

    /// Lets the guest go on after its response is complete. It keeps its guard, so that it counts as in flight.
    fn detach(&mut self) {
        if let Some(run) = self.0.take() {
            tokio::spawn(async move {
                if let Err(error) = run.await {
                    tracing::warn!(
                        reason = error.reason(),
                        detail = error.detail(),
                        "the guest failed after its response"
                    );
                }
            });
        }
    }
}

/// The body of a guest's response, together with the guest that still writes it.
///
/// hyper drops a body as soon as it has as many bytes as `content-length` says, without asking for its end.
pub struct GuestBody {
    frames: Option<HyperOutgoingBody>,
    /// Bytes that `content-length` still promises, where it is there.
    promised: Option<u64>,
    run: Run,
    fault: BodyFault,
}

fn response_body(
    response: Response<HyperOutgoingBody>,
    run: Run,
    fault: BodyFault,
    head_only: bool,
) -> Response<GuestBody> {
    let bodiless = head_only || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let promised = content_length(response.headers());
    response.map(|frames| {
        let frames = (!bodiless && !frames.is_end_stream()).then_some(frames);
        let mut body = GuestBody { frames, promised, run, fault };
        if body.frames.is_none() {
            body.run.detach(); // hyper asks for no frame, so nothing else would run the rest of the guest
        }
        body
    })
}

impl GuestBody {
    /// Runs the guest as far as it goes, then takes what it has written.
    fn poll_guest(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(frames) = &mut self.frames else { return Poll::Ready(None) };
        if let Poll::Ready(Err(error)) = self.run.poll(context) {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(Pin::new(frames).poll_frame(context)) {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.promised = self.promised.map(|promised| promised.saturating_sub(length));
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(Error::GuestBodyBroken(error.to_string())))),
            None => match self.promised {
                None | Some(0) => Poll::Ready(None),
                Some(missing) => {
                    let what = format!("{missing} bytes of its content-length are missing");
                    Poll::Ready(Some(Err(Error::GuestBodyBroken(what))))
                }
            },
        }
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        if self.promised == Some(0) {
            self.run.detach(); // complete: only the guest goes on. Otherwise the client has left, and the guest stops.
        }
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(self.poll_guest(context));
        if frame.is_none() {
            self.frames = None;
            self.run.detach();
        } else if let Some(Err(_)) = frame {
            self.frames = None;
            self.run = Run(None);
            if self.fault.is_set() {
                let fault = std::mem::take(&mut self.fault);
                return Poll::Ready(Some(Err(fault.into_error())));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.frames.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
