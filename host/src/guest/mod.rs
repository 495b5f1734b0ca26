//! The guest: a component that is loaded once and run in a fresh sandbox for every request. This folder and
//! `outbound.rs` are the only places that know wasmtime.
//!
//! No task is spawned for a request. The task of the connection polls the guest's future until the guest sets its
//! response; if the guest is not finished then, the response body owns the rest of that future ([`Run`]) and polls it
//! whenever hyper polls the body. So backpressure is hyper's own, and a client that leaves drops the body and with it
//! the store, which stops the guest wherever it is.

mod engine;
mod limits;
mod precompiled;
mod revision;
mod stdio;
mod store;
mod wasi02;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::CONTENT_LENGTH;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use wasmtime::Engine;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

pub use engine::Allocator;
pub use revision::Revision;
pub use store::OFFERED;

use crate::body::{BodyReport, RequestBody, content_length};
use crate::error::Error;
use crate::logs::RateLimit;
use crate::metrics::{ComponentInfo, Metrics};
use crate::outbound::Servers;
use crate::settings::GuestSettings;
use crate::spans::{GuestTrace, Span};
use crate::trace::Place;
use limits::Budget;
use store::{Shared, State};

/// How long an instantiation may take at start. Runtimes of scripting languages take a second; nothing honest takes this.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Compiles a component file for later, as this host would at its start.
///
/// # Errors
/// One sentence that says what is wrong with the file.
pub fn precompile(file: &Path) -> anyhow::Result<Vec<u8>> {
    revision::precompile(&engine::compiler()?, file)
}

/// A loaded component, ready to be run.
pub struct Guest {
    engine: Engine,
    allocator: Allocator,
    linked: ProxyPre<State>,
    revision: Revision,
    shared: Shared,
}

/// What the host knows of a request when it calls the guest.
#[derive(Debug)]
pub struct Call<G> {
    /// For the lines that the guest prints.
    pub request_id: Arc<str>,
    /// Its part of the trace.
    pub trace: GuestTrace,
    /// Of the run, where it is traced.
    pub span: Option<Span>,
    /// When everything must be over.
    pub deadline: Instant,
    /// Lives until the guest has ended, which may be after its response.
    pub guard: G,
}

impl Guest {
    /// Reads, compiles and links a component; `guests` is how many may run at the same time. Blocks the thread.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the file, or with the machine.
    pub fn load(settings: &GuestSettings, guests: u32) -> anyhow::Result<Self> {
        let limits = settings.limits;
        let (engine, allocator) = engine::start(guests, &limits)?;
        let started = std::time::Instant::now();
        let (revision, linked) = revision::load(&engine, settings)?;
        tracing::info!(
            file = %revision.file.display(),
            digest = revision.digest,
            size = revision.size,
            world = revision.world,
            seconds = started.elapsed().as_secs_f64(),
            "loaded the component"
        );
        let config = Arc::new(settings.config.0.iter().map(|(key, value)| (key.clone(), value.clone())).collect());
        let metrics = Metrics::new(ComponentInfo {
            digest: revision.digest.clone(),
            name: revision.file.file_stem().map_or_else(String::new, |stem| stem.display().to_string()),
            world: revision.world.clone(),
        });
        let (budget, log_rate) = (Budget::new(limits.memory), Arc::new(RateLimit::new(limits.log_rate)));
        let servers = Servers::new(settings.outbound.clone())?;
        let environment = settings.environment.clone();
        let shared = Shared { config, environment, limits, budget, log_rate, servers, metrics };
        Ok(Self { engine, allocator, linked, revision, shared })
    }

    /// Sets the linear memory for all guests together, in bytes. Until then there is enough for one.
    pub fn set_memory(&mut self, bytes: u64) {
        self.shared.budget = Budget::new(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// Instantiates the component once and throws the instance away: proof that its start works. Returns the linear memory
    /// that it took, in bytes.
    ///
    /// # Errors
    /// Why the component cannot be instantiated.
    pub async fn probe(&self) -> anyhow::Result<u64> {
        let mut store = self.store(&Arc::from("start"), GuestTrace::new(Place::random(), None).0);
        let instance = timeout(PROBE_TIMEOUT, self.linked.instantiate_async(&mut store)).await;
        let cannot = || format!("{} links, but its instantiation fails", self.revision.file.display());
        instance
            .map_err(|_| anyhow!("not done after {PROBE_TIMEOUT:?}"))
            .and_then(|ended| Ok(ended?))
            .with_context(cannot)?;
        Ok(store.data().limiter().memory() as u64)
    }

    /// What is known of the component.
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// The metrics of this component, and of the host that serves it.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
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
        report: BodyReport,
        call: Call<G>,
    ) -> Result<Response<GuestBody>, Error> {
        let (head_only, deadline) = (request.method() == Method::HEAD, call.deadline);
        let (sender, mut receiver) = oneshot::channel();
        let mut run = self.start(request, sender, call);
        let mut unset = false; // the guest dropped its response-outparam
        let head = poll_fn(|context| {
            report.begin_turn();
            let ended = run.poll(context);
            if report.is_failed() {
                return Poll::Ready(Err(None)); // the client's fault outweighs what the guest makes of it
            }
            match ended {
                Poll::Ready(Ok(())) if unset => Poll::Ready(Err(Some(Error::GuestNoResponse))),
                Poll::Ready(Ok(())) => Poll::Ready(receiver.try_recv().map_err(|_| Some(Error::GuestNoResponse))),
                Poll::Ready(Err(Error::GuestDeadline)) if report.is_waiting() => {
                    Poll::Ready(Err(Some(Error::ClientDeadline)))
                }
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
                return Err(report.take_error());
            }
        };
        let response = head.map_err(|code| Error::GuestError(format!("{code:?}")))?;
        respond(response, run, report, head_only, deadline).await
    }

    fn store(&self, request_id: &Arc<str>, trace: GuestTrace) -> wasmtime::Store<State> {
        store::new(&self.engine, &self.shared, request_id, trace)
    }

    fn start<G: Send + 'static>(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        head: oneshot::Sender<wasi02::Head>,
        mut call: Call<G>,
    ) -> Run {
        let guest = self.clone();
        Run(Some(Box::pin(async move {
            let mut store = guest.store(&call.request_id, call.trace);
            let mut busy = Busy { time: Duration::ZERO, metrics: guest.metrics() };
            let ended = {
                let run = wasi02::run(&guest.linked, &mut store, request, head, guest.metrics());
                let mut run = pin!(timeout_at(call.deadline, run));
                poll_fn(|context| busy.turn(|| run.as_mut().poll(context))).await
            };
            drop((store, busy));
            let ended = ended.unwrap_or(Err(Error::GuestDeadline));
            if let (Err(error), Some(span)) = (&ended, &mut call.span) {
                span.fail(error.reason());
            }
            drop((call.span, call.guard));
            ended
        })))
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// How long a guest has had a thread. Counted when it ends, in whatever way.
struct Busy<'a> {
    time: Duration,
    metrics: &'a Metrics,
}

impl Busy<'_> {
    fn turn<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        let started = std::time::Instant::now();
        let polled = poll();
        self.time += started.elapsed();
        polled
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.metrics.guest_busy(self.time);
    }
}

type Running = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// The rest of a guest's run. Dropping it stops the guest; when it is over, polling it is free.
struct Run(Option<Running>);

impl Run {
    fn is_over(&self) -> bool {
        self.0.is_none()
    }

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
    frames: Frames,
    /// Bytes that `content-length` still promises, where it is there.
    promised: Option<u64>,
    run: Run,
    report: BodyReport,
}

enum Frames {
    /// The guest still writes.
    Live(HyperOutgoingBody),
    /// All that was written, by a guest that has ended. Then hyper knows the length, and that the last frame is the last.
    Written(VecDeque<Frame<Bytes>>),
}

/// Puts head, body and the rest of the guest together. A guest that has ended has written everything: if that is not a
/// whole response, the client can still be told.
async fn respond(
    response: Response<HyperOutgoingBody>,
    run: Run,
    report: BodyReport,
    head_only: bool,
    deadline: Instant,
) -> Result<Response<GuestBody>, Error> {
    let (mut head, live) = response.into_parts();
    let bodiless = head_only || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(CONTENT_LENGTH); // RFC 9110, 8.6
    }
    let promised = if bodiless { None } else { content_length(&head.headers) };
    let ended = run.is_over();
    let frames = if bodiless || live.is_end_stream() { Frames::Written(VecDeque::new()) } else { Frames::Live(live) };
    let mut body = GuestBody { frames, promised, run, report };
    if ended {
        // All of it is there, but its channel may say for a moment that it is not: tokio gives each task so much to do in
        // a turn, and no more. So this waits, as for anything else.
        let mut written = VecDeque::new();
        let rest = async {
            while let Some(frame) = poll_fn(|context| body.poll_guest(context)).await {
                written.push_back(frame?);
            }
            Ok(())
        };
        timeout_at(deadline, rest).await.unwrap_or(Err(Error::GuestDeadline))?;
        body.promised = promised;
        body.frames = Frames::Written(written);
    } else if body.is_end_stream() {
        body.run.detach(); // hyper asks for no frame, so nothing else would run the rest of the guest
    }
    Ok(Response::from_parts(head, body))
}

impl GuestBody {
    /// Runs the guest as far as it goes, then takes what it has written.
    fn poll_guest(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(Err(error)) = self.run.poll(context) {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = match &mut self.frames {
            Frames::Live(live) => ready!(Pin::new(live).poll_frame(context)),
            Frames::Written(frames) => frames.pop_front().map(Ok),
        };
        match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.promised {
                    Some(promised) if promised < length => {
                        let what = "it is longer than its content-length".to_owned();
                        return Poll::Ready(Some(Err(Error::GuestBodyBroken(what))));
                    }
                    Some(promised) => self.promised = Some(promised - length),
                    None => {}
                }
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
            self.frames = Frames::Written(VecDeque::new());
            self.run.detach();
        } else if let Some(Err(_)) = frame {
            self.frames = Frames::Written(VecDeque::new());
            self.promised = None;
            self.run = Run(None);
            if self.report.is_failed() {
                return Poll::Ready(Some(Err(self.report.take_error())));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.frames, Frames::Written(frames) if frames.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.frames {
            Frames::Live(live) => live.size_hint(),
            Frames::Written(frames) if frames.iter().any(Frame::is_trailers) => SizeHint::default(),
            Frames::Written(frames) => {
                SizeHint::with_exact(frames.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum())
            }
        }
    }
}
