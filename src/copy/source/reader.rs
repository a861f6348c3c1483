//! Reads blocks off the disk, hashes them, and sees that the file stays the one it was.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::ReadError;
use super::block::{Block, BlockHash, Run};
use super::cache::{BlockId, cost_of};
use super::holes::{Extent, extents};
use super::opened::OpenFile;
use super::version::Version;
use crate::copy::disk::{Disk, read_voted};
use crate::copy::progress::Digest;
use crate::copy::tree_hash::{BLOCK_LEN, BLOCK_LEN_U64, BlockHasher, TreeHash};

/// What all sessions read with.
#[derive(Debug)]
pub(super) struct Reader {
    disk: Counted,
    votes: u8,
    content: AtomicU64,
    hashed: AtomicU64,
}

impl Reader {
    pub(super) fn new(disk: Arc<dyn Disk>, votes: u8) -> Self {
        Self {
            disk: Counted {
                disk,
                read: AtomicU64::new(0),
            },
            votes,
            content: AtomicU64::new(0),
            hashed: AtomicU64::new(0),
        }
    }

    /// Bytes of content that were read, each reading of a block counted once.
    pub(super) fn content_read(&self) -> u64 {
        self.content.load(Ordering::Relaxed)
    }

    /// Bytes that the disk gave, every vote counted.
    pub(super) fn disk_read(&self) -> u64 {
        self.disk.read.load(Ordering::Relaxed)
    }

    /// Blocks that were read for their file's hash alone.
    pub(super) fn blocks_hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }

    /// Reads one block; then the file must still be the version that it was opened as.
    pub(super) fn block(&self, file: &OpenFile, index: u64) -> Result<Block, ReadError> {
        let (offset, len) = file.range(index);
        let mut hasher = BlockHasher::new(index);
        let mut runs = Vec::new();
        let read = self.runs(file, offset, len, |run| {
            match &run {
                Run::Data(bytes) => hasher.update(bytes),
                Run::Hole(len) => hasher.update_zeros(*len),
            }
            runs.push(run);
        });
        let is_last = offset.saturating_add(len) >= file.version().size();
        let read = read.and_then(|is_whole| {
            Ok(is_whole && !(is_last && self.goes_on(file, file.version().size())?))
        });
        self.judge(file, read)?;
        let hash = if file.blocks() == 1 {
            BlockHash::Root(hasher.finish_root())
        } else {
            BlockHash::Cv(hasher.finish())
        };
        Ok(Block { runs, hash })
    }

    /// Reads the whole file for its hash. `may_go_on` is asked before each block.
    pub(super) fn digest(
        &self,
        file: &OpenFile,
        may_go_on: &dyn Fn() -> bool,
    ) -> Result<Digest, ReadError> {
        let mut tree = TreeHash::new();
        for index in 0..file.blocks() {
            if !may_go_on() {
                return Err(io::Error::from(io::ErrorKind::Interrupted).into());
            }
            let block = self.block(file, index)?;
            self.hashed.fetch_add(1, Ordering::Relaxed);
            match block.hash() {
                BlockHash::Root(root) => return Ok(root),
                BlockHash::Cv(cv) => tree.push(cv),
            }
        }
        // There were two blocks at least: one alone has a root.
        tree.root().ok_or(ReadError::Changed)
    }

    /// Reads `len` bytes from `offset`, all of one block. `false`: the file has fewer.
    fn runs(
        &self,
        file: &OpenFile,
        offset: u64,
        len: u64,
        mut on_run: impl FnMut(Run),
    ) -> io::Result<bool> {
        let all = [Extent::Data(len)];
        let told;
        let parts = if file.may_have_holes() {
            told = extents(file.handle(), offset, len);
            told.as_slice()
        } else {
            all.as_slice()
        };
        let mut scratch = Vec::new();
        let mut at = offset;
        for part in parts {
            match *part {
                Extent::Hole(len) => {
                    on_run(Run::Hole(len));
                    at = at.saturating_add(len);
                }
                Extent::Data(0) => {}
                Extent::Data(len) => {
                    let mut bytes = vec![0; usize::try_from(len).unwrap_or(BLOCK_LEN)];
                    let (disk, handle) = (&self.disk, file.handle());
                    let read = read_voted(disk, handle, &mut bytes, at, self.votes, &mut scratch)?;
                    let counted = u64::try_from(read).unwrap_or(u64::MAX);
                    self.content.fetch_add(counted, Ordering::Relaxed);
                    if read < bytes.len() {
                        return Ok(false);
                    }
                    on_run(Run::Data(Bytes::from(bytes)));
                    at = at.saturating_add(len);
                }
            }
        }
        Ok(true)
    }

    /// Whether there is a byte at `offset`: some files, as in `/proc`, have more than their size.
    fn goes_on(&self, file: &OpenFile, offset: u64) -> io::Result<bool> {
        loop {
            match self.disk.disk.read_at(file.handle(), &mut [0], offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(|read| read > 0),
            }
        }
    }

    /// Tells a file that changed from one that cannot be read. `read`: whether all was there.
    #[expect(
        clippy::unused_self,
        reason = "reads as what the reader does after each reading"
    )]
    fn judge(&self, file: &OpenFile, read: io::Result<bool>) -> Result<(), ReadError> {
        let now = Version::of_file(file.handle())?;
        if now != *file.version() {
            return Err(ReadError::Changed);
        }
        match read {
            Ok(true) => Ok(()),
            Ok(false) => Err(ReadError::Changed),
            Err(error) => Err(error.into()),
        }
    }
}

/// The most that a block may cost while it is being read.
pub(super) fn room_for(id: &BlockId) -> u64 {
    let start = id.index.saturating_mul(BLOCK_LEN_U64);
    let len = id.version.size().saturating_sub(start).min(BLOCK_LEN_U64);
    cost_of(id, len)
}

/// A disk that counts what it gives.
#[derive(Debug)]
struct Counted {
    disk: Arc<dyn Disk>,
    read: AtomicU64,
}

impl Disk for Counted {
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.disk.read_at(file, buf, offset)?;
        let counted = u64::try_from(read).unwrap_or(u64::MAX);
        self.read.fetch_add(counted, Ordering::Relaxed);
        Ok(read)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.disk.write_at(file, bytes, offset)
    }

    fn forget(&self, file: &File, offset: u64, len: u64) {
        self.disk.forget(file, offset, len);
    }
}
