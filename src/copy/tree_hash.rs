//! BLAKE3 of a file, block by block: each block's chaining value, and the hash of the whole from them.
//!
//! A block of 1 MiB is a complete subtree of BLAKE3's tree (1,024 chunks), so the hash of a file
//! follows from its blocks' chaining values alone, wherever and whenever they were computed. A copy
//! that goes on in the middle needs [`TreeHash::stack`] of what lies before, at most 44 values, and
//! none of the bytes. Section 2.1 of the BLAKE3 paper has the tree: a parent's left child is the
//! largest power of two of chunks that leaves at least one byte for the right child.
//!
//! Files of at most one block have no parent above their block: their hash is the block's own root.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use super::progress::Digest;

/// Length of every block but the last of a file, in bytes.
pub(super) const BLOCK_LEN: usize = 1 << 20;

/// The same, for arithmetic with offsets.
pub(super) const BLOCK_LEN_U64: u64 = 1 << 20;

/// A chaining value: the hash of a subtree that is not the whole tree.
pub(super) type Cv = [u8; 32];

/// Zeros to hash in place of a hole.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Computes the chaining value of block `index` (from 0) of a file of more than one block. Only the
/// last block may be short, and none is empty.
#[cfg(test)]
pub(super) fn block_cv(index: u64, bytes: &[u8]) -> Cv {
    let mut hasher = BlockHasher::new(index);
    hasher.update(bytes);
    hasher.finish()
}

/// Computes the hash of a file of at most one block.
#[cfg(test)]
pub(super) fn root_of_one(bytes: &[u8]) -> Digest {
    Digest::new(blake3::hash(bytes).into())
}

/// Hashes one block piece by piece.
#[derive(Debug, Clone)]
pub(super) struct BlockHasher {
    hasher: Box<blake3::Hasher>,
    index: u64,
    room: usize,
}

impl BlockHasher {
    /// Begins block `index`, counted from 0.
    pub(super) fn new(index: u64) -> Self {
        let mut hasher = Box::new(blake3::Hasher::new());
        hasher.set_input_offset(index.wrapping_mul(BLOCK_LEN_U64));
        Self {
            hasher,
            index,
            room: BLOCK_LEN,
        }
    }

    /// Takes the next bytes. What goes past the block's end is left out: a subtree cannot hold it.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        let taken = bytes.get(..self.room).unwrap_or(bytes);
        self.room -= taken.len();
        self.hasher.update(taken);
    }

    /// Takes `len` zeros, without anybody having to hold them.
    pub(super) fn update_zeros(&mut self, len: u64) {
        let mut left = usize::try_from(len).map_or(self.room, |len| len.min(self.room));
        while left > 0 {
            let zeros = ZEROS.get(..left).unwrap_or(&ZEROS);
            self.update(zeros);
            left -= zeros.len();
        }
    }

    /// Ends the block of a file that has others. There is no subtree without bytes: an empty block
    /// yields zeros, which no content has.
    pub(super) fn finish(&self) -> Cv {
        if self.room == BLOCK_LEN {
            return Cv::default();
        }
        self.hasher.finalize_non_root()
    }

    /// Ends a block that is all of its file, which only block 0 can be. What another block yields
    /// is the hash of no file.
    pub(super) fn finish_root(&self) -> Digest {
        if self.index != 0 {
            return Digest::new(self.finish());
        }
        Digest::new(self.hasher.finalize().into())
    }
}

/// The tree over the blocks of a file of at least two, as far as it has been seen.
///
/// # Invariants
/// - `stack` holds the chaining values of the complete subtrees, largest first: one for each bit set
///   in `blocks`.
/// - `top` holds the two halves of the subtree that is all of the tree, if they are known: where
///   `blocks` is a power of two, the root is computed from them and not from their parent's value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TreeHash {
    stack: Vec<Cv>,
    blocks: u64,
    top: Option<(Cv, Cv)>,
}

impl TreeHash {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Goes on after `blocks` whole blocks, of which `stack` tells the complete subtrees, largest
    /// first. `None` if there are more or fewer than that many blocks have.
    pub(super) fn from_stack(blocks: u64, stack: Vec<Cv>) -> Option<Self> {
        let is_whole = usize::try_from(blocks.count_ones()) == Ok(stack.len());
        is_whole.then_some(Self {
            stack,
            blocks,
            top: None,
        })
    }

    /// Appends a block. Nothing may follow a short one.
    pub(super) fn push(&mut self, cv: Cv) {
        let mut merged = cv;
        self.top = None;
        for _ in 0..self.blocks.trailing_ones() {
            let Some(left) = self.stack.pop() else { break };
            self.top = Some((left, merged));
            merged = merge_subtrees_non_root(&left, &merged, Mode::Hash);
        }
        self.stack.push(merged);
        self.blocks = self.blocks.saturating_add(1);
    }

    /// The chaining values of the complete subtrees, largest first.
    pub(super) fn stack(&self) -> &[Cv] {
        &self.stack
    }

    /// How many blocks there are.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Computes the hash of the file. `None` with fewer than two blocks, and with a power of two of
    /// which none was pushed since [`from_stack`](Self::from_stack): who goes on in the middle must
    /// leave at least the last block.
    pub(super) fn root(self) -> Option<Digest> {
        let (mut left, mut right) = match self.stack.as_slice() {
            [_] => self.top?,
            [.., left, right] => (*left, *right),
            [] => return None,
        };
        for outer in self.stack.iter().rev().skip(2) {
            right = merge_subtrees_non_root(&left, &right, Mode::Hash);
            left = *outer;
        }
        let root = merge_subtrees_root(&left, &right, Mode::Hash);
        Some(Digest::new(root.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that differ from block to block.
    fn content(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn expected(bytes: &[u8]) -> Digest {
        Digest::new(blake3::hash(bytes).into())
    }

    fn cvs(bytes: &[u8]) -> Vec<Cv> {
        (0..)
            .zip(bytes.chunks(BLOCK_LEN))
            .map(|(index, block)| block_cv(index, block))
            .collect()
    }

    #[test]
    fn one_block_has_the_files_own_hash() {
        for len in [0, 1, 1023, 1024, 1025, BLOCK_LEN - 1, BLOCK_LEN] {
            let bytes = content(len);
            assert_eq!(root_of_one(&bytes), expected(&bytes), "{len} bytes");
            let mut hasher = BlockHasher::new(0);
            for piece in bytes.chunks(1000) {
                hasher.update(piece);
            }
            assert_eq!(
                hasher.finish_root(),
                expected(&bytes),
                "{len} bytes in pieces"
            );
        }
    }

    #[test]
    fn blocks_merge_to_the_files_hash_and_go_on_from_anywhere() {
        let all = content(17 * BLOCK_LEN);
        let lens = (2..=17).flat_map(|blocks| {
            [1, 1023, 1025, BLOCK_LEN - 1, BLOCK_LEN].map(|tail| (blocks - 1) * BLOCK_LEN + tail)
        });
        for len in lens {
            let bytes = &all[..len];
            let cvs = cvs(bytes);
            let mut tree = TreeHash::new();
            for (at, cv) in cvs.iter().enumerate() {
                assert_eq!(
                    tree.stack().len(),
                    tree.blocks().count_ones().try_into().unwrap()
                );
                // Somebody who knows no more than the stack takes over here.
                let mut heir = TreeHash::from_stack(tree.blocks(), tree.stack().to_vec()).unwrap();
                cvs[at..].iter().for_each(|cv| heir.push(*cv));
                assert_eq!(heir.root(), Some(expected(bytes)), "{len} bytes from {at}");
                tree.push(*cv);
            }
            assert_eq!(tree.blocks(), cvs.len() as u64);
            assert_eq!(tree.root(), Some(expected(bytes)), "{len} bytes");
        }
    }

    #[test]
    fn too_few_blocks_have_no_root() {
        let mut tree = TreeHash::new();
        assert_eq!(tree.clone().root(), None);
        tree.push([1; 32]);
        assert_eq!(tree.clone().root(), None);
        tree.push([2; 32]);
        assert!(tree.clone().root().is_some());
        let heir = TreeHash::from_stack(2, tree.stack().to_vec()).unwrap();
        assert_eq!(heir.root(), None, "the halves are not known");
    }

    #[test]
    fn stacks_of_another_length_are_refused() {
        for (blocks, values) in [(0, 1), (1, 0), (3, 1), (4, 2), (u64::MAX, 63)] {
            assert_eq!(
                TreeHash::from_stack(blocks, vec![[0; 32]; values]),
                None,
                "{blocks} blocks"
            );
        }
        let mut full = TreeHash::from_stack(u64::MAX, vec![[0; 32]; 64]).unwrap();
        full.push([1; 32]);
        assert_eq!(full.blocks(), u64::MAX, "and no panic");
    }

    #[test]
    fn zeros_hash_like_bytes() {
        let mut bytes = content(3000);
        bytes.resize(500_000, 0);
        let mut hasher = BlockHasher::new(5);
        hasher.update(&bytes[..3000]);
        hasher.update_zeros(497_000);
        assert_eq!(hasher.finish(), block_cv(5, &bytes));
    }

    #[test]
    fn wrong_use_yields_wrong_values_and_no_panic() {
        assert_eq!(block_cv(3, &[]), Cv::default());
        let long = vec![7; BLOCK_LEN + 1];
        assert_eq!(block_cv(3, &long), block_cv(3, &long[..BLOCK_LEN]));
        let mut zeros = BlockHasher::new(1);
        zeros.update_zeros(u64::MAX);
        assert_eq!(zeros.finish(), block_cv(1, &vec![0; BLOCK_LEN]));
        let mut hasher = BlockHasher::new(u64::MAX);
        hasher.update(b"x");
        assert_ne!(hasher.finish_root(), root_of_one(b"x"));
    }
}
