//! Bytes to the disk and back, with as much distrust as was asked for.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::copy::disk::{Disk, PAGE_LEN, read_voted, to_u64, write_full};
use crate::copy::progress::Digest;
use crate::copy::tree_hash::{BLOCK_LEN, BLOCK_LEN_U64, BlockHasher, Cv, TreeHash};

/// How often a write that reads back differently is made again.
const MAX_WRITES: u32 = 16;

/// How much is read back at once, in bytes.
const READ_BACK_LEN: usize = 256 * 1024;

/// The disk, and how far it is trusted.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    pub(super) disk: Arc<dyn Disk>,
    /// Each byte read back counts once it had one value twice this many times and one more.
    pub(super) votes: u8,
    /// Each write is read back and compared at once.
    pub(super) verify_writes: bool,
    /// Grows with each byte moved to or from the disk and each thing placed, for the peer's patience.
    pub(super) moved: Arc<AtomicU64>,
}

/// What reading back blocks found.
#[derive(Debug)]
pub(super) struct Checked {
    /// The blocks that are good, from the start of the file.
    pub(super) good: TreeHash,
    /// What ended them, if not all are.
    pub(super) problem: Option<Problem>,
}

/// Why a range of a file is not good.
#[derive(Debug)]
pub(super) enum Problem {
    /// It reads back differently from what the sender hashed.
    Mismatch,
    Failed(io::Error),
}

impl Storage {
    pub(super) fn count(&self, moved: usize) {
        self.moved.fetch_add(to_u64(moved), Ordering::Relaxed);
    }

    /// Writes all of `bytes`, and in the paranoid mode until they read back right.
    pub(super) fn write(
        &self,
        file: &File,
        bytes: &[u8],
        offset: u64,
        scratch: &mut Vec<u8>,
    ) -> io::Result<()> {
        write_full(&*self.disk, file, bytes, offset)?;
        self.count(bytes.len());
        if !self.verify_writes {
            return Ok(());
        }
        let mut again = vec![0; bytes.len()];
        let mut pages: Vec<usize> = Vec::new();
        for _ in 0..=MAX_WRITES {
            // Dirty pages stay in the cache: the disk has to have them first.
            self.disk.sync_data(file)?;
            self.disk.forget(file, offset, to_u64(bytes.len()));
            let read = read_voted(&*self.disk, file, &mut again, offset, self.votes, scratch)?;
            self.count(read);
            let lies = again.get(..read).unwrap_or_default();
            let is_wrong = |page: &usize| {
                let range = *page * PAGE_LEN..(*page * PAGE_LEN + PAGE_LEN).min(bytes.len());
                bytes.get(range.clone()) != lies.get(range)
            };
            pages.clear();
            pages.extend((0..bytes.len().div_ceil(PAGE_LEN)).filter(is_wrong));
            if pages.is_empty() {
                return Ok(());
            }
            for page in &pages {
                let start = page * PAGE_LEN;
                let rest = bytes.get(start..).unwrap_or_default();
                let page = rest.get(..PAGE_LEN).unwrap_or(rest);
                write_full(
                    &*self.disk,
                    file,
                    page,
                    offset.saturating_add(to_u64(start)),
                )?;
            }
        }
        let text = format!("cannot be stored: reads back differently after {MAX_WRITES} writes");
        Err(io::Error::other(text))
    }

    /// Hashes what lies on the disk, from the start to the end of the file. What is dirty should
    /// have been synced before.
    pub(super) fn hash(&self, file: &File) -> io::Result<Digest> {
        self.disk.forget(file, 0, u64::MAX);
        let mut hasher = blake3::Hasher::new();
        let (mut buf, mut scratch) = (Vec::new(), Vec::new());
        let mut offset = 0;
        // Small files are the most: no more memory than they need to show their end.
        let mut len = READ_BACK_LEN.min(
            usize::try_from(file.metadata()?.len())
                .unwrap_or(READ_BACK_LEN)
                .saturating_add(1),
        );
        loop {
            buf.resize(len, 0);
            let read = self.read_back(file, &mut buf, offset, &mut scratch)?;
            hasher.update(buf.get(..read).unwrap_or_default());
            if read < len {
                return Ok(Digest::new(hasher.finalize().into()));
            }
            offset = offset.saturating_add(to_u64(read));
            len = READ_BACK_LEN;
        }
    }

    /// Fills `buf` from the disk, by votes; less only at the end of the file.
    fn read_back(
        &self,
        file: &File,
        buf: &mut [u8],
        offset: u64,
        scratch: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let read = read_voted(&*self.disk, file, buf, offset, self.votes, scratch)?;
        self.count(read);
        Ok(read)
    }

    /// Reads back the blocks that follow those of `good`, up to `end`, and compares their hashes.
    /// What is dirty should have been synced before.
    pub(super) fn check_blocks(
        &self,
        file: &File,
        mut good: TreeHash,
        cvs: &[Cv],
        end: u64,
    ) -> Checked {
        let start = good.blocks().saturating_mul(BLOCK_LEN_U64);
        self.disk.forget(file, start, end.saturating_sub(start));
        for cv in cvs {
            let problem = match self.read_block(file, good.blocks(), end) {
                Ok(found) if found == *cv => None,
                Ok(_) => Some(Problem::Mismatch),
                Err(error) => Some(Problem::Failed(error)),
            };
            if problem.is_some() {
                return Checked { good, problem };
            }
            good.push(*cv);
        }
        let problem = None;
        Checked { good, problem }
    }

    /// Reads back the first blocks of a file; `None` if they are not those of `expected`.
    pub(super) fn is_prefix(&self, file: &File, expected: &TreeHash) -> io::Result<bool> {
        let end = expected.blocks().saturating_mul(BLOCK_LEN_U64);
        self.disk.forget(file, 0, end);
        let mut found = TreeHash::new();
        while found.blocks() < expected.blocks() {
            found.push(self.read_block(file, found.blocks(), end)?);
        }
        Ok(found.stack() == expected.stack())
    }

    fn read_block(&self, file: &File, index: u64, end: u64) -> io::Result<Cv> {
        let start = index.saturating_mul(BLOCK_LEN_U64);
        let mut left = usize::try_from(end.saturating_sub(start))
            .unwrap_or(BLOCK_LEN)
            .min(BLOCK_LEN);
        let (mut buf, mut scratch) = (vec![0; left.min(READ_BACK_LEN)], Vec::new());
        let mut hasher = BlockHasher::new(index);
        let mut offset = start;
        while left > 0 {
            buf.truncate(left);
            let read = self.read_back(file, &mut buf, offset, &mut scratch)?;
            hasher.update(buf.get(..read).unwrap_or_default());
            if read < buf.len() {
                break;
            }
            left -= read;
            offset = offset.saturating_add(to_u64(read));
        }
        Ok(hasher.finish())
    }

    /// Makes files durable: one by one if they are few, else the file systems that hold them.
    pub(super) fn sync_all(&self, files: &[&File]) -> Vec<io::Result<()>> {
        /// From how many files on writing out everything costs less than a commit of the file
        /// system's journal for each.
        #[cfg(target_os = "linux")]
        const MANY: usize = 4;
        #[cfg(target_os = "linux")]
        if files.len() > MANY && self.sync_file_systems(files).is_ok() {
            return files.iter().map(|_| Ok(())).collect();
        }
        // One by one tells also which of them failed.
        files.iter().map(|file| self.disk.sync(file)).collect()
    }

    #[cfg(target_os = "linux")]
    fn sync_file_systems(&self, files: &[&File]) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let mut synced = std::collections::BTreeSet::new();
        for file in files {
            if synced.insert(file.metadata()?.dev()) {
                self.disk.sync_file_system(file)?;
            }
        }
        Ok(())
    }
}
