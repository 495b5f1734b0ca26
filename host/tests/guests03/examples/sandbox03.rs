//! Looks for the machine behind its sandbox, and reports each finding on a line.

use guests03::bindings::wasi::config::store;
use guests03::bindings::wit_future;
use guests03::{Answer, Fields, Request, Scheme, client, machine, reply};

guests03::serve!(handle);

async fn handle(_: Request) -> Answer {
    let mut report = machine();
    report.push(format!("outbound: {}", outbound().await));
    for (key, value) in store::get_all().unwrap_or_default() {
        report.push(format!("config {key}: {value:?}"));
    }
    reply(200, &report.join("\n"))
}

async fn outbound() -> String {
    let (request, _sent) = Request::new(Fields::new(), None, wit_future::new(|| Ok(None)).1, None);
    request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
    request.set_authority(Some("127.0.0.1:9")).expect("an authority");
    request.set_path_with_query(Some("/")).expect("a path");
    match client::send(request).await {
        Ok(response) => format!("answered {}", response.get_status_code()),
        Err(code) => format!("Some(Ok(Err({code:?})))"), // as the future of WASI 0.2 has it
    }
}
