//! Whether what was received of an HTTP/2 connection ends within the head of a request, read from the bytes as they come
//! (RFC 9113, 4.1 and 4.3). Frames are skipped, whatever is in them: h2 judges those.

const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// The frames of one connection, after its preface.
#[derive(Debug, Default)]
pub(crate) struct HeaderBlocks {
    /// The head of a frame, as far as it has come.
    head: [u8; FRAME_HEAD],
    have: usize,
    /// Bytes of the frame that are still to come.
    left: usize,
    /// Whether the frame is a part of a request's head, and whether another part is to follow.
    is_header: bool,
    continued: bool,
}

impl HeaderBlocks {
    /// These bytes were received.
    pub(crate) fn received(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let taken = (FRAME_HEAD - self.have).min(bytes.len());
            if let (Some(room), Some(piece)) = (self.head.get_mut(self.have..self.have + taken), bytes.get(..taken)) {
                room.copy_from_slice(piece);
            }
            self.have += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.have == FRAME_HEAD {
                self.have = 0;
                self.frame();
            }
        }
    }

    /// Whether a head has begun and not ended. Of a frame that has not said its kind, it is supposed.
    pub(crate) fn is_within_head(&self) -> bool {
        self.continued || self.have > 0 || (self.left > 0 && self.is_header)
    }

    fn frame(&mut self) {
        let [long, middle, short, kind, flags, ..] = self.head;
        self.left = u32::from_be_bytes([0, long, middle, short]) as usize;
        self.is_header = matches!(kind, HEADERS | CONTINUATION);
        if self.is_header {
            self.continued = flags & END_HEADERS == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn a_head_is_over_with_the_last_byte_of_its_last_frame_however_it_is_cut() {
        let settings = frame(4, 0, &[0; 6]);
        let whole = frame(HEADERS, END_HEADERS, b"block");
        let data = frame(0, 0, b"some data");
        let parts =
            [frame(HEADERS, 0, b"blo"), frame(CONTINUATION, 0, b""), frame(CONTINUATION, END_HEADERS, b"ck")].concat();
        for size in 1..40 {
            let mut blocks = HeaderBlocks::default();
            for (bytes, is_head) in [(&settings, false), (&whole, true), (&data, false), (&parts, true), (&data, false)]
            {
                let cut = bytes.len() - 1;
                bytes[..cut].chunks(size).for_each(|piece| blocks.received(piece));
                assert_eq!(blocks.is_within_head(), is_head, "{bytes:?} by {size}");
                blocks.received(&bytes[cut..]);
                assert!(!blocks.is_within_head(), "{bytes:?} by {size}");
            }
        }
    }

    #[test]
    fn between_the_parts_of_a_head_one_is_within_it() {
        let mut blocks = HeaderBlocks::default();
        blocks.received(&frame(HEADERS, 0, b"blo"));
        assert!(blocks.is_within_head());
        blocks.received(&frame(CONTINUATION, 0, b"ck"));
        assert!(blocks.is_within_head());
    }
}
