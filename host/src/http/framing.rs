//! Where a message ends and what belongs to its connection alone: lengths, header size, hop-by-hop fields.

use hyper::HeaderMap;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};

/// The length that a header announces, in bytes.
pub(crate) fn content_length(fields: &HeaderMap) -> Option<u64> {
    fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The size of a header as HTTP/1.1 writes it, in bytes.
pub(crate) fn header_size(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum()
}

/// Removes the fields that `Connection` names: they are between the client and this host (RFC 9110, 7.6.1). The ones
/// that are hop-by-hop by definition never reach a guest (`guest::outbound`).
pub(crate) fn remove_hop_by_hop(fields: &mut HeaderMap) {
    let named: Vec<HeaderName> = fields
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    // Not every name may be taken away: these say where and how large a request is, whatever a client claims.
    for name in named.iter().filter(|name| ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name)) {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_length_is_a_number_of_bytes_or_none() {
        assert_eq!(content_length(&fields(&[("content-length", "18446744073709551615")])), Some(u64::MAX));
        for nonsense in ["", "-1", "1, 1", "0x10", "18446744073709551616"] {
            assert_eq!(content_length(&fields(&[("content-length", nonsense)])), None, "{nonsense}");
        }
    }

    #[test]
    fn the_size_of_a_header_is_what_goes_over_the_wire() {
        assert_eq!(header_size(&HeaderMap::new()), 0);
        assert_eq!(header_size(&fields(&[("a", "b"), ("host", "x.example")])), "a: b\r\nhost: x.example\r\n".len());
    }

    #[test]
    fn fields_that_connection_names_go_but_for_those_that_frame_the_message() {
        let mut fields = fields(&[
            ("connection", "close, X-Secret , content-length"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("content-length", "3"),
        ]);
        remove_hop_by_hop(&mut fields);
        let left: Vec<&str> = fields.keys().map(HeaderName::as_str).collect();
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(!left.contains(&"x-secret"), "{left:?}");
    }
}
