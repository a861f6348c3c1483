//! The copy protocol's bytes: greeting, frames, and a decoder that accepts them in any pieces.
//!
//! `docs/COPY.md` is the specification. Everything is big-endian. A frame is one byte of type, four
//! bytes of body length, and the body; each type has its own bounds on the length, checked before a
//! byte of the body is kept, so that a hostile peer costs at most [`MAX_BODY_LEN`] bytes here.

use super::error::{ProtocolError, Refusal, store_kind_code, store_kind_from_code};
use super::path::MAX_PATH_LEN;
use super::progress::Digest;

/// The first bytes of both sides.
pub(super) const MAGIC: [u8; 8] = *b"rudpcopy";

/// The only version so far.
pub(super) const VERSION: u16 = 1;

/// Length of a [`Greeting`] on the wire, in bytes.
pub(super) const GREETING_LEN: usize = 16;

/// Type and length in front of each body, in bytes.
pub(super) const FRAME_HEADER_LEN: usize = 5;

/// Largest body of a data frame, in bytes.
pub(super) const MAX_DATA_LEN: usize = 256 * 1024;

/// How many offers may be without a verdict. The receiver remembers as many verdicts.
pub(super) const MAX_WINDOW: u64 = 1024;

/// Longest text in a frame, in bytes.
pub(super) const MAX_MESSAGE_LEN: usize = 512;

/// Largest body that the decoder gathers; the bytes of data frames pass through ungathered.
const MAX_BODY_LEN: usize = OFFER_FIXED_LEN + MAX_PATH_LEN;
const OFFER_FIXED_LEN: usize = 34;
const SEAL_FIXED_LEN: usize = 24;

pub(super) const FILE: u8 = 0x01;
pub(super) const DATA: u8 = 0x02;
pub(super) const END: u8 = 0x03;
pub(super) const WITHDRAW: u8 = 0x04;
pub(super) const SEAL: u8 = 0x05;
const ASK: u8 = 0x06;
const DONE: u8 = 0x07;
const VERDICT: u8 = 0x81;
const PROGRESS: u8 = 0x82;
const BYE: u8 = 0x83;
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

    pub(super) fn decode(bytes: [u8; GREETING_LEN]) -> Result<Self, ProtocolError> {
        let mut fields = Fields(&bytes);
        if fields.array::<8>() != Some(MAGIC) {
            return Err(ProtocolError::Magic);
        }
        let greeting = (|| {
            let (min_version, max_version) = (fields.u16()?, fields.u16()?);
            Some(Self {
                min_version,
                max_version,
                features: fields.u32()?,
            })
        })();
        greeting.ok_or(ProtocolError::BadField("greeting"))
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

/// A file about to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileOffer {
    pub(super) id: u64,
    /// 1 for the first time.
    pub(super) attempt: u8,
    /// How many attempts the sender makes at most.
    pub(super) attempts: u8,
    pub(super) size: u64,
    pub(super) attributes: Attributes,
    /// Not checked yet.
    pub(super) path: Vec<u8>,
}

/// Why the sender takes back the file that it is sending.
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
    /// The directory exists with its attributes.
    Sealed,
    /// What was read back has this hash. Nothing was placed.
    Mismatch(Digest),
    /// The name or place was refused.
    Refused(Refusal),
    /// The file system did not take it: code of the kind, and its words.
    Failed(std::io::ErrorKind, String),
    /// No verdict is known: the offer was withdrawn, or it is this side's fault.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    File(FileOffer),
    /// The file's bytes are complete; this is the hash of what was read from the source.
    End(Digest),
    Withdraw(Withdrawal),
    Seal {
        id: u64,
        attributes: Attributes,
        path: Vec<u8>,
    },
    Ask(u64),
    Done,
    Verdict(u64, Verdict),
    /// A number that has grown since the last time: the receiver's disk is at work.
    Progress(u64),
    Bye,
    Fatal(String),
}

impl Frame {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::File(_) => FILE,
            Self::End(_) => END,
            Self::Withdraw(_) => WITHDRAW,
            Self::Seal { .. } => SEAL,
            Self::Ask(_) => ASK,
            Self::Done => DONE,
            Self::Verdict(..) => VERDICT,
            Self::Progress(_) => PROGRESS,
            Self::Bye => BYE,
            Self::Fatal(_) => FATAL,
        }
    }

    /// Appends the frame to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.kind(), 0, 0, 0, 0]);
        match self {
            Self::File(offer) => {
                put_u64(out, offer.id);
                out.extend_from_slice(&[offer.attempt, offer.attempts]);
                put_u64(out, offer.size);
                put_attributes(out, &offer.attributes);
                out.extend_from_slice(&offer.path);
            }
            Self::End(digest) => out.extend_from_slice(digest.as_bytes()),
            Self::Withdraw(withdrawal) => out.push(match withdrawal {
                Withdrawal::Again => 0,
                Withdrawal::Changed => 1,
                Withdrawal::Unreadable => 2,
                Withdrawal::Settled => 3,
            }),
            Self::Seal {
                id,
                attributes,
                path,
            } => {
                put_u64(out, *id);
                put_attributes(out, attributes);
                out.extend_from_slice(path);
            }
            Self::Ask(id) => put_u64(out, *id),
            Self::Done | Self::Bye => {}
            Self::Verdict(id, verdict) => {
                put_u64(out, *id);
                put_verdict(out, verdict);
            }
            Self::Progress(bytes) => put_u64(out, *bytes),
            Self::Fatal(message) => put_text(out, message),
        }
        end_frame(out, start);
    }

    fn decode(kind: u8, body: &[u8]) -> Result<Self, ProtocolError> {
        let mut fields = Fields(body);
        let frame = match kind {
            FILE => fields.file_offer()?.map(Self::File),
            END => fields.array().map(|bytes| Self::End(Digest::new(bytes))),
            WITHDRAW => fields.withdrawal()?.map(Self::Withdraw),
            SEAL => fields.seal()?,
            ASK => fields.u64().map(Self::Ask),
            DONE => Some(Self::Done),
            VERDICT => fields.verdict()?,
            PROGRESS => fields.u64().map(Self::Progress),
            BYE => Some(Self::Bye),
            FATAL => Some(Self::Fatal(fields.text())),
            unknown => return Err(ProtocolError::UnknownFrame(unknown)),
        };
        match frame {
            Some(frame) if fields.0.is_empty() => Ok(frame),
            _ => Err(ProtocolError::FrameLength {
                frame: kind,
                len: saturating_u32(body.len()),
            }),
        }
    }
}

/// Begins a data frame in `out`; the caller appends at most [`MAX_DATA_LEN`] bytes and then calls
/// [`end_frame`] with the position returned.
pub(super) fn begin_data(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[DATA, 0, 0, 0, 0]);
    start
}

/// Writes the length of the frame that began at `start` into its header.
pub(super) fn end_frame(out: &mut [u8], start: usize) {
    let len = saturating_u32(out.len().saturating_sub(start + FRAME_HEADER_LEN));
    if let Some(field) = out.get_mut(start + 1..start + FRAME_HEADER_LEN) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

/// Longest and shortest body of each type, in bytes.
fn body_bounds(kind: u8) -> Result<(usize, usize), ProtocolError> {
    Ok(match kind {
        FILE => (OFFER_FIXED_LEN, OFFER_FIXED_LEN + MAX_PATH_LEN),
        DATA => (1, MAX_DATA_LEN),
        END => (32, 32),
        WITHDRAW => (1, 1),
        SEAL => (SEAL_FIXED_LEN, SEAL_FIXED_LEN + MAX_PATH_LEN),
        ASK | PROGRESS => (8, 8),
        DONE | BYE => (0, 0),
        VERDICT => (9, 10 + MAX_MESSAGE_LEN),
        FATAL => (0, MAX_MESSAGE_LEN),
        unknown => return Err(ProtocolError::UnknownFrame(unknown)),
    })
}

/// What the decoder found next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// Some bytes of a data frame; a frame may come in several of these.
    Data(&'a [u8]),
    Frame(Frame),
}

/// Turns bytes, in whatever pieces they arrive, into frames.
///
/// # Invariants
/// - `gathered` holds at most a header and [`MAX_BODY_LEN`] bytes.
/// - While `data_left` is above zero, `gathered` is empty.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    gathered: Vec<u8>,
    data_left: usize,
}

impl Decoder {
    /// Takes the next item off the front of `input`. `None` means that all of it was taken and more
    /// is needed.
    pub(super) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<Item<'a>>, ProtocolError> {
        loop {
            if self.data_left > 0 {
                let (data, rest) = input.split_at(self.data_left.min(input.len()));
                *input = rest;
                self.data_left -= data.len();
                return Ok((!data.is_empty()).then_some(Item::Data(data)));
            }
            if !self.gather(FRAME_HEADER_LEN, input) {
                return Ok(None);
            }
            let mut header = Fields(&self.gathered);
            let (Some(kind), Some(len)) = (header.u8(), header.u32()) else {
                return Ok(None);
            };
            let body_len = usize::try_from(len).unwrap_or(usize::MAX);
            let (min, max) = body_bounds(kind)?;
            if !(min..=max).contains(&body_len) {
                return Err(ProtocolError::FrameLength { frame: kind, len });
            }
            if kind == DATA {
                self.gathered.clear();
                self.data_left = body_len;
                continue;
            }
            if !self.gather(FRAME_HEADER_LEN + body_len, input) {
                return Ok(None);
            }
            let body = self.gathered.get(FRAME_HEADER_LEN..).unwrap_or_default();
            let frame = Frame::decode(kind, body)?;
            self.gathered.clear();
            return Ok(Some(Item::Frame(frame)));
        }
    }

    /// Moves bytes over until `len` are gathered; returns whether they are.
    fn gather(&mut self, len: usize, input: &mut &[u8]) -> bool {
        debug_assert!(
            len <= FRAME_HEADER_LEN + MAX_BODY_LEN,
            "bounds are checked before gathering"
        );
        let missing = len.saturating_sub(self.gathered.len());
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.gathered.extend_from_slice(taken);
        *input = rest;
        taken.len() == missing
    }
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
        Verdict::Sealed => out.push(1),
        Verdict::Mismatch(digest) => {
            out.push(2);
            out.extend_from_slice(digest.as_bytes());
        }
        Verdict::Refused(refusal) => out.extend_from_slice(&[3, refusal.code()]),
        Verdict::Failed(kind, message) => {
            out.extend_from_slice(&[4, store_kind_code(*kind)]);
            put_text(out, message);
        }
        Verdict::Unknown => out.push(5),
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(shorten(text).as_bytes());
}

/// Cuts a text to [`MAX_MESSAGE_LEN`] bytes, between characters.
pub(super) fn shorten(text: &str) -> &str {
    text.get(..text.floor_char_boundary_at(MAX_MESSAGE_LEN))
        .unwrap_or_default()
}

/// `str::floor_char_boundary`, which is newer than this crate's minimum Rust version.
trait FloorCharBoundary {
    fn floor_char_boundary_at(&self, index: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_at(&self, index: usize) -> usize {
        let index = index.min(self.len());
        (0..=index)
            .rev()
            .find(|at| self.is_char_boundary(*at))
            .unwrap_or(0)
    }
}

fn saturating_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Takes fields off the front of a body; `None` when it is too short.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }

    /// A peer's text is shown to people: what is no printable text is replaced.
    fn text(&mut self) -> String {
        let text = String::from_utf8_lossy(std::mem::take(&mut self.0));
        let clean = |c: char| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        };
        shorten(&text.chars().map(clean).collect::<String>()).to_owned()
    }

    fn attributes(&mut self) -> Result<Option<Attributes>, ProtocolError> {
        let Some(mode) = self.u32() else {
            return Ok(None);
        };
        let Some(mtime_secs) = self.array().map(i64::from_be_bytes) else {
            return Ok(None);
        };
        let Some(mtime_nanos) = self.u32() else {
            return Ok(None);
        };
        if mode > 0o7777 {
            return Err(ProtocolError::BadField("mode"));
        }
        if mtime_nanos >= 1_000_000_000 {
            return Err(ProtocolError::BadField("modification time"));
        }
        Ok(Some(Attributes {
            mode,
            mtime_secs,
            mtime_nanos,
        }))
    }

    fn file_offer(&mut self) -> Result<Option<FileOffer>, ProtocolError> {
        let fixed = (|| Some((self.u64()?, self.u8()?, self.u8()?, self.u64()?)))();
        let Some((id, attempt, attempts, size)) = fixed else {
            return Ok(None);
        };
        if attempt == 0 || attempt > attempts {
            return Err(ProtocolError::BadField("attempt"));
        }
        let Some(attributes) = self.attributes()? else {
            return Ok(None);
        };
        Ok(Some(FileOffer {
            id,
            attempt,
            attempts,
            size,
            attributes,
            path: self.rest(),
        }))
    }

    fn seal(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let Some(id) = self.u64() else {
            return Ok(None);
        };
        let Some(attributes) = self.attributes()? else {
            return Ok(None);
        };
        Ok(Some(Frame::Seal {
            id,
            attributes,
            path: self.rest(),
        }))
    }

    fn withdrawal(&mut self) -> Result<Option<Withdrawal>, ProtocolError> {
        Ok(match self.u8() {
            None => None,
            Some(0) => Some(Withdrawal::Again),
            Some(1) => Some(Withdrawal::Changed),
            Some(2) => Some(Withdrawal::Unreadable),
            Some(3) => Some(Withdrawal::Settled),
            Some(_) => return Err(ProtocolError::BadField("withdrawal")),
        })
    }

    fn verdict(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let (Some(id), Some(code)) = (self.u64(), self.u8()) else {
            return Ok(None);
        };
        let verdict = match code {
            0 => self
                .array()
                .map(|bytes| Verdict::Verified(Digest::new(bytes))),
            1 => Some(Verdict::Sealed),
            2 => self
                .array()
                .map(|bytes| Verdict::Mismatch(Digest::new(bytes))),
            3 => {
                let Some(code) = self.u8() else {
                    return Ok(None);
                };
                let refusal = Refusal::from_code(code).ok_or(ProtocolError::BadField("refusal"))?;
                Some(Verdict::Refused(refusal))
            }
            4 => {
                let Some(kind) = self.u8() else {
                    return Ok(None);
                };
                Some(Verdict::Failed(store_kind_from_code(kind), self.text()))
            }
            5 => Some(Verdict::Unknown),
            _ => return Err(ProtocolError::BadField("verdict")),
        };
        Ok(verdict.map(|verdict| Frame::Verdict(id, verdict)))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;

    use super::*;

    fn examples() -> Vec<Frame> {
        let attributes = Attributes {
            mode: 0o755,
            mtime_secs: -1,
            mtime_nanos: 999_999_999,
        };
        let digest = Digest::new([7; 32]);
        let mut frames = vec![
            Frame::File(FileOffer {
                id: 3,
                attempt: 1,
                attempts: 6,
                size: 10,
                attributes,
                path: b"a/\xff".to_vec(),
            }),
            Frame::End(digest),
            Frame::Seal {
                id: 4,
                attributes,
                path: vec![b'x'; MAX_PATH_LEN],
            },
            Frame::Ask(u64::MAX),
            Frame::Done,
            Frame::Progress(5),
            Frame::Bye,
            Frame::Fatal("why".into()),
        ];
        let withdrawals = [
            Withdrawal::Again,
            Withdrawal::Changed,
            Withdrawal::Unreadable,
            Withdrawal::Settled,
        ];
        frames.extend(withdrawals.map(Frame::Withdraw));
        let verdicts = [
            Verdict::Verified(digest),
            Verdict::Sealed,
            Verdict::Mismatch(digest),
            Verdict::Refused(Refusal::Exists),
            Verdict::Failed(io::ErrorKind::StorageFull, "no space left on device".into()),
            Verdict::Unknown,
        ];
        frames.extend(verdicts.map(|verdict| Frame::Verdict(9, verdict)));
        frames
    }

    /// Decodes everything, feeding `step` bytes at a time; data comes back joined per frame boundary.
    fn decode_all(bytes: &[u8], step: usize) -> Result<(Vec<Frame>, Vec<u8>), ProtocolError> {
        let (mut decoder, mut frames, mut data) = (Decoder::default(), vec![], vec![]);
        for mut piece in bytes.chunks(step) {
            while let Some(item) = decoder.next(&mut piece)? {
                match item {
                    Item::Data(bytes) => data.extend_from_slice(bytes),
                    Item::Frame(frame) => frames.push(frame),
                }
            }
            assert!(piece.is_empty(), "all input is taken");
        }
        Ok((frames, data))
    }

    #[test]
    fn frames_survive_the_wire_in_any_pieces() {
        let mut bytes = vec![];
        for frame in examples() {
            frame.encode(&mut bytes);
            let start = begin_data(&mut bytes);
            bytes.extend_from_slice(b"data");
            end_frame(&mut bytes, start);
        }
        for step in [1, 2, 3, 7, 1000, usize::MAX] {
            let (frames, data) = decode_all(&bytes, step).unwrap();
            assert_eq!(frames, examples(), "in pieces of {step}");
            assert_eq!(data, b"data".repeat(frames.len()), "in pieces of {step}");
        }
    }

    #[test]
    fn hostile_frames_get_typed_errors() {
        let frame = |kind: u8, body: &[u8]| {
            let mut bytes = vec![kind];
            bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(body);
            bytes
        };
        let length = |frame, len| ProtocolError::FrameLength { frame, len };
        let mut bad_nanos = vec![0; SEAL_FIXED_LEN];
        bad_nanos[20..24].fill(0xff);
        let mut bad_mode = vec![0; SEAL_FIXED_LEN];
        bad_mode[8..12].fill(0xff);
        let cases: &[(&str, Vec<u8>, ProtocolError)] = &[
            (
                "unknown type",
                frame(0x77, b""),
                ProtocolError::UnknownFrame(0x77),
            ),
            (
                "type zero",
                frame(0, b"abc"),
                ProtocolError::UnknownFrame(0),
            ),
            (
                "4 GiB of data",
                vec![DATA, 255, 255, 255, 255],
                length(DATA, u32::MAX),
            ),
            (
                "4 GiB of path",
                vec![FILE, 255, 255, 255, 255],
                length(FILE, u32::MAX),
            ),
            ("empty data", frame(DATA, b""), length(DATA, 0)),
            ("short end", frame(END, &[0; 31]), length(END, 31)),
            ("long end", frame(END, &[0; 33]), length(END, 33)),
            ("body on done", frame(DONE, b"x"), length(DONE, 1)),
            ("short offer", frame(FILE, &[0; 33]), length(FILE, 33)),
            ("long path", vec![SEAL, 0, 0, 0x81, 0], length(SEAL, 0x8100)),
            (
                "attempt zero",
                frame(FILE, &[0; 40]),
                ProtocolError::BadField("attempt"),
            ),
            (
                "mode",
                frame(SEAL, &bad_mode),
                ProtocolError::BadField("mode"),
            ),
            (
                "nanoseconds",
                frame(SEAL, &bad_nanos),
                ProtocolError::BadField("modification time"),
            ),
            (
                "withdrawal",
                frame(WITHDRAW, &[9]),
                ProtocolError::BadField("withdrawal"),
            ),
            (
                "verdict",
                frame(VERDICT, &[9; 9]),
                ProtocolError::BadField("verdict"),
            ),
            (
                "refusal",
                frame(VERDICT, &[0, 0, 0, 0, 0, 0, 0, 0, 3, 99]),
                ProtocolError::BadField("refusal"),
            ),
            (
                "verified without hash",
                frame(VERDICT, &[0; 9]),
                length(VERDICT, 9),
            ),
            (
                "sealed and more",
                frame(VERDICT, &[1; 10]),
                ProtocolError::FrameLength {
                    frame: VERDICT,
                    len: 10,
                },
            ),
            ("long message", vec![FATAL, 0, 0, 2, 1], length(FATAL, 513)),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(decode_all(bytes, 1).unwrap_err(), *expected, "{name}");
        }
    }

    #[test]
    fn texts_are_cut_between_characters_and_cleaned() {
        let mut bytes = vec![];
        Frame::Fatal("ä".repeat(MAX_MESSAGE_LEN)).encode(&mut bytes);
        let (frames, _) = decode_all(&bytes, usize::MAX).unwrap();
        assert_eq!(frames, [Frame::Fatal("ä".repeat(MAX_MESSAGE_LEN / 2))]);

        let mut bytes = vec![];
        Frame::Fatal("\x1b[2Jgone\n".into()).encode(&mut bytes);
        let (frames, _) = decode_all(&bytes, usize::MAX).unwrap();
        assert_eq!(frames, [Frame::Fatal("\u{fffd}[2Jgone\u{fffd}".into())]);
    }

    #[test]
    fn greetings_survive_and_strangers_are_recognised() {
        let greeting = Greeting {
            min_version: 1,
            max_version: 3,
            features: 0x8000_0001,
        };
        assert_eq!(Greeting::decode(greeting.encode()), Ok(greeting));
        assert_eq!(
            Greeting::decode(*b"GET / HTTP/1.1\r\n"),
            Err(ProtocolError::Magic)
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_stay_bounded(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            kind in prop::sample::select(vec![FILE, DATA, END, WITHDRAW, SEAL, ASK, VERDICT, FATAL]),
        ) {
            let mut input = vec![kind, 0, 0];
            input.extend_from_slice(&bytes);
            let mut decoder = Decoder::default();
            let mut rest = &input[..];
            while let Ok(Some(_)) = decoder.next(&mut rest) {}
            prop_assert!(decoder.gathered.len() <= FRAME_HEADER_LEN + MAX_BODY_LEN);
        }
    }
}
