//! Cookies that HTTP/2 sends in crumbs.

use hyper::HeaderMap;
use hyper::header::{COOKIE, HeaderValue};

/// Joins the fields `Cookie` of an HTTP/2 request to one, as they are before anything but HTTP/2 may see them (RFC 9113, 8.2.3).
pub(crate) fn join_crumbs(fields: &mut HeaderMap) {
    let mut crumbs = fields.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        fields.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(crumbs: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut fields = HeaderMap::new();
        for crumb in crumbs {
            fields.append(COOKIE, HeaderValue::from_bytes(crumb).unwrap());
            fields.append("x-other", HeaderValue::from_static("kept"));
        }
        join_crumbs(&mut fields);
        assert_eq!(fields.get_all("x-other").iter().count(), crumbs.len());
        fields.get_all(COOKIE).iter().map(|value| value.as_bytes().to_vec()).collect()
    }

    #[test]
    fn crumbs_become_one_field_in_their_order() {
        assert_eq!(joined(&[]), Vec::<Vec<u8>>::new());
        assert_eq!(joined(&[b"a=1; b=2"]), [b"a=1; b=2"]);
        assert_eq!(joined(&[b"a=1", b"b=2; c=3", b"d=\xff"]), [b"a=1; b=2; c=3; d=\xff"]);
    }
}
