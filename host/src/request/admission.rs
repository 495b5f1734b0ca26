//! What may reach a guest, and what a guest's answer must be to reach the client.

use hyper::{Method, Request, Response};

use crate::config::Limits;
use crate::error::Error;
use crate::http::framing::header_size;
use crate::transport::activity::Activity;

/// Refuses a request that must not reach a guest.
pub(crate) fn check_request<B>(request: &Request<B>, limits: &Limits, activity: &Activity) -> Result<(), Error> {
    let (uri, fields) = (request.uri(), request.headers());
    let line = uri.authority().map_or(0, |authority| authority.as_str().len())
        + uri.path_and_query().map_or(0, |target| target.as_str().len());
    if fields.len() > limits.max_headers || line + header_size(fields) > limits.max_header_size {
        return Err(Error::ClientHeaderTooLarge);
    }
    if request.method() == Method::CONNECT {
        return Err(Error::ClientMethodNotAllowed);
    }
    activity.refusal().map_or(Ok(()), |why| Err(Error::ClientBadRequest(why)))
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
