//! Prints: a line in pieces, a line of 20,000 bytes, a line without an end; then one on the other stream.

use guests::{IncomingRequest, ResponseOutparam, reply};

guests::serve!(handle);

fn handle(_: IncomingRequest, out: ResponseOutparam) {
    eprint!("one ");
    eprint!("line ");
    eprintln!("in pieces");
    eprintln!("{}", "x".repeat(20_000));
    println!("on stdout");
    eprint!("without an end");
    reply(out, 200, "printed");
}
