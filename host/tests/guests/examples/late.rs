//! Answers at once and works on: until the request body ends, then it prints.

use guests::{IncomingRequest, ResponseOutparam, read, reply};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    reply(out, 200, "answered");
    read(&request, |_| ());
    println!("worked on after the answer");
}
