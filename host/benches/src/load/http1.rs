//! A cheap HTTP/1.1 client: the request is rendered once, of the response only the framing is read. hyper's own client
//! would cost more than native hyper's server and so hide what is measured.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::workload::{Protocol, Workload};

/// Header fields of a response, at most.
const MAX_FIELDS: usize = 64;

/// One client with at most one connection, which it opens when it needs one.
pub struct Client {
    target: SocketAddr,
    message: Vec<u8>,
    expected: u64,
    closes: bool,
    buffer: Vec<u8>,
    stream: Option<TcpStream>,
}

impl Client {
    /// A client that sends the workload's request.
    pub fn new(target: SocketAddr, workload: &Workload, token: &str) -> Self {
        let closes = workload.protocol == Protocol::NewConnection;
        let mut message = match workload.body {
            0 => format!("GET /app HTTP/1.1\r\nHost: {target}\r\nX-Auth-Token: {token}\r\n"),
            length => format!("POST /echo HTTP/1.1\r\nHost: {target}\r\nContent-Length: {length}\r\n"),
        };
        message.push_str(if closes { "Connection: close\r\n\r\n" } else { "\r\n" });
        let mut message = message.into_bytes();
        message.resize(message.len() + workload.body, b'x');
        let buffer = vec![0; if workload.body == 0 { 4 * 1024 } else { 128 * 1024 }];
        Self { target, message, expected: workload.response_length(), closes, buffer, stream: None }
    }

    /// Opens the connection, unless each request opens its own.
    pub async fn connect(&mut self) -> anyhow::Result<()> {
        if !self.closes && self.stream.is_none() {
            self.stream = Some(open(self.target).await?);
        }
        Ok(())
    }

    /// One request and its whole response. After a failure the next request opens a new connection.
    pub async fn request(&mut self) -> anyhow::Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => open(self.target).await?,
        };
        let (mut reading, mut writing) = stream.split();
        let write = async { writing.write_all(&self.message).await.context("writing the request") };
        // Both at once: an echo answers before it has read everything.
        let (response, ()) = tokio::try_join!(read_response(&mut reading, &mut self.buffer), write)?;
        ensure!(response.status == 200, "status {}", response.status);
        ensure!(response.length == self.expected, "{} bytes instead of {}", response.length, self.expected);
        if response.closes {
            // The server closes first, so that it is its side which waits out the old connection (TIME_WAIT), and the
            // client's ports do not run out.
            while stream.read(&mut self.buffer).await.unwrap_or(0) > 0 {}
        } else {
            self.stream = Some(stream);
        }
        Ok(())
    }
}

async fn open(target: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(target).await.context("connecting")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What of a response matters here.
struct Response {
    status: u16,
    /// Bytes of its body.
    length: u64,
    /// Whether the server closes the connection after it.
    closes: bool,
}

/// How a body is framed.
enum Framing {
    Length(u64),
    Chunked,
}

async fn read_response(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> anyhow::Result<Response> {
    let mut filled = 0;
    let (head_length, mut response, framing) = loop {
        ensure!(filled < buffer.len(), "the head of the response is too long");
        filled += read(stream, &mut buffer[filled..]).await?;
        if let Some(head) = parse_head(&buffer[..filled])? {
            break head;
        }
    };
    match framing {
        Framing::Length(length) => {
            response.length = length;
            let mut left = length.checked_sub((filled - head_length) as u64).context("bytes after the response")?;
            while left > 0 {
                let count = read(stream, buffer).await? as u64;
                left = left.checked_sub(count).context("bytes after the response")?;
            }
        }
        Framing::Chunked => {
            let mut chunks = Chunks::default();
            let mut ended = chunks.feed(&buffer[head_length..filled])?;
            while !ended {
                let count = read(stream, buffer).await?;
                ended = chunks.feed(&buffer[..count])?;
            }
            response.length = chunks.length;
        }
    }
    Ok(response)
}

async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> anyhow::Result<usize> {
    match stream.read(buffer).await.context("reading the response")? {
        0 => bail!("the connection ended within the response"),
        count => Ok(count),
    }
}

/// The head when it is whole: its length, what it says, how the body is framed.
fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<(usize, Response, Framing)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes)? else { return Ok(None) };
    let mut framing = None;
    let mut closes = head.version != Some(1);
    for field in head.headers.iter() {
        let value = std::str::from_utf8(field.value).unwrap_or_default();
        if field.name.eq_ignore_ascii_case("content-length") {
            framing = Some(Framing::Length(value.trim().parse()?));
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            ensure!(value.eq_ignore_ascii_case("chunked"), "unknown transfer-encoding {value:?}");
            framing = Some(Framing::Chunked);
        } else if field.name.eq_ignore_ascii_case("connection") {
            closes |= value.eq_ignore_ascii_case("close");
        }
    }
    let response = Response { status: head.code.unwrap_or_default(), length: 0, closes };
    Ok(Some((length, response, framing.context("a response without content-length or chunks")?)))
}

/// Reads chunked framing and counts what it carries.
#[derive(Default)]
struct Chunks {
    length: u64,
    part: Part,
    /// Bytes left of a chunk's data, or read of its size or of a trailer line.
    count: u64,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Part {
    #[default]
    Size,
    Extension,
    Data,
    DataEnd,
    Trailer,
}

impl Chunks {
    /// Takes the next bytes; true when the body has ended with them.
    fn feed(&mut self, mut bytes: &[u8]) -> anyhow::Result<bool> {
        while let Some((&byte, rest)) = bytes.split_first() {
            match (self.part, byte) {
                (Part::Data, _) => {
                    let here = self.count.min(bytes.len() as u64);
                    self.count -= here;
                    self.length += here;
                    bytes = &bytes[here as usize..];
                    if self.count == 0 {
                        self.part = Part::DataEnd;
                    }
                    continue;
                }
                (Part::Size | Part::Extension, b'\n') if self.count == 0 => self.part = Part::Trailer,
                (Part::Size | Part::Extension, b'\n') => self.part = Part::Data,
                (Part::Size, b'\r' | b';') => self.part = Part::Extension,
                (Part::Size, digit) => {
                    let digit = char::from(digit).to_digit(16).context("a chunk's size is no number")?;
                    self.count = self.count.checked_mul(16).context("a chunk's size is too large")? + u64::from(digit);
                }
                (Part::DataEnd, b'\n') => self.part = Part::Size,
                (Part::DataEnd, b'\r') | (Part::Extension, _) => {}
                (Part::DataEnd, _) => bail!("a chunk is longer than it says"),
                (Part::Trailer, b'\n') if self.count == 0 => {
                    ensure!(rest.is_empty(), "bytes after the response");
                    return Ok(true);
                }
                (Part::Trailer, b'\n') => self.count = 0,
                (Part::Trailer, b'\r') => {}
                (Part::Trailer, _) => self.count += 1,
            }
            bytes = rest;
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_in_pieces(text: &str, piece: usize) -> anyhow::Result<(u16, u64, bool)> {
        let (mut here, mut there) = tokio::io::duplex(piece);
        let text = text.to_owned();
        let writer = tokio::spawn(async move {
            let _ = there.write_all(text.as_bytes()).await;
        });
        let response = read_response(&mut here, &mut [0; 256]).await;
        writer.abort();
        response.map(|response| (response.status, response.length, response.closes))
    }

    #[tokio::test]
    async fn both_framings_are_read_however_the_bytes_come() {
        let length = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: Close\r\n\r\n12345";
        let chunks = "HTTP/1.1 404 No\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nt: v\r\n\r\n";
        for piece in 1..=chunks.len() {
            assert_eq!(read_in_pieces(length, piece).await.unwrap(), (200, 5, true), "{piece}");
            assert_eq!(read_in_pieces(chunks, piece).await.unwrap(), (404, 13, false), "{piece}");
        }
    }

    #[tokio::test]
    async fn what_is_not_a_whole_response_is_an_error() {
        for text in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n123",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nx",
            "nonsense\r\n\r\n",
        ] {
            assert!(read_in_pieces(text, 1000).await.is_err(), "{text:?}");
        }
        let cut = read_response(&mut &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n1"[..], &mut [0; 256]).await;
        assert!(cut.is_err());
    }
}
