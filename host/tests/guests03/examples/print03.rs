//! Prints: a line in pieces, a line of 20,000 bytes, a line without an end; then one on the other stream.

use guests03::{Answer, Request, print, reply};

guests03::serve!(handle);

async fn handle(_: Request) -> Answer {
    print();
    reply(200, "printed")
}
