//! Reads the whole request body, then answers with its length.

use guests::{IncomingRequest, ResponseOutparam, read, reply};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let mut length = 0;
    read(&request, |chunk| length += chunk.len());
    reply(out, 200, &length.to_string());
}
