//! The copy protocol's bytes: greeting and frames.
//!
//! `docs/COPY.md` is the specification. Everything is big-endian. A frame is one byte of type, four
//! bytes of body length, and the body; each type has its own bounds on the length, checked before a
//! byte of the body is kept, so that a hostile peer costs at most [`MAX_BODY_LEN`] bytes here.

mod decode;
#[cfg(test)]
mod tests;

pub(super) use self::decode::{Decoder, Item};

use super::error::{Farewell, ProtocolError, Refusal, store_kind_code};
use super::path::MAX_PATH_LEN;
use super::progress::Digest;
use super::tree_hash::{BLOCK_LEN, Cv};

/// The first bytes of both sides.
pub(super) const MAGIC: [u8; 8] = *b"rudpcopy";

/// The version that this side speaks; there was no release with another.
pub(super) const VERSION: u16 = 2;

/// Length of a [`Greeting`] on the wire, in bytes.
pub(super) const GREETING_LEN: usize = 16;

/// Type and length in front of each body, in bytes.
pub(super) const FRAME_HEADER_LEN: usize = 5;

/// Largest body of a data frame, in bytes.
pub(super) const MAX_DATA_LEN: usize = 256 * 1024;

/// How many offers may be without a verdict. The receiver remembers as many verdicts.
pub(super) const MAX_WINDOW: u64 = 4096;

/// How many bytes of paths and targets the offers without a verdict may hold together; one offer may
/// always be open.
pub(super) const MAX_OPEN_PATHS: usize = 4 * 1024 * 1024;

/// Longest text in a frame, in bytes.
pub(super) const MAX_MESSAGE_LEN: usize = 512;

/// Longest target of a symbolic link, in bytes.
pub(super) const MAX_TARGET_LEN: usize = 4095;

/// Largest body that the decoder gathers; the bytes of data frames pass through ungathered.
const MAX_BODY_LEN: usize = LINK_FIXED_LEN + MAX_TARGET_LEN + MAX_PATH_LEN;
const ATTRIBUTES_LEN: usize = 16;
const OFFER_FIXED_LEN: usize = 8 + 2 + 8 + ATTRIBUTES_LEN + TAG_LEN + 1;
const LINK_FIXED_LEN: usize = 8 + ATTRIBUTES_LEN + 2;
const SEAL_FIXED_LEN: usize = 8 + ATTRIBUTES_LEN;
const TAG_LEN: usize = 16;
/// A prefix of up to 2^44 blocks has at most as many complete subtrees.
const MAX_STACK: usize = 44;

const OPTIONS: u8 = 0x01;
pub(super) const FILE: u8 = 0x02;
pub(super) const LINK: u8 = 0x03;
pub(super) const SEAL: u8 = 0x04;
pub(super) const CONTENT: u8 = 0x05;
pub(super) const DATA: u8 = 0x06;
pub(super) const HOLE: u8 = 0x07;
pub(super) const BLOCK: u8 = 0x08;
pub(super) const END: u8 = 0x09;
pub(super) const WITHDRAW: u8 = 0x0a;
const ASK: u8 = 0x0b;
const DONE: u8 = 0x0c;
const VERDICT: u8 = 0x81;
const WORKING: u8 = 0x82;
const BYE: u8 = 0x83;
const NEED: u8 = 0x84;
const FATAL: u8 = 0xff;

/// What each side says first. From the sender: the versions it speaks and the features it wants.
/// From the receiver: the version chosen (twice; 0 for none) and the features that it grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) min_version: u16,
    pub(super) max_version: u16,
    pub(super) features: u32,
}

impl Greeting {
    pub(super) fn encode(self) -> [u8; GREETING_LEN] {
        let mut bytes = [0; GREETING_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.min_version.to_be_bytes());
        bytes[10..12].copy_from_slice(&self.max_version.to_be_bytes());
        bytes[12..].copy_from_slice(&self.features.to_be_bytes());
        bytes
    }
}

/// Mode and modification time of a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Attributes {
    /// Unix permission bits, at most `0o7777`.
    pub(super) mode: u32,
    /// Whole seconds since 1970, rounded down.
    pub(super) mtime_secs: i64,
    /// The rest, below 1,000,000,000.
    pub(super) mtime_nanos: u32,
}

/// Tells one version of a source file from every other: what was received of one is never continued
/// with another.
pub(super) type Tag = [u8; TAG_LEN];

/// What the sender wants of the whole session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent bits of the protocol"
)]
pub(super) struct Options {
    /// Files that exist with other content are replaced.
    pub(super) overwrite: bool,
    /// Nothing is written; the verdicts say what would be.
    pub(super) dry_run: bool,
    /// Modes and modification times are left to the receiver's system.
    pub(super) no_preserve: bool,
    /// What an earlier session left is read again before it is continued.
    pub(super) recheck: bool,
}

impl Options {
    fn to_bits(self) -> u32 {
        u32::from(self.overwrite)
            | u32::from(self.dry_run) << 1
            | u32::from(self.no_preserve) << 2
            | u32::from(self.recheck) << 3
    }

    fn from_bits(bits: u32) -> Option<Self> {
        (bits < 16).then_some(Self {
            overwrite: bits & 1 != 0,
            dry_run: bits & 2 != 0,
            no_preserve: bits & 4 != 0,
            recheck: bits & 8 != 0,
        })
    }
}

/// A file that the sender has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileOffer {
    pub(super) id: u64,
    /// 1 for the first time.
    pub(super) attempt: u8,
    /// How many attempts the sender makes at most.
    pub(super) attempts: u8,
    pub(super) size: u64,
    pub(super) attributes: Attributes,
    pub(super) tag: Tag,
    /// The hash of its content, if the sender knows it beforehand.
    pub(super) digest: Option<Digest>,
    /// Not checked yet.
    pub(super) path: Vec<u8>,
}

/// Why the sender takes back a file that it offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withdrawal {
    /// The source changed; the file will be offered again.
    Again,
    /// The source changed too often.
    Changed,
    /// The source cannot be read any more.
    Unreadable,
    /// The receiver already gave a verdict.
    Settled,
}

/// How an offer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The file lies under its final name; the hash is of what was read back.
    Verified(Digest),
    /// The directory exists with its attributes, or the link with its target.
    Done,
    /// What was read back was not what was sent. Nothing was placed.
    Mismatch,
    /// The name or place was refused.
    Refused(Refusal),
    /// The file system did not take it: code of the kind, and its words.
    Failed(std::io::ErrorKind, String),
    /// No verdict is known: the offer was withdrawn, or it is this side's fault.
    Unknown,
    /// An equal file is there already.
    Present,
    /// In a dry run: it would be taken.
    Planned,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Options(Options),
    File(FileOffer),
    Link {
        id: u64,
        attributes: Attributes,
        target: Vec<u8>,
        path: Vec<u8>,
    },
    Seal {
        id: u64,
        attributes: Attributes,
        path: Vec<u8>,
    },
    /// The content of a file that is needed follows, from this byte on.
    Content {
        id: u64,
        from: u64,
    },
    /// So many zero bytes.
    Hole(u64),
    /// The chaining value of the block that ends here.
    Block(Cv),
    /// The file's bytes are complete; this is the hash of all of them.
    End(Digest),
    Withdraw(u64, Withdrawal),
    Ask(u64),
    Done,
    Verdict(u64, Verdict),
    /// The file is to be sent from this byte on; the chaining values of the subtrees before it.
    Need {
        id: u64,
        from: u64,
        stack: Vec<Cv>,
    },
    /// A number that has grown since the last time: this side's disk is at work.
    Working(u64),
    Bye,
    Fatal(Farewell, String),
}

impl Frame {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Options(_) => OPTIONS,
            Self::File(_) => FILE,
            Self::Link { .. } => LINK,
            Self::Seal { .. } => SEAL,
            Self::Content { .. } => CONTENT,
            Self::Hole(_) => HOLE,
            Self::Block(_) => BLOCK,
            Self::End(_) => END,
            Self::Withdraw(..) => WITHDRAW,
            Self::Ask(_) => ASK,
            Self::Done => DONE,
            Self::Verdict(..) => VERDICT,
            Self::Need { .. } => NEED,
            Self::Working(_) => WORKING,
            Self::Bye => BYE,
            Self::Fatal(..) => FATAL,
        }
    }

    /// Appends the frame to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.kind(), 0, 0, 0, 0]);
        match self {
            Self::Options(options) => out.extend_from_slice(&options.to_bits().to_be_bytes()),
            Self::File(offer) => {
                put_u64(out, offer.id);
                out.extend_from_slice(&[offer.attempt, offer.attempts]);
                put_u64(out, offer.size);
                put_attributes(out, &offer.attributes);
                out.extend_from_slice(&offer.tag);
                match &offer.digest {
                    Some(digest) => {
                        out.push(32);
                        out.extend_from_slice(digest.as_bytes());
                    }
                    None => out.push(0),
                }
                out.extend_from_slice(&offer.path);
            }
            Self::Link {
                id,
                attributes,
                target,
                path,
            } => {
                put_u64(out, *id);
                put_attributes(out, attributes);
                let len = u16::try_from(target.len()).unwrap_or(u16::MAX);
                out.extend_from_slice(&len.to_be_bytes());
                out.extend_from_slice(target);
                out.extend_from_slice(path);
            }
            Self::Seal {
                id,
                attributes,
                path,
            } => {
                put_u64(out, *id);
                put_attributes(out, attributes);
                out.extend_from_slice(path);
            }
            Self::Content { id, from } => {
                put_u64(out, *id);
                put_u64(out, *from);
            }
            Self::Block(cv) => out.extend_from_slice(cv),
            Self::End(digest) => out.extend_from_slice(digest.as_bytes()),
            Self::Withdraw(id, withdrawal) => {
                put_u64(out, *id);
                out.push(match withdrawal {
                    Withdrawal::Again => 0,
                    Withdrawal::Changed => 1,
                    Withdrawal::Unreadable => 2,
                    Withdrawal::Settled => 3,
                });
            }
            Self::Hole(value) | Self::Ask(value) | Self::Working(value) => put_u64(out, *value),
            Self::Done | Self::Bye => {}
            Self::Verdict(id, verdict) => {
                put_u64(out, *id);
                put_verdict(out, verdict);
            }
            Self::Need { id, from, stack } => {
                put_u64(out, *id);
                put_u64(out, *from);
                for cv in stack {
                    out.extend_from_slice(cv);
                }
            }
            Self::Fatal(farewell, message) => {
                out.push(farewell.code());
                put_text(out, message);
            }
        }
        end_frame(out, start);
    }
}

/// The header of a data frame with a body of `len` bytes, at most [`MAX_DATA_LEN`].
pub(super) fn data_header(len: usize) -> [u8; FRAME_HEADER_LEN] {
    debug_assert!((1..=MAX_DATA_LEN).contains(&len), "the caller cuts");
    let [a, b, c, d] = saturating_u32(len).to_be_bytes();
    [DATA, a, b, c, d]
}

/// Writes the length of the frame that began at `start` into its header.
fn end_frame(out: &mut [u8], start: usize) {
    let len = saturating_u32(out.len().saturating_sub(start + FRAME_HEADER_LEN));
    if let Some(field) = out.get_mut(start + 1..start + FRAME_HEADER_LEN) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

/// Longest and shortest body of each type, in bytes.
fn body_bounds(kind: u8) -> Result<(usize, usize), ProtocolError> {
    Ok(match kind {
        OPTIONS => (4, 4),
        FILE => (OFFER_FIXED_LEN, OFFER_FIXED_LEN + 32 + MAX_PATH_LEN),
        LINK => (LINK_FIXED_LEN, MAX_BODY_LEN),
        SEAL => (SEAL_FIXED_LEN, SEAL_FIXED_LEN + MAX_PATH_LEN),
        CONTENT => (16, 16),
        DATA => (1, MAX_DATA_LEN),
        BLOCK | END => (32, 32),
        WITHDRAW => (9, 9),
        HOLE | ASK | WORKING => (8, 8),
        DONE | BYE => (0, 0),
        VERDICT => (9, 10 + MAX_MESSAGE_LEN),
        NEED => (16, 16 + 32 * MAX_STACK),
        FATAL => (1, 1 + MAX_MESSAGE_LEN),
        unknown => return Err(ProtocolError::UnknownFrame(unknown)),
    })
}

/// How many chaining values describe the blocks before byte `from`; `None` if it is no boundary.
pub(super) fn stack_len(from: u64) -> Option<usize> {
    let block = u64::try_from(BLOCK_LEN).ok()?;
    from.is_multiple_of(block)
        .then(|| usize::try_from((from / block).count_ones()).unwrap_or(usize::MAX))
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_attributes(out: &mut Vec<u8>, attributes: &Attributes) {
    out.extend_from_slice(&attributes.mode.to_be_bytes());
    out.extend_from_slice(&attributes.mtime_secs.to_be_bytes());
    out.extend_from_slice(&attributes.mtime_nanos.to_be_bytes());
}

fn put_verdict(out: &mut Vec<u8>, verdict: &Verdict) {
    match verdict {
        Verdict::Verified(digest) => {
            out.push(0);
            out.extend_from_slice(digest.as_bytes());
        }
        Verdict::Done => out.push(1),
        Verdict::Mismatch => out.push(2),
        Verdict::Refused(refusal) => out.extend_from_slice(&[3, refusal.code()]),
        Verdict::Failed(kind, message) => {
            out.extend_from_slice(&[4, store_kind_code(*kind)]);
            put_text(out, message);
        }
        Verdict::Unknown => out.push(5),
        Verdict::Present => out.push(6),
        Verdict::Planned => out.push(7),
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(shorten(text).as_bytes());
}

/// Cuts a text to [`MAX_MESSAGE_LEN`] bytes, between characters.
pub(super) fn shorten(text: &str) -> &str {
    // `str::floor_char_boundary` is newer than this crate's minimum Rust version.
    let end = MAX_MESSAGE_LEN.min(text.len());
    let boundary = (0..=end).rev().find(|at| text.is_char_boundary(*at));
    text.get(..boundary.unwrap_or(0)).unwrap_or_default()
}

fn saturating_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
