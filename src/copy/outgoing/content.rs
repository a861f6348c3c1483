//! The content of one file on its way, block by block.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::super::progress::Digest;
use super::super::protocol::Frame;
use super::super::source::{BlockHash, Opened, ReadError, Run};
use super::super::tree_hash::{BLOCK_LEN_U64, Cv, TreeHash};
use super::output::Output;

/// The file being sent.
///
/// # Invariants
/// - `tree` covers the blocks before `next`.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) id: u64,
    pub(super) shown: Arc<Path>,
    opened: Opened,
    hash: Hash,
    next: u64,
    blocks: u64,
}

#[derive(Debug)]
enum Hash {
    /// Of at most one block; known once that was read.
    Single(Option<Digest>),
    Tree(TreeHash),
}

/// What a step came to.
#[derive(Debug)]
pub(super) enum Sent {
    /// A block: how many bytes of the file, and how many of them crossed the stream.
    Block {
        len: u64,
        crossed: u64,
    },
    /// Everything; the hash of the whole file.
    All(Digest),
    /// The source is not what was offered any more.
    Changed,
    Failed(Arc<io::Error>),
}

impl Content {
    /// Begins at byte `from`, of which `stack` tells the hashes of what lies before. `None` if no
    /// file of that size can go on there.
    pub(super) fn new(
        id: u64,
        shown: Arc<Path>,
        opened: Opened,
        from: u64,
        stack: Vec<Cv>,
    ) -> Option<Self> {
        let blocks = opened.blocks();
        let next = from / BLOCK_LEN_U64;
        let hash = if blocks == 1 {
            Hash::Single(None)
        } else {
            Hash::Tree(TreeHash::from_stack(next, stack)?)
        };
        // The last block is always sent: without it the root could not be computed.
        (from.is_multiple_of(BLOCK_LEN_U64) && next < blocks).then_some(Self {
            id,
            shown,
            opened,
            hash,
            next,
            blocks,
        })
    }

    /// Sends the next block, or the end.
    pub(super) fn step(&mut self, output: &mut Output) -> Sent {
        if self.next < self.blocks {
            return self.send_block(output);
        }
        match self.opened.is_unchanged() {
            Ok(true) => {}
            Ok(false) | Err(ReadError::Changed) => return Sent::Changed,
            Err(ReadError::Io(error)) => return Sent::Failed(error),
        }
        let root = match &self.hash {
            Hash::Single(root) => *root,
            Hash::Tree(tree) => tree.clone().root(),
        };
        let Some(root) = root else {
            return Sent::Failed(Arc::new(io::Error::other("the hash has no root")));
        };
        output.frame(&Frame::End(root));
        Sent::All(root)
    }

    fn send_block(&mut self, output: &mut Output) -> Sent {
        let block = match self.opened.block(self.next) {
            Ok(block) => block,
            Err(ReadError::Changed) => return Sent::Changed,
            Err(ReadError::Io(error)) => return Sent::Failed(error),
        };
        let (mut len, mut crossed) = (0, 0);
        for run in block.runs() {
            match run {
                Run::Data(bytes) => {
                    let bytes_len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    (len, crossed) = (len + bytes_len, crossed + bytes_len);
                    output.data(bytes.clone());
                }
                Run::Hole(hole) => {
                    len += hole;
                    output.frame(&Frame::Hole(*hole));
                }
            }
        }
        match (&mut self.hash, block.hash()) {
            (Hash::Tree(tree), BlockHash::Cv(cv)) => {
                output.frame(&Frame::Block(cv));
                tree.push(cv);
            }
            (hash, BlockHash::Root(root)) => *hash = Hash::Single(Some(root)),
            // As many blocks as the file has make a tree.
            (Hash::Single(_), BlockHash::Cv(_)) => {}
        }
        self.next += 1;
        Sent::Block { len, crossed }
    }
}
