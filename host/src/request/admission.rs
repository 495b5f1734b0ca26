//! What may reach a guest, and what a guest's answer must be to reach the client.

use hyper::{Method, Request, Response};

use crate::config::Limits;
use crate::error::Error;
use crate::http::framing::header_size;
use crate::transport::activity::Activity;
use crate::transport::message_framing::Why;

/// Refuses a request that must not reach a guest.
pub(crate) fn check_request<B>(request: &Request<B>, limits: &Limits, activity: &Activity) -> Result<(), Error> {
    match activity.refusal() {
        Some(Why::TooLarge) => return Err(Error::ClientHeaderTooLarge),
        Some(Why::Framing(why)) => return Err(Error::ClientBadRequest(why)),
        None => {}
    }
    let (uri, fields) = (request.uri(), request.headers());
    let target = uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len())
        + uri.authority().map_or(0, |authority| authority.as_str().len())
        + uri.path_and_query().map_or(0, |target| target.as_str().len());
    let size = request.method().as_str().len() + target + header_size(fields);
    if fields.len() > limits.max_headers || size > limits.max_header_size {
        return Err(Error::ClientHeaderTooLarge);
    }
    if request.method() == Method::CONNECT {
        return Err(Error::ClientMethodNotAllowed);
    }
    Ok(())
}

/// Refuses a response that cannot be sent.
pub(crate) fn check_response<B>(response: &Response<B>, limits: &Limits) -> Result<(), Error> {
    if header_size(response.headers()) > limits.max_response_header_size {
        return Err(Error::GuestHeaderTooLarge);
    }
    if response.status().is_informational() {
        return Err(Error::GuestBadResponse("a 1xx status is no answer"));
    }
    Ok(())
}
