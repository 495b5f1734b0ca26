//! What a trusted proxy says of the client: `Forwarded` (RFC 7239), else `X-Forwarded-For`, `-Proto` and `-Host`.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::HeaderName;
use ipnet::IpNet;

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The client as far as it can be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Its address.
    pub(crate) client: IpAddr,
    /// `http` or `https`, where a trusted proxy says so.
    pub(crate) scheme: Option<&'static str>,
    /// The authority that it asked for, where a trusted proxy says so.
    pub(crate) host: Option<String>,
}

/// The client of a request, by its peer and its headers. Headers from a peer that is not trusted say nothing.
///
/// Each proxy appends the peer that it saw, so the list is read from its end: the first address that is not a trusted
/// proxy's is the client's.
pub(crate) fn origin(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Origin {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address.to_canonical()));
    let mut origin = Origin { client: peer.ip().to_canonical(), scheme: None, host: None };
    if !is_trusted(origin.client) {
        return origin;
    }
    for hop in hops(headers).into_iter().rev() {
        origin.scheme = hop.scheme.or(origin.scheme);
        origin.host = hop.host.or(origin.host);
        let Some(client) = hop.client else { break }; // unknown or hidden: nothing behind it can be trusted
        origin.client = client;
        if !is_trusted(client) {
            break;
        }
    }
    origin
}

#[derive(Debug, Default)]
struct Hop {
    client: Option<IpAddr>,
    scheme: Option<&'static str>,
    host: Option<String>,
}

fn hops(headers: &HeaderMap) -> Vec<Hop> {
    let forwarded = values(headers, FORWARDED);
    if !forwarded.is_empty() {
        return forwarded.iter().flat_map(|value| split(value, ',')).map(|element| forwarded_hop(&element)).collect();
    }
    let items = |name: HeaderName| -> Vec<String> {
        values(headers, name).iter().flat_map(|value| value.split(',')).map(|item| item.trim().to_owned()).collect()
    };
    let mut hops: Vec<Hop> =
        items(FORWARDED_FOR).iter().map(|item| Hop { client: address(item), ..Hop::default() }).collect();
    if hops.is_empty() {
        return hops;
    }
    // These two are set by the last proxy, or kept by it: they belong to the nearest hop.
    if let Some(last) = hops.last_mut() {
        last.scheme = items(FORWARDED_PROTO).last().and_then(|item| scheme(item));
        last.host = items(FORWARDED_HOST).pop().filter(|host| !host.is_empty());
    }
    hops
}

/// One element of `Forwarded`: `for=…;proto=…;host=…;by=…`, in any order, quoted or not.
fn forwarded_hop(element: &str) -> Hop {
    let mut hop = Hop::default();
    for pair in split(element, ';') {
        let Some((name, value)) = pair.split_once('=') else { continue };
        let value = unquote(value.trim());
        match name.trim().to_ascii_lowercase().as_str() {
            "for" => hop.client = address(&value),
            "proto" => hop.scheme = scheme(&value),
            "host" if !value.is_empty() => hop.host = Some(value),
            _ => {}
        }
    }
    hop
}

fn values(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
}

/// Splits at a separator that is not within quotes.
fn split(text: &str, separator: char) -> Vec<String> {
    let (mut pieces, mut quoted, mut escaped) = (vec![String::new()], false, false);
    for character in text.chars() {
        if character == separator && !quoted {
            pieces.push(String::new());
            continue;
        }
        quoted ^= character == '"' && !escaped;
        escaped = quoted && character == '\\' && !escaped;
        if let Some(piece) = pieces.last_mut() {
            piece.push(character);
        }
    }
    pieces
}

fn unquote(value: &str) -> String {
    match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(quoted) => {
            let mut escaped = false;
            let keep = |character: &char| {
                escaped = *character == '\\' && !escaped;
                !escaped
            };
            quoted.chars().filter(keep).collect()
        }
        None => value.to_owned(),
    }
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

fn scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|scheme| scheme.eq_ignore_ascii_case(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin_of(headers: &[(&'static str, &str)]) -> Origin {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        origin("10.0.0.1:5000".parse().unwrap(), &headers, &trusted)
    }

    fn client_of(headers: &[(&'static str, &str)]) -> String {
        origin_of(headers).client.to_string()
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client() {
        let headers = [(FORWARDED_FOR, "192.0.2.1".parse().unwrap()), (FORWARDED_PROTO, "https".parse().unwrap())];
        let origin = origin("10.0.0.1:1".parse().unwrap(), &headers.into_iter().collect(), &[]);
        assert_eq!(origin, Origin { client: "10.0.0.1".parse().unwrap(), scheme: None, host: None });
    }

    #[test]
    fn the_first_address_from_the_end_that_is_no_proxy_is_the_client() {
        assert_eq!(client_of(&[("x-forwarded-for", "192.0.2.1")]), "192.0.2.1");
        assert_eq!(client_of(&[("x-forwarded-for", "6.6.6.6, 192.0.2.1, 10.1.1.1")]), "192.0.2.1");
        assert_eq!(client_of(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.1")]), "192.0.2.1");
        assert_eq!(client_of(&[("x-forwarded-for", "10.2.2.2, 10.1.1.1")]), "10.2.2.2");
        assert_eq!(client_of(&[("x-forwarded-for", "6.6.6.6, nonsense, 10.1.1.1")]), "10.1.1.1");
        assert_eq!(client_of(&[("x-forwarded-for", "::ffff:192.0.2.1")]), "192.0.2.1");
        assert_eq!(client_of(&[]), "10.0.0.1");
    }

    #[test]
    fn scheme_and_host_follow_the_nearest_proxy() {
        let origin = origin_of(&[
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http, HTTPS"),
            ("x-forwarded-host", "evil.example, app.example:8443"),
        ]);
        assert_eq!((origin.scheme, origin.host.as_deref()), (Some("https"), Some("app.example:8443")));
        assert_eq!(origin_of(&[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "gopher")]).scheme, None);
    }

    #[test]
    fn forwarded_wins_and_is_read_with_its_quotes() {
        let origin = origin_of(&[
            (
                "forwarded",
                r#"for=6.6.6.6, FOR="[2001:db8::1]:4711" ; Proto=https;host="app.example;\"x", for=10.3.3.3"#,
            ),
            ("x-forwarded-for", "7.7.7.7"),
        ]);
        assert_eq!(origin.client.to_string(), "2001:db8::1");
        assert_eq!((origin.scheme, origin.host.as_deref()), (Some("https"), Some("app.example;\"x")));
        assert_eq!(client_of(&[("forwarded", "for=6.6.6.6, for=unknown, for=10.3.3.3")]), "10.3.3.3");
        assert_eq!(client_of(&[("forwarded", "for=_hidden")]), "10.0.0.1");
        assert_eq!(client_of(&[("forwarded", "for=192.0.2.1:99")]), "192.0.2.1");
    }

    #[test]
    fn nonsense_is_no_panic() {
        for value in
            ["", ",", ";", "=", "for", "for=", "for=\"", "for=\"\\", ";;,,==", "\"for=1.1.1.1", "for=[]", "for=[::1"]
        {
            let _ = (client_of(&[("forwarded", value)]), client_of(&[("x-forwarded-for", value)]));
        }
    }
}
