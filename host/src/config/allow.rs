//! An entry of `--allow-outbound`: a server that the component may call.

use std::net::IpAddr;

use hyper::Uri;
use hyper::http::uri::Scheme;

use crate::http::uri::port;

/// One entry of the list: a scheme, a host, a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    scheme: Scheme,
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Name(String),
    /// Every name that ends so; it starts with a dot.
    Under(String),
    Address(IpAddr),
}

impl Allowed {
    /// Reads `https://api.example.com`, `http://*.example.com:8080` or `http://10.0.0.5`. Without a port it is the
    /// scheme's own.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WRITE: &str = "write a scheme, a host and perhaps a port, such as https://api.example.com:8443";
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Scheme::HTTPS, rest),
            Some(("http", rest)) => (Scheme::HTTP, rest),
            _ => return Err(format!("has no scheme http or https; {WRITE}")),
        };
        if rest.contains(['/', '?', '#', '@']) {
            return Err(format!("says more than scheme, host and port; {WRITE}"));
        }
        let (under, name) = match rest.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, rest),
        };
        let parsed: Uri = format!("{scheme}://{name}/").parse().map_err(|_| format!("is no server; {WRITE}"))?;
        let host = parsed.host().unwrap_or_default().to_ascii_lowercase();
        if host.is_empty() || host.contains('*') {
            return Err(format!("is no server: a * may only be the whole first label; {WRITE}"));
        }
        let host = match (literal(&host), under) {
            (Some(_), true) => return Err(format!("has a * before an address; {WRITE}")),
            (Some(address), false) => Host::Address(address),
            (None, true) => Host::Under(format!(".{host}")),
            (None, false) => Host::Name(host),
        };
        Ok(Self { port: port(&parsed), scheme, host })
    }

    /// Whether a request to this URI is what the entry allows.
    pub fn covers(&self, uri: &Uri) -> bool {
        let Some(name) = uri.host().map(str::to_ascii_lowercase) else { return false };
        let host = match (&self.host, literal(&name)) {
            (Host::Address(allowed), Some(address)) => *allowed == address,
            (Host::Name(allowed), None) => *allowed == name,
            (Host::Under(suffix), None) => name.len() > suffix.len() && name.ends_with(suffix),
            _ => false,
        };
        host && uri.scheme() == Some(&self.scheme) && port(uri) == self.port
    }
}

/// The address that a host is, if it is no name. IPv6 stands in brackets.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(entry: &str, uri: &str) -> bool {
        Allowed::parse(entry).unwrap().covers(&uri.parse().unwrap())
    }

    #[test]
    fn an_entry_is_a_scheme_a_host_and_a_port() {
        assert!(covers("https://api.example.com", "https://API.example.com/path?query"));
        assert!(covers("https://api.example.com", "https://api.example.com:443/"));
        assert!(covers("http://api.example.com:8080", "http://api.example.com:8080/"));
        assert!(!covers("https://api.example.com", "http://api.example.com/"));
        assert!(!covers("https://api.example.com", "https://api.example.com:8443/"));
        assert!(!covers("https://api.example.com", "https://api.example.com.evil.org/"));
        assert!(!covers("https://api.example.com", "https://example.com/"));
        assert!(covers("https://*.example.com", "https://a.b.example.com/"));
        assert!(!covers("https://*.example.com", "https://example.com/"));
        assert!(!covers("https://*.example.com", "https://notexample.com/"));
        assert!(covers("http://[::1]:80", "http://[::1]/"));
        assert!(covers("http://127.0.0.1", "http://127.0.0.1/"));
        assert!(!covers("http://*.0.0.example", "http://127.0.0.1/"));
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for text in [
            "api.example.com",
            "ftp://a",
            "https://",
            "https://a/path",
            "https://u@a",
            "https://a*b.c",
            "https://*",
            "https://*.1.2.3.4",
            "https://*.*.a",
            "https://a b",
        ] {
            let refused = Allowed::parse(text).unwrap_err();
            assert!(refused.contains("such as https://"), "{text}: {refused}");
        }
    }
}
