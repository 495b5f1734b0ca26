//! The hello/auth service: which request gets which answer. Pure functions over plain types; `lib.rs` connects them to
//! WASI HTTP.

use subtle::{Choice, ConstantTimeEq};

/// The header that carries the token. It decides alone when present; `Authorization` counts only without it.
pub const TOKEN_HEADER: &str = "x-auth-token";

/// What a route may ask of the request and of the configuration. Each call is a call into the host, so a route asks
/// only for what it needs.
pub trait Inputs {
    /// All values of a header, in order; empty when it is absent.
    fn header(&self, name: &str) -> Vec<Vec<u8>>;

    /// The config key `auth-tokens`: one valid token a line. Empty when not configured.
    fn auth_tokens(&self) -> String;
}

/// A whole answer. `HEAD` is answered as `GET`; leaving out the body is the glue's work.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// Value of `content-type`.
    pub content_type: &'static str,
    /// Value of `allow`, for 405 alone.
    pub allow: Option<&'static str>,
    /// The body, of which `content-length` is the length.
    pub body: &'static str,
}

/// Answers one request. `target` is the path with its query; the query takes no part.
pub fn answer(method: &str, target: &str, inputs: &impl Inputs) -> Answer {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let handler: fn(&_) -> Answer = match path {
        "/app" => app,
        "/ping" => |_| Answer { status: 200, content_type: "text/plain; charset=utf-8", allow: None, body: "OK" },
        _ => return json(404, r#"{"error":"Not found"}"#),
    };
    match method {
        "GET" | "HEAD" => handler(inputs),
        _ => Answer { allow: Some("GET, HEAD"), ..json(405, r#"{"error":"Method not allowed"}"#) },
    }
}

fn app(inputs: &impl Inputs) -> Answer {
    match presented_token(inputs) {
        Some(token) if is_valid(&token, &inputs.auth_tokens()) => json(200, r#"{"message":"Hello World"}"#),
        _ => json(403, r#"{"error":"Invalid auth token"}"#),
    }
}

/// The one token that a request presents: none when it is missing, empty or ambiguous.
fn presented_token(inputs: &impl Inputs) -> Option<Vec<u8>> {
    let presented = inputs.header(TOKEN_HEADER);
    let (values, read): (_, fn(&[u8]) -> Option<&[u8]>) = match presented.is_empty() {
        true => (inputs.header("authorization"), bearer_token),
        false => (presented, |value| Some(value)),
    };
    let [value] = <[Vec<u8>; 1]>::try_from(values).ok()?;
    read(&value).filter(|token| !token.is_empty()).map(<[u8]>::to_vec)
}

/// What follows the scheme `Bearer` and at least one space (RFC 6750, 2.1).
fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked("Bearer".len())?;
    let token = rest.strip_prefix(b" ").filter(|_| scheme.eq_ignore_ascii_case(b"Bearer"))?;
    let spaces = token.iter().take_while(|byte| **byte == b' ').count();
    token.get(spaces..)
}

/// Whether a token is among the configured ones. Every one of them is compared, each in constant time, so that the time
/// taken tells neither which one matched nor how much of it. Editors of Windows begin a file with a byte-order mark.
fn is_valid(token: &[u8], configured: &str) -> bool {
    let configured = configured.strip_prefix('\u{feff}').unwrap_or(configured);
    let tokens = configured.lines().map(str::trim).filter(|line| !line.is_empty());
    tokens.fold(Choice::from(0), |found, valid| found | valid.as_bytes().ct_eq(token)).into()
}

fn json(status: u16, body: &'static str) -> Answer {
    Answer { status, content_type: "application/json", allow: None, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Given {
        headers: Vec<(&'static str, &'static str)>,
        tokens: &'static str,
    }

    impl Inputs for Given {
        fn header(&self, name: &str) -> Vec<Vec<u8>> {
            self.headers
                .iter()
                .filter(|(given, _)| *given == name)
                .map(|(_, value)| value.as_bytes().to_vec())
                .collect()
        }

        fn auth_tokens(&self) -> String {
            self.tokens.to_owned()
        }
    }

    fn app_status(headers: &[(&'static str, &'static str)], tokens: &'static str) -> u16 {
        answer("GET", "/app", &Given { headers: headers.to_vec(), tokens }).status
    }

    const NOTHING: Given = Given { headers: Vec::new(), tokens: "" };

    #[test]
    fn a_valid_token_is_greeted() {
        let given = Given { headers: vec![("x-auth-token", "one")], tokens: "one" };
        let greeting = json(200, r#"{"message":"Hello World"}"#);
        assert_eq!(answer("GET", "/app", &given), greeting);
        assert_eq!(answer("HEAD", "/app", &given), greeting);
    }

    #[test]
    fn a_missing_wrong_empty_or_doubled_token_is_refused() {
        for headers in [
            &[][..],
            &[("x-auth-token", "two")],
            &[("x-auth-token", "on")],
            &[("x-auth-token", "one ")],
            &[("x-auth-token", "ONE")],
            &[("x-auth-token", "")],
            &[("x-auth-token", "one"), ("x-auth-token", "one")],
        ] {
            let given = Given { headers: headers.to_vec(), tokens: "one" };
            let refusal = json(403, r#"{"error":"Invalid auth token"}"#);
            assert_eq!(answer("GET", "/app", &given), refusal, "{headers:?}");
        }
    }

    #[test]
    fn a_bearer_token_gets_the_same_checks() {
        assert_eq!(app_status(&[("authorization", "Bearer one")], "one"), 200);
        assert_eq!(app_status(&[("authorization", "bearer one")], "one"), 200);
        assert_eq!(app_status(&[("authorization", "BEARER    one")], "one"), 200);
        for value in
            ["Bearer two", "Bearer ", "Bearer   ", "Bearer", "Bearerone", "Bearer\tone", "one", "Basic one", ""]
        {
            assert_eq!(app_status(&[("authorization", value)], "one"), 403, "{value:?}");
        }
        assert_eq!(app_status(&[("authorization", "Bearer one"), ("authorization", "Bearer one")], "one"), 403);
    }

    #[test]
    fn the_token_header_alone_decides_when_it_is_there() {
        assert_eq!(app_status(&[("x-auth-token", "two"), ("authorization", "Bearer one")], "one"), 403);
        assert_eq!(app_status(&[("x-auth-token", ""), ("authorization", "Bearer one")], "one"), 403);
        assert_eq!(app_status(&[("x-auth-token", "one"), ("authorization", "Bearer two")], "one"), 200);
    }

    #[test]
    fn each_non_empty_line_is_a_token() {
        for token in ["one", "two", "three"] {
            assert_eq!(app_status(&[("x-auth-token", token)], "\none\r\n\n two \nthree"), 200, "{token}");
        }
        assert_eq!(app_status(&[("x-auth-token", "one\ntwo")], "one\ntwo"), 403);
    }

    #[test]
    fn a_byte_order_mark_and_the_line_ends_of_windows_are_no_part_of_a_token() {
        for token in ["one", "two"] {
            assert_eq!(app_status(&[("x-auth-token", token)], "\u{feff}one\r\ntwo\r\n"), 200, "{token}");
            assert_eq!(app_status(&[("x-auth-token", token)], "\u{feff}\r\none\r\ntwo"), 200, "{token}");
        }
        assert_eq!(app_status(&[("x-auth-token", "\u{feff}")], "\u{feff}"), 403);
    }

    #[test]
    fn without_a_configured_token_nobody_is_greeted() {
        for tokens in ["", "\n", " \r\n\n"] {
            assert_eq!(app_status(&[("x-auth-token", "")], tokens), 403);
            assert_eq!(app_status(&[("x-auth-token", "one")], tokens), 403);
            assert_eq!(app_status(&[], tokens), 403);
        }
    }

    #[test]
    fn ping_is_ok_without_a_token() {
        let ok = answer("GET", "/ping", &NOTHING);
        assert_eq!((ok.status, ok.body), (200, "OK"));
        assert_eq!(answer("HEAD", "/ping", &NOTHING), ok);
    }

    #[test]
    fn the_query_takes_no_part() {
        assert_eq!(answer("GET", "/ping?path=/app", &NOTHING).status, 200);
        assert_eq!(answer("GET", "/ping?", &NOTHING).status, 200);
        assert_eq!(answer("GET", "/?/ping", &NOTHING).status, 404);
    }

    #[test]
    fn another_method_is_told_what_is_allowed() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "BREW"] {
            for path in ["/app", "/ping"] {
                let answer = answer(method, path, &NOTHING);
                assert_eq!((answer.status, answer.allow), (405, Some("GET, HEAD")), "{method} {path}");
                assert!(answer.body.starts_with(r#"{"error":"#));
            }
        }
    }

    #[test]
    fn another_path_is_not_found() {
        for path in ["/", "", "/App", "/app/", "//app", "/app/x", "/pingx", "/%61pp", "*"] {
            assert_eq!(answer("GET", path, &NOTHING), json(404, r#"{"error":"Not found"}"#), "{path}");
        }
    }
}
