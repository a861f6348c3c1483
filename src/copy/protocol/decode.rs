//! From bytes to frames, however they are cut.

use super::super::error::{Farewell, ProtocolError, Refusal, store_kind_from_code};
use super::super::progress::Digest;
use super::{
    ASK, Attributes, BLOCK, BYE, CONTENT, DATA, DONE, END, FATAL, FILE, FRAME_HEADER_LEN,
    FileOffer, Frame, GREETING_LEN, Greeting, HOLE, LINK, MAGIC, MAX_BODY_LEN, NEED, OPTIONS,
    Options, SEAL, VERDICT, Verdict, WITHDRAW, WORKING, Withdrawal, body_bounds, saturating_u32,
    shorten, stack_len,
};

impl Greeting {
    pub(in super::super) fn decode(bytes: [u8; GREETING_LEN]) -> Result<Self, ProtocolError> {
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

fn decode(kind: u8, body: &[u8]) -> Result<Frame, ProtocolError> {
    let mut fields = Fields(body);
    let frame = match kind {
        OPTIONS => fields.options()?,
        FILE => fields.file_offer()?.map(Frame::File),
        LINK => fields.link()?,
        SEAL => fields.seal()?,
        CONTENT => fields.content(),
        HOLE => fields.u64().map(Frame::Hole),
        BLOCK => fields.array().map(Frame::Block),
        END => fields.array().map(|bytes| Frame::End(Digest::new(bytes))),
        WITHDRAW => fields.withdrawal()?,
        ASK => fields.u64().map(Frame::Ask),
        DONE => Some(Frame::Done),
        VERDICT => fields.verdict()?,
        NEED => fields.need()?,
        WORKING => fields.u64().map(Frame::Working),
        BYE => Some(Frame::Bye),
        FATAL => fields.u8().map(|code| {
            let farewell = Farewell::from_code(code);
            Frame::Fatal(farewell, fields.text())
        }),
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

/// What the decoder found next.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Item<'a> {
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
pub(in super::super) struct Decoder {
    gathered: Vec<u8>,
    data_left: usize,
}

impl Decoder {
    /// Takes the next item off the front of `input`. `None` means that all of it was taken and more
    /// is needed.
    pub(in super::super) fn next<'a>(
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
            let frame = decode(kind, body)?;
            self.gathered.clear();
            return Ok(Some(Item::Frame(frame)));
        }
    }

    #[cfg(test)]
    pub(super) fn gathered_len(&self) -> usize {
        self.gathered.len()
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

    fn bytes(&mut self, len: usize) -> Option<Vec<u8>> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head.to_vec())
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
        let fixed = (|| {
            Some((
                self.u32()?,
                self.array().map(i64::from_be_bytes)?,
                self.u32()?,
            ))
        })();
        let Some((mode, mtime_secs, mtime_nanos)) = fixed else {
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

    fn options(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let Some(bits) = self.u32() else {
            return Ok(None);
        };
        let options = Options::from_bits(bits).ok_or(ProtocolError::BadField("options"))?;
        Ok(Some(Frame::Options(options)))
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
        let (Some(tag), Some(digest_len)) = (self.array(), self.u8()) else {
            return Ok(None);
        };
        let digest = match digest_len {
            0 => None,
            32 => match self.array() {
                Some(bytes) => Some(Digest::new(bytes)),
                None => return Ok(None),
            },
            _ => return Err(ProtocolError::BadField("hash length")),
        };
        Ok(Some(FileOffer {
            id,
            attempt,
            attempts,
            size,
            attributes,
            tag,
            digest,
            path: self.rest(),
        }))
    }

    fn link(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let Some(id) = self.u64() else {
            return Ok(None);
        };
        let Some(attributes) = self.attributes()? else {
            return Ok(None);
        };
        let Some(target) = self.u16().and_then(|len| self.bytes(len.into())) else {
            return Ok(None);
        };
        if target.len() > super::MAX_TARGET_LEN {
            return Err(ProtocolError::BadField("link target"));
        }
        Ok(Some(Frame::Link {
            id,
            attributes,
            target,
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

    fn content(&mut self) -> Option<Frame> {
        Some(Frame::Content {
            id: self.u64()?,
            from: self.u64()?,
        })
    }

    fn need(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let (Some(id), Some(from)) = (self.u64(), self.u64()) else {
            return Ok(None);
        };
        let expected = stack_len(from).ok_or(ProtocolError::BadField("resume position"))?;
        let mut stack = Vec::with_capacity(expected.min(super::MAX_STACK));
        while let Some(cv) = self.array() {
            stack.push(cv);
        }
        if stack.len() != expected {
            return Err(ProtocolError::BadField("resume position"));
        }
        Ok(Some(Frame::Need { id, from, stack }))
    }

    fn withdrawal(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let Some(id) = self.u64() else {
            return Ok(None);
        };
        let withdrawal = match self.u8() {
            None => return Ok(None),
            Some(0) => Withdrawal::Again,
            Some(1) => Withdrawal::Changed,
            Some(2) => Withdrawal::Unreadable,
            Some(3) => Withdrawal::Settled,
            Some(_) => return Err(ProtocolError::BadField("withdrawal")),
        };
        Ok(Some(Frame::Withdraw(id, withdrawal)))
    }

    fn verdict(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let (Some(id), Some(code)) = (self.u64(), self.u8()) else {
            return Ok(None);
        };
        let verdict = match code {
            0 => self
                .array()
                .map(|bytes| Verdict::Verified(Digest::new(bytes))),
            1 => Some(Verdict::Done),
            2 => Some(Verdict::Mismatch),
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
            6 => Some(Verdict::Present),
            7 => Some(Verdict::Planned),
            _ => return Err(ProtocolError::BadField("verdict")),
        };
        Ok(verdict.map(|verdict| Frame::Verdict(id, verdict)))
    }
}
