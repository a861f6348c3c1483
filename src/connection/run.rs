//! A run of equal-sized segments, the shape of one GSO send: written whole into the caller's buffer, or its
//! headers there and its payloads by reference.

use std::ops::Range;

use bytes::Bytes;

use crate::connection::Transmit;
use crate::wire::{
    Flags, HEADER_LEN, Header, Integrity, MAX_OPTIONS_LEN, SeqNumber, seal, seal_parts,
};

/// Where the flags stand in a header (RFC 9293 §3.1).
const FLAGS_AT: usize = 13;
/// Where the sequence number stands.
const SEQ_AT: Range<usize> = 4..8;

/// Places that one departure is gathered from at most: a header for each segment, its payload, and one more
/// for each end of a piece within a payload.
pub const MAX_SLICES: usize = 256;

/// Where departing segments go: into `buf` and, where the caller can send what lies in several places,
/// payloads by reference to `pieces`.
pub(super) struct Output<'a> {
    pub(super) buf: &'a mut [u8],
    pub(super) pieces: Option<&'a mut Vec<Bytes>>,
}

/// A run of equal-sized segments being written.
pub(super) struct Run<'a> {
    buf: &'a mut [u8],
    /// Bytes in `buf`.
    written: usize,
    /// Bytes of all segments.
    len: usize,
    segment_size: usize,
    segments: usize,
    /// Whether the last segment was shorter, so that the run is complete.
    is_closed: bool,
    /// Length of each header, if only headers are written.
    header_len: Option<usize>,
}

impl<'a> Run<'a> {
    /// Begins a run that is written whole.
    pub(super) fn new(buf: &'a mut [u8]) -> Self {
        Self {
            buf,
            written: 0,
            len: 0,
            segment_size: 0,
            segments: 0,
            is_closed: false,
            header_len: None,
        }
    }

    /// Begins a run of which only the headers are written.
    pub(super) fn of_headers(buf: &'a mut [u8], header_len: usize) -> Self {
        Self {
            header_len: Some(header_len),
            ..Self::new(buf)
        }
    }

    pub(super) fn segments(&self) -> usize {
        self.segments
    }

    /// Says whether a segment of `size` bytes may follow.
    pub(super) fn takes(&self, size: usize) -> bool {
        !self.is_closed
            && (self.segments == 0 || size <= self.segment_size)
            && self.buf.len() - self.len >= size
    }

    /// Returns the place for the next segment of `size` bytes, or for its header; `None` if it does not fit
    /// the run.
    pub(super) fn next(&mut self, size: usize) -> Option<&mut [u8]> {
        if !self.takes(size) {
            return None;
        }
        if self.segments == 0 {
            self.segment_size = size;
        }
        self.is_closed = size < self.segment_size;
        self.segments += 1;
        self.len += size;
        let start = self.written;
        self.written += self.header_len.unwrap_or(size).min(size);
        self.buf.get_mut(start..self.written)
    }

    pub(super) fn finish(self) -> Option<Transmit> {
        let Self {
            len,
            segment_size,
            segments,
            header_len,
            ..
        } = self;
        (segments > 0).then_some(Transmit {
            len,
            segment_size,
            segments,
            ecn: None,
            header_len,
        })
    }
}

/// An encoded header of which only sequence number and flags vary within a run.
pub(super) struct Template {
    bytes: [u8; HEADER_LEN + MAX_OPTIONS_LEN],
    pub(super) len: usize,
    integrity: Integrity,
}

impl Template {
    /// Encodes `header`; `None` if its options do not fit, which no header built here can cause.
    pub(super) fn new(header: &Header, integrity: Integrity) -> Option<Self> {
        let mut bytes = [0; HEADER_LEN + MAX_OPTIONS_LEN];
        let len = header.encode(&mut bytes)?;
        Some(Self {
            bytes,
            len,
            integrity,
        })
    }

    /// Whether the integrity check can be computed with the payload in several places.
    pub(super) fn may_stand_apart(&self) -> bool {
        self.integrity == Integrity::Crc32c
    }

    /// Writes a segment over the whole of `out`; `fill` provides the payload.
    pub(super) fn write(
        &self,
        out: &mut [u8],
        seq: SeqNumber,
        flags: Flags,
        fill: impl FnOnce(&mut [u8]),
    ) {
        if let Some((head, payload)) = out.split_at_mut_checked(self.len) {
            self.write_head(head, seq, flags);
            fill(payload);
        }
        seal(out, self.integrity);
    }

    /// Writes the header of a segment whose payload lies in `payload`, in order.
    pub(super) fn write_apart<'a>(
        &self,
        head: &mut [u8],
        seq: SeqNumber,
        flags: Flags,
        payload: impl Iterator<Item = &'a [u8]>,
    ) {
        self.write_head(head, seq, flags);
        seal_parts(head, payload);
    }

    fn write_head(&self, head: &mut [u8], seq: SeqNumber, flags: Flags) {
        let len = head.len().min(self.len);
        head[..len].copy_from_slice(&self.bytes[..len]);
        if let Some(field) = head.get_mut(SEQ_AT) {
            field.copy_from_slice(&seq.get().to_be_bytes());
        }
        if let Some(field) = head.get_mut(FLAGS_AT) {
            *field = flags.bits();
        }
    }
}

/// Walks over bytes that lie in several places, a length at a time.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    pieces: &'a [Bytes],
    /// Bytes of the first piece that were walked over.
    offset: usize,
}

impl<'a> Walk<'a> {
    /// Begins at the first byte of the first piece.
    pub fn new(pieces: &'a [Bytes]) -> Self {
        Self { pieces, offset: 0 }
    }

    /// Returns the next bytes that lie together, at most `max`; `None` at the end, and if `max` is 0.
    pub fn next(&mut self, max: usize) -> Option<&'a [u8]> {
        let (first, rest) = loop {
            let (first, rest) = self.pieces.split_first()?;
            if !first.is_empty() {
                break (first, rest);
            }
            self.pieces = rest;
        };
        let here = first.get(self.offset..)?;
        let len = here.len().min(max);
        self.offset += len;
        if self.offset == first.len() {
            self.pieces = rest;
            self.offset = 0;
        }
        here.get(..len).filter(|slice| !slice.is_empty())
    }

    /// Returns the next `len` bytes, place by place.
    pub fn take(&mut self, len: usize) -> impl Iterator<Item = &'a [u8]> {
        let mut left = len;
        std::iter::from_fn(move || {
            let slice = self.next(left)?;
            left -= slice.len();
            Some(slice)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_stops_at_the_length_asked_for_and_goes_on_there() {
        let pieces = [b"abc".as_slice(), b"", b"defgh", b"i"].map(Bytes::from_static);
        let mut walk = Walk::new(&pieces);
        let mut take = |len| walk.take(len).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(take(0), Vec::<Vec<u8>>::new());
        assert_eq!(take(2), [b"ab".to_vec()]);
        assert_eq!(take(1), [b"c".to_vec()]);
        assert_eq!(take(9), [b"defgh".to_vec(), b"i".to_vec()]);
        assert_eq!(take(1), Vec::<Vec<u8>>::new());
    }
}
