//! A piece of a source file as it was read: bytes, holes, and the hash over both.

use std::fmt;

use bytes::Bytes;

use crate::copy::progress::Digest;
use crate::copy::tree_hash::Cv;

/// A block of a source file: 1 MiB, or what the file's end leaves of it.
#[derive(Debug, Clone)]
pub(in crate::copy) struct Block {
    pub(super) runs: Vec<Run>,
    pub(super) hash: BlockHash,
}

/// A part of a block.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::copy) enum Run {
    /// Bytes; never none.
    Data(Bytes),
    /// So many zeros of which the file system keeps nothing; at least 64 KiB.
    Hole(u64),
}

/// What the hash of a block is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::copy) enum BlockHash {
    /// The block is one of several.
    Cv(Cv),
    /// The block is the whole file, and this is the file's hash.
    Root(Digest),
}

impl Block {
    /// The content from front to back; nothing for an empty file.
    pub(in crate::copy) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The chaining value of a block that is one of several, or the hash of the whole file.
    pub(in crate::copy) fn hash(&self) -> BlockHash {
        self.hash
    }

    /// Length in bytes, holes included.
    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.runs.iter().map(Run::len).sum()
    }

    /// How many bytes of memory the content takes.
    pub(super) fn held(&self) -> u64 {
        let held = |run: &Run| match run {
            Run::Data(_) => run.len(),
            Run::Hole(_) => 0,
        };
        self.runs.iter().map(held).sum()
    }
}

impl Run {
    /// Length in bytes.
    pub(in crate::copy) fn len(&self) -> u64 {
        match self {
            Self::Data(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::Hole(len) => *len,
        }
    }
}

/// Without the content.
impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(bytes) => write!(f, "Data({} bytes)", bytes.len()),
            Self::Hole(len) => write!(f, "Hole({len} bytes)"),
        }
    }
}
