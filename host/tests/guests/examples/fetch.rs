//! Calls the servers that the header `fetch` names, all at the same time, and passes its own body on to the last. Answers
//! with what the last one answers, or with a line for each call: its status, or the error.

use guests::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingRequest, Method, OutgoingBody, OutgoingRequest, Reply,
    RequestOptions, ResponseOutparam, Scheme, StreamError, outgoing_handler, read, target,
};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let header = |name: &str| request.headers().get(name).pop().map(|value| String::from_utf8(value).expect("text"));
    let urls = header("fetch").unwrap_or_default();
    let patience = header("fetch-patience-ms").map(|text| text.parse::<u64>().expect("a number") * 1_000_000);
    let mut calls: Vec<_> = urls.split(' ').map(|url| Call::start(url, &request.method(), patience)).collect();
    if target(&request) == "/lines" {
        let lines: Vec<String> = calls.into_iter().map(Call::line).collect();
        return guests::reply(out, 200, &lines.join("\n"));
    }
    let mut call = calls.pop().expect("one call");
    if let Some(body) = call.body.take() {
        let stream = body.write().expect("the first stream");
        read(&request, |chunk| {
            for piece in chunk.chunks(4096) {
                stream.blocking_write_and_flush(piece).expect("a server that reads");
            }
        });
        drop(stream);
        OutgoingBody::finish(body, None).expect("a whole body");
    }
    match call.wait() {
        Err(code) => guests::reply(out, 502, &format!("{code:?}")),
        Ok(response) => {
            let reply = Reply::start(out, response.status(), &[]);
            let body = response.consume().expect("the first reader");
            let stream = body.stream().expect("the first stream");
            loop {
                match stream.blocking_read(64 * 1024) {
                    Ok(chunk) => reply.write(&chunk),
                    Err(StreamError::Closed) => return reply.finish(None),
                    Err(StreamError::LastOperationFailed(_)) => panic!("the server's answer broke off"),
                }
            }
        }
    }
}

struct Call {
    future: Result<FutureIncomingResponse, ErrorCode>,
    body: Option<OutgoingBody>,
}

impl Call {
    fn start(url: &str, method: &Method, patience: Option<u64>) -> Self {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let request = OutgoingRequest::new(Fields::new());
        request.set_method(method).expect("a method");
        let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
        request.set_scheme(Some(&scheme)).expect("a scheme");
        request.set_authority(Some(authority)).expect("an authority");
        request.set_path_with_query(Some(path)).expect("a path");
        let body = matches!(method, Method::Post).then(|| request.body().expect("the first body"));
        let options = patience.map(|patience| {
            let options = RequestOptions::new();
            options.set_first_byte_timeout(Some(patience)).expect("offered");
            options
        });
        Self { future: outgoing_handler::handle(request, options), body }
    }

    fn wait(self) -> Result<guests::IncomingResponse, ErrorCode> {
        let future = self.future?;
        future.subscribe().block();
        future.get().expect("it is ready").expect("asked once")
    }

    fn line(self) -> String {
        match self.wait() {
            Ok(response) => response.status().to_string(),
            Err(code) => format!("{code:?}"),
        }
    }
}
