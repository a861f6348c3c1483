//! `Segment` and `Header`: decode by borrowing, encode into the caller's slice.
//!
//! Decoding is total: any bytes give a segment or a reason to drop them, without a panic and
//! without an allocation. It does not look at the integrity check; which one must hold is known
//! only to whom the ports lead to (RFC 9293 §3.1; see `checksum`).

use super::checksum::{Integrity, holds};
use super::error::DecodeError;
use super::flags::Flags;
use super::option::{MAX_OPTIONS_LEN, Options};
use super::seq::SeqNumber;

/// Length of the header without options, in bytes.
// RFC 9293 §3.1
pub const HEADER_LEN: usize = 20;

/// Everything in front of the payload, but for the integrity field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// The sender's virtual port.
    pub src_port: u16,
    /// The receiver's virtual port.
    pub dst_port: u16,
    /// The number of the first payload byte; of the SYN, if there is one.
    pub seq: SeqNumber,
    /// The number of the next byte expected; significant if ACK is set.
    pub ack: SeqNumber,
    /// The control bits.
    pub flags: Flags,
    /// The receive window, shifted right as negotiated; in a SYN in bytes.
    pub window: u16,
    /// The options.
    pub options: Options,
}

impl Header {
    /// Returns the length of header and options in bytes, at least [`HEADER_LEN`].
    #[cfg_attr(
        not(any(test, fuzzing, feature = "__internals")),
        allow(dead_code, reason = "reached through `internals` only")
    )]
    pub fn encoded_len(&self) -> usize {
        self.options.encoded_len().saturating_add(HEADER_LEN)
    }

    /// Writes header and options to the front of `buf` and returns their length in bytes. The
    /// integrity field is zero until `seal` is called on the whole segment.
    ///
    /// `None` if `buf` is too short or the options take more than [`MAX_OPTIONS_LEN`] bytes; `buf`
    /// may then have been written to.
    pub fn encode(&self, buf: &mut [u8]) -> Option<usize> {
        let options_len = self.options.encoded_len();
        if options_len > MAX_OPTIONS_LEN {
            return None;
        }
        let (header, behind) = buf.split_first_chunk_mut::<HEADER_LEN>()?;
        let options = behind.get_mut(..options_len)?;

        let len = options_len.saturating_add(HEADER_LEN);
        // RFC 9293 §3.1: the offset in words, len / 4, in the upper half of its byte; the reserved
        // bits below it zero. As len is a multiple of 4, len / 4 * 16 is len * 4.
        let offset = u8::try_from(len.checked_mul(4)?).ok()?;
        let [s0, s1] = self.src_port.to_be_bytes();
        let [d0, d1] = self.dst_port.to_be_bytes();
        let [q0, q1, q2, q3] = self.seq.get().to_be_bytes();
        let [a0, a1, a2, a3] = self.ack.get().to_be_bytes();
        let flags = self.flags.bits();
        let [w0, w1] = self.window.to_be_bytes();
        *header = [
            s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, 0, 0, 0, 0,
        ];
        self.options.encode(options)?;
        Some(len)
    }
}

/// A decoded segment; the payload is borrowed from the datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Header and options.
    pub header: Header,
    /// The payload; it lies at the end of the datagram.
    pub payload: &'a [u8],
    /// The whole datagram, for the integrity check.
    raw: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Decodes the segment that a datagram holds.
    ///
    /// The reserved bits, the urgent pointer and the integrity field are not looked at. URG is kept
    /// among the flags; urgent bytes are ordinary payload.
    ///
    /// # Errors
    ///
    /// A [`DecodeError`] if the datagram does not hold a whole header or an option's length is
    /// illegal.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        let (fixed, behind) = datagram
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(DecodeError::TooShort)?;
        let &[
            s0,
            s1,
            d0,
            d1,
            q0,
            q1,
            q2,
            q3,
            a0,
            a1,
            a2,
            a3,
            offset,
            flags,
            w0,
            w1,
            _,
            _,
            _,
            _,
        ] = fixed;
        // RFC 9293 §3.1: the offset counts 32-bit words and the reserved bits are ignored.
        let (options, payload) = usize::from(offset >> 4)
            .checked_mul(4)
            .and_then(|header_len| header_len.checked_sub(HEADER_LEN))
            .and_then(|options_len| behind.split_at_checked(options_len))
            .ok_or(DecodeError::BadDataOffset)?;
        let header = Header {
            src_port: u16::from_be_bytes([s0, s1]),
            dst_port: u16::from_be_bytes([d0, d1]),
            seq: SeqNumber::new(u32::from_be_bytes([q0, q1, q2, q3])),
            ack: SeqNumber::new(u32::from_be_bytes([a0, a1, a2, a3])),
            flags: Flags::from_bits(flags),
            window: u16::from_be_bytes([w0, w1]),
            options: Options::decode(options)?,
        };
        Ok(Self {
            header,
            payload,
            raw: datagram,
        })
    }

    /// Tells whether the check `integrity` holds over the whole datagram.
    pub fn verify(&self, integrity: Integrity) -> bool {
        holds(self.raw, integrity)
    }

    /// Returns which check holds; `None` means that the datagram is damaged.
    ///
    /// The CRC is tried first: random bytes pass it once in 2^32 times, the sum once in 2^16.
    pub fn integrity(&self) -> Option<Integrity> {
        [Integrity::Crc32c, Integrity::Sum]
            .into_iter()
            .find(|integrity| self.verify(*integrity))
    }

    /// Returns how many sequence numbers the segment takes: payload, SYN and FIN.
    // RFC 9293 §3.4: SEG.LEN
    pub fn sequence_len(&self) -> u32 {
        let flags = self.header.flags;
        // A datagram's length fits; the widest possible slice would saturate.
        u32::try_from(self.payload.len())
            .unwrap_or(u32::MAX)
            .saturating_add(u32::from(flags.contains(Flags::SYN)))
            .saturating_add(u32::from(flags.contains(Flags::FIN)))
    }
}

/// Returns source and destination port of a datagram, of which the front suffices: what ICMP quotes
/// is cut off. `None` if even the ports are missing.
pub fn peek_ports(datagram: &[u8]) -> Option<(u16, u16)> {
    let &[s0, s1, d0, d1] = datagram.first_chunk()?;
    Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}

/// Returns the sequence number of a datagram, of which the first 8 bytes suffice. `None` if it is
/// cut off before.
pub fn peek_seq(datagram: &[u8]) -> Option<SeqNumber> {
    let &[_, _, _, _, q0, q1, q2, q3] = datagram.first_chunk()?;
    Some(SeqNumber::new(u32::from_be_bytes([q0, q1, q2, q3])))
}

#[cfg(test)]
mod tests;
