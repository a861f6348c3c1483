//! The receiving state machine: bytes of the stream in, files on the disk and verdicts out.
//!
//! It blocks on the disk and knows nothing of tokio; [`Receiver`](super::Receiver) feeds it one batch
//! at a time.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{CopyError, FileError, ProtocolError};
use super::path::{WirePath, display_bytes};
use super::place::{Incoming, Placer, Rejection};
use super::progress::{Digest, Recorder, Report, RetryCause};
use super::protocol::{
    Attributes, DATA, Decoder, END, FILE, FileOffer, Frame, Item, MAX_WINDOW, SEAL, Verdict,
    WITHDRAW, Withdrawal,
};

/// Verdicts wait for the sync of their directories; at this many directories they stop waiting, so
/// that their open handles stay few.
const MAX_TOUCHED: usize = 32;

/// What one batch of input led to.
#[derive(Debug)]
pub(super) struct Step {
    /// The batch's buffer, emptied, to be filled again.
    pub(super) input: Vec<u8>,
    /// Frames for the sender.
    pub(super) replies: Vec<u8>,
    /// `true`: the session is over.
    pub(super) result: Result<bool, CopyError>,
}

/// The receiving state machine: bytes in, files and verdicts out.
///
/// # Invariants
/// - `next_id` is the number of offers seen; each offer has the number before it increased.
/// - `verdicts[id % MAX_WINDOW]` belongs to offer `id` for the last [`MAX_WINDOW`] offers.
/// - A verdict leaves only after the directories that it speaks of were synced.
#[derive(Debug)]
pub(super) struct Intake {
    placer: Placer,
    recorder: Recorder,
    decoder: Decoder,
    current: Current,
    next_id: u64,
    verdicts: Vec<Verdict>,
    /// Verdicts that wait for their directories to be synced.
    unsynced: Vec<Placed>,
    /// Files that the sender is to send again; at most [`MAX_WINDOW`].
    retrying: HashSet<Arc<Path>>,
}

/// The file that the data frames belong to.
#[derive(Debug)]
enum Current {
    None,
    Receiving(Box<Receiving>),
    /// A verdict has been given; the rest of the file is skipped.
    Discarding,
}

#[derive(Debug)]
struct Receiving {
    offer: Offered,
    incoming: Incoming,
    received: u64,
}

/// What is kept of a [`FileOffer`].
#[derive(Debug)]
struct Offered {
    id: u64,
    path: Arc<Path>,
    size: u64,
    attempt: u8,
    attempts: u8,
}

/// A file or directory that is in place; its verdict is due once its directory is synced.
#[derive(Debug)]
struct Placed {
    id: u64,
    path: Arc<Path>,
    /// `None` for a directory.
    file: Option<(u64, Digest)>,
}

impl Intake {
    pub(super) fn new(placer: Placer, recorder: Recorder) -> Self {
        let window = usize::try_from(MAX_WINDOW).unwrap_or(usize::MAX);
        Self {
            placer,
            recorder,
            decoder: Decoder::default(),
            current: Current::None,
            next_id: 0,
            verdicts: vec![Verdict::Unknown; window],
            unsynced: Vec::new(),
            retrying: HashSet::new(),
        }
    }

    /// Works through one batch of input. Verdicts found before an error are still in the replies.
    pub(super) fn step(&mut self, mut input: Vec<u8>) -> Step {
        let mut replies = Vec::new();
        let mut result = self.take(&input, &mut replies);
        self.settle_placed(&mut replies);
        if matches!(result, Ok(true)) {
            if matches!(self.current, Current::None) {
                Frame::Bye.encode(&mut replies);
            } else {
                let frame = Frame::Done.kind();
                result = Err(ProtocolError::Unexpected {
                    frame,
                    when: "within a file",
                }
                .into());
            }
        }
        input.clear();
        Step {
            input,
            replies,
            result,
        }
    }

    fn take(&mut self, mut input: &[u8], replies: &mut Vec<u8>) -> Result<bool, CopyError> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut is_done = false;
        while let Some(item) = decoder.next(&mut input)? {
            if is_done {
                let when = "after the end of the session";
                let frame = Frame::Done.kind();
                return Err(ProtocolError::Unexpected { frame, when }.into());
            }
            match item {
                Item::Data(bytes) => self.on_data(bytes, replies)?,
                Item::Frame(frame) => is_done = self.on_frame(frame, replies)?,
            }
            if self.placer.touched_directories() >= MAX_TOUCHED {
                self.settle_placed(replies);
            }
        }
        self.decoder = decoder;
        Ok(is_done)
    }

    fn on_frame(&mut self, frame: Frame, replies: &mut Vec<u8>) -> Result<bool, CopyError> {
        match frame {
            Frame::File(offer) => self.on_file(&offer, replies)?,
            Frame::End(digest) => self.on_end(digest, replies)?,
            Frame::Withdraw(withdrawal) => self.on_withdraw(withdrawal)?,
            Frame::Seal {
                id,
                attributes,
                path,
            } => self.on_seal(id, &attributes, &path, replies)?,
            Frame::Ask(id) => self.on_ask(id, replies)?,
            Frame::Done => return Ok(true),
            Frame::Fatal(message) => {
                return Err(CopyError::Peer {
                    file: None,
                    message,
                });
            }
            Frame::Verdict(..) | Frame::Progress(_) | Frame::Bye => {
                let when = "from the sender";
                return Err(ProtocolError::Unexpected {
                    frame: frame.kind(),
                    when,
                }
                .into());
            }
        }
        Ok(false)
    }

    fn on_file(&mut self, offer: &FileOffer, replies: &mut Vec<u8>) -> Result<(), CopyError> {
        self.open_offer(offer.id, FILE)?;
        let checked = WirePath::parse(&offer.path);
        let shown = match &checked {
            Ok(path) => path.to_path(),
            Err(_) => display_bytes(&offer.path),
        };
        let path: Arc<Path> = shown.into();
        self.retrying.remove(&path);
        let begun = checked
            .map_err(Rejection::from)
            .and_then(|checked| self.placer.begin(&checked, offer.attributes));
        self.current = match begun {
            Ok(incoming) => {
                self.recorder
                    .started(Arc::clone(&path), offer.size, u32::from(offer.attempt));
                let FileOffer {
                    id,
                    size,
                    attempt,
                    attempts,
                    ..
                } = *offer;
                let offer = Offered {
                    id,
                    path,
                    size,
                    attempt,
                    attempts,
                };
                Current::Receiving(Box::new(Receiving {
                    offer,
                    incoming,
                    received: 0,
                }))
            }
            Err(rejection) => {
                self.reject(offer.id, path, rejection, replies);
                Current::Discarding
            }
        };
        Ok(())
    }

    fn on_data(&mut self, bytes: &[u8], replies: &mut Vec<u8>) -> Result<(), CopyError> {
        let receiving = match &mut self.current {
            Current::Receiving(receiving) => receiving,
            Current::Discarding => return Ok(()),
            Current::None => {
                let when = "outside a file";
                return Err(ProtocolError::Unexpected { frame: DATA, when }.into());
            }
        };
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let (got, announced) = (receiving.received.saturating_add(len), receiving.offer.size);
        if got > announced {
            return Err(ProtocolError::FileLength { announced, got }.into());
        }
        match self.placer.write(&mut receiving.incoming, bytes) {
            Ok(()) => {
                receiving.received = got;
                self.recorder.transferred(&receiving.offer.path, len);
            }
            Err(rejection) => {
                let (id, path) = (receiving.offer.id, Arc::clone(&receiving.offer.path));
                self.current = Current::Discarding;
                self.reject(id, path, rejection, replies);
            }
        }
        Ok(())
    }

    fn on_end(&mut self, expected: Digest, replies: &mut Vec<u8>) -> Result<(), CopyError> {
        let receiving = match std::mem::replace(&mut self.current, Current::None) {
            Current::Receiving(receiving) => *receiving,
            Current::Discarding => return Ok(()),
            Current::None => {
                let when = "outside a file";
                return Err(ProtocolError::Unexpected { frame: END, when }.into());
            }
        };
        let (announced, got) = (receiving.offer.size, receiving.received);
        if got != announced {
            self.current = Current::Receiving(Box::new(receiving));
            return Err(ProtocolError::FileLength { announced, got }.into());
        }
        let Offered {
            id,
            path,
            size,
            attempt,
            attempts,
        } = receiving.offer;
        match self.placer.finish(receiving.incoming, expected) {
            Ok(Verdict::Verified(digest)) => {
                self.unsynced.push(Placed {
                    id,
                    path,
                    file: Some((size, digest)),
                });
            }
            Ok(verdict) => {
                self.answer(id, verdict, replies);
                if attempt < attempts {
                    self.await_retry(path, attempt, RetryCause::Mismatch);
                } else {
                    let attempts = u32::from(attempts);
                    self.recorder.failed(path, FileError::Mismatch { attempts });
                }
            }
            Err(rejection) => self.reject(id, path, rejection, replies),
        }
        Ok(())
    }

    fn on_withdraw(&mut self, withdrawal: Withdrawal) -> Result<(), CopyError> {
        let Offered {
            path,
            attempt,
            attempts,
            ..
        } = match std::mem::replace(&mut self.current, Current::None) {
            Current::Receiving(receiving) => receiving.offer,
            Current::Discarding => return Ok(()),
            Current::None => {
                let when = "outside a file";
                return Err(ProtocolError::Unexpected {
                    frame: WITHDRAW,
                    when,
                }
                .into());
            }
        };
        match withdrawal {
            Withdrawal::Again if attempt < attempts => {
                self.await_retry(path, attempt, RetryCause::Changed);
            }
            Withdrawal::Again | Withdrawal::Changed => {
                let attempts = u32::from(attempt);
                self.recorder.failed(path, FileError::Changed { attempts });
            }
            Withdrawal::Unreadable | Withdrawal::Settled => {
                let error = io::Error::other("the sender could not read on");
                self.recorder.failed(path, FileError::Read(Arc::new(error)));
            }
        }
        Ok(())
    }

    fn on_seal(
        &mut self,
        id: u64,
        attributes: &Attributes,
        bytes: &[u8],
        replies: &mut Vec<u8>,
    ) -> Result<(), CopyError> {
        self.open_offer(id, SEAL)?;
        let path: Arc<Path> = display_bytes(bytes).into();
        let sealed = WirePath::parse(bytes)
            .map_err(Rejection::from)
            .and_then(|checked| {
                // The files in it come first: their renames would change its modification time.
                self.placer.seal(&checked, attributes).map(|()| checked)
            });
        match sealed {
            Ok(checked) => {
                let path = checked.to_path().into();
                self.unsynced.push(Placed {
                    id,
                    path,
                    file: None,
                });
            }
            Err(rejection) => self.reject(id, path, rejection, replies),
        }
        Ok(())
    }

    fn on_ask(&mut self, id: u64, replies: &mut Vec<u8>) -> Result<(), CopyError> {
        let is_remembered = id < self.next_id && self.next_id - id <= MAX_WINDOW;
        if !is_remembered {
            return Err(ProtocolError::NoSuchOffer(id).into());
        }
        self.settle_placed(replies);
        let verdict = self
            .verdicts
            .get(slot(id))
            .cloned()
            .unwrap_or(Verdict::Unknown);
        Frame::Verdict(id, verdict).encode(replies);
        Ok(())
    }

    pub(super) fn take_report(&mut self) -> Report {
        self.recorder.take_report()
    }

    /// Checks that a new offer may come now and has the next number.
    fn open_offer(&mut self, id: u64, frame: u8) -> Result<(), ProtocolError> {
        if !matches!(self.current, Current::None) {
            return Err(ProtocolError::Unexpected {
                frame,
                when: "within a file",
            });
        }
        if id != self.next_id {
            return Err(ProtocolError::OfferOrder {
                expected: self.next_id,
                got: id,
            });
        }
        self.next_id = id.saturating_add(1);
        if let Some(slot) = self.verdicts.get_mut(slot(id)) {
            *slot = Verdict::Unknown;
        }
        Ok(())
    }

    /// Syncs the directories of what was placed, and gives the verdicts.
    fn settle_placed(&mut self, replies: &mut Vec<u8>) {
        let synced = self
            .placer
            .sync()
            .map_err(|error| (error.kind(), error.to_string()));
        for Placed { id, path, file } in std::mem::take(&mut self.unsynced) {
            match (&synced, file) {
                (Ok(()), Some((size, digest))) => {
                    self.answer(id, Verdict::Verified(digest), replies);
                    self.recorder.verified(path, size, digest);
                }
                (Ok(()), None) => {
                    self.answer(id, Verdict::Sealed, replies);
                    self.recorder.directory_done(path);
                }
                (Err((kind, message)), _) => {
                    self.answer(id, Verdict::Failed(*kind, message.clone()), replies);
                    let (kind, message) = (*kind, message.clone());
                    self.recorder
                        .failed(path, FileError::Store { kind, message });
                }
            }
        }
    }

    fn reject(&mut self, id: u64, path: Arc<Path>, rejection: Rejection, replies: &mut Vec<u8>) {
        let verdict = Verdict::from(rejection);
        let error = match verdict.clone() {
            Verdict::Failed(kind, message) => FileError::Store { kind, message },
            Verdict::Refused(refusal) => FileError::Refused(refusal),
            _ => FileError::Interrupted,
        };
        tracing::debug!(path = %path.display(), %error, "file not placed");
        self.answer(id, verdict, replies);
        self.recorder.failed(path, error);
    }

    fn answer(&mut self, id: u64, verdict: Verdict, replies: &mut Vec<u8>) {
        let frame = Frame::Verdict(id, verdict);
        frame.encode(replies);
        if let (Frame::Verdict(_, verdict), Some(slot)) = (frame, self.verdicts.get_mut(slot(id))) {
            *slot = verdict;
        }
    }

    fn await_retry(&mut self, path: Arc<Path>, attempt: u8, cause: RetryCause) {
        if self.retrying.len() < self.verdicts.len() {
            self.retrying.insert(Arc::clone(&path));
        }
        self.recorder.retrying(path, u32::from(attempt) + 1, cause);
    }

    pub(super) fn current_path(&self) -> Option<PathBuf> {
        match &self.current {
            Current::Receiving(receiving) => Some(receiving.offer.path.to_path_buf()),
            Current::None | Current::Discarding => None,
        }
    }

    /// The session broke: every file that was begun gets its end.
    pub(super) fn interrupt(&mut self) {
        if let Current::Receiving(receiving) = std::mem::replace(&mut self.current, Current::None) {
            self.recorder
                .failed(receiving.offer.path, FileError::Interrupted);
        }
        for path in std::mem::take(&mut self.retrying) {
            self.recorder.failed(path, FileError::Interrupted);
        }
    }
}

fn slot(id: u64) -> usize {
    usize::try_from(id % MAX_WINDOW).unwrap_or_default()
}
