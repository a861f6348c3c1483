//! What a copy reports: events while it runs, and a report at the end.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::error::FileError;

/// A BLAKE3 hash of a file's content; displayed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub(super) const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a file is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryCause {
    /// What the receiver read back from its disk had another hash.
    Mismatch,
    /// The source grew, shrank or was written to while it was read.
    Changed,
    /// The receiver, asked for its verdict, knew nothing of the file.
    Forgotten,
}

impl fmt::Display for RetryCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mismatch => "read back with another hash",
            Self::Changed => "changed while it was read",
            Self::Forgotten => "forgotten by the receiver",
        })
    }
}

/// Something that happened during a copy.
///
/// Every file and directory that was [`Started`](Self::Started), found to be impossible, or refused
/// ends with exactly one of [`Verified`](Self::Verified), [`Present`](Self::Present),
/// [`LinkDone`](Self::LinkDone), [`DirectoryDone`](Self::DirectoryDone), [`Planned`](Self::Planned) and
/// [`Failed`](Self::Failed), on both ends, also when the session breaks (then with
/// [`FileError::Interrupted`]). Paths are relative: to the receiver's root, or beginning with the
/// last part of a path that was given to the sender.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A file is being sent or received; again, if `attempt` is above 1.
    #[non_exhaustive]
    Started {
        /// The file.
        path: Arc<Path>,
        /// Its size in bytes.
        size: u64,
        /// 1 for the first time. The receiver always says 1.
        attempt: u32,
    },
    /// Bytes of a file went by: read by the sender, or written by the receiver.
    #[non_exhaustive]
    Progress {
        /// The file.
        path: Arc<Path>,
        /// How many bytes since the last event about it.
        bytes: u64,
    },
    /// A file is being read without being sent: for its hash, or because what an earlier session left
    /// of it is checked.
    #[non_exhaustive]
    Checking {
        /// The file.
        path: Arc<Path>,
        /// Its size in bytes.
        size: u64,
    },
    /// A file goes on where an earlier session ended.
    #[non_exhaustive]
    Resumed {
        /// The file.
        path: Arc<Path>,
        /// How many of its bytes need not be sent again.
        bytes: u64,
    },
    /// A file will be sent again.
    #[non_exhaustive]
    Retrying {
        /// The file.
        path: Arc<Path>,
        /// Which attempt comes next; 2 for the first retry.
        attempt: u32,
        /// Why.
        cause: RetryCause,
    },
    /// The verdict on a file or directory was asked for again.
    #[non_exhaustive]
    AskedAgain {
        /// The file or directory.
        path: Arc<Path>,
        /// How often by now.
        asks: u32,
    },
    /// A file lies under its final name, and its hash as read back from disk is that of its source.
    #[non_exhaustive]
    Verified {
        /// The file.
        path: Arc<Path>,
        /// Its size in bytes.
        size: u64,
        /// The hash that both ends computed.
        digest: Digest,
    },
    /// An equal file was there already: same size and modification time, or same hash where that was
    /// asked for.
    #[non_exhaustive]
    Present {
        /// The file.
        path: Arc<Path>,
        /// Its size in bytes.
        size: u64,
    },
    /// In a dry run: a file, link or directory would be taken.
    #[non_exhaustive]
    Planned {
        /// What would be taken.
        path: Arc<Path>,
        /// How many bytes would be sent.
        bytes: u64,
    },
    /// A symbolic link exists with its target.
    #[non_exhaustive]
    LinkDone {
        /// The link.
        path: Arc<Path>,
    },
    /// A directory exists with its mode and modification time, after everything in it was settled.
    #[non_exhaustive]
    DirectoryDone {
        /// The directory.
        path: Arc<Path>,
    },
    /// A file or directory was given up. The others go on.
    #[non_exhaustive]
    Failed {
        /// The file or directory.
        path: Arc<Path>,
        /// Why.
        error: FileError,
    },
}

/// The sums of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Files that lie verified under their final name.
    pub files_verified: u64,
    /// Files that were there already and equal.
    pub files_present: u64,
    /// In a dry run: files, links and directories that would be taken.
    pub planned: u64,
    /// Symbolic links that exist with their targets.
    pub links: u64,
    /// Directories that were made or found, and given their mode and modification time.
    pub directories: u64,
    /// Files, links and directories that were not copied.
    pub failed: u64,
    /// Content bytes of the verified files.
    pub bytes_verified: u64,
    /// Content bytes of the files that were there already and equal.
    pub bytes_present: u64,
    /// Content bytes that an earlier session had left and that were not sent again.
    pub bytes_resumed: u64,
    /// In a dry run: content bytes that would be sent.
    pub bytes_planned: u64,
    /// Content bytes that crossed the stream, those of repeated attempts included; the holes of
    /// sparse files do not cross it.
    pub bytes_transferred: u64,
    /// How often a file was sent again. The receiver counts the mismatches that it found.
    pub retries: u64,
    /// How often a verdict was asked for again.
    pub asks: u64,
}

/// How one file or directory ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// A file lies verified under its final name.
    #[non_exhaustive]
    Verified {
        /// Its size in bytes.
        size: u64,
        /// The hash that both ends computed.
        digest: Digest,
    },
    /// An equal file was there already.
    #[non_exhaustive]
    Present {
        /// Its size in bytes.
        size: u64,
    },
    /// In a dry run: it would be taken.
    Planned,
    /// A symbolic link exists with its target.
    Link,
    /// A directory exists with its mode and modification time.
    Directory,
    /// It was not copied.
    Failed(FileError),
}

/// One line of a [`Report`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// The file or directory, relative as in [`Event`].
    pub path: Arc<Path>,
    /// How it ended.
    pub outcome: Outcome,
}

/// What became of a copy, file by file and in sum.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Report {
    /// The sums. They count every file, also those left out of `entries`.
    pub totals: Totals,
    /// Each file and directory in the order in which it was settled, up to the builder's
    /// `result_limit` of successes and as many failures.
    pub entries: Vec<Entry>,
    /// How many files and directories were left out of `entries` because of that limit.
    pub omitted: u64,
}

impl Report {
    /// Returns whether every file was verified and every directory made.
    pub fn is_complete(&self) -> bool {
        self.totals.failed == 0
    }

    /// Returns the files and directories that were not copied, with their reasons.
    pub fn failures(&self) -> impl Iterator<Item = (&Path, &FileError)> {
        self.entries
            .iter()
            .filter_map(|entry| match &entry.outcome {
                Outcome::Failed(error) => Some((&*entry.path, error)),
                Outcome::Verified { .. }
                | Outcome::Present { .. }
                | Outcome::Planned
                | Outcome::Link
                | Outcome::Directory => None,
            })
    }
}

/// Keeps the report and tells the caller, so that the two cannot disagree.
pub(super) struct Recorder {
    report: Report,
    result_limit: usize,
    failures_kept: usize,
    on_event: Box<dyn FnMut(Event) + Send>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("totals", &self.report.totals)
            .finish_non_exhaustive()
    }
}

impl Recorder {
    pub(super) fn new(result_limit: usize, on_event: Box<dyn FnMut(Event) + Send>) -> Self {
        Self {
            report: Report::default(),
            result_limit,
            failures_kept: 0,
            on_event,
        }
    }

    pub(super) fn started(&mut self, path: Arc<Path>, size: u64, attempt: u32) {
        (self.on_event)(Event::Started {
            path,
            size,
            attempt,
        });
    }

    /// So many bytes of a file went by, and so many of them crossed the stream.
    pub(super) fn transferred(&mut self, path: &Arc<Path>, bytes: u64, crossed: u64) {
        self.report.totals.bytes_transferred += crossed;
        (self.on_event)(Event::Progress {
            path: Arc::clone(path),
            bytes,
        });
    }

    pub(super) fn retrying(&mut self, path: Arc<Path>, attempt: u32, cause: RetryCause) {
        self.report.totals.retries += 1;
        (self.on_event)(Event::Retrying {
            path,
            attempt,
            cause,
        });
    }

    pub(super) fn asked_again(&mut self, path: Arc<Path>, asks: u32) {
        self.report.totals.asks += 1;
        (self.on_event)(Event::AskedAgain { path, asks });
    }

    pub(super) fn verified(&mut self, path: Arc<Path>, size: u64, digest: Digest) {
        self.report.totals.files_verified += 1;
        self.report.totals.bytes_verified += size;
        self.keep(&path, Outcome::Verified { size, digest });
        (self.on_event)(Event::Verified { path, size, digest });
    }

    pub(super) fn checking(&mut self, path: Arc<Path>, size: u64) {
        (self.on_event)(Event::Checking { path, size });
    }

    pub(super) fn resumed(&mut self, path: Arc<Path>, bytes: u64) {
        self.report.totals.bytes_resumed += bytes;
        (self.on_event)(Event::Resumed { path, bytes });
    }

    pub(super) fn present(&mut self, path: Arc<Path>, size: u64) {
        self.report.totals.files_present += 1;
        self.report.totals.bytes_present += size;
        self.keep(&path, Outcome::Present { size });
        (self.on_event)(Event::Present { path, size });
    }

    pub(super) fn planned(&mut self, path: Arc<Path>, bytes: u64) {
        self.report.totals.planned += 1;
        self.report.totals.bytes_planned += bytes;
        self.keep(&path, Outcome::Planned);
        (self.on_event)(Event::Planned { path, bytes });
    }

    pub(super) fn link_done(&mut self, path: Arc<Path>) {
        self.report.totals.links += 1;
        self.keep(&path, Outcome::Link);
        (self.on_event)(Event::LinkDone { path });
    }

    pub(super) fn directory_done(&mut self, path: Arc<Path>) {
        self.report.totals.directories += 1;
        self.keep(&path, Outcome::Directory);
        (self.on_event)(Event::DirectoryDone { path });
    }

    pub(super) fn failed(&mut self, path: Arc<Path>, error: FileError) {
        self.report.totals.failed += 1;
        self.keep(&path, Outcome::Failed(error.clone()));
        (self.on_event)(Event::Failed { path, error });
    }

    pub(super) fn take_report(&mut self) -> Report {
        std::mem::take(&mut self.report)
    }

    fn keep(&mut self, path: &Arc<Path>, outcome: Outcome) {
        let successes = self.report.entries.len() - self.failures_kept;
        let is_failure = matches!(outcome, Outcome::Failed(_));
        let kept = if is_failure {
            self.failures_kept
        } else {
            successes
        };
        if kept >= self.result_limit {
            self.report.omitted += 1;
            return;
        }
        self.failures_kept += usize::from(is_failure);
        self.report.entries.push(Entry {
            path: Arc::clone(path),
            outcome,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_shown_in_hexadecimal() {
        let mut bytes = [0; 32];
        bytes[0] = 0xab;
        bytes[31] = 1;
        let text = Digest::new(bytes).to_string();
        assert_eq!(text.len(), 64);
        assert!(text.starts_with("ab00") && text.ends_with("01"));
    }

    #[test]
    fn the_limit_bounds_the_entries_and_never_the_sums() {
        let mut recorder = Recorder::new(2, Box::new(|_| ()));
        for _ in 0..5 {
            recorder.verified(Path::new("a").into(), 10, Digest::new([0; 32]));
        }
        for _ in 0..3 {
            recorder.failed(Path::new("b").into(), FileError::Interrupted);
        }
        let report = recorder.take_report();
        assert_eq!((report.totals.files_verified, report.totals.failed), (5, 3));
        assert_eq!(report.totals.bytes_verified, 50);
        assert_eq!((report.entries.len(), report.omitted), (4, 4));
        assert_eq!(report.failures().count(), 2);
        assert!(!report.is_complete());
    }
}
