//! What a URI says.

use hyper::Uri;
use hyper::http::uri::Scheme;

/// The port of a URI, or its scheme's own.
pub(crate) fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_the_scheme_s_own_unless_it_is_given() {
        let ports =
            ["http://a/", "https://a/", "http://a:81/", "https://a:444/"].map(|uri| port(&uri.parse().unwrap()));
        assert_eq!(ports, [80, 443, 81, 444]);
    }
}
