//! Calls the servers that the header `fetch` names, all at the same time, and passes its own body on to the last. Answers
//! with what the last one answers, or with a line for each call: its status, or the error.

use futures::future::{Either, join_all, select};
use guests03::bindings::{wit_future, wit_stream};
use guests03::{Answer, Fields, Method, Reply, Request, RequestOptions, Scheme, client, read, reply, target};
use wit_bindgen::{StreamReader, spawn_local};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    let headers = request.get_headers();
    let header = |name: &str| headers.get(name).pop().map(|value| String::from_utf8(value).expect("text"));
    let urls = header("fetch").unwrap_or_default();
    let patience = header("fetch-patience-ms").map(|text| text.parse::<u64>().expect("a number") * 1_000_000);
    let method = request.get_method();
    let call = |url, contents| client::send(outgoing(url, &method, patience, contents));
    if target(&request) == "/lines" {
        let answers = join_all(urls.split(' ').map(|url| call(url, None))).await;
        return reply(200, &answers.into_iter().map(line).collect::<Vec<_>>().join("\n"));
    }
    let mut urls: Vec<&str> = urls.split(' ').collect();
    let last = call(urls.pop().expect("one call"), matches!(method, Method::Post).then(|| contents(request)));
    let others = join_all(urls.into_iter().map(|url| call(url, None)));
    let answer = match select(others, Box::pin(last)).await {
        Either::Left((_, last)) => last.await,
        Either::Right((answer, _)) => answer,
    };
    match answer {
        Err(code) => reply(502, &format!("{code:?}")),
        Ok(response) => Reply::start(response.get_status_code(), &[], async |mut reply| {
            read(response, async |chunk| reply.write(chunk).await).await;
            reply.finish(None).await;
        }),
    }
}

fn line(answer: Answer) -> String {
    answer.map_or_else(|code| format!("{code:?}"), |response| response.get_status_code().to_string())
}

/// The body of a request, for another one.
fn contents(request: Request) -> StreamReader<u8> {
    let (mut stream, contents) = wit_stream::new();
    spawn_local(async move {
        let each = async |chunk| assert!(stream.write_all(chunk).await.is_empty(), "a server that reads");
        read(request, each).await;
    });
    contents
}

fn outgoing(url: &str, method: &Method, patience: Option<u64>, contents: Option<StreamReader<u8>>) -> Request {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let options = patience.map(|patience| {
        let options = RequestOptions::new();
        options.set_first_byte_timeout(Some(patience)).expect("offered");
        options
    });
    let (request, _sent) = Request::new(Fields::new(), contents, wit_future::new(|| Ok(None)).1, options);
    request.set_method(method).expect("a method");
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request.set_scheme(Some(&scheme)).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query(Some(path)).expect("a path");
    request
}
