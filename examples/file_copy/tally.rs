//! Adds up what happened to one target, over all sessions that it took.

use std::ops::AddAssign;

use reliable_udp::copy::{Event, FileError, Report};

/// Sums like [`Totals`](reliable_udp::copy::Totals), over several sessions. A file that an earlier session of this
/// program verified is there already in the next, and counts as verified only.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) files_verified: u64,
    pub(crate) files_present: u64,
    pub(crate) planned: u64,
    pub(crate) links: u64,
    pub(crate) directories: u64,
    pub(crate) failed: u64,
    /// What the last session left without a verdict.
    pub(crate) unsettled: u64,
    pub(crate) bytes_verified: u64,
    pub(crate) bytes_present: u64,
    pub(crate) bytes_resumed: u64,
    pub(crate) bytes_planned: u64,
    pub(crate) bytes_transferred: u64,
    pub(crate) retries: u64,
    pub(crate) asks: u64,
    /// Files that earlier sessions verified and this one has not found yet.
    expected: u64,
    /// Bytes that went by in this session.
    passed: u64,
}

impl Tally {
    /// Starts over with what a session counts by itself.
    pub(crate) fn begin_session(&mut self) {
        self.bytes_transferred += std::mem::take(&mut self.passed);
        self.expected = self.files_verified;
        (self.files_present, self.bytes_present) = (0, 0);
        (self.links, self.directories) = (0, 0);
        (self.failed, self.unsettled) = (0, 0);
        (self.planned, self.bytes_planned) = (0, 0);
    }

    pub(crate) fn on_event(&mut self, event: &Event) {
        match event {
            Event::Progress { bytes, .. } => self.passed += bytes,
            Event::Resumed { bytes, .. } => self.bytes_resumed += bytes,
            Event::Retrying { .. } => self.retries += 1,
            Event::AskedAgain { .. } => self.asks += 1,
            Event::Verified { size, .. } => {
                self.files_verified += 1;
                self.bytes_verified += size;
            }
            Event::Present { size, .. } => {
                if self.expected > 0 {
                    self.expected -= 1;
                } else {
                    self.files_present += 1;
                    self.bytes_present += size;
                }
            }
            Event::Planned { bytes, .. } => {
                self.planned += 1;
                self.bytes_planned += bytes;
            }
            Event::LinkDone { .. } => self.links += 1,
            Event::DirectoryDone { .. } => self.directories += 1,
            Event::Failed {
                error: FileError::Interrupted,
                ..
            } => self.unsettled += 1,
            Event::Failed { .. } => self.failed += 1,
            _ => {}
        }
    }

    /// Ends the last session, with its report if it came to its end.
    pub(crate) fn end(&mut self, report: Option<&Report>) {
        let passed = std::mem::take(&mut self.passed);
        // The report knows that holes did not cross the stream.
        self.bytes_transferred += report.map_or(passed, |report| report.totals.bytes_transferred);
    }

    /// Whether the session that runs got anywhere.
    pub(crate) fn has_moved(&self) -> bool {
        self.passed > 0
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.files_verified += other.files_verified;
        self.files_present += other.files_present;
        self.planned += other.planned;
        self.links += other.links;
        self.directories += other.directories;
        self.failed += other.failed;
        self.unsettled += other.unsettled;
        self.bytes_verified += other.bytes_verified;
        self.bytes_present += other.bytes_present;
        self.bytes_resumed += other.bytes_resumed;
        self.bytes_planned += other.bytes_planned;
        self.bytes_transferred += other.bytes_transferred;
        self.retries += other.retries;
        self.asks += other.asks;
    }
}
