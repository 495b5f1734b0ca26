//! Where each HTTP/1.1 request of a connection begins and ends, read from the bytes as they come.
//!
//! hyper takes a `Content-Length` away where there is a `Transfer-Encoding` as well, so that nobody above it sees that a request
//! had both, which is how requests are smuggled (RFC 9112, 6.1). This follows the bytes beside hyper: heads are looked at, bodies
//! are skipped, whatever is in them and however the bytes are cut. It takes no more than hyper takes: where framing is not as the
//! RFC has it, it gives up, and every later request of the connection is refused.

use memchr::memchr;

/// Why requests are refused from one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The first of them, counted from 0.
    pub(crate) from: u64,
    /// What is wrong with it.
    pub(crate) why: Why,
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its head has more bytes than one may have. They are counted here because hyper drops some: a fragment of the target, say.
    TooLarge,
    /// Its framing, in words for the client.
    Framing(&'static str),
}

const BOTH: Why = Why::Framing("Transfer-Encoding and Content-Length exclude each other.");
const CODING: Why = Why::Framing("A Transfer-Encoding other than chunked is not taken.");
const LENGTH: Why = Why::Framing("The Content-Length is not one number of bytes.");
const BROKEN: Why = Why::Framing("The body of the request before is not as its framing says.");

/// The longest line that frames a body, where it comes in pieces, in bytes: a name, a number, and room for blanks.
const LINE_MAX: usize = 1024;

/// The framing of the requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct MessageFraming {
    state: State,
    /// The most bytes of a head, where that is bounded.
    max_head: Option<usize>,
    head: Head,
    /// The beginning of a line of a head that is cut between two reads: [`LINE_MAX`] bytes of it where it may frame the body, else
    /// its first two.
    line: Vec<u8>,
    /// The line goes on beyond that.
    is_longer: bool,
    /// Heads that are over.
    heads: u64,
    refused: Option<Refused>,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// Before or within a head.
    #[default]
    Head,
    /// Within a body with a length: bytes that are left of it.
    Body(u64),
    Chunk(Chunk),
    /// Nothing can be said any more.
    Lost,
}

/// The parts of a chunked body (RFC 9112, 7.1).
#[derive(Debug, Clone, Copy)]
enum Chunk {
    Start,
    Size(u64),
    Space(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

/// What a head has said so far.
#[derive(Debug, Default)]
struct Head {
    /// Its request line is over.
    started: bool,
    /// Its bytes so far, line ends and all.
    size: usize,
    length: Option<Result<u64, NotOne>>,
    /// Whether the coding is `chunked` and nothing else.
    chunked: Option<bool>,
}

/// Several lengths, or none.
#[derive(Debug)]
struct NotOne;

impl MessageFraming {
    /// Starts with a connection; `max_head` is the most bytes that a head may have.
    pub(crate) fn new(max_head: usize) -> Self {
        Self { max_head: Some(max_head), ..Self::default() }
    }

    /// These bytes were received.
    pub(crate) fn received(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            bytes = match self.state {
                State::Head => self.head_line(bytes),
                State::Body(left) => {
                    let (rest, left) = skip(bytes, left);
                    self.state = if left == 0 { State::Head } else { State::Body(left) };
                    rest
                }
                State::Chunk(Chunk::Data(left)) => {
                    let (rest, left) = skip(bytes, left);
                    self.state = State::Chunk(if left == 0 { Chunk::DataCr } else { Chunk::Data(left) });
                    rest
                }
                State::Chunk(chunk) => {
                    self.chunk_byte(chunk, *first);
                    bytes.get(1..).unwrap_or_default()
                }
                State::Lost => return,
            }
        }
    }

    /// From which request on requests are refused.
    pub(crate) fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// Whether a body has begun and not ended.
    pub(crate) fn is_within_body(&self) -> bool {
        matches!(self.state, State::Body(_) | State::Chunk(_))
    }

    /// Whether a head has begun and not ended.
    pub(crate) fn is_within_head(&self) -> bool {
        matches!(self.state, State::Head) && (self.head.started || self.head.size > 0)
    }

    /// Whether a request has begun and not ended, or nobody can say.
    pub(crate) fn is_within_message(&self) -> bool {
        !matches!(self.state, State::Head) || self.is_within_head()
    }

    /// Takes a line of a head, or what there is of it. Returns what comes after it.
    fn head_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some((line, rest)) = memchr(b'\n', bytes).and_then(|at| Some((bytes.get(..at)?, bytes.get(at + 1..)?)))
        else {
            self.head.size += bytes.len();
            self.keep(bytes);
            return &[];
        };
        self.head.size += line.len() + 1;
        if self.line.is_empty() {
            self.line_over(line, true);
        } else {
            self.keep(line);
            let line = std::mem::take(&mut self.line);
            let is_whole = !std::mem::take(&mut self.is_longer);
            self.line_over(&line, is_whole);
        }
        rest
    }

    fn keep(&mut self, piece: &[u8]) {
        let first = self.line.first().or(piece.first());
        let frames = self.head.started && matches!(first, Some(b'c' | b'C' | b't' | b'T'));
        let most = if frames { LINE_MAX } else { 2 }; // two bytes tell a line from an empty one
        let room = most.saturating_sub(self.line.len()).min(piece.len());
        self.line.extend_from_slice(piece.get(..room).unwrap_or_default());
        self.is_longer |= room < piece.len();
    }

    fn line_over(&mut self, line: &[u8], is_whole: bool) {
        match line.strip_suffix(b"\r").unwrap_or(line) {
            [] if self.head.started => self.head_over(),
            [] => self.head.size = 0, // an empty line before a request is ignored (RFC 9112, 2.2)
            _ if !self.head.started => self.head.started = true,
            field @ [b'c' | b'C' | b't' | b'T', ..] => self.head.field(field, is_whole),
            _ => {}
        }
    }

    fn head_over(&mut self) {
        let head = std::mem::take(&mut self.head);
        self.state = match (head.chunked, head.length) {
            _ if self.max_head.is_some_and(|max| head.size > max) => self.lost(Why::TooLarge),
            (None, None) => State::Head,
            (None, Some(Ok(0))) => State::Head,
            (None, Some(Ok(length))) => State::Body(length),
            (Some(true), None) => State::Chunk(Chunk::Start),
            (None, Some(Err(NotOne))) => self.lost(LENGTH),
            (Some(false), None) => self.lost(CODING),
            (Some(_), Some(_)) => self.lost(BOTH),
        };
        self.heads += 1;
    }

    /// The next head, or the one that is just over, is the first that is refused.
    fn lost(&mut self, why: Why) -> State {
        self.refused = Some(Refused { from: self.heads, why });
        State::Lost
    }

    fn chunk_byte(&mut self, chunk: Chunk, byte: u8) {
        let next = match (chunk, byte) {
            (Chunk::Start, digit) => hex(digit).map(Chunk::Size),
            (Chunk::Size(size) | Chunk::Space(size) | Chunk::Extension(size), b'\r') => Some(Chunk::SizeLf(size)),
            (Chunk::Size(size) | Chunk::Space(size), b' ' | b'\t') => Some(Chunk::Space(size)),
            (Chunk::Size(size) | Chunk::Space(size), b';') => Some(Chunk::Extension(size)),
            (Chunk::Size(size), digit) => larger(size, digit).map(Chunk::Size),
            (Chunk::Extension(size), other) => (other != b'\n').then_some(Chunk::Extension(size)),
            (Chunk::SizeLf(0), b'\n') => Some(Chunk::TrailerStart),
            (Chunk::SizeLf(size), b'\n') => Some(Chunk::Data(size)),
            (Chunk::DataCr, b'\r') => Some(Chunk::DataLf),
            (Chunk::DataLf, b'\n') => Some(Chunk::Start),
            (Chunk::TrailerStart, b'\r') => Some(Chunk::EndLf),
            (Chunk::Trailer, b'\r') => Some(Chunk::TrailerLf),
            (Chunk::TrailerStart | Chunk::Trailer, other) => (other != b'\n').then_some(Chunk::Trailer),
            (Chunk::TrailerLf, b'\n') => Some(Chunk::TrailerStart),
            (Chunk::EndLf, b'\n') => {
                self.state = State::Head;
                return;
            }
            _ => None,
        };
        self.state = next.map_or_else(|| self.lost(BROKEN), State::Chunk);
    }
}

impl Head {
    fn field(&mut self, line: &[u8], is_whole: bool) {
        if let Some(value) = value_of(line, b"content-length") {
            let length = std::str::from_utf8(value).ok().filter(|_| is_whole);
            let length = length.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = length.and_then(|text| text.parse().ok()).ok_or(NotOne);
            self.length = Some(match (self.length.take(), length) {
                (Some(Ok(before)), Ok(length)) if before != length => Err(NotOne),
                (Some(Err(NotOne)), _) => Err(NotOne),
                (_, length) => length,
            });
        } else if let Some(value) = value_of(line, b"transfer-encoding") {
            self.chunked = Some(is_whole && self.chunked.is_none() && value.eq_ignore_ascii_case(b"chunked"));
        }
    }
}

/// The value of a field, where it is the one of this name.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":").filter(|_| start.eq_ignore_ascii_case(name))?;
    Some(value.trim_ascii())
}

/// What is behind the next `left` bytes, and how many of those are still to come.
fn skip(bytes: &[u8], left: u64) -> (&[u8], u64) {
    match usize::try_from(left).ok().and_then(|left| bytes.get(left..)) {
        Some(rest) => (rest, 0),
        None => (&[], left - bytes.len() as u64),
    }
}

fn hex(digit: u8) -> Option<u64> {
    char::from(digit).to_digit(16).map(u64::from)
}

fn larger(size: u64, digit: u8) -> Option<u64> {
    size.checked_mul(16)?.checked_add(hex(digit)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests that are legal, and whose bodies look like heads.
    const LEGAL: [&str; 14] = [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\nHost: x\n\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nContent-Type: a\r\nTe: trailers\r\nTransfer-Encoding-: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nCONTENT-LENGTH:\t5 \r\nContent-Length: 5\r\n\r\n\r\n\r\nX",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 49\r\n\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\ntransfer-encoding:CHUNKED\t\r\n\r\n13\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n00B ;x=\"\t;\"\r\n\r\n0\r\n\r\n\r\n\r\n\r\n0;y\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 5\r\nX: y\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: Content-Length: 5\r\nCookie: a\r\n\r\n1\r\n\n\r\n0\r\n\r\n",
        "POST /Content-Length:5 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: x\r\nX-Long: Transfer-Encoding: chunked\r\n\r\n",
        "PUT / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
    ];

    /// Heads that say in two ways how long their body is.
    const CONFLICTING: [&str; 6] = [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\ncontent-length:\r\n\r\n",
        "POST / HTTP/1.1\nTRANSFER-ENCODING: chunked\nCONTENT-LENGTH: +1\n\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    ];

    fn refused(pieces: &[&[u8]]) -> Option<Refused> {
        let mut framing = MessageFraming::default();
        pieces.iter().for_each(|piece| framing.received(piece));
        framing.refused()
    }

    /// Whether the next head is awaited.
    fn is_between_requests(text: &str) -> bool {
        let mut framing = MessageFraming::default();
        framing.received(text.as_bytes());
        matches!(framing.state, State::Head) && !framing.head.started && framing.line.is_empty()
    }

    /// Calls with the text cut at every point, and in single bytes.
    fn cut_everywhere(text: &str, mut check: impl FnMut(&[&[u8]])) {
        let bytes = text.as_bytes();
        (0..=bytes.len()).for_each(|at| check(&[&bytes[..at], &bytes[at..]]));
        check(&bytes.chunks(1).collect::<Vec<_>>());
    }

    #[test]
    fn a_legal_request_is_never_refused_however_it_is_cut() {
        for request in LEGAL {
            cut_everywhere(request, |pieces| assert_eq!(refused(pieces), None, "{request:?} {}", pieces[0].len()));
            assert!(is_between_requests(request), "{request:?} is over");
        }
    }

    #[test]
    fn a_head_with_both_lengths_is_refused_however_it_is_cut_and_whatever_came_before() {
        for head in CONFLICTING {
            cut_everywhere(head, |pieces| {
                assert_eq!(refused(pieces), Some(Refused { from: 0, why: BOTH }), "{head:?}")
            });
            for before in LEGAL {
                cut_everywhere(&format!("{before}{head}"), |pieces| {
                    assert_eq!(refused(pieces), Some(Refused { from: 1, why: BOTH }), "{before:?} {head:?}");
                });
            }
        }
    }

    #[test]
    fn any_sequence_of_legal_requests_passes_and_the_first_conflict_in_it_is_found() {
        let mut random = fastrand::Rng::with_seed(9112);
        for _ in 0..2000 {
            let count = random.usize(0..20);
            let before: String = (0..count).map(|_| LEGAL[random.usize(0..LEGAL.len())]).collect();
            let conflict = CONFLICTING[random.usize(0..CONFLICTING.len())];
            let (whole, mut framing, mut at) =
                (format!("{before}{conflict}GET / HTTP/1.1\r\n\r\n"), MessageFraming::default(), 0);
            let legal = before.len();
            while at < whole.len() {
                let end = if at < legal { legal } else { whole.len() }.min(at + random.usize(1..200));
                framing.received(&whole.as_bytes()[at..end]);
                at = end;
                assert!(at > legal || framing.refused().is_none(), "{before:?}");
            }
            assert_eq!(framing.refused(), Some(Refused { from: count as u64, why: BOTH }), "{before:?} {conflict:?}");
        }
    }

    #[test]
    fn another_coding_and_another_length_are_refused() {
        for (fields, why) in [
            ("Transfer-Encoding: gzip, chunked", CODING),
            ("Transfer-Encoding: chunked, chunked", CODING),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", CODING),
            ("Transfer-Encoding: \u{b}chunked", CODING),
            ("Transfer-Encoding:", CODING),
            ("Content-Length: 5\r\nContent-Length: 6", LENGTH),
            ("Content-Length: 6\r\nContent-Length: x\r\nContent-Length: 6", LENGTH),
            ("Content-Length: 18446744073709551616", LENGTH),
            ("Content-Length: -0", LENGTH),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n");
            cut_everywhere(&head, |pieces| assert_eq!(refused(pieces), Some(Refused { from: 0, why }), "{fields}"));
        }
    }

    #[test]
    fn after_a_body_that_is_not_chunked_as_it_says_the_next_request_is_refused() {
        for body in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "0x1\r\n",
            "1\n",
            "1 2\r\n",
            "1;\n",
            "1\rx",
            "1\r\nab",
            "1\r\na\rx",
            "1\r\na\n",
            "10000000000000000\r\n",
            "0\r\n\n",
            "0\r\nA: b\n",
            "0\r\nA: b\rx",
            "0\r\n\rx",
        ] {
            let text = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            cut_everywhere(&text, |pieces| {
                assert_eq!(refused(pieces), Some(Refused { from: 1, why: BROKEN }), "{body:?}")
            });
        }
    }

    #[test]
    fn of_a_line_that_frames_nothing_two_bytes_are_kept() {
        let mut framing = MessageFraming::default();
        framing.received(b"GET / HTTP/1.1\r\nX: ");
        (0..1000).for_each(|_| framing.received(&[b'a'; 1000]));
        assert_eq!(framing.line.len(), 2);
    }

    #[test]
    fn of_a_line_that_may_frame_a_body_so_much_is_kept_and_a_longer_one_frames_none() {
        for (line, why) in
            [("Content-Length: 5", Some(LENGTH)), ("Transfer-Encoding: chunked", Some(CODING)), ("TE: 5", None)]
        {
            let mut framing = MessageFraming::default();
            framing.received(format!("POST / HTTP/1.1\r\n{line}").as_bytes());
            (0..1000).for_each(|_| framing.received(&[b' '; 1000]));
            assert_eq!(framing.line.len(), LINE_MAX, "{line}");
            framing.received(b"\r\nX: y\r\n\r\n");
            assert_eq!(framing.refused(), why.map(|why| Refused { from: 0, why }), "{line}");
        }
    }

    #[test]
    fn a_head_has_so_many_bytes_and_no_more_however_it_is_cut() {
        let head = "GET /?a#fragment HTTP/1.1\r\nHost: x\r\n\r\n";
        cut_everywhere(&format!("\r\n{head}\r\n{head}"), |pieces| {
            for (max, expected) in [(head.len(), None), (head.len() - 1, Some(Refused { from: 0, why: Why::TooLarge }))]
            {
                let mut framing = MessageFraming::new(max);
                pieces.iter().for_each(|piece| framing.received(piece));
                assert_eq!(framing.refused(), expected);
            }
        });
    }
}
