//! The id that names a request in every answer, log line and trace.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::HeaderMap;
use hyper::header::HeaderName;
use uuid::Uuid;

/// The header that names a request, on the way in and on every answer.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is taken over from a client, in bytes; a UUID has 36.
const REQUEST_ID_MAX: usize = 128;

/// The client's id when it is valid (one value of at most 128 letters, digits and `-_.:/+=@~`), else a new UUIDv7.
pub(crate) fn request_id(headers: &HeaderMap) -> Arc<str> {
    let mut given = headers.get_all(REQUEST_ID).iter();
    let valid = |id: &&str| {
        (1..=REQUEST_ID_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(&byte))
    };
    match (given.next().and_then(|id| id.to_str().ok()).filter(valid), given.next()) {
        (Some(id), None) => Arc::from(id),
        _ => Arc::from(new_id().hyphenated().encode_lower(&mut Uuid::encode_buffer()) as &str),
    }
}

/// A UUIDv7. Its random part need not be a secret, so it comes without a system call.
fn new_id() -> Uuid {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let random = fastrand::u128(..).to_ne_bytes();
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&random[..10]);
    uuid::Builder::from_unix_timestamp_millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), &bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(REQUEST_ID, value.parse().unwrap());
        }
        request_id(&headers).to_string()
    }

    #[test]
    fn a_valid_id_of_the_client_is_taken_over() {
        for valid in ["a", "018f3c1e-7d2a", "A/b:c+d=e@f~g.h_i", &"x".repeat(REQUEST_ID_MAX)] {
            assert_eq!(id(&[valid]), valid);
        }
    }

    #[test]
    fn any_other_is_replaced_by_a_new_uuid_of_version_7() {
        for values in
            [&[][..], &[""], &["a b"], &["\"quoted\""], &["a,b"], &["a", "a"], &[&"x".repeat(REQUEST_ID_MAX + 1)]]
        {
            let (made, next) = (id(values), id(values));
            assert_eq!(Uuid::parse_str(&made).unwrap().get_version_num(), 7, "{values:?} became {made}");
            assert_ne!(made, next);
        }
    }
}
