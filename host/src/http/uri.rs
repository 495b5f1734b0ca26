//! What a URI says.

use std::borrow::Cow;

use hyper::Uri;
use hyper::http::uri::Scheme;

/// The port of a URI, or its scheme's own.
pub(crate) fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 })
}

/// A URL, or what was meant as one, as it may be logged: what stands before an `@` of its authority may be a secret.
pub(crate) fn without_userinfo(text: &str) -> Cow<'_, str> {
    let start = text.find("://").map_or(0, |at| at + 3);
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
    match text[start..end].rfind('@') {
        Some(at) => Cow::Owned(format!("{}…{}", &text[..start], &text[start + at..])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_logged_without_its_userinfo() {
        for (text, logged) in [
            ("http://user:secret@host:4318/v1?a@b", "http://…@host:4318/v1?a@b"),
            ("https://a@secret@host", "https://…@host"),
            ("user:secret@host:4318", "…@host:4318"),
            ("http://host/a@b", "http://host/a@b"),
            ("https://host:1", "https://host:1"),
        ] {
            assert_eq!(without_userinfo(text), logged);
        }
    }

    #[test]
    fn a_port_is_the_scheme_s_own_unless_it_is_given() {
        let ports =
            ["http://a/", "https://a/", "http://a:81/", "https://a:444/"].map(|uri| port(&uri.parse().unwrap()));
        assert_eq!(ports, [80, 443, 81, 444]);
    }
}
