//! What the receiver answers, and what becomes of offers.

use std::path::Path;
use std::sync::Arc;

use super::super::error::{CopyError, FileError, ProtocolError};
use super::super::progress::{Recorder, RetryCause};
use super::super::protocol::{Frame, Verdict, Withdrawal};
use super::super::source::DirectoryId;
use super::super::tree_hash::Cv;
use super::{Job, Offer, Offered, Outgoing, Output, Phase, Stage};

impl Outgoing {
    pub(super) fn on_frames(
        &mut self,
        frames: Vec<Frame>,
        output: &mut Output,
    ) -> Result<(), CopyError> {
        for frame in frames {
            match frame {
                Frame::Verdict(id, verdict) => self.on_verdict(id, verdict, output)?,
                Frame::Need { id, from, stack } => self.on_need(id, from, stack)?,
                Frame::Working(_) => {}
                Frame::Bye if matches!(self.phase, Phase::Done { .. }) => self.phase = Phase::Over,
                Frame::Fatal(farewell, message) => {
                    return Err(CopyError::farewell(farewell, message));
                }
                frame => {
                    let when = match frame {
                        Frame::Bye => "before the end of the session",
                        _ => "from the receiver",
                    };
                    let frame = frame.kind();
                    return Err(ProtocolError::Unexpected { frame, when }.into());
                }
            }
        }
        Ok(())
    }

    fn on_need(&mut self, id: u64, from: u64, stack: Vec<Cv>) -> Result<(), CopyError> {
        if id < self.base {
            // Settled before: the answer to a question that crossed with the verdict.
            return Ok(());
        }
        let is_offered = id - self.base < u64::try_from(self.offers.len()).unwrap_or(u64::MAX);
        let Some(offer) = self.offer_mut(id) else {
            let known = is_offered.then_some(());
            return known.ok_or_else(|| ProtocolError::NoSuchOffer(id).into());
        };
        let Offered::File { look, stage, .. } = &mut offer.what else {
            return Err(ProtocolError::Verdict(id).into());
        };
        // The last block is always sent, see `Content`.
        if from > 0 && from >= look.size {
            return Err(ProtocolError::BadField("resume position").into());
        }
        if matches!(stage, Stage::Offered) {
            *stage = Stage::Needed { from, stack };
            self.unanswered -= 1;
            self.needed.push_back(id);
        }
        Ok(())
    }

    fn on_verdict(
        &mut self,
        id: u64,
        verdict: Verdict,
        output: &mut Output,
    ) -> Result<(), CopyError> {
        if id < self.base {
            // Settled before: the answer to a question that crossed with the verdict.
            return Ok(());
        }
        if id - self.base >= u64::try_from(self.offers.len()).unwrap_or(u64::MAX) {
            return Err(ProtocolError::NoSuchOffer(id).into());
        }
        let Some(Offer { what, asks, .. }) = self.take_offer(id) else {
            return Ok(());
        };
        let is_fitting = match what {
            Offered::File { job, look, stage } => {
                self.settle_file(job, look.size, &stage, verdict, asks, output)
            }
            Offered::Link { shown, parent } => self.settle_link(shown, parent, verdict, asks),
            Offered::Directory(directory) => self.settle_directory(directory, verdict, asks),
        };
        self.slide();
        is_fitting.map_err(|file| {
            CopyError::from(ProtocolError::Verdict(id)).name_file(Some(file.to_path_buf()))
        })
    }

    /// The error is the file whose verdict cannot be.
    fn settle_file(
        &mut self,
        job: Job,
        size: u64,
        stage: &Stage,
        verdict: Verdict,
        asks: u32,
        output: &mut Output,
    ) -> Result<(), Arc<Path>> {
        let attempts = u32::from(job.attempt);
        match (verdict, stage) {
            (Verdict::Verified(read_back), Stage::Sent(digest)) if *digest == read_back => {
                self.source.pass(&job.source);
                self.recorder.verified(job.shown, size, read_back);
                self.settle_in(job.parent);
            }
            (Verdict::Present, Stage::Offered) => {
                self.source.pass(&job.source);
                self.recorder.present(job.shown, size);
                self.settle_in(job.parent);
            }
            (Verdict::Planned, Stage::Offered) if self.options.dry_run => {
                self.recorder.planned(job.shown, size);
                self.settle_in(job.parent);
            }
            (Verdict::Mismatch, Stage::Sending | Stage::Sent(_)) => {
                self.give_up_early(stage, output);
                self.retry(job, RetryCause::Mismatch, FileError::Mismatch { attempts });
            }
            (Verdict::Unknown, _) => {
                self.give_up_early(stage, output);
                self.retry(job, RetryCause::Forgotten, FileError::NoVerdict { asks });
            }
            (Verdict::Refused(refusal), _) => {
                self.give_up_early(stage, output);
                self.fail(job, refusal.into());
            }
            (Verdict::Failed(kind, message), _) => {
                self.give_up_early(stage, output);
                self.fail(job, FileError::Store { kind, message });
            }
            (
                Verdict::Verified(_)
                | Verdict::Present
                | Verdict::Planned
                | Verdict::Mismatch
                | Verdict::Done,
                _,
            ) => {
                let shown = Arc::clone(&job.shown);
                self.fail(job, FileError::Interrupted);
                return Err(shown);
            }
        }
        Ok(())
    }

    fn settle_link(
        &mut self,
        shown: Arc<Path>,
        parent: Option<DirectoryId>,
        verdict: Verdict,
        asks: u32,
    ) -> Result<(), Arc<Path>> {
        let result = self.settle_plain(shown, Recorder::link_done, verdict, asks);
        self.settle_in(parent);
        result
    }

    fn settle_directory(
        &mut self,
        id: DirectoryId,
        verdict: Verdict,
        asks: u32,
    ) -> Result<(), Arc<Path>> {
        let Some(directory) = self.directories.remove(&id) else {
            return Ok(());
        };
        let shown = directory.path.to_path().into();
        let result = self.settle_plain(shown, Recorder::directory_done, verdict, asks);
        self.settle_in(directory.parent);
        result
    }

    /// Records what a verdict means for a link or directory.
    fn settle_plain(
        &mut self,
        shown: Arc<Path>,
        done: fn(&mut Recorder, Arc<Path>),
        verdict: Verdict,
        asks: u32,
    ) -> Result<(), Arc<Path>> {
        let error = match verdict {
            Verdict::Done => {
                done(&mut self.recorder, shown);
                return Ok(());
            }
            Verdict::Planned if self.options.dry_run => {
                self.recorder.planned(shown, 0);
                return Ok(());
            }
            Verdict::Refused(refusal) => refusal.into(),
            Verdict::Failed(kind, message) => FileError::Store { kind, message },
            Verdict::Unknown => FileError::NoVerdict { asks },
            Verdict::Verified(_) | Verdict::Mismatch | Verdict::Present | Verdict::Planned => {
                self.recorder
                    .failed(Arc::clone(&shown), FileError::Interrupted);
                return Err(shown);
            }
        };
        self.recorder.failed(shown, error);
        Ok(())
    }

    /// The receiver will not take the file that is being sent: the rest of it need not go.
    fn give_up_early(&mut self, stage: &Stage, output: &mut Output) {
        if matches!(stage, Stage::Sending)
            && let Some(content) = self.current.take()
        {
            output.frame(&Frame::Withdraw(content.id, Withdrawal::Settled));
        }
    }

    /// Asks for every verdict that is missing, and gives up what was asked for often enough.
    pub(super) fn ask_again(&mut self, output: &mut Output) {
        let mut given_up = Vec::new();
        let ids = self.base..self.base + u64::try_from(self.offers.len()).unwrap_or_default();
        for id in ids {
            let patience = self.limits.asks;
            let Some(offer) = self.offer_mut(id) else {
                continue;
            };
            if offer.asks >= patience {
                given_up.extend(self.take_offer(id));
                continue;
            }
            offer.asks += 1;
            let asks = offer.asks;
            output.frame(&Frame::Ask(id));
            if let Some(Some(offer)) = usize::try_from(id - self.base)
                .ok()
                .and_then(|index| self.offers.get(index))
                && let Some(shown) = self.shown(offer)
            {
                self.recorder.asked_again(shown, asks);
            }
        }
        for Offer { what, asks, .. } in given_up {
            match what {
                Offered::File { job, .. } => self.fail(job, FileError::NoVerdict { asks }),
                // "Unknown" always fits.
                Offered::Link { shown, parent } => {
                    let _ = self.settle_link(shown, parent, Verdict::Unknown, asks);
                }
                Offered::Directory(id) => {
                    let _ = self.settle_directory(id, Verdict::Unknown, asks);
                }
            }
        }
        self.slide();
    }

    pub(super) fn retry(&mut self, mut job: Job, cause: RetryCause, otherwise: FileError) {
        if job.attempt >= self.limits.attempts {
            return self.fail(job, otherwise);
        }
        job.attempt += 1;
        tracing::debug!(path = %job.shown.display(), attempt = job.attempt, %cause, "sending again");
        self.recorder
            .retrying(Arc::clone(&job.shown), u32::from(job.attempt), cause);
        self.retries.push_back(job);
    }

    pub(super) fn fail(&mut self, job: Job, error: FileError) {
        self.source.pass(&job.source);
        self.recorder.failed(job.shown, error);
        self.settle_in(job.parent);
    }

    pub(super) fn open_in(&mut self, directory: Option<DirectoryId>) {
        if let Some(directory) = directory.and_then(|id| self.directories.get_mut(&id)) {
            directory.open += 1;
        }
    }

    /// One thing in the directory is settled; the last one lets it be sealed.
    pub(super) fn settle_in(&mut self, id: Option<DirectoryId>) {
        let Some(id) = id else { return };
        let Some(directory) = self.directories.get_mut(&id) else {
            return;
        };
        directory.open = directory.open.saturating_sub(1);
        if directory.open == 0 {
            self.to_seal.push_back(id);
        }
    }

    /// The session broke: everything that was begun gets its end.
    pub(in super::super) fn interrupt(&mut self) {
        for Offer { what, .. } in std::mem::take(&mut self.offers).into_iter().flatten() {
            match what {
                Offered::File { job, .. } => {
                    self.recorder.failed(job.shown, FileError::Interrupted);
                }
                Offered::Link { shown, .. } => self.recorder.failed(shown, FileError::Interrupted),
                Offered::Directory(_) => {}
            }
        }
        for job in std::mem::take(&mut self.retries) {
            self.recorder.failed(job.shown, FileError::Interrupted);
        }
        for directory in std::mem::take(&mut self.directories).into_values() {
            let shown = directory.path.to_path().into();
            self.recorder.failed(shown, FileError::Interrupted);
        }
    }
}
