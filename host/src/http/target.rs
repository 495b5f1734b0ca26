//! The target of a request with scheme and authority, as a guest sees it.

use hyper::header::HOST;
use hyper::{Request, Uri, Version};

use super::forwarded::Origin;
use crate::error::Error;

/// The target with scheme and authority: from a trusted proxy, else from an absolute target, else from `Host`.
///
/// # Errors
/// When `Host` is missing, there twice or no host name.
pub(crate) fn absolute<B>(request: &Request<B>, origin: &Origin) -> Result<Uri, Error> {
    const NO_HOST_NAME: Error = Error::ClientBadRequest("The Host header is not a host name.");
    let (uri, mut hosts) = (request.uri(), request.headers().get_all(HOST).iter());
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Error::ClientBadRequest("The Host header is there twice."));
    }
    let authority = match (&origin.host, uri.authority(), host) {
        (Some(forwarded), _, _) => forwarded.as_str(),
        (None, Some(authority), _) => authority.as_str(),
        (None, None, Some(host)) => host.to_str().map_err(|_| NO_HOST_NAME)?,
        // HTTP/1.0 knows no Host.
        (None, None, None) if request.version() < Version::HTTP_11 => "localhost",
        (None, None, None) => return Err(Error::ClientBadRequest("The Host header is missing.")),
    };
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(Error::ClientBadRequest("The Host header is missing."));
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let scheme = origin.scheme.or(uri.scheme_str()).unwrap_or("http");
    Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build().map_err(|_| NO_HOST_NAME)
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
}
