//! The receiving state machine: bytes of the stream in, files on the disk and answers out.
//!
//! It blocks on the disk and knows nothing of tokio; [`Receiver`](super::Receiver) feeds it one batch
//! at a time.

mod offers;
mod receiving;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::offers::{Kind, Offers, Open, Wish};
use self::receiving::Receiving;
use super::error::{CopyError, FileError, ProtocolError, Refusal};
use super::path::{WirePath, display_bytes};
use super::progress::{Digest, Recorder, Report, RetryCause};
use super::protocol::{
    Attributes, BLOCK, CONTENT, DATA, Decoder, END, FILE, FileOffer, Frame, HOLE, Item, LINK,
    Options, SEAL, Verdict, WITHDRAW, Withdrawal,
};
use super::store::{Decision, Ended, PlaceOptions, Placer, Rejection};
use super::tree_hash::Cv;

/// How many bytes of replies to one batch are repeated on request. More are not answered; they may be
/// asked for again.
const MAX_REPEATED: usize = 1024 * 1024;

/// What one batch of input led to.
#[derive(Debug)]
pub(super) struct Step {
    /// The batch's buffer, to be filled again.
    pub(super) input: Vec<u8>,
    /// Frames for the sender.
    pub(super) replies: Vec<u8>,
    /// `true`: the session is over.
    pub(super) result: Result<bool, CopyError>,
}

/// What one session may bring.
#[derive(Debug, Clone, Copy)]
pub(super) struct IntakeLimits {
    pub(super) max_files: u64,
    pub(super) max_bytes: u64,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self {
            max_files: u64::MAX,
            max_bytes: u64::MAX,
        }
    }
}

/// What a file counts for: the bytes from one to the other.
#[derive(Debug, Clone, Copy)]
struct Charge {
    from: u64,
    size: u64,
}

/// The receiving state machine: bytes in, files and answers out.
///
/// # Invariants
/// - `offers` holds each offer without a verdict, and the answers to the last ones that have one.
/// - A verdict that something was placed leaves only after the directories that it speaks of were
///   synced.
/// - Nothing is offered before the options were told, and they are told once.
#[derive(Debug)]
pub(super) struct Intake {
    placer: Placer,
    recorder: Recorder,
    limits: IntakeLimits,
    decoder: Decoder,
    options: Option<Options>,
    current: Current,
    offers: Offers,
    /// Files that the sender is to send again; bounded by the window.
    retrying: HashSet<Arc<Path>>,
    /// Files that did not arrive, and of which a part stays and is counted; bounded by the window.
    kept: HashSet<Arc<Path>>,
    files: u64,
    bytes: u64,
}

/// The file that the content belongs to.
#[derive(Debug)]
enum Current {
    None,
    Receiving(Box<Receiving>),
    /// The file of this offer has its verdict; the rest of it is skipped.
    Discarding(u64),
}

impl Intake {
    pub(super) fn new(mut placer: Placer, recorder: Recorder, limits: IntakeLimits) -> Self {
        placer.set_max_directories(limits.max_files);
        Self {
            placer,
            recorder,
            limits,
            decoder: Decoder::default(),
            options: None,
            current: Current::None,
            offers: Offers::new(),
            retrying: HashSet::new(),
            kept: HashSet::new(),
            files: 0,
            bytes: 0,
        }
    }

    /// Works through one batch, the first `len` bytes of `input`. Verdicts found before an error are
    /// still in the replies.
    pub(super) fn step(&mut self, input: Vec<u8>, len: usize) -> Step {
        let mut replies = Vec::new();
        let mut result = self.take(input.get(..len).unwrap_or_default(), &mut replies);
        self.settle(&mut replies);
        if matches!(result, Ok(true)) {
            result = self.finish(&mut replies).map(|()| true);
        }
        Step {
            input,
            replies,
            result,
        }
    }

    fn finish(&mut self, replies: &mut Vec<u8>) -> Result<(), CopyError> {
        let when = if !matches!(self.current, Current::None) {
            "within a file"
        } else if !self.offers.is_empty() {
            "before every offer is settled"
        } else {
            Frame::Bye.encode(replies);
            return Ok(());
        };
        let frame = Frame::Done.kind();
        Err(ProtocolError::Unexpected { frame, when }.into())
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
            if self.placer.is_due() {
                self.settle(replies);
            }
        }
        self.decoder = decoder;
        Ok(is_done)
    }

    fn on_frame(&mut self, frame: Frame, replies: &mut Vec<u8>) -> Result<bool, CopyError> {
        match frame {
            Frame::Options(options) => self.on_options(options)?,
            Frame::File(offer) => self.on_file(&offer, replies)?,
            Frame::Link {
                id,
                attributes,
                target,
                path,
            } => self.on_link(id, &attributes, &target, &path, replies)?,
            Frame::Seal {
                id,
                attributes,
                path,
            } => self.on_seal(id, &attributes, &path, replies)?,
            Frame::Content { id, from } => self.on_content(id, from, replies)?,
            Frame::Hole(len) => self.on_hole(len, replies)?,
            Frame::Block(cv) => self.on_block(cv, replies)?,
            Frame::End(digest) => self.on_end(digest, replies)?,
            Frame::Withdraw(id, withdrawal) => self.on_withdraw(id, withdrawal)?,
            Frame::Ask(id) => self.on_ask(id, replies)?,
            Frame::Working(_) => {}
            Frame::Done => return Ok(true),
            Frame::Fatal(farewell, message) => return Err(CopyError::farewell(farewell, message)),
            Frame::Verdict(..) | Frame::Need { .. } | Frame::Bye => {
                let (frame, when) = (frame.kind(), "from the sender");
                return Err(ProtocolError::Unexpected { frame, when }.into());
            }
        }
        Ok(false)
    }

    fn on_options(&mut self, options: Options) -> Result<(), ProtocolError> {
        if self.options.is_some() {
            let frame = Frame::Options(options).kind();
            let when = "for the second time";
            return Err(ProtocolError::Unexpected { frame, when });
        }
        self.options = Some(options);
        self.placer.set_options(PlaceOptions {
            overwrite: options.overwrite,
            preserve: !options.no_preserve,
            recheck: options.recheck,
            dry_run: options.dry_run,
        });
        Ok(())
    }

    fn on_file(&mut self, offer: &FileOffer, replies: &mut Vec<u8>) -> Result<(), CopyError> {
        let options = self.check_place(FILE)?;
        let (checked, shown) = check_path(&offer.path);
        let id = offer.id;
        self.retrying.remove(&shown);
        self.offers.open(
            id,
            Open {
                shown: Arc::clone(&shown),
                path_len: offer.path.len(),
                kind: Kind::Deciding,
            },
        )?;
        let decided = checked.map_err(Rejection::from).and_then(|path| {
            let wish = Wish {
                path,
                size: offer.size,
                attributes: offer.attributes,
                tag: offer.tag,
                digest: offer.digest,
            };
            if wish.digest.is_some() {
                self.recorder.checking(Arc::clone(&shown), offer.size);
            }
            let decision = self.placer.consider(&wish.considered())?;
            Ok((wish, decision))
        });
        match decided {
            Ok((_, Decision::Present)) => {
                self.answer(id, Verdict::Present, replies);
                self.recorder.present(shown, offer.size);
            }
            Ok((_, Decision::Needed { from, .. })) if options.dry_run => {
                self.answer(id, Verdict::Planned, replies);
                self.recorder.planned(shown, offer.size - from);
            }
            Ok((wish, Decision::Needed { from, stack })) => {
                let len = offer.size.saturating_sub(from);
                if let Err(refusal) = self.count(&shown, len) {
                    self.reject(id, refusal.into(), replies);
                    return Ok(());
                }
                let kind = Kind::Needed {
                    wish,
                    from,
                    attempt: offer.attempt,
                    attempts: offer.attempts,
                };
                self.offers.need(id, kind, from, stack, replies);
            }
            Err(rejection) => self.reject(id, rejection, replies),
        }
        Ok(())
    }

    /// Counts one more thing with so much content against the limits of the session.
    fn count(&mut self, shown: &Arc<Path>, bytes: u64) -> Result<(), Refusal> {
        let is_counted = self.kept.contains(shown);
        if !is_counted && self.files >= self.limits.max_files {
            return Err(Refusal::TooManyFiles);
        }
        if bytes > self.limits.max_bytes - self.bytes.min(self.limits.max_bytes) {
            return Err(Refusal::TooManyBytes);
        }
        self.files += u64::from(!is_counted);
        self.kept.remove(shown);
        self.bytes += bytes;
        Ok(())
    }

    /// A file that was counted did not arrive. What `stays` of it on the disk stays counted too: or a
    /// sender could fill the disk with files that it takes back.
    fn uncount(&mut self, id: u64, charge: Charge, stays: u64) {
        let gone = charge.size.saturating_sub(stays.max(charge.from));
        self.bytes = self.bytes.saturating_sub(gone);
        if stays == 0 {
            self.files = self.files.saturating_sub(1);
        } else if self.kept.len() < self.offers.window() {
            self.kept.insert(self.offers.shown(id));
        }
    }

    fn on_content(&mut self, id: u64, from: u64, replies: &mut Vec<u8>) -> Result<(), CopyError> {
        self.check_place(CONTENT)?;
        let Some((wish, attempt, attempts)) = self.offers.begin(id, from) else {
            return Err(ProtocolError::NoSuchOffer(id).into());
        };
        let shown = self.offers.shown(id);
        let size = wish.size;
        let charge = Charge { from, size };
        self.recorder
            .started(Arc::clone(&shown), size, u32::from(attempt));
        match self.placer.begin(&wish.considered(), from) {
            Ok(incoming) => {
                if from > 0 {
                    self.recorder.resumed(shown, from);
                }
                let receiving = Receiving::new(id, attempt, attempts, charge, incoming);
                self.current = Current::Receiving(Box::new(receiving));
            }
            Err(rejection) => {
                self.uncount(id, charge, charge.from);
                self.current = Current::Discarding(id);
                self.reject(id, rejection, replies);
            }
        }
        Ok(())
    }

    fn on_data(&mut self, bytes: &[u8], replies: &mut Vec<u8>) -> Result<(), CopyError> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let Some(receiving) = self.current.at(DATA)? else {
            return Ok(());
        };
        receiving.advance(DATA, len)?;
        let written = self.placer.write(&mut receiving.incoming, bytes);
        let id = receiving.id;
        self.after_piece(id, len, len, written, replies);
        Ok(())
    }

    fn on_hole(&mut self, len: u64, replies: &mut Vec<u8>) -> Result<(), CopyError> {
        let Some(receiving) = self.current.at(HOLE)? else {
            return Ok(());
        };
        receiving.advance(HOLE, len)?;
        let left_out = self.placer.hole(&mut receiving.incoming, len);
        let id = receiving.id;
        self.after_piece(id, len, 0, left_out, replies);
        Ok(())
    }

    fn on_block(&mut self, cv: Cv, replies: &mut Vec<u8>) -> Result<(), CopyError> {
        let Some(receiving) = self.current.at(BLOCK)? else {
            return Ok(());
        };
        receiving.end_block()?;
        let checked = self.placer.block(&mut receiving.incoming, cv);
        let id = receiving.id;
        self.after_piece(id, 0, 0, checked, replies);
        Ok(())
    }

    /// A piece of a file was taken, or the file ends here.
    fn after_piece(
        &mut self,
        id: u64,
        len: u64,
        crossed: u64,
        result: Result<(), Rejection>,
        replies: &mut Vec<u8>,
    ) {
        match result {
            Ok(()) if len == 0 => {}
            Ok(()) => {
                let shown = self.offers.shown(id);
                self.recorder.transferred(&shown, len, crossed);
            }
            Err(rejection) => {
                let previous = std::mem::replace(&mut self.current, Current::Discarding(id));
                if let Current::Receiving(receiving) = previous {
                    self.drop_receiving(*receiving, rejection, replies);
                }
            }
        }
    }

    fn on_end(&mut self, expected: Digest, replies: &mut Vec<u8>) -> Result<(), CopyError> {
        let Some(receiving) = self.current.at(END)? else {
            self.current = Current::None;
            return Ok(());
        };
        receiving.check_end()?;
        let Current::Receiving(receiving) = std::mem::replace(&mut self.current, Current::None)
        else {
            return Ok(());
        };
        let Receiving {
            id,
            attempt,
            attempts,
            charge,
            incoming,
            ..
        } = *receiving;
        let good = incoming.good();
        match self.placer.end(incoming, expected, id) {
            Ok(Ended::Mismatch) => {
                let rejection = Rejection::Mismatch;
                self.uncount(id, charge, good.bytes());
                self.end_badly(id, attempt, attempts, rejection, replies);
            }
            Ok(Ended::Settling) => self.offers.set(
                id,
                Kind::Settling {
                    attempt,
                    attempts,
                    charge,
                },
            ),
            Err(rejection) => {
                self.uncount(id, charge, good.bytes());
                self.end_badly(id, attempt, attempts, rejection, replies);
            }
        }
        Ok(())
    }

    fn on_withdraw(&mut self, id: u64, withdrawal: Withdrawal) -> Result<(), CopyError> {
        let (attempt, attempts) = match &self.current {
            Current::Discarding(current) if *current == id => {
                self.current = Current::None;
                return Ok(());
            }
            Current::Receiving(receiving) if receiving.id == id => {
                let counts = (receiving.attempt, receiving.attempts);
                if let Current::Receiving(receiving) =
                    std::mem::replace(&mut self.current, Current::None)
                {
                    let good = receiving.incoming.good();
                    self.placer.keep(receiving.incoming);
                    self.uncount(id, receiving.charge, good.bytes());
                }
                counts
            }
            Current::None => match self.offers.needed(id) {
                Some((charge, attempt, attempts)) => {
                    self.uncount(id, charge, charge.from);
                    (attempt, attempts)
                }
                None => return Err(ProtocolError::NoSuchOffer(id).into()),
            },
            Current::Receiving(_) | Current::Discarding(_) => {
                let when = "within a file";
                let frame = WITHDRAW;
                return Err(ProtocolError::Unexpected { frame, when }.into());
            }
        };
        let shown = self.offers.shown(id);
        self.offers.close(id, Verdict::Unknown);
        match withdrawal {
            Withdrawal::Again if attempt < attempts => {
                self.await_retry(shown, attempt, RetryCause::Changed);
            }
            Withdrawal::Again | Withdrawal::Changed => {
                let attempts = u32::from(attempt);
                self.recorder.failed(shown, FileError::Changed { attempts });
            }
            Withdrawal::Unreadable | Withdrawal::Settled => {
                let error = io::Error::other("the sender could not read on");
                self.recorder
                    .failed(shown, FileError::Read(Arc::new(error)));
            }
        }
        Ok(())
    }

    fn on_link(
        &mut self,
        id: u64,
        attributes: &Attributes,
        target: &[u8],
        path: &[u8],
        replies: &mut Vec<u8>,
    ) -> Result<(), CopyError> {
        let options = self.check_place(LINK)?;
        let (checked, shown) = check_path(path);
        self.offers.open(
            id,
            Open {
                shown: Arc::clone(&shown),
                path_len: path.len() + target.len(),
                kind: Kind::Link,
            },
        )?;
        let made = checked.map_err(Rejection::from).and_then(|path| {
            if options.dry_run {
                let decision = self.placer.consider_link(&path, target)?;
                return Ok(decision != Decision::Present);
            }
            self.count(&shown, 0)?;
            self.placer.link(&path, target, attributes, id)
        });
        match made {
            Ok(true) if options.dry_run => self.plan(id, replies),
            // The next commit tells.
            Ok(true) => {}
            Ok(false) => {
                self.answer(id, Verdict::Done, replies);
                self.recorder.link_done(shown);
            }
            Err(rejection) => self.reject(id, rejection, replies),
        }
        Ok(())
    }

    fn on_seal(
        &mut self,
        id: u64,
        attributes: &Attributes,
        path: &[u8],
        replies: &mut Vec<u8>,
    ) -> Result<(), CopyError> {
        let options = self.check_place(SEAL)?;
        let (checked, shown) = check_path(path);
        self.offers.open(
            id,
            Open {
                shown: Arc::clone(&shown),
                path_len: path.len(),
                kind: Kind::Directory,
            },
        )?;
        let made = checked.map_err(Rejection::from).and_then(|path| {
            if options.dry_run {
                return self.placer.consider_seal(&path);
            }
            self.count(&shown, 0)?;
            self.placer.seal(&path, attributes, id)
        });
        match made {
            Ok(()) if options.dry_run => self.plan(id, replies),
            // The next commit tells.
            Ok(()) => {}
            Err(rejection) => self.reject(id, rejection, replies),
        }
        Ok(())
    }

    /// In a dry run: this would be made.
    fn plan(&mut self, id: u64, replies: &mut Vec<u8>) {
        let shown = self.offers.shown(id);
        self.answer(id, Verdict::Planned, replies);
        self.recorder.planned(shown, 0);
    }

    fn on_ask(&mut self, id: u64, replies: &mut Vec<u8>) -> Result<(), CopyError> {
        self.settle(replies);
        self.offers.check(id)?;
        // A few bytes of question can have a long answer: who asks on and on gets no more at a time.
        if replies.len() < MAX_REPEATED {
            self.offers.repeat(id, replies);
        }
        Ok(())
    }

    pub(super) fn take_report(&mut self) -> Report {
        self.recorder.take_report()
    }

    /// Checks that what is no content may come now.
    fn check_place(&self, frame: u8) -> Result<Options, ProtocolError> {
        let when = match (&self.current, self.options) {
            (Current::None, Some(options)) => return Ok(options),
            (Current::None, None) => "before the options",
            (Current::Receiving(_) | Current::Discarding(_), _) => "within a file",
        };
        Err(ProtocolError::Unexpected { frame, when })
    }

    pub(super) fn current_path(&self) -> Option<PathBuf> {
        match &self.current {
            Current::Receiving(receiving) => Some(self.offers.shown(receiving.id).to_path_buf()),
            Current::None | Current::Discarding(_) => None,
        }
    }
}

impl Current {
    /// The file that content belongs to; `None` if it is skipped.
    fn at(&mut self, frame: u8) -> Result<Option<&mut Receiving>, ProtocolError> {
        match self {
            Self::Receiving(receiving) => Ok(Some(receiving)),
            Self::Discarding(_) => Ok(None),
            Self::None => {
                let when = "outside a file";
                Err(ProtocolError::Unexpected { frame, when })
            }
        }
    }
}

/// Checks a path, and says how it is shown.
fn check_path(bytes: &[u8]) -> (Result<WirePath, Refusal>, Arc<Path>) {
    let checked = WirePath::parse(bytes);
    let shown = match &checked {
        Ok(path) => path.to_path(),
        Err(_) => display_bytes(bytes),
    };
    (checked, shown.into())
}
