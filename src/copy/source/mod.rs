//! What is sent: files and trees that any number of sessions read together.
//!
//! Each session walks the tree on its own and opens files as its receiver asks for them. The bytes
//! come in blocks through one cache, so that a block is read and hashed once, however many targets
//! it goes to. Everything here blocks on the disk and knows nothing of tokio, but for
//! [`SourceBuilder::build`].

mod block;
mod cache;
mod holes;
mod load;
mod opened;
mod reader;
mod session;
mod survey;
mod version;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use self::cache::{Cache, SessionId};
use self::reader::Reader;
pub use self::survey::{Survey, survey};
use self::walk::Root;
pub(super) use self::{
    block::{BlockHash, Run},
    opened::Opened,
    session::{Look, SourceSession, Spawn},
    walk::{DirectoryId, FileSource, Found, Tree},
};
use super::check_range;
use super::disk::{Disk, PlainDisk};
use super::error::CopyError;

/// Smallest cache: a few whole blocks.
const MIN_CACHE: u64 = 4 << 20;

/// Most sessions that are waited for.
const MAX_AWAITED: usize = 65_536;

/// Most votes per byte: 2 * 16 + 1 equal readings.
const MAX_READ_VOTES: u8 = 16;

/// Files and directories to be sent, to one target or to many at once.
///
/// Each path lands in a receiver's root under its own last part, as with `cp -r`. Several sessions
/// can send the same `Source` at once; a clone is the same source. Every block of a file is read
/// and hashed once for all of them: who comes first reads it, and it is kept until the others have
/// taken it. A target that lags behind by more than the [`cache`](SourceBuilder::cache) holds has
/// the disk read again for it; neither it nor one that is gone slows the others.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use reliable_udp::copy::Source;
///
/// let source = Source::builder(["src", "README.md"]).cache(16 << 20).build().await?;
/// assert_eq!(source.bytes_read(), 0, "nothing was sent yet");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Source {
    shared: Arc<Shared>,
}

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    roots: Arc<[Root]>,
    cache: Cache,
    reader: Reader,
    /// Sessions that are to come: what is read is kept for them already.
    awaited: Mutex<Vec<SessionId>>,
}

/// Settings of a [`Source`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build() is called"]
pub struct SourceBuilder {
    paths: Vec<PathBuf>,
    cache: u64,
    sessions: usize,
    read_votes: u8,
    disk: Arc<dyn Disk>,
}

impl Source {
    /// Begins a source of these paths. No two may have the same last part, under which they arrive.
    pub fn builder<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> SourceBuilder {
        SourceBuilder {
            paths: paths
                .into_iter()
                .map(|path| path.as_ref().to_path_buf())
                .collect(),
            cache: 64 << 20,
            sessions: 0,
            read_votes: 0,
            disk: Arc::new(PlainDisk),
        }
    }

    /// Returns how many bytes of content were read from the files so far: each block counts once
    /// whenever it is read, and not again for the targets that share it, nor for the further
    /// readings of a vote. Holes in files are not read.
    ///
    /// With all targets close together this is the size of what was sent; a target that lagged too
    /// far behind, a retry, and a hash for comparison count again.
    pub fn bytes_read(&self) -> u64 {
        self.shared.reader.content_read()
    }

    /// Returns how many bytes the disk gave so far. Other than [`bytes_read`](Self::bytes_read) it
    /// counts every reading of a [vote](SourceBuilder::read_votes).
    pub fn disk_bytes_read(&self) -> u64 {
        self.shared.reader.disk_read()
    }

    /// Begins a session with one target. `spawn` has something done on a thread that may block, and
    /// may also leave it undone.
    pub(super) fn session(&self, spawn: Spawn) -> SourceSession {
        SourceSession::new(Arc::clone(&self.shared), spawn)
    }
}

impl Shared {
    /// The session that begins now: one that was waited for, or another.
    fn admit(&self) -> SessionId {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.pop().unwrap_or_else(|| self.cache.register())
    }
}

impl SourceBuilder {
    /// How many bytes of blocks are kept for targets that lag behind. Sessions also hold up to 1 MiB
    /// each that they are reading or sending. Default: 64 MiB, some five seconds of lag at
    /// 100 Mbit/s. Range: 4 MiB and above.
    pub fn cache(mut self, bytes: u64) -> Self {
        self.cache = bytes;
        self
    }

    /// How many sessions are going to share the source: what the first ones read is kept for the others
    /// before they have begun, as far as the [`cache`](Self::cache) goes. Default: 0; what is gone by
    /// the time that a session begins is read again for it. Range: 0 to 65,536.
    pub fn sessions(mut self, sessions: usize) -> Self {
        self.sessions = sessions;
        self
    }

    /// Reads from a disk that lies: each byte is read until it had one value `2 * votes + 1` times,
    /// past the system's cache where that allows it. Default: 0, one reading. Range: 0 to 16.
    pub fn read_votes(mut self, votes: u8) -> Self {
        self.read_votes = votes;
        self
    }

    /// Puts a disk in between that lies, as
    /// [`ReceiverBuilder::nastiness`](super::ReceiverBuilder::nastiness) does. What a single reading got
    /// wrong cannot be found later: the hash that is sent is that of what was read. To try out
    /// [`read_votes`](Self::read_votes) (feature `sim`).
    #[cfg(feature = "sim")]
    pub fn nastiness(mut self, level: u8, seed: u64) -> Self {
        self.disk = Arc::new(super::nasty::NastyDisk::new(level, seed));
        self
    }

    #[cfg(test)]
    pub(super) fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Checks the values and opens the directories that hold the paths.
    ///
    /// # Errors
    /// [`CopyError::InvalidArgument`] if there is no path, or a value lies outside its range;
    /// [`CopyError::Source`] if a path does not exist, has no name of its own, has the same last
    /// part as another, or its parent cannot be opened; [`CopyError::RuntimeGone`] if the runtime is
    /// shutting down.
    ///
    /// # Cancel safety
    /// Nothing is left behind when the future is dropped.
    pub async fn build(self) -> Result<Source, CopyError> {
        let opening = tokio::task::spawn_blocking(move || self.open());
        opening.await.map_err(|_| CopyError::RuntimeGone)?
    }

    /// What [`build`](Self::build) does, on a thread that may block.
    fn open(self) -> Result<Source, CopyError> {
        check_range(!self.paths.is_empty(), "paths", &self.paths, "at least one")?;
        let is_large_enough = self.cache >= MIN_CACHE;
        check_range(is_large_enough, "cache", &self.cache, "4 MiB and above")?;
        let votes = &self.read_votes;
        check_range(*votes <= MAX_READ_VOTES, "read_votes", votes, "0 to 16")?;
        let sessions = &self.sessions;
        check_range(
            *sessions <= MAX_AWAITED,
            "sessions",
            sessions,
            "0 to 65,536",
        )?;
        let roots = open_roots(&self.paths)?.into();
        let cache = Cache::new(self.cache);
        let awaited = (0..self.sessions).map(|_| cache.register()).collect();
        let shared = Shared {
            roots,
            cache,
            reader: Reader::new(self.disk, self.read_votes),
            awaited: Mutex::new(awaited),
        };
        Ok(Source {
            shared: Arc::new(shared),
        })
    }
}

/// Opens what holds the paths; two of the same name would overwrite each other.
fn open_roots(paths: &[PathBuf]) -> Result<Vec<Root>, CopyError> {
    let mut names = HashSet::new();
    let mut roots = Vec::with_capacity(paths.len());
    for path in paths {
        let root = Root::open(path)?;
        if !names.insert(root.name().clone()) {
            let message = "another path to be sent has the same last part";
            let source = Arc::new(io::Error::new(io::ErrorKind::AlreadyExists, message));
            return Err(CopyError::Source {
                path: path.clone(),
                source,
            });
        }
        roots.push(root);
    }
    Ok(roots)
}

/// Why a block could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum ReadError {
    /// The file is not the version any more that was opened.
    #[error("it changed while it was read")]
    Changed,
    /// The system did not give it.
    #[error("cannot be read")]
    Io(#[source] Arc<io::Error>),
}

impl ReadError {
    fn is_interrupted(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::Interrupted)
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
