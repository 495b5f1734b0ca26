//! Prints: a line in pieces, a line of 20,000 bytes, a line without an end; then one on the other stream.

use guests::{IncomingRequest, ResponseOutparam, print, reply};

guests::serve!(handle);

fn handle(_: IncomingRequest, out: ResponseOutparam) {
    print();
    reply(out, 200, "printed");
}
