//! What all guests share of outbound calls: the allow list and the connections.

use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use wasmtime_wasi_http::WasiBody;

use super::connector::BoundedConnector;
use super::resolver::Resolver;
use crate::config::{Allowed, OutboundLimits, OutboundSettings};
use crate::http::uri::without_userinfo;
use crate::telemetry::logs::cut;
use crate::telemetry::rate_limit::{Pass, RateLimit};
use crate::tls;

/// How long a connection that nobody uses is kept. Most servers close theirs after a minute.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// Connections to one server that are kept so.
const POOL_IDLE_MAX: usize = 64;
/// What hyper may buffer of a response's head, in bytes.
const HEAD_MAX: usize = 64 * 1024;
/// Failed calls that are logged each second; every one is counted.
pub(crate) const WARNINGS_PER_SECOND: u32 = 10;
/// The longest name of a server that is logged, in bytes. A name of DNS has 253 at the most.
pub(crate) const SERVER_MAX: usize = 300;

/// Calls servers for all guests.
#[derive(Debug)]
pub(crate) struct OutboundClient {
    allowed: Vec<Allowed>,
    /// As the operator set them.
    pub(crate) limits: OutboundLimits,
    /// The connections.
    pub(crate) pool: Client<BoundedConnector, WasiBody>,
    /// Calls that may be under way, of all guests together.
    pub(crate) slots: Arc<Semaphore>,
    warnings: RateLimit,
}

impl OutboundClient {
    /// A client for the servers that the operator allows; `None` where that is none.
    ///
    /// # Errors
    /// When the certificates of `--ca-file` cannot be used.
    pub(crate) fn new(settings: OutboundSettings) -> anyhow::Result<Option<Arc<Self>>> {
        if settings.allowed.is_empty() {
            return Ok(None);
        }
        let mut http =
            HttpConnector::new_with_resolver(Resolver::new(&settings.networks, settings.limits.connect_timeout)?);
        http.enforce_http(false);
        http.set_nodelay(true);
        let tls = tls::client(settings.ca_file.as_deref())?;
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions();
        let pool = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_IDLE_MAX)
            .http1_max_buf_size(HEAD_MAX)
            .http2_max_header_list_size(HEAD_MAX as u32)
            .build(BoundedConnector::new(https.wrap_connector(http), settings.limits.connect_timeout));
        let slots = Arc::new(Semaphore::new(settings.limits.max_in_flight as usize));
        let warnings = RateLimit::new(WARNINGS_PER_SECOND);
        Ok(Some(Arc::new(Self { allowed: settings.allowed, limits: settings.limits, pool, slots, warnings })))
    }

    /// Whether a request to this URI is allowed.
    pub(crate) fn allows(&self, uri: &Uri) -> bool {
        self.allowed.iter().any(|allowed| allowed.covers(uri))
    }

    /// Logs a call that failed, as far as the rate allows.
    pub(crate) fn warn(&self, error: &'static str, uri: &Uri, why: &str) {
        if let Pass::Yes { dropped_before } = self.warnings.pass() {
            let left_out = (dropped_before > 0).then_some(dropped_before);
            let server = uri.authority().map_or("", |authority| authority.as_str());
            let server = without_userinfo(server);
            let (scheme, server) = (uri.scheme_str(), &*cut(&server, SERVER_MAX));
            tracing::warn!(reason = error, scheme, server, left_out, "outbound request: {why}");
        }
    }
}
