//! What one step of the sender puts on the stream.

use std::collections::VecDeque;

use bytes::Bytes;

use super::super::protocol::{Frame, MAX_DATA_LEN, data_header};

/// Contents up to this size are copied behind the frames; larger ones go out from where they lie.
const MAX_COPIED: usize = 8 * 1024;

/// Bytes for the stream in pieces: frames, and file contents that are shared with other sessions.
#[derive(Debug, Default)]
pub(in super::super) struct Output {
    pieces: VecDeque<Bytes>,
    /// Frames behind the last piece.
    tail: Vec<u8>,
    len: usize,
}

impl Output {
    /// Only says that this side is at work.
    pub(in super::super) fn working(worked: u64) -> Self {
        let mut output = Self::default();
        output.frame(&Frame::Working(worked));
        output
    }

    /// How many bytes there are.
    pub(in super::super) fn len(&self) -> usize {
        self.len + self.tail.len()
    }

    pub(super) fn frame(&mut self, frame: &Frame) {
        frame.encode(&mut self.tail);
    }

    /// Puts content into data frames.
    pub(super) fn data(&mut self, mut content: Bytes) {
        while !content.is_empty() {
            let piece = content.split_to(content.len().min(MAX_DATA_LEN));
            self.tail.extend_from_slice(&data_header(piece.len()));
            if piece.len() <= MAX_COPIED {
                self.tail.extend_from_slice(&piece);
            } else {
                self.cut();
                self.len += piece.len();
                self.pieces.push_back(piece);
            }
        }
    }

    /// Takes the next bytes off the front.
    pub(in super::super) fn pop(&mut self) -> Option<Bytes> {
        self.cut();
        let piece = self.pieces.pop_front()?;
        self.len = self.len.saturating_sub(piece.len());
        Some(piece)
    }

    fn cut(&mut self) {
        if !self.tail.is_empty() {
            self.len += self.tail.len();
            let tail = std::mem::take(&mut self.tail);
            self.pieces.push_back(tail.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_order_and_large_ones_are_not_copied() {
        let mut output = Output::default();
        let large = Bytes::from(vec![7; MAX_DATA_LEN + 1]);
        output.frame(&Frame::Done);
        output.data(Bytes::from_static(b"small"));
        output.data(large.clone());
        output.frame(&Frame::Bye);
        let len = output.len();
        let pieces: Vec<Bytes> = std::iter::from_fn(|| output.pop()).collect();
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        assert_eq!(len, 5 + 5 + 5 + 5 + MAX_DATA_LEN + 5 + 1 + 5);
        let mut expected = Vec::new();
        Frame::Done.encode(&mut expected);
        expected.extend_from_slice(&data_header(5));
        expected.extend_from_slice(b"small");
        expected.extend_from_slice(&data_header(MAX_DATA_LEN));
        expected.extend_from_slice(&large[..MAX_DATA_LEN]);
        expected.extend_from_slice(&data_header(1));
        expected.extend_from_slice(&large[..1]);
        Frame::Bye.encode(&mut expected);
        assert!(pieces.concat() == expected, "same bytes");
        assert_eq!(output.len(), 0);
    }
}
