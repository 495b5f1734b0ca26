//! Sends the request body back as it comes, with its trailers; the head says how the request looked to the guest.

use guests03::{Answer, Reply, Request, Scheme, read, target};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    let scheme = match request.get_scheme() {
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) => "https",
        _ => "other",
    };
    let headers = request.get_headers();
    let parent = headers.get("traceparent").pop().unwrap_or_default();
    let names: Vec<String> = headers.copy_all().into_iter().map(|(name, _)| name).collect();
    let cookies = headers.get("cookie").join(&b'|');
    let announced = headers.get("trailer").pop().unwrap_or_default();
    let seen = [
        ("trailer", &*String::from_utf8_lossy(&announced)),
        ("seen-method", &format!("{:?}", request.get_method())),
        ("seen-target", &target(&request)),
        ("seen-scheme", scheme),
        ("seen-authority", &request.get_authority().unwrap_or_default()),
        ("seen-traceparent", &String::from_utf8_lossy(&parent)),
        ("seen-headers", &names.join(",")),
        ("seen-cookies", &String::from_utf8_lossy(&cookies)),
    ];
    Reply::start(200, &seen, async |mut reply| {
        let trailers = read(request, async |chunk| reply.write(chunk).await).await;
        reply.finish(trailers).await;
    })
}
