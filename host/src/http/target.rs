//! The target of a request with scheme and authority, as a guest sees it.

use std::net::Ipv6Addr;

use hyper::header::HOST;
use hyper::{Method, Request, Uri, Version};

use super::forwarded::Origin;
use crate::error::Error;

const NO_HOST_NAME: Error = Error::ClientBadRequest("The Host header is not a host name.");

/// The target with scheme and authority: from a trusted proxy, else from an absolute target, else from `Host`.
///
/// # Errors
/// When `Host` is missing, there twice or no host and port, when the target or what the proxy says has no such authority, when
/// `:authority` and `Host` name two hosts, and when the target has a form that is for another method.
pub(crate) fn absolute<B>(request: &Request<B>, origin: &Origin) -> Result<Uri, Error> {
    let (uri, mut hosts) = (request.uri(), request.headers().get_all(HOST).iter());
    let host = hosts.next().map(|host| host.to_str().map_err(|_| NO_HOST_NAME)).transpose()?;
    if hosts.next().is_some() {
        return Err(Error::ClientBadRequest("The Host header is there twice."));
    }
    check_form(request)?;
    if host.is_some_and(|host| !is_authority(host)) {
        return Err(NO_HOST_NAME);
    }
    if let (Version::HTTP_2, Some(authority), Some(host)) = (request.version(), uri.authority(), host)
        && !is_same(authority.as_str(), host)
    {
        return Err(Error::ClientBadRequest("The Host header names another host than :authority."));
    }
    let authority = match (&origin.host, uri.authority(), host) {
        (Some(forwarded), _, _) => forwarded.as_str(),
        (None, Some(authority), _) => authority.as_str(),
        (None, None, Some(host)) => host,
        // HTTP/1.0 knows no Host.
        (None, None, None) if request.version() < Version::HTTP_11 => "localhost",
        (None, None, None) => return Err(Error::ClientBadRequest("The Host header is missing.")),
    };
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(Error::ClientBadRequest("The Host header is missing."));
    }
    if !is_authority(authority) {
        return Err(Error::ClientBadRequest("The authority of the target is not a host and a port."));
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let scheme = origin.scheme.or(uri.scheme_str()).unwrap_or("http");
    Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build().map_err(|_| NO_HOST_NAME)
}

/// Refuses the forms of a target that are for `OPTIONS` and for `CONNECT` alone (RFC 9112, 3.2.3 and 3.2.4).
fn check_form<B>(request: &Request<B>) -> Result<(), Error> {
    let (method, uri) = (request.method(), request.uri());
    if uri.path() == "*" && method != Method::OPTIONS {
        return Err(Error::ClientBadRequest("The target * is for OPTIONS alone."));
    }
    if uri.authority().is_some() && uri.scheme().is_none() && method != Method::CONNECT {
        return Err(Error::ClientBadRequest("A target that is an authority is for CONNECT alone."));
    }
    Ok(())
}

/// Whether a text is a host and perhaps a port (RFC 9110, 7.2: without userinfo). [`Uri`] holds the characters of a name.
fn is_authority(text: &str) -> bool {
    let (host, port) = split(text);
    let is_host = match host.strip_prefix('[') {
        Some(literal) => literal.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && !host.contains(['@', ':', '[', ']']),
    };
    // RFC 3986, 3.2.3 allows a colon without a port.
    let is_port =
        |port: &str| port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_host && port.is_none_or(is_port)
}

/// Whether two authorities name one host, and no two ports. Without a port it is the scheme's own, which is that of the client's
/// connection to a proxy and not known here.
fn is_same(one: &str, other: &str) -> bool {
    let ((host, port), (other_host, other_port)) = (split(one), split(other));
    let named = |port: Option<&str>| port.filter(|port| !["", "80", "443"].contains(port)).map(str::to_owned);
    host.eq_ignore_ascii_case(other_host) && (port == other_port || named(port) == named(other_port))
}

/// Host and port; the colons of an IPv6 literal are its own.
fn split(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn seen(version: Version, target: &str, hosts: &[&str], forwarded: Option<&str>) -> Result<String, &'static str> {
        let builder = Request::builder().version(version).uri(target);
        let request = hosts.iter().fold(builder, |builder, host| builder.header(HOST, *host)).body(()).unwrap();
        let scheme = forwarded.map(|_| "https");
        let origin = Origin { client: Ipv4Addr::LOCALHOST.into(), scheme, host: forwarded.map(str::to_owned) };
        absolute(&request, &origin).map(|uri| uri.to_string()).map_err(|error| error.reason())
    }

    #[test]
    fn a_trusted_proxy_outweighs_the_target_and_the_target_outweighs_host() {
        let (http1, both) = (Version::HTTP_11, &["b.example"][..]);
        assert_eq!(seen(http1, "/p?q", both, None).unwrap(), "http://b.example/p?q");
        assert_eq!(seen(http1, "http://a.example/p", both, None).unwrap(), "http://a.example/p");
        assert_eq!(seen(http1, "http://a.example/p", both, Some("c.example")).unwrap(), "https://c.example/p");
        assert_eq!(seen(Version::HTTP_2, "https://a.example/p", &[], None).unwrap(), "https://a.example/p");
    }

    #[test]
    fn host_is_there_once_and_a_name() {
        let refused = Err("client_bad_request");
        assert_eq!(seen(Version::HTTP_11, "/", &[], None), refused);
        assert_eq!(seen(Version::HTTP_11, "http://a.example/", &[], None), refused);
        assert_eq!(seen(Version::HTTP_11, "/", &["a", "a"], None), refused);
        assert_eq!(seen(Version::HTTP_11, "/", &["a b"], None), refused);
        assert_eq!(seen(Version::HTTP_10, "/", &[], None).unwrap(), "http://localhost/");
    }
    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        for authority in
            ["x", "X.example:80", "x:", "192.0.2.1:0", "[2001:db8::1]", "[::1]:65535", "[::ffff:192.0.2.1]:1", "a_b"]
        {
            assert!(is_authority(authority), "{authority}");
        }
        for nonsense in [
            "",
            ":80",
            "user@x",
            "user:secret@x:80",
            "@",
            "x:port",
            "x:-1",
            "x:+1",
            "x:65536",
            "x:80:80",
            "::1",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]:x",
            "[]",
            "[x]",
            "[192.0.2.1]",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "[[::1]]",
        ] {
            assert!(!is_authority(nonsense), "{nonsense}");
            assert_eq!(seen(Version::HTTP_11, "/", &[nonsense], None), Err("client_bad_request"), "{nonsense}");
            let absolute = seen(Version::HTTP_11, "http://a.example/", &[nonsense], None);
            assert_eq!(absolute, Err("client_bad_request"), "{nonsense}");
        }
    }

    #[test]
    fn authority_and_host_of_http2_name_one_host() {
        for host in ["a.example", "A.EXAMPLE", "a.example:80", "a.example:443"] {
            assert!(seen(Version::HTTP_2, "https://a.example/", &[host], None).is_ok(), "{host}");
        }
        for (target, host) in [
            ("https://a.example/", "b.example"),
            ("https://a.example/", "a.example:81"),
            ("http://a.example:81/", "a.example:82"),
        ] {
            assert_eq!(seen(Version::HTTP_2, target, &[host], None), Err("client_bad_request"), "{target} {host}");
            assert!(
                seen(Version::HTTP_11, target, &[host], None).is_ok(),
                "the target outweighs Host: {target} {host}"
            );
        }
    }

    #[test]
    fn an_asterisk_is_for_options_and_an_authority_for_connect() {
        for (method, target, is_fine) in [
            ("OPTIONS", "*", true),
            ("GET", "*", false),
            ("options", "*", false),
            ("GET", "/*", true),
            ("CONNECT", "x:1", true),
            ("GET", "x:1", false),
            ("OPTIONS", "x", false),
            ("GET", "http://x", true),
        ] {
            let request = Request::builder().method(method).uri(target).header(HOST, "x").body(()).unwrap();
            assert_eq!(check_form(&request).is_ok(), is_fine, "{method} {target}");
        }
    }
}
