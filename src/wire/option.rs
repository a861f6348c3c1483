//! Options: what stands between the fixed header and the payload.
//!
//! Known are MSS, window scale, SACK permitted, SACK, timestamps and one extension of our own under
//! an experimental kind. Decoding takes them in any order and with any padding; of an option that
//! occurs twice the last one counts. Encoding always produces one layout, in groups of four bytes,
//! which is Linux's with the extension behind it. Which options mean something in which segment is
//! the connection's business.
//!
//! RFC 9293 §3.1 and §3.2, RFC 7323, RFC 2018, RFC 6994.

use super::error::DecodeError;
use super::seq::SeqNumber;

/// The most bytes that options can take: a data offset of 15 words less the fixed header.
// RFC 9293 §3.1
pub const MAX_OPTIONS_LEN: usize = 40;

/// The largest window scale shift; a larger one is used as this one.
// RFC 7323 §2.3
pub const MAX_WINDOW_SCALE: u8 = 14;

/// Feature bit: CRC-32C in place of the sum in every segment without SYN.
pub const FEATURE_CRC32C: u16 = 1;

/// Option kinds.
mod kind {
    pub(super) const END: u8 = 0;
    pub(super) const NOP: u8 = 1;
    pub(super) const MSS: u8 = 2;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const SACK: u8 = 5;
    pub(super) const TIMESTAMPS: u8 = 8;
    // RFC 6994 §3: shared by experiments, told apart by the identifier that follows.
    pub(super) const EXPERIMENT: u8 = 254;
}

/// The experiment identifier of our extension option: "RU" in ASCII.
// RFC 6994 §3
const EXPERIMENT_ID: [u8; 2] = *b"RU";

/// The timestamps option (RFC 7323 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamps {
    /// The sender's clock, in ticks and since an origin of its own choosing (RFC 7323 §5.4).
    pub tsval: u32,
    /// The `tsval` that the sender echoes; significant if ACK is set.
    pub tsecr: u32,
}

/// One block of the SACK option: bytes that arrived, half-open (RFC 2018 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SackBlock {
    /// The first byte of the block.
    pub left: SeqNumber,
    /// The byte behind the last one of the block.
    pub right: SeqNumber,
}

/// The blocks of a SACK option in their order on the wire, newest first.
///
/// Invariants: `len` is at most [`SackBlocks::MAX`]; slots from `len` on hold the default, so that
/// the derived equality compares the blocks in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SackBlocks {
    blocks: [SackBlock; Self::MAX],
    len: u8,
}

impl SackBlocks {
    /// The most blocks that fit into an option (RFC 2018 §3); beside timestamps only three do.
    pub const MAX: usize = 4;
    /// No block, and so no option.
    pub const EMPTY: Self = Self::new();

    /// Makes an empty list.
    pub const fn new() -> Self {
        const NONE: SackBlock = SackBlock {
            left: SeqNumber::new(0),
            right: SeqNumber::new(0),
        };
        Self {
            blocks: [NONE; Self::MAX],
            len: 0,
        }
    }

    /// Appends a block; `false` if the list is full.
    pub fn push(&mut self, block: SackBlock) -> bool {
        let Some(slot) = self.blocks.get_mut(usize::from(self.len)) else {
            return false;
        };
        *slot = block;
        self.len = self.len.saturating_add(1);
        true
    }

    /// Returns the blocks, first to last.
    pub fn as_slice(&self) -> &[SackBlock] {
        self.blocks.get(..self.len()).unwrap_or_default()
    }

    /// Returns an iterator over the blocks, first to last.
    pub fn iter(&self) -> std::slice::Iter<'_, SackBlock> {
        self.as_slice().iter()
    }

    /// Returns how many blocks there are.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Tells whether there is no block.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Decodes an option's body; `None` unless it holds 1 to 4 whole blocks.
    // RFC 2018 §3
    fn decode(body: &[u8]) -> Option<Self> {
        let (blocks, partial) = body.as_chunks::<8>();
        if blocks.is_empty() || !partial.is_empty() {
            return None;
        }
        let mut decoded = Self::EMPTY;
        for &[l0, l1, l2, l3, r0, r1, r2, r3] in blocks {
            let left = SeqNumber::new(u32::from_be_bytes([l0, l1, l2, l3]));
            let right = SeqNumber::new(u32::from_be_bytes([r0, r1, r2, r3]));
            if !decoded.push(SackBlock { left, right }) {
                return None;
            }
        }
        Some(decoded)
    }
}

impl<'a> IntoIterator for &'a SackBlocks {
    type Item = &'a SackBlock;
    type IntoIter = std::slice::Iter<'a, SackBlock>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Our extension option, offered in SYN and SYN-ACK.
///
/// A peer that does not send it speaks plain TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    /// The version of the sender's extension; [`Extension::VERSION`] here. The layout of the fields
    /// below is the same in all versions.
    pub version: u8,
    /// The features offered, one bit each; bits that the reader does not know mean nothing to it.
    pub features: u16,
    /// The longest time for which the sender delays an ACK, in milliseconds.
    pub ack_delay_ms: u8,
    /// Eight opaque bytes, reserved.
    pub token: Option<[u8; 8]>,
}

impl Extension {
    /// The version that this crate speaks.
    pub const VERSION: u8 = 1;
    /// Bytes of the option without the token: kind, length, identifier and four bytes of fields.
    const SHORT_LEN: u8 = 8;
    /// Bytes of the option with the token.
    const LONG_LEN: u8 = 16;

    /// Tells whether every bit of `feature` is offered.
    pub const fn offers(&self, feature: u16) -> bool {
        self.features & feature == feature
    }

    const fn encoded_len(&self) -> u8 {
        if self.token.is_some() {
            Self::LONG_LEN
        } else {
            Self::SHORT_LEN
        }
    }

    /// Decodes an option's body; `None` if it is another experiment's or too short.
    fn decode(body: &[u8]) -> Option<Self> {
        let fields = body.strip_prefix(&EXPERIMENT_ID)?;
        let (&[version, f0, f1, ack_delay_ms], rest) = fields.split_first_chunk()?;
        let features = u16::from_be_bytes([f0, f1]);
        // What a later version appends behind the token is not for us.
        let token = rest.first_chunk().copied();
        Some(Self {
            version,
            features,
            ack_delay_ms,
            token,
        })
    }
}

impl Default for Extension {
    /// The current version that offers nothing and does not delay ACKs.
    fn default() -> Self {
        Self {
            version: Self::VERSION,
            features: 0,
            ack_delay_ms: 0,
            token: None,
        }
    }
}

/// The options of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// The largest payload that the sender can receive in a segment, in bytes, options not
    /// subtracted (RFC 6691).
    pub mss: Option<u16>,
    /// The shift that the sender applies to its window field, at most [`MAX_WINDOW_SCALE`].
    pub window_scale: Option<u8>,
    /// Whether the sender understands SACK.
    pub sack_permitted: bool,
    /// What arrived out of order, newest first; empty means that there is no SACK option.
    pub sack_blocks: SackBlocks,
    /// Clock and echo.
    pub timestamps: Option<Timestamps>,
    /// What the sender offers beyond TCP.
    pub extension: Option<Extension>,
}

impl Options {
    /// Returns the encoded length in bytes, a multiple of 4. Options of more than
    /// [`MAX_OPTIONS_LEN`] bytes cannot be encoded.
    pub fn encoded_len(&self) -> usize {
        let groups = [
            (self.mss.is_some(), 4),
            (self.timestamps.is_some(), 12),
            (self.window_scale.is_some(), 4),
            (self.sack_permitted && self.timestamps.is_none(), 4),
            (
                !self.sack_blocks.is_empty(),
                usize::from(self.sack_len()).saturating_add(2),
            ),
            (
                self.extension.is_some(),
                self.extension.map_or(0, |e| usize::from(e.encoded_len())),
            ),
        ];
        groups
            .iter()
            .filter(|(is_present, _)| *is_present)
            .map(|(_, len)| len)
            .sum()
    }

    /// Returns the length byte of the SACK option.
    // RFC 2018 §3: 8 n + 2
    const fn sack_len(&self) -> u8 {
        self.sack_blocks.len.saturating_mul(8).saturating_add(2)
    }

    /// Writes the options into the whole of `buf`, whose length is [`Options::encoded_len`];
    /// `None` if it is not.
    pub(super) fn encode(&self, buf: &mut [u8]) -> Option<()> {
        let mut out = Writer { rest: buf };
        if let Some(mss) = self.mss {
            let [m0, m1] = mss.to_be_bytes();
            out.put([kind::MSS, 4, m0, m1])?;
        }
        if let Some(Timestamps { tsval, tsecr }) = self.timestamps {
            // RFC 7323, appendix A: two bytes in front align the clocks. In a SYN, SACK permitted
            // takes their place.
            out.put(if self.sack_permitted {
                [kind::SACK_PERMITTED, 2, kind::TIMESTAMPS, 10]
            } else {
                [kind::NOP, kind::NOP, kind::TIMESTAMPS, 10]
            })?;
            out.put(tsval.to_be_bytes())?;
            out.put(tsecr.to_be_bytes())?;
        }
        if let Some(shift) = self.window_scale {
            out.put([
                kind::NOP,
                kind::WINDOW_SCALE,
                3,
                shift.min(MAX_WINDOW_SCALE),
            ])?;
        }
        if self.sack_permitted && self.timestamps.is_none() {
            out.put([kind::NOP, kind::NOP, kind::SACK_PERMITTED, 2])?;
        }
        if !self.sack_blocks.is_empty() {
            out.put([kind::NOP, kind::NOP, kind::SACK, self.sack_len()])?;
            for block in &self.sack_blocks {
                out.put(block.left.get().to_be_bytes())?;
                out.put(block.right.get().to_be_bytes())?;
            }
        }
        if let Some(extension) = self.extension {
            let ([e0, e1], [f0, f1]) = (EXPERIMENT_ID, extension.features.to_be_bytes());
            out.put([kind::EXPERIMENT, extension.encoded_len(), e0, e1])?;
            out.put([extension.version, f0, f1, extension.ack_delay_ms])?;
            if let Some(token) = extension.token {
                out.put(token)?;
            }
        }
        out.rest.is_empty().then_some(())
    }

    /// Decodes the bytes between fixed header and payload.
    ///
    /// Unknown options are skipped by their length. So are known ones whose length is not theirs:
    /// the length still says where the next one begins, and losing one option harms less than
    /// losing the segment.
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadOptionLength`] if a length is below 2 or leads out of `bytes`.
    // RFC 9293 §3.2, MUST-6: ignore options not implemented; MUST-7: be prepared for an illegal
    // length.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut options = Self::default();
        // The layout of nearly every segment: RFC 7323, appendix A.
        if let &[kind::NOP, kind::NOP, kind::TIMESTAMPS, 10, ref clocks @ ..] = bytes
            && let Ok(clocks) = clocks.try_into()
        {
            options.timestamps = Some(Timestamps::decode(clocks));
            return Ok(options);
        }
        let mut rest = bytes;
        loop {
            rest = match *rest {
                [] | [kind::END, ..] => return Ok(options),
                [kind::NOP, ref next @ ..] => next,
                [kind, len, ref behind @ ..] => {
                    let body_len = usize::from(len).checked_sub(2);
                    let (body, next) = body_len
                        .and_then(|len| behind.split_at_checked(len))
                        .ok_or(DecodeError::BadOptionLength)?;
                    options.take(kind, body);
                    next
                }
                [_] => return Err(DecodeError::BadOptionLength),
            };
        }
    }

    /// Takes one decoded option in; does nothing if it is unknown or its length is wrong.
    fn take(&mut self, kind: u8, body: &[u8]) {
        match (kind, body) {
            (kind::MSS, &[m0, m1]) => self.mss = Some(u16::from_be_bytes([m0, m1])),
            // RFC 7323 §2.3: a shift above 14 is used as 14.
            (kind::WINDOW_SCALE, &[shift]) => self.window_scale = Some(shift.min(MAX_WINDOW_SCALE)),
            (kind::SACK_PERMITTED, []) => self.sack_permitted = true,
            (kind::SACK, blocks) => {
                if let Some(blocks) = SackBlocks::decode(blocks) {
                    self.sack_blocks = blocks;
                }
            }
            (kind::TIMESTAMPS, clocks) => {
                if let Ok(clocks) = clocks.try_into() {
                    self.timestamps = Some(Timestamps::decode(clocks));
                }
            }
            (kind::EXPERIMENT, body) => {
                if let Some(extension) = Extension::decode(body) {
                    self.extension = Some(extension);
                }
            }
            _ => {}
        }
    }
}

impl Timestamps {
    fn decode([v0, v1, v2, v3, e0, e1, e2, e3]: [u8; 8]) -> Self {
        let tsval = u32::from_be_bytes([v0, v1, v2, v3]);
        let tsecr = u32::from_be_bytes([e0, e1, e2, e3]);
        Self { tsval, tsecr }
    }
}

/// Writes arrays one behind the other.
struct Writer<'a> {
    rest: &'a mut [u8],
}

impl Writer<'_> {
    /// Appends `bytes`; `None` if there is no room.
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Option<()> {
        let (to, rest) = std::mem::take(&mut self.rest).split_first_chunk_mut()?;
        *to = bytes;
        self.rest = rest;
        Some(())
    }
}

#[cfg(test)]
mod tests;
