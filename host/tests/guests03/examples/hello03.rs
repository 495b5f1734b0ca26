//! The hello/auth service of `component/`, as a component of WASI 0.3.

use guests03::bindings::wasi::config::store;
use guests03::{Method, Reply, Request, bodiless};
use routes::Inputs;

#[path = "../../../../component/src/routes.rs"]
mod routes;

guests03::serve!(handle);

async fn handle(request: Request) -> guests03::Answer {
    let method = request.get_method();
    let target = request.get_path_with_query().unwrap_or_default();
    let answer = routes::answer(method_name(&method), &target, &Asked { request: &request });
    let length = answer.body.len().to_string();
    let mut headers = vec![("content-type", answer.content_type), ("content-length", &length)];
    headers.extend(answer.allow.map(|methods| ("allow", methods)));
    if matches!(method, Method::Head) {
        return bodiless(answer.status, &headers);
    }
    Reply::start(answer.status, &headers, async move |mut reply| {
        reply.stream.write_all(answer.body.into()).await; // whether or not the client stays for it
        reply.finish(None).await;
    })
}

struct Asked<'a> {
    request: &'a Request,
}

impl Inputs for Asked<'_> {
    fn header(&self, name: &str) -> Vec<Vec<u8>> {
        self.request.get_headers().get(name)
    }

    fn auth_tokens(&self) -> String {
        match store::get("auth-tokens") {
            Ok(tokens) => tokens.unwrap_or_default(),
            Err(error) => {
                eprintln!("reading auth-tokens: {error:?}; every token is refused");
                String::new()
            }
        }
    }
}

fn method_name(method: &Method) -> &str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => name,
    }
}
