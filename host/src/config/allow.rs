//! Which servers a component may call, and which addresses are nobody's business to name by accident.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::Uri;
use hyper::http::uri::Scheme;
use ipnet::IpNet;

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

/// The port of a URI, or its scheme's own.
pub fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 })
}

/// Whether an address is on the public internet. What is not belongs to this machine, this network or nobody: there the
/// metadata services and the admin ports are, so a name may only lead there when the operator has allowed that network.
/// The list is IANA's registries of special-purpose addresses (RFC 6890).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && b & 0xc0 == 64)
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a == 198 && b & 0xfe == 18))
}

/// Of IPv6 only 2000::/3 is given out. The ways to write an IPv4 address in IPv6 are that address.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            v4(high, low)
        }
        [0x2001, second, ..] => second >= 0x200 && second != 0xdb8,
        [0x3fff, second, ..] => second >= 0x1000, // documentation
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// Whether a name may lead to this address.
pub fn may_reach(address: IpAddr, networks: &[IpNet]) -> bool {
    is_public(address) || networks.iter().any(|network| network.contains(&address.to_canonical()))
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

    #[test]
    fn only_the_public_internet_is_public() {
        for public in
            ["1.1.1.1", "100.63.0.1", "100.128.0.1", "172.32.0.1", "198.20.0.1", "2606:4700::1111", "::ffff:1.1.1.1"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "3fff::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
        let cluster = ["10.96.0.0/12".parse().unwrap()];
        assert!(may_reach("10.100.0.1".parse().unwrap(), &cluster));
        assert!(may_reach("::ffff:10.100.0.1".parse().unwrap(), &cluster));
        assert!(!may_reach("10.0.0.1".parse().unwrap(), &cluster));
    }
}
