//! What the suite and the inner benchmark (`benches/inner.rs`) see beside the public interface. No part of it: it may change
//! with any commit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response, Uri};
use tokio::time::Instant;

use crate::config::GuestSettings;
use crate::guest::{Guest, Interrupt, RequestContext};
use crate::http::request_body::RequestBody;
use crate::http::trace_context::TraceParent;
use crate::telemetry::spans::GuestTrace;

pub use crate::guest::OFFERED;

/// Time for a request, and for a pause in its body.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A component that is loaded, without a host around it.
#[derive(Debug, Clone)]
pub struct Loaded(Arc<Guest>);

impl Loaded {
    /// Loads it for `guests` at the same time, which have `memory` bytes of linear memory together.
    ///
    /// # Errors
    /// As a start would fail.
    pub fn new(settings: &GuestSettings, guests: u32, memory: u64) -> anyhow::Result<Self> {
        let mut guest = Guest::load(settings, guests, u64::MAX, &Interrupt::default())?;
        guest.set_memory(memory);
        Ok(Self(Arc::new(guest)))
    }

    /// Instantiates it once. Returns the linear memory that this took, in bytes.
    ///
    /// # Errors
    /// Why it cannot be instantiated.
    pub async fn probe(&self) -> anyhow::Result<u64> {
        self.0.probe().await
    }

    /// Answers a request whose body has at most `max_body` bytes.
    ///
    /// # Errors
    /// How the request failed.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        max_body: u64,
    ) -> anyhow::Result<
        Response<impl Body<Data = Bytes, Error = impl std::error::Error + Send + Sync + use<>> + Send + use<>>,
    > {
        let (mut head, incoming) = request.into_parts();
        head.uri = Uri::builder().scheme("http").authority("x").path_and_query(head.uri.path()).build()?;
        let (body, report) = RequestBody::new(incoming, max_body, TIMEOUT)?;
        let (trace, span) = GuestTrace::new(TraceParent::random(), None);
        let deadline = Instant::now() + TIMEOUT;
        let context = RequestContext { request_id: Arc::from("bench"), trace, span, deadline, guard: () };
        Ok(self.0.handle(Request::from_parts(head, body), report, context).await?)
    }
}
