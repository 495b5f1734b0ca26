//! Middleware: without the token `open` the answer is 401; with it, the request goes on to the component that this one is
//! composed with.

use guests::{IncomingRequest, ResponseOutparam, incoming_handler, reply};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    if request.headers().get("gate") != [b"open"] {
        return reply(out, 401, "the gate is closed");
    }
    incoming_handler::handle(request, out);
}
