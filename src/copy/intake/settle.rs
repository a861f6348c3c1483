//! How offers end: placed, refused, or to be sent again.

use std::path::Path;
use std::sync::Arc;

use super::super::error::FileError;
use super::super::progress::RetryCause;
use super::super::protocol::{Frame, Verdict};
use super::super::store::{Placed, Rejection, Settled};
use super::offers::Kind;
use super::receiving::Receiving;
use super::{Current, Intake};

impl Intake {
    /// Places what is due, syncs its directories, and gives the verdicts.
    pub(super) fn settle(&mut self, replies: &mut Vec<u8>) {
        for Settled { token: id, result } in self.placer.commit() {
            let shown = self.offers.shown(id);
            match (result, self.offers.kind(id)) {
                (Ok(Placed::File(digest)), Some(&Kind::Settling { charge, .. })) => {
                    self.answer(id, Verdict::Verified(digest), replies);
                    self.recorder.verified(shown, charge.size, digest);
                }
                (Ok(_), Some(Kind::Link)) => {
                    self.answer(id, Verdict::Done, replies);
                    self.recorder.link_done(shown);
                }
                (Ok(_), _) => {
                    self.answer(id, Verdict::Done, replies);
                    self.recorder.directory_done(shown);
                }
                (
                    Err(rejection),
                    Some(&Kind::Settling {
                        attempt,
                        attempts,
                        charge,
                    }),
                ) => {
                    self.uncount(id, charge, 0);
                    self.end_badly(id, attempt, attempts, rejection, replies);
                }
                (Err(rejection), _) => self.reject(id, rejection, replies),
            }
        }
    }

    pub(super) fn drop_receiving(
        &mut self,
        receiving: Receiving,
        rejection: Rejection,
        replies: &mut Vec<u8>,
    ) {
        let Receiving {
            id,
            attempt,
            attempts,
            charge,
            incoming,
            ..
        } = receiving;
        let good = incoming.good();
        self.placer.keep(incoming);
        self.uncount(id, charge, good.bytes());
        self.end_badly(id, attempt, attempts, rejection, replies);
    }

    /// A file whose content came was not placed.
    pub(super) fn end_badly(
        &mut self,
        id: u64,
        attempt: u8,
        attempts: u8,
        rejection: Rejection,
        replies: &mut Vec<u8>,
    ) {
        if !matches!(rejection, Rejection::Mismatch) {
            return self.reject(id, rejection, replies);
        }
        let shown = self.offers.shown(id);
        self.answer(id, Verdict::Mismatch, replies);
        if attempt < attempts {
            self.await_retry(shown, attempt, RetryCause::Mismatch);
        } else {
            let attempts = u32::from(attempts);
            self.recorder
                .failed(shown, FileError::Mismatch { attempts });
        }
    }

    pub(super) fn reject(&mut self, id: u64, rejection: Rejection, replies: &mut Vec<u8>) {
        let verdict = Verdict::from(rejection);
        let error = match verdict.clone() {
            Verdict::Failed(kind, message) => FileError::Store { kind, message },
            Verdict::Refused(refusal) => FileError::Refused(refusal),
            _ => FileError::Interrupted,
        };
        let shown = self.offers.shown(id);
        tracing::debug!(path = %shown.display(), %error, "file not placed");
        self.answer(id, verdict, replies);
        self.recorder.failed(shown, error);
    }

    pub(super) fn answer(&mut self, id: u64, verdict: Verdict, replies: &mut Vec<u8>) {
        let frame = Frame::Verdict(id, verdict);
        frame.encode(replies);
        if let Frame::Verdict(_, verdict) = frame {
            self.offers.close(id, verdict);
        }
    }

    pub(super) fn await_retry(&mut self, path: Arc<Path>, attempt: u8, cause: RetryCause) {
        if self.retrying.len() < self.offers.window() {
            self.retrying.insert(Arc::clone(&path));
        }
        self.recorder.retrying(path, u32::from(attempt) + 1, cause);
    }

    /// The session broke: what is complete gets its place, what can be continued is kept, and every
    /// file that was begun gets its end.
    pub(in super::super) fn interrupt(&mut self) {
        self.settle(&mut Vec::new());
        if let Current::Receiving(receiving) = std::mem::replace(&mut self.current, Current::None) {
            let shown = self.offers.shown(receiving.id);
            self.placer.keep(receiving.incoming);
            self.recorder.failed(shown, FileError::Interrupted);
        }
        for path in std::mem::take(&mut self.retrying) {
            self.recorder.failed(path, FileError::Interrupted);
        }
    }
}

impl From<Rejection> for Verdict {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Refused(refusal) => Self::Refused(refusal),
            Rejection::Failed(error) => Self::Failed(error.kind(), error.to_string()),
            // What was found when the file was offered is not there any more: it may come again.
            Rejection::Changed => Self::Unknown,
            Rejection::Mismatch => Self::Mismatch,
        }
    }
}
