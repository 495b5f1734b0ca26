//! Says what is not so, as the path asks.

use guests03::{Answer, Fields, Reply, Request, bodiless, read, reply, target};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    match target(&request).as_str() {
        // A content-length that is too long, and the guest ends as if nothing were wrong.
        "/short" => Reply::start(200, &[("content-length", "100")], async |mut reply| {
            reply.write("four").await;
            reply.finish(None).await;
        }),
        // A content-length that is too short, and the guest writes on.
        "/long" => Reply::start(200, &[("content-length", "4")], async |mut reply| {
            reply.stream.write_all("more than four".into()).await;
            reply.finish(None).await;
        }),
        // An answer without a byte, and the guest goes on for as long as its client sends.
        "/nothing-yet" => Reply::start(200, &[("content-length", "0")], async |reply| {
            read(request, async |_| ()).await;
            reply.finish(None).await;
        }),
        "/status-103" => bodiless(103, &[]),
        "/status-204" => Reply::start(204, &[], async |mut reply| {
            reply.write("a body that must not be").await;
            reply.finish(None).await;
        }),
        "/status-304" => bodiless(304, &[]),
        "/large-header" => {
            let value = "v".repeat(1024);
            let headers: Vec<(&str, &str)> = (0..80).map(|_| ("x-large", value.as_str())).collect();
            Reply::start(200, &headers, async |reply| reply.finish(None).await)
        }
        // More than Wasmtime's own limit for the fields of a guest.
        "/huge-header" => {
            let value = "v".repeat(5 * 1024);
            let headers: Vec<(&str, &str)> = (0..60).map(|_| ("x-huge", value.as_str())).collect();
            Reply::start(200, &headers, async |reply| reply.finish(None).await)
        }
        "/host's-word" => {
            Reply::start(200, &[("taffrail-error", "host_internal")], async |reply| reply.finish(None).await)
        }
        // Every field that is between host and client alone is refused to a guest.
        "/hop-by-hop" => {
            let fields = Fields::new();
            let names = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"];
            let refused = names.iter().filter(|name| fields.append(name, b"close").is_err()).count();
            reply(200, &format!("{refused} of {} refused", names.len()))
        }
        _ => reply(200, "fine"),
    }
}
