//! Sends the request body back as it comes, with its trailers; the head says how the request looked to the guest.

use guests::{IncomingRequest, Reply, ResponseOutparam, Scheme, read, target};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let scheme = match request.scheme() {
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) => "https",
        _ => "other",
    };
    let parent = request.headers().get("traceparent").pop().unwrap_or_default();
    let names: Vec<String> = request.headers().entries().into_iter().map(|(name, _)| name).collect();
    let cookies = request.headers().get("cookie").join(&b'|');
    let announced = request.headers().get("trailer").pop().unwrap_or_default();
    let reply = Reply::start(
        out,
        200,
        &[
            ("trailer", &String::from_utf8_lossy(&announced)),
            ("seen-method", &format!("{:?}", request.method())),
            ("seen-target", &target(&request)),
            ("seen-scheme", scheme),
            ("seen-authority", &request.authority().unwrap_or_default()),
            ("seen-traceparent", &String::from_utf8_lossy(&parent)),
            ("seen-headers", &names.join(",")),
            ("seen-cookies", &String::from_utf8_lossy(&cookies)),
        ],
    );
    let trailers = read(&request, |chunk| reply.write(chunk));
    reply.finish(trailers.map(|seen| seen.clone()));
}
