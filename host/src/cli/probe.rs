//! `taffrail probe`: one request and what must come back, where there is neither shell nor curl, such as in `helm test`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, sleep, timeout};

use super::values::duration;
use crate::telemetry::logs::cut;

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// Bytes of an answer's body that are read.
const BODY_MAX: usize = 1024 * 1024;

/// Bytes of an answer's body that a message repeats.
const SHOWN_MAX: usize = 200;

/// The flags of `probe`.
#[derive(Debug, Clone, Args)]
pub struct Probe {
    /// What to ask, such as http://hello/ping; TLS is not spoken
    #[arg(value_name = "URL", value_parser = url)]
    url: Uri,

    /// Method of the request
    #[arg(long, value_name = "METHOD", default_value = "GET", value_parser = method)]
    method: Method,

    /// A header of the request (repeatable)
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,

    /// A header whose value is the first line of a file, so that a secret is in no list of processes
    /// (repeatable)
    #[arg(long, value_name = "NAME: FILE", value_parser = header_file)]
    header_file: Vec<(HeaderName, HeaderValue)>,

    /// The status that must come back
    #[arg(long = "expect", value_name = "STATUS", default_value = "200")]
    #[arg(value_parser = clap::value_parser!(u16).range(100..=599))]
    status: u16,

    /// The body that must come back, byte for byte; a line's end after it does not count
    #[arg(long, value_name = "TEXT")]
    expect_body: Option<String>,

    /// Nobody may answer: no connection, or no answer within --timeout
    #[arg(long, conflicts_with_all = ["status", "expect_body"])]
    expect_refused: bool,

    /// How long one attempt may take
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    timeout: Duration,

    /// How long to ask again while something else comes back; 0s asks once
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    within: Duration,
}

impl Probe {
    /// Asks until the expected answer comes, and prints it.
    ///
    /// # Errors
    /// The last answer beside the expected one.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        println!("{}", runtime.block_on(self.keep())?);
        Ok(ExitCode::SUCCESS)
    }

    async fn keep(&self) -> anyhow::Result<String> {
        let asked = Instant::now();
        loop {
            let answer = timeout(self.timeout, self.ask()).await;
            let answer = answer.unwrap_or_else(|_| bail!("no answer within {:?}", self.timeout));
            let broken = match answer {
                Err(error) if self.expect_refused => {
                    return Ok(format!("{}: nobody answers ({error:#}), as expected", self.url));
                }
                Ok((status, _)) if self.expect_refused => {
                    bail!("{}: answers {status}, and nobody may answer there", self.url)
                }
                Err(error) => format!("{error:#}"),
                Ok((status, body)) if self.is_expected(status, &body) => {
                    return Ok(format!("{}: {status}, as expected", self.url));
                }
                Ok((status, body)) => {
                    let wanted = self.expect_body.as_ref().map(|body| format!(" {body:?}")).unwrap_or_default();
                    format!("{status} {:?} in the place of {}{wanted}", cut(&body, SHOWN_MAX), self.status)
                }
            };
            if asked.elapsed() + PAUSE >= self.within {
                bail!("{}: {broken}", self.url);
            }
            sleep(PAUSE).await;
        }
    }

    fn is_expected(&self, status: u16, body: &str) -> bool {
        let same_body = |wanted: &String| body.trim_end_matches(['\r', '\n']) == wanted;
        status == self.status && self.expect_body.as_ref().is_none_or(same_body)
    }

    async fn ask(&self) -> anyhow::Result<(u16, String)> {
        let mut request = Request::builder().method(self.method.clone()).uri(self.url.clone());
        for (name, value) in self.header.iter().chain(&self.header_file) {
            request = request.header(name, value);
        }
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let response = client.request(request.body(Empty::new())?).await.context("no answer")?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the body of the answer broke off: {error}"))?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    }
}

fn url(text: &str) -> Result<Uri, String> {
    match text.parse::<Uri>() {
        Ok(url) if url.scheme_str() == Some("http") && url.host().is_some_and(|host| !host.is_empty()) => Ok(url),
        _ => Err("write one such as http://hello:80/ping".to_owned()),
    }
}

fn method(text: &str) -> Result<Method, String> {
    Method::try_from(text).map_err(|_| "write one such as GET or POST".to_owned())
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = named(text).ok_or("write NAME: VALUE")?;
    Ok((name, header_value(value)?))
}

fn header_file(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, file) = named(text).ok_or("write NAME: FILE")?;
    let content = std::fs::read_to_string(file).map_err(|error| format!("the file cannot be read: {error}"))?;
    match content.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok((name, header_value(line)?)),
        _ => Err("the first line of the file is empty".to_owned()),
    }
}

/// The name of a header, and what stands behind its colon.
fn named(text: &str) -> Option<(HeaderName, &str)> {
    let (name, rest) = text.split_once(':')?;
    Some((HeaderName::try_from(name.trim()).ok()?, rest.trim()))
}

fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::try_from(text).map_err(|_| "the value has a byte that no header may have".to_owned())
}
