//! The sending state machine: verdicts in, files from the disk and frames out.
//!
//! It walks the tree, reads and hashes the files, and keeps count of what has no verdict yet. It
//! blocks on the disk and knows nothing of tokio; [`Sender`](super::Sender) has it fill one buffer at
//! a time.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{CopyError, FileError, ProtocolError};
use super::path::WirePath;
use super::progress::{Digest, Recorder, Report, RetryCause};
use super::protocol::{Attributes, FileOffer, Frame, Verdict, Withdrawal};
use super::reading::{BATCH_LEN, Reading};
use super::tree::{DirectoryId, Found, Source, Tree};

/// What one batch led to.
#[derive(Debug)]
pub(super) struct Step {
    /// Frames for the receiver.
    pub(super) output: Vec<u8>,
    pub(super) result: Result<Next, CopyError>,
}

/// What the state machine waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it has more to send.
    More,
    /// Verdicts.
    Verdicts,
    /// Nothing: the session is over.
    Over,
}

/// The sending state machine: verdicts in, frames out.
///
/// # Invariants
/// - Offers are numbered from 0; `offers[i]` is offer `base + i`, `None` once settled, and the first
///   one is not settled. There are never more than `window`, so that the receiver remembers each.
/// - A directory is sealed only after everything in it was settled: `open` of its [`Directory`]
///   counts what was not, and one for the walk still being in it.
/// - Whatever was found ends in the recorder exactly once.
#[derive(Debug)]
pub(super) struct Outgoing {
    tree: Tree,
    recorder: Recorder,
    limits: Limits,
    offers: VecDeque<Option<Offer>>,
    base: u64,
    current: Option<Reading>,
    retries: VecDeque<Job>,
    directories: HashMap<DirectoryId, Directory>,
    to_seal: VecDeque<DirectoryId>,
    is_walked: bool,
    stage: Stage,
}

/// How much patience the sender has, and how much it sends ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How often a file is sent at most, the first time included.
    pub(super) attempts: u8,
    /// How often a verdict is asked for again.
    pub(super) asks: u32,
    /// Offers without a verdict.
    pub(super) window: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sending,
    /// Everything is settled and the receiver was told; it has been silent so many times since.
    Done {
        silences: u32,
    },
    /// The receiver has said goodbye.
    Over,
}

/// A file to be sent.
#[derive(Debug)]
struct Job {
    source: Source,
    shown: Arc<Path>,
    parent: Option<DirectoryId>,
    /// 1 for the first time.
    attempt: u8,
}

/// Something without a verdict.
#[derive(Debug)]
struct Offer {
    what: Offered,
    asks: u32,
}

#[derive(Debug)]
enum Offered {
    /// The digest and size are known once the file was sent.
    File {
        job: Job,
        sent: Option<(Digest, u64)>,
    },
    Directory(DirectoryId),
}

#[derive(Debug)]
struct Directory {
    path: WirePath,
    attributes: Attributes,
    parent: Option<DirectoryId>,
    open: u64,
}

impl Outgoing {
    pub(super) fn new(tree: Tree, recorder: Recorder, limits: &Limits) -> Self {
        Self {
            tree,
            recorder,
            limits: *limits,
            offers: VecDeque::new(),
            base: 0,
            current: None,
            retries: VecDeque::new(),
            directories: HashMap::new(),
            to_seal: VecDeque::new(),
            is_walked: false,
            stage: Stage::Sending,
        }
    }

    /// Takes what arrived and fills a buffer. `is_quiet`: the receiver was silent for too long.
    pub(super) fn step(&mut self, frames: Vec<Frame>, is_quiet: bool, mut output: Vec<u8>) -> Step {
        let mut result = self.on_frames(frames, &mut output);
        if is_quiet && result.is_ok() {
            result = self.on_silence(&mut output);
        }
        let result = result.map(|()| self.fill(&mut output));
        Step { output, result }
    }

    fn on_frames(&mut self, frames: Vec<Frame>, output: &mut Vec<u8>) -> Result<(), CopyError> {
        for frame in frames {
            match frame {
                Frame::Verdict(id, verdict) => self.on_verdict(id, verdict, output)?,
                Frame::Progress(_) => {}
                Frame::Bye if matches!(self.stage, Stage::Done { .. }) => self.stage = Stage::Over,
                Frame::Fatal(message) => {
                    return Err(CopyError::Peer {
                        file: None,
                        message,
                    });
                }
                Frame::Bye => {
                    let when = "before the end of the session";
                    return Err(ProtocolError::Unexpected {
                        frame: frame.kind(),
                        when,
                    }
                    .into());
                }
                Frame::File(_)
                | Frame::End(_)
                | Frame::Withdraw(_)
                | Frame::Seal { .. }
                | Frame::Ask(_)
                | Frame::Done => {
                    let when = "from the receiver";
                    return Err(ProtocolError::Unexpected {
                        frame: frame.kind(),
                        when,
                    }
                    .into());
                }
            }
        }
        Ok(())
    }

    fn on_verdict(
        &mut self,
        id: u64,
        verdict: Verdict,
        output: &mut Vec<u8>,
    ) -> Result<(), CopyError> {
        let Some(index) = id
            .checked_sub(self.base)
            .and_then(|index| usize::try_from(index).ok())
        else {
            // Settled before: the answer to a question that crossed with the verdict.
            return Ok(());
        };
        let slot = self
            .offers
            .get_mut(index)
            .ok_or(ProtocolError::NoSuchOffer(id))?;
        let Some(Offer { what, asks }) = slot.take() else {
            return Ok(());
        };
        match (what, verdict) {
            (Offered::Directory(directory), Verdict::Sealed) => {
                self.finish_directory(directory, None);
            }
            (Offered::Directory(directory), Verdict::Refused(refusal)) => {
                self.finish_directory(directory, Some(refusal.into()));
            }
            (Offered::Directory(directory), Verdict::Failed(kind, message)) => {
                self.finish_directory(directory, Some(FileError::Store { kind, message }));
            }
            (Offered::Directory(directory), Verdict::Unknown) => {
                self.finish_directory(directory, Some(FileError::NoVerdict { asks }));
            }
            (
                Offered::File {
                    job,
                    sent: Some((digest, size)),
                },
                Verdict::Verified(read_back),
            ) if digest == read_back => {
                self.recorder.verified(job.shown, size, digest);
                self.settle_in(job.parent);
            }
            (Offered::File { job, sent: Some(_) }, Verdict::Mismatch(_)) => {
                let attempts = u32::from(job.attempt);
                self.retry(job, RetryCause::Mismatch, FileError::Mismatch { attempts });
            }
            (Offered::File { job, sent: Some(_) }, Verdict::Unknown) => {
                self.retry(job, RetryCause::Forgotten, FileError::NoVerdict { asks });
            }
            (Offered::File { job, sent }, Verdict::Refused(refusal)) => {
                self.give_up_early(sent.is_none(), output);
                self.fail(job, refusal.into());
            }
            (Offered::File { job, sent }, Verdict::Failed(kind, message)) => {
                self.give_up_early(sent.is_none(), output);
                self.fail(job, FileError::Store { kind, message });
            }
            (Offered::Directory(_), Verdict::Verified(_) | Verdict::Mismatch(_)) => {
                return Err(ProtocolError::Verdict(id).into());
            }
            (Offered::File { job, .. }, _) => {
                let file = Some(job.shown.to_path_buf());
                self.fail(job, FileError::Interrupted);
                return Err(CopyError::from(ProtocolError::Verdict(id)).name_file(file));
            }
        }
        self.slide();
        Ok(())
    }

    /// The receiver will not take the file that is being sent: the rest of it need not go.
    fn give_up_early(&mut self, is_being_sent: bool, output: &mut Vec<u8>) {
        if is_being_sent {
            self.current = None;
            Frame::Withdraw(Withdrawal::Settled).encode(output);
        }
    }

    fn on_silence(&mut self, output: &mut Vec<u8>) -> Result<(), CopyError> {
        match &mut self.stage {
            Stage::Sending => self.ask_again(output),
            Stage::Done { silences } if *silences < self.limits.asks => *silences += 1,
            Stage::Done { .. } => {
                return Err(CopyError::connection(io::ErrorKind::TimedOut.into()));
            }
            Stage::Over => {}
        }
        Ok(())
    }

    /// Asks for every verdict that is missing, and gives up what was asked for often enough.
    fn ask_again(&mut self, output: &mut Vec<u8>) {
        let mut given_up = Vec::new();
        for (id, slot) in (self.base..).zip(self.offers.iter_mut()) {
            let Some(offer) = slot else { continue };
            if offer.asks >= self.limits.asks {
                given_up.extend(slot.take());
                continue;
            }
            offer.asks += 1;
            Frame::Ask(id).encode(output);
            let shown = match &offer.what {
                Offered::File { job, .. } => Arc::clone(&job.shown),
                Offered::Directory(id) => match self.directories.get(id) {
                    Some(directory) => directory.path.to_path().into(),
                    None => continue,
                },
            };
            self.recorder.asked_again(shown, offer.asks);
        }
        for Offer { what, asks } in given_up {
            let error = FileError::NoVerdict { asks };
            match what {
                Offered::File { job, .. } => self.fail(job, error),
                Offered::Directory(directory) => self.finish_directory(directory, Some(error)),
            }
        }
        self.slide();
    }

    /// Fills the buffer with whatever may be sent now.
    fn fill(&mut self, output: &mut Vec<u8>) -> Next {
        while output.len() < BATCH_LEN {
            if self.current.is_some() {
                self.read_on(output);
                continue;
            }
            if self.stage == Stage::Over {
                return Next::Over;
            }
            if self.offers.len() >= self.limits.window {
                return Next::Verdicts;
            }
            if let Some(job) = self.retries.pop_front() {
                self.offer_file(job, output);
            } else if let Some(directory) = self.to_seal.pop_front() {
                self.offer_directory(directory, output);
            } else if !self.is_walked {
                match self.tree.next() {
                    Some(found) => self.on_found(found, output),
                    None => self.is_walked = true,
                }
            } else if self.offers.is_empty() && self.stage == Stage::Sending {
                Frame::Done.encode(output);
                self.stage = Stage::Done { silences: 0 };
            } else {
                return Next::Verdicts;
            }
        }
        Next::More
    }

    fn on_found(&mut self, found: Found, output: &mut Vec<u8>) {
        match found {
            Found::Directory {
                id,
                parent,
                path,
                attributes,
            } => {
                self.open_in(parent);
                self.directories.insert(
                    id,
                    Directory {
                        path,
                        attributes,
                        parent,
                        open: 1,
                    },
                );
            }
            Found::File { parent, source } => {
                self.open_in(parent);
                let shown = source.path.to_path().into();
                self.offer_file(
                    Job {
                        source,
                        shown,
                        parent,
                        attempt: 1,
                    },
                    output,
                );
            }
            Found::Skipped { path, error } => self.recorder.failed(path.into(), error),
            Found::Left(id) => self.settle_in(Some(id)),
        }
    }

    fn offer_file(&mut self, job: Job, output: &mut Vec<u8>) {
        let opened = match job.source.open() {
            Ok(opened) => opened,
            Err(error) => return self.fail(job, error),
        };
        let id = self.next_id();
        Frame::File(FileOffer {
            id,
            attempt: job.attempt,
            attempts: self.limits.attempts,
            size: opened.size,
            attributes: opened.attributes,
            path: job.source.path.as_bytes().to_vec(),
        })
        .encode(output);
        let shown = Arc::clone(&job.shown);
        self.recorder
            .started(Arc::clone(&shown), opened.size, u32::from(job.attempt));
        let what = Offered::File { job, sent: None };
        self.offers.push_back(Some(Offer { what, asks: 0 }));
        self.current = Some(Reading::new(id, shown, opened));
    }

    fn offer_directory(&mut self, directory: DirectoryId, output: &mut Vec<u8>) {
        let id = self.next_id();
        if let Some(Directory {
            path, attributes, ..
        }) = self.directories.get(&directory)
        {
            let (attributes, path) = (*attributes, path.as_bytes().to_vec());
            Frame::Seal {
                id,
                attributes,
                path,
            }
            .encode(output);
            let what = Offered::Directory(directory);
            self.offers.push_back(Some(Offer { what, asks: 0 }));
        }
    }

    /// Reads a piece of the current file, or ends it.
    fn read_on(&mut self, output: &mut Vec<u8>) {
        let Some(mut reading) = self.current.take() else {
            return;
        };
        if reading.read < reading.size {
            match reading.piece(output) {
                Ok(0) => return self.withdraw(reading.id, None, output),
                Ok(read) => {
                    self.recorder.transferred(&reading.shown, read);
                    self.current = Some(reading);
                    return;
                }
                Err(error) => return self.withdraw(reading.id, Some(error), output),
            }
        }
        match reading.is_unchanged() {
            Ok(true) => {
                let digest = reading.digest();
                Frame::End(digest).encode(output);
                if let Some(Offer {
                    what: Offered::File { sent, .. },
                    ..
                }) = self.offer(reading.id)
                {
                    *sent = Some((digest, reading.size));
                }
            }
            Ok(false) => self.withdraw(reading.id, None, output),
            Err(error) => self.withdraw(reading.id, Some(error), output),
        }
    }

    /// Takes back the file being sent: its source changed (no error), or cannot be read.
    fn withdraw(&mut self, id: u64, error: Option<io::Error>, output: &mut Vec<u8>) {
        let offer = usize::try_from(id - self.base)
            .ok()
            .and_then(|at| self.offers.get_mut(at)?.take());
        let Some(Offer {
            what: Offered::File { job, .. },
            ..
        }) = offer
        else {
            return;
        };
        let withdrawal = match (&error, job.attempt < self.limits.attempts) {
            (Some(_), _) => Withdrawal::Unreadable,
            (None, true) => Withdrawal::Again,
            (None, false) => Withdrawal::Changed,
        };
        Frame::Withdraw(withdrawal).encode(output);
        let attempts = u32::from(job.attempt);
        match error {
            Some(error) => self.fail(job, FileError::Read(Arc::new(error))),
            None => self.retry(job, RetryCause::Changed, FileError::Changed { attempts }),
        }
        self.slide();
    }

    fn retry(&mut self, mut job: Job, cause: RetryCause, otherwise: FileError) {
        if job.attempt >= self.limits.attempts {
            return self.fail(job, otherwise);
        }
        job.attempt += 1;
        tracing::debug!(path = %job.shown.display(), attempt = job.attempt, %cause, "sending again");
        self.recorder
            .retrying(Arc::clone(&job.shown), u32::from(job.attempt), cause);
        self.retries.push_back(job);
    }

    fn fail(&mut self, job: Job, error: FileError) {
        self.recorder.failed(job.shown, error);
        self.settle_in(job.parent);
    }

    fn open_in(&mut self, directory: Option<DirectoryId>) {
        if let Some(directory) = directory.and_then(|id| self.directories.get_mut(&id)) {
            directory.open += 1;
        }
    }

    /// One thing in the directory is settled; the last one lets it be sealed.
    fn settle_in(&mut self, id: Option<DirectoryId>) {
        let Some(id) = id else { return };
        let Some(directory) = self.directories.get_mut(&id) else {
            return;
        };
        directory.open = directory.open.saturating_sub(1);
        if directory.open == 0 {
            self.to_seal.push_back(id);
        }
    }

    fn finish_directory(&mut self, id: DirectoryId, error: Option<FileError>) {
        let Some(directory) = self.directories.remove(&id) else {
            return;
        };
        let shown = directory.path.to_path().into();
        match error {
            Some(error) => self.recorder.failed(shown, error),
            None => self.recorder.directory_done(shown),
        }
        self.settle_in(directory.parent);
    }

    pub(super) fn take_report(&mut self) -> Report {
        self.recorder.take_report()
    }

    fn next_id(&self) -> u64 {
        self.base + u64::try_from(self.offers.len()).unwrap_or_default()
    }

    fn offer(&mut self, id: u64) -> Option<&mut Offer> {
        let index = usize::try_from(id.checked_sub(self.base)?).ok()?;
        self.offers.get_mut(index)?.as_mut()
    }

    /// Lets the window move on over what is settled.
    fn slide(&mut self) {
        while let Some(None) = self.offers.front() {
            self.offers.pop_front();
            self.base += 1;
        }
    }

    /// The file whose verdict has been missing longest, or the directory.
    pub(super) fn oldest_path(&self) -> Option<PathBuf> {
        let offered = self
            .offers
            .iter()
            .flatten()
            .find_map(|offer| match &offer.what {
                Offered::File { job, .. } => Some(job.shown.to_path_buf()),
                Offered::Directory(id) => {
                    self.directories.get(id).map(|found| found.path.to_path())
                }
            });
        offered.or_else(|| self.retries.front().map(|job| job.shown.to_path_buf()))
    }

    /// The session broke: everything that was begun gets its end.
    pub(super) fn interrupt(&mut self) {
        for Offer { what, .. } in std::mem::take(&mut self.offers).into_iter().flatten() {
            if let Offered::File { job, .. } = what {
                self.recorder.failed(job.shown, FileError::Interrupted);
            }
        }
        for job in std::mem::take(&mut self.retries) {
            self.recorder.failed(job.shown, FileError::Interrupted);
        }
        for directory in std::mem::take(&mut self.directories).into_values() {
            self.recorder
                .failed(directory.path.to_path().into(), FileError::Interrupted);
        }
    }
}
