//! One target's view of the source: its own walk and open files, over shared blocks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Shared;
use super::cache::SessionId;
use super::opened::{OpenFile, Opened};
use super::version::Version;
use super::walk::{FileSource, Tree, special_kind};
use crate::copy::attributes::attributes_of;
use crate::copy::error::FileError;
use crate::copy::protocol::Attributes;

/// Has something done on another thread, soon or never.
pub(in crate::copy) type Spawn = Arc<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// A session with one target. Until it is dropped, what others read is kept for it, as far as the
/// budget allows.
#[derive(Debug)]
pub(in crate::copy) struct SourceSession {
    shared: Arc<Shared>,
    id: SessionId,
    helper: Helper,
}

/// What a file is at the moment, to be offered before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::copy) struct Look {
    /// In bytes.
    pub(in crate::copy) size: u64,
    pub(in crate::copy) attributes: Attributes,
    /// As [`Opened::tag`]: equal only if it is still the same when it is opened.
    pub(in crate::copy) tag: [u8; 16],
}

impl SourceSession {
    pub(super) fn new(shared: Arc<Shared>, spawn: Spawn) -> Self {
        let id = shared.admit();
        let helper = Helper {
            spawn,
            is_busy: Arc::default(),
        };
        Self { shared, id, helper }
    }

    /// A walk over everything there is to send.
    pub(in crate::copy) fn tree(&self) -> Tree {
        Tree::new(Arc::clone(&self.shared.roots))
    }

    /// Looks at a file without opening it.
    #[expect(clippy::unused_self, reason = "what a session does")]
    pub(in crate::copy) fn look(&self, source: &FileSource) -> Result<Look, FileError> {
        let found = source.metadata().map_err(unreadable)?;
        if !found.is_file() {
            return Err(FileError::Unsupported(special_kind(found.file_type())));
        }
        Ok(Look {
            size: found.len(),
            attributes: attributes_of(&found),
            tag: Version::of(&found).tag(),
        })
    }

    /// Opens a file for reading.
    pub(in crate::copy) fn open(&self, source: &FileSource) -> Result<Opened, FileError> {
        let (handle, metadata) = source.open().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(FileError::Unsupported(special_kind(metadata.file_type())));
        }
        let file = OpenFile::new(source, handle, &metadata);
        let shared = Arc::clone(&self.shared);
        Ok(Opened::new(shared, self.id, self.helper.clone(), file))
    }

    /// The target has this file, or will not take it: its content need not be kept for this
    /// session. Without this it is kept until the budget is used up.
    pub(in crate::copy) fn pass(&self, source: &FileSource) {
        self.shared
            .cache
            .pass(self.id, source.path(), source.order());
    }
}

impl Drop for SourceSession {
    fn drop(&mut self) {
        self.shared.cache.leave(self.id);
    }
}

fn unreadable(error: std::io::Error) -> FileError {
    FileError::Read(Arc::new(error))
}

/// Does one thing at a time on another thread; what comes while it is busy is left undone.
#[derive(Clone)]
pub(super) struct Helper {
    spawn: Spawn,
    is_busy: Arc<AtomicBool>,
}

impl Helper {
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        // Goes with the job, also if that panics or is dropped undone.
        let turn = Turn(Arc::clone(&self.is_busy));
        (self.spawn)(Box::new(move || {
            job();
            drop(turn);
        }));
    }
}

impl fmt::Debug for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helper")
            .field("is_busy", &self.is_busy)
            .finish_non_exhaustive()
    }
}

struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
