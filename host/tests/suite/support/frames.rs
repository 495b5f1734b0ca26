//! HTTP/2 frame by frame (RFC 9113): clients that no library lets one be.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::PATIENCE;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const INITIAL_WINDOW_SIZE: u16 = 4;

pub const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The header block of `GET http://x` and this path (RFC 7541): the method and the scheme of the static table, the rest as it is.
pub fn get_block(path: &str) -> Vec<u8> {
    let path_length = u8::try_from(path.len()).expect("a short path");
    [&[0x82, 0x86, 0x01, 1, b'x', 0x04, path_length], path.as_bytes()].concat()
}

/// A field that the host is to remember: the latest of its dynamic table. Then that field again, so many times, in a byte each.
pub fn remembered_block(name: &str, again: usize) -> Vec<u8> {
    let name_length = u8::try_from(name.len()).expect("a short name");
    [&get_block("/ping")[..], &[0x40, name_length], name.as_bytes(), &[0], &vec![0x80 | 62; again]].concat()
}

/// A field with a value of so many bytes, of which all but the last hundred are there.
pub fn unfinished_block(size: usize) -> Vec<u8> {
    let mut block = [&get_block("/ping")[..], &[0, 1, b'x', 127]].concat();
    let mut rest = size - 127; // an integer with a prefix of seven bits (RFC 7541, 5.1)
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
    block.resize(block.len() + size - 100, b'x');
    block
}

/// A frame that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// One connection.
pub struct Frames {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Frames {
    /// Connects, with these settings.
    pub async fn connect(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(addr).await.expect("the host accepts");
        let mut client = Self { stream, buffer: Vec::new() };
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()).await;
        client
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the host reads");
    }

    /// Asks for a path on each of these streams.
    pub async fn get(&mut self, streams: impl Iterator<Item = u32>, path: &str) {
        self.ask(streams, &get_block(path)).await;
    }

    /// Sends this block as the head of a request on each of these streams.
    pub async fn ask(&mut self, streams: impl Iterator<Item = u32>, block: &[u8]) {
        let frames: Vec<u8> =
            streams.flat_map(|stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, block)).collect();
        self.send(&frames).await;
    }

    /// The next frame; `None` when the host has closed.
    pub async fn next(&mut self) -> Option<Frame> {
        let next = async {
            loop {
                if let Some((head, rest)) = self.buffer.split_first_chunk::<9>() {
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                    if rest.len() >= length {
                        let (kind, flags, stream) = (head[3], head[4], [head[5], head[6], head[7], head[8]]);
                        let payload = rest[..length].to_vec();
                        self.buffer.drain(..9 + length);
                        return Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload });
                    }
                }
                if !self.stream.read_buf(&mut self.buffer).await.is_ok_and(|read| read > 0) {
                    return None;
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a frame, or the end, in time")
    }

    /// The next frame of this kind; `None` when the host has closed.
    pub async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }
}
