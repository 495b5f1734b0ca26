//! Looks for the machine behind its sandbox, and reports each finding on a line.

use guests::bindings::wasi::config::store;
use guests::bindings::wasi::http::outgoing_handler;
use guests::{Fields, IncomingRequest, OutgoingRequest, ResponseOutparam, Scheme, machine, reply};

guests::serve!(handle);

fn handle(_: IncomingRequest, out: ResponseOutparam) {
    let mut report = machine();
    report.push(format!("outbound: {}", outbound()));
    for (key, value) in store::get_all().unwrap_or_default() {
        report.push(format!("config {key}: {value:?}"));
    }
    reply(out, 200, &report.join("\n"));
}

fn outbound() -> String {
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
    request.set_authority(Some("127.0.0.1:9")).expect("an authority");
    request.set_path_with_query(Some("/")).expect("a path");
    match outgoing_handler::handle(request, None) {
        Ok(future) => {
            future.subscribe().block();
            match future.get() {
                Some(Ok(Ok(response))) => format!("answered {}", response.status()),
                other => format!("{other:?}"),
            }
        }
        Err(code) => format!("{code:?}"),
    }
}
