//! The sending state machine: answers in, files from the disk and frames out.
//!
//! It walks the tree, offers what it finds, sends the contents that the receiver needs, and keeps
//! count of what has no verdict yet. It blocks on the disk and knows nothing of tokio;
//! [`Sender`](super::Sender) has it fill one output at a time.

mod content;
mod output;
mod settle;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use self::content::{Content, Sent};
pub(super) use self::output::Output;
use super::error::{CopyError, FileError};
use super::path::{MAX_PATH_LEN, WirePath};
use super::progress::{Digest, Recorder, Report, RetryCause};
use super::protocol::{
    Attributes, FileOffer, Frame, MAX_OPEN_PATHS, MAX_TARGET_LEN, Options, Withdrawal,
};
use super::source::{DirectoryId, FileSource, Found, Look, Opened, ReadError, SourceSession, Tree};
use super::tree_hash::Cv;

/// How full an output gets before it goes out. Small files share one; a large file fills many.
const BATCH_LEN: usize = 256 * 1024;

/// How many offers without an answer are kept ahead of the contents, so that these never wait for a
/// round trip.
const AHEAD: usize = 1024;

/// With more bytes of paths than this among the open offers, none is added: the longest still fits.
const MAX_PATHS_AHEAD: usize = MAX_OPEN_PATHS - MAX_PATH_LEN - MAX_TARGET_LEN;

/// What one step led to.
#[derive(Debug)]
pub(super) struct Step {
    /// What goes to the receiver.
    pub(super) output: Output,
    pub(super) result: Result<Next, CopyError>,
}

/// What the state machine waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it has more to send.
    More,
    /// Answers.
    Answers,
    /// Nothing: the session is over.
    Over,
}

/// The sending state machine: answers in, frames out.
///
/// # Invariants
/// - Offers are numbered from 0; `offers[i]` is offer `base + i`, `None` once settled, and the first
///   one is not settled. There are never more than `window`, nor more than [`MAX_OPEN_PATHS`] bytes
///   of paths among several, so that the receiver remembers each.
/// - `needed` names the files in [`Stage::Needed`]; `unanswered` counts those in [`Stage::Offered`].
/// - A directory is sealed only after everything in it was settled: `open` of its [`Directory`]
///   counts what was not, and one for the walk still being in it.
/// - Whatever was found ends in the recorder exactly once.
#[derive(Debug)]
pub(super) struct Outgoing {
    source: SourceSession,
    tree: Tree,
    recorder: Recorder,
    limits: Limits,
    options: Options,
    offers: VecDeque<Option<Offer>>,
    base: u64,
    open_paths: usize,
    unanswered: usize,
    needed: VecDeque<u64>,
    current: Option<Content>,
    retries: VecDeque<Job>,
    directories: HashMap<DirectoryId, Directory>,
    to_seal: VecDeque<DirectoryId>,
    is_walked: bool,
    phase: Phase,
    /// Grows with each block read.
    worked: Arc<AtomicU64>,
    /// The session is over: what takes long need not be finished.
    is_stopped: Arc<AtomicBool>,
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
    /// Files are hashed before they are offered, so that the receiver compares contents.
    pub(super) checksum: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The receiver has not been told what this session is about.
    Start,
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
    source: FileSource,
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
    path_len: usize,
}

#[derive(Debug)]
enum Offered {
    File {
        job: Job,
        look: Look,
        stage: Stage,
    },
    Link {
        shown: Arc<Path>,
        parent: Option<DirectoryId>,
    },
    Directory(DirectoryId),
}

/// How far a file has come.
#[derive(Debug)]
enum Stage {
    /// The receiver has not said yet whether it needs the content.
    Offered,
    /// It does, from this byte on.
    Needed { from: u64, stack: Vec<Cv> },
    /// Its content is being sent.
    Sending,
    /// All of it was sent; this is its hash.
    Sent(Digest),
}

#[derive(Debug)]
struct Directory {
    path: WirePath,
    attributes: Attributes,
    parent: Option<DirectoryId>,
    open: u64,
}

impl Outgoing {
    pub(super) fn new(
        source: SourceSession,
        recorder: Recorder,
        limits: Limits,
        options: Options,
        worked: Arc<AtomicU64>,
    ) -> Self {
        Self {
            tree: source.tree(),
            source,
            recorder,
            limits,
            options,
            offers: VecDeque::new(),
            base: 0,
            open_paths: 0,
            unanswered: 0,
            needed: VecDeque::new(),
            current: None,
            retries: VecDeque::new(),
            directories: HashMap::new(),
            to_seal: VecDeque::new(),
            is_walked: false,
            phase: Phase::Start,
            worked,
            is_stopped: Arc::default(),
        }
    }

    /// What stops a long reading, from another thread.
    pub(super) fn stop(&self) -> Stop {
        Stop(Arc::clone(&self.is_stopped))
    }

    /// Takes what arrived and fills an output. `is_quiet`: the receiver was silent for too long.
    pub(super) fn step(&mut self, frames: Vec<Frame>, is_quiet: bool) -> Step {
        let mut output = Output::default();
        if self.phase == Phase::Start {
            self.phase = Phase::Sending;
            output.frame(&Frame::Options(self.options));
        }
        let mut result = self.on_frames(frames, &mut output);
        if is_quiet && result.is_ok() {
            result = self.on_silence(&mut output);
        }
        let result = result.map(|()| self.fill(&mut output));
        Step { output, result }
    }

    fn on_silence(&mut self, output: &mut Output) -> Result<(), CopyError> {
        match &mut self.phase {
            Phase::Start | Phase::Sending => self.ask_again(output),
            Phase::Done { silences } if *silences < self.limits.asks => *silences += 1,
            Phase::Done { .. } => {
                return Err(CopyError::connection(io::ErrorKind::TimedOut.into()));
            }
            Phase::Over => {}
        }
        Ok(())
    }

    /// Fills the output with whatever may be sent now.
    fn fill(&mut self, output: &mut Output) -> Next {
        while output.len() < BATCH_LEN {
            if self.current.is_some() {
                self.send_on(output);
            } else if self.phase == Phase::Over {
                return Next::Over;
            } else if self.unanswered < AHEAD && self.offer_next(output) {
                // Offers go ahead of the contents.
            } else if let Some(id) = self.needed.pop_front() {
                self.begin_content(id, output);
            } else if self.offer_next(output) {
                // The rest of the window.
            } else if self.is_settled() && self.phase == Phase::Sending {
                output.frame(&Frame::Done);
                self.phase = Phase::Done { silences: 0 };
            } else {
                return Next::Answers;
            }
        }
        Next::More
    }

    fn is_settled(&self) -> bool {
        self.is_walked
            && self.offers.is_empty()
            && self.retries.is_empty()
            && self.to_seal.is_empty()
    }

    /// Offers the next thing, or finds that there is none; `false` if nothing can be done.
    fn offer_next(&mut self, output: &mut Output) -> bool {
        if self.offers.len() >= self.limits.window || self.open_paths > MAX_PATHS_AHEAD {
            return false;
        }
        if let Some(job) = self.retries.pop_front() {
            self.offer_file(job, output);
        } else if let Some(directory) = self.to_seal.pop_front() {
            self.offer_directory(directory, output);
        } else if self.is_walked {
            return false;
        } else {
            match self.tree.next() {
                Some(found) => self.on_found(found, output),
                None => self.is_walked = true,
            }
        }
        true
    }

    fn on_found(&mut self, found: Found, output: &mut Output) {
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
                let shown = source.path().to_path().into();
                let job = Job {
                    source,
                    shown,
                    parent,
                    attempt: 1,
                };
                self.offer_file(job, output);
            }
            Found::Link {
                parent,
                path,
                target,
                attributes,
            } => {
                self.open_in(parent);
                let shown = path.to_path().into();
                let what = Offered::Link { shown, parent };
                let id = self.push_offer(what, path.as_bytes().len() + target.len());
                let path = path.as_bytes().to_vec();
                output.frame(&Frame::Link {
                    id,
                    attributes,
                    target,
                    path,
                });
            }
            Found::Skipped { path, error } => self.recorder.failed(path.into(), error),
            Found::Left(id) => self.settle_in(Some(id)),
        }
    }

    fn offer_file(&mut self, job: Job, output: &mut Output) {
        let (look, digest) = match self.describe(&job) {
            Ok(described) => described,
            Err(error) => return self.fail(job, error),
        };
        let path = job.source.path().as_bytes().to_vec();
        let (attempt, attempts) = (job.attempt, self.limits.attempts);
        self.recorder
            .started(Arc::clone(&job.shown), look.size, u32::from(attempt));
        let stage = Stage::Offered;
        let what = Offered::File { job, look, stage };
        let id = self.push_offer(what, path.len());
        self.unanswered += 1;
        output.frame(&Frame::File(FileOffer {
            id,
            attempt,
            attempts,
            size: look.size,
            attributes: look.attributes,
            tag: look.tag,
            digest,
            path,
        }));
    }

    /// What the offer says of the file. It is not open until its content is needed: thousands of
    /// offers may be open.
    fn describe(&mut self, job: &Job) -> Result<(Look, Option<Digest>), FileError> {
        if !self.limits.checksum {
            return Ok((self.source.look(&job.source)?, None));
        }
        let opened = self.source.open(&job.source)?;
        let look = look_of(&opened);
        self.recorder.checking(Arc::clone(&job.shown), look.size);
        let digest = opened.digest(&|| {
            self.worked.fetch_add(1, Ordering::Relaxed);
            !self.is_stopped.load(Ordering::Relaxed)
        });
        let digest = digest.map_err(|error| match error {
            ReadError::Changed => FileError::Changed { attempts: 1 },
            ReadError::Io(error) => FileError::Read(error),
        })?;
        Ok((look, Some(digest)))
    }

    fn offer_directory(&mut self, directory: DirectoryId, output: &mut Output) {
        let Some(found) = self.directories.get(&directory) else {
            return;
        };
        let (attributes, path) = (found.attributes, found.path.as_bytes().to_vec());
        let id = self.push_offer(Offered::Directory(directory), path.len());
        output.frame(&Frame::Seal {
            id,
            attributes,
            path,
        });
    }

    fn push_offer(&mut self, what: Offered, path_len: usize) -> u64 {
        let id = self.base + u64::try_from(self.offers.len()).unwrap_or_default();
        self.open_paths += path_len;
        let asks = 0;
        self.offers.push_back(Some(Offer {
            what,
            asks,
            path_len,
        }));
        id
    }

    fn begin_content(&mut self, id: u64, output: &mut Output) {
        let Some(Offer {
            what: Offered::File { job, look, stage },
            ..
        }) = self.offer_mut(id)
        else {
            // It has its verdict by now.
            return;
        };
        let Stage::Needed { from, stack } = std::mem::replace(stage, Stage::Sending) else {
            return;
        };
        let (source, look, shown) = (job.source.clone(), *look, Arc::clone(&job.shown));
        let opened = match self.source.open(&source) {
            Ok(opened) => opened,
            Err(error) => return self.withdraw(id, Some(error), output),
        };
        if look_of(&opened) != look {
            return self.withdraw(id, None, output);
        }
        let content = Content::new(id, Arc::clone(&shown), opened, from, stack);
        if content.is_none() {
            return self.withdraw(id, None, output);
        }
        output.frame(&Frame::Content { id, from });
        if from > 0 {
            self.recorder.resumed(shown, from);
        }
        self.current = content;
    }

    /// Sends a block of the current file, or ends it.
    fn send_on(&mut self, output: &mut Output) {
        let Some(mut content) = self.current.take() else {
            return;
        };
        let id = content.id;
        let sent = content.step(output);
        self.worked.fetch_add(1, Ordering::Relaxed);
        match sent {
            Sent::Block { len, crossed } => {
                self.recorder.transferred(&content.shown, len, crossed);
                self.current = Some(content);
            }
            Sent::All(digest) => {
                if let Some(Offer {
                    what: Offered::File { stage, .. },
                    ..
                }) = self.offer_mut(id)
                {
                    *stage = Stage::Sent(digest);
                }
            }
            Sent::Changed => self.withdraw(id, None, output),
            Sent::Failed(error) => self.withdraw(id, Some(FileError::Read(error)), output),
        }
    }

    /// Takes back a file that is needed or being sent: its source changed (no error), or cannot be
    /// read.
    fn withdraw(&mut self, id: u64, error: Option<FileError>, output: &mut Output) {
        let Some(Offered::File { job, .. }) = self.take_offer(id).map(|offer| offer.what) else {
            return;
        };
        let withdrawal = match (&error, job.attempt < self.limits.attempts) {
            (Some(_), _) => Withdrawal::Unreadable,
            (None, true) => Withdrawal::Again,
            (None, false) => Withdrawal::Changed,
        };
        output.frame(&Frame::Withdraw(id, withdrawal));
        let attempts = u32::from(job.attempt);
        match error {
            Some(error) => self.fail(job, error),
            None => self.retry(job, RetryCause::Changed, FileError::Changed { attempts }),
        }
        self.slide();
    }

    fn offer_mut(&mut self, id: u64) -> Option<&mut Offer> {
        let index = usize::try_from(id.checked_sub(self.base)?).ok()?;
        self.offers.get_mut(index)?.as_mut()
    }

    /// Ends an offer. The caller lets the window move on.
    fn take_offer(&mut self, id: u64) -> Option<Offer> {
        let index = usize::try_from(id.checked_sub(self.base)?).ok()?;
        let offer = self.offers.get_mut(index)?.take()?;
        self.open_paths = self.open_paths.saturating_sub(offer.path_len);
        self.unanswered -= usize::from(offer.is_unanswered());
        Some(offer)
    }

    /// Lets the window move on over what is settled.
    fn slide(&mut self) {
        while let Some(None) = self.offers.front() {
            self.offers.pop_front();
            self.base += 1;
        }
    }

    pub(super) fn take_report(&mut self) -> Report {
        self.recorder.take_report()
    }

    /// The file or directory whose verdict has been missing longest.
    pub(super) fn oldest_path(&self) -> Option<PathBuf> {
        let offered = self
            .offers
            .iter()
            .flatten()
            .find_map(|offer| self.shown(offer));
        let shown = offered.or_else(|| self.retries.front().map(|job| Arc::clone(&job.shown)));
        shown.map(|shown| shown.to_path_buf())
    }

    fn shown(&self, offer: &Offer) -> Option<Arc<Path>> {
        match &offer.what {
            Offered::File { job, .. } => Some(Arc::clone(&job.shown)),
            Offered::Link { shown, .. } => Some(Arc::clone(shown)),
            Offered::Directory(id) => {
                let directory = self.directories.get(id)?;
                Some(directory.path.to_path().into())
            }
        }
    }
}

impl Offer {
    fn is_unanswered(&self) -> bool {
        matches!(
            self.what,
            Offered::File {
                stage: Stage::Offered,
                ..
            }
        )
    }
}

/// Dropped with its session: ends what the state machine is reading.
#[derive(Debug)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn look_of(opened: &Opened) -> Look {
    Look {
        size: opened.size(),
        attributes: opened.attributes(),
        tag: opened.tag(),
    }
}
