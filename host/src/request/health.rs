//! The host's health report on the traffic address, for balancers that ask where they send.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::lifecycle::Lifecycle;

/// The health report on the traffic address.
#[derive(Debug)]
pub(crate) struct Health {
    path: String,
    application: String,
    /// The machine's name; in Kubernetes the pod's.
    hostname: String,
}

impl Health {
    /// The report of this application, on this path.
    pub(crate) fn new(path: String, application: String) -> Self {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self { path, application, hostname: hostname.trim().to_owned() }
    }

    /// Whether a request asks for it.
    pub(crate) fn answers<B>(&self, request: &Request<B>) -> bool {
        request.uri().path() == self.path && matches!(*request.method(), Method::GET | Method::HEAD)
    }

    /// The report now: 200 where new clients are welcome, else 503.
    pub(crate) fn response(&self, lifecycle: &Lifecycle) -> Response<Full<Bytes>> {
        let ready = lifecycle.readiness().is_ok();
        let checks = lifecycle
            .checks()
            .map(|check| serde_json::json!({ "checker": check.name, "passed": check.passed, "output": check.output }));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let report = serde_json::json!({
            "application": self.application,
            "status": if ready { "success" } else { "failure" },
            "hostname": self.hostname,
            "timestamp": now.as_secs_f64(),
            "result": checks,
        });
        let mut response = Response::new(Full::new(Bytes::from(report.to_string())));
        *response.status_mut() = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}
