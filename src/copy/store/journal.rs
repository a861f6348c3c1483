//! What is known to be good of a partial file, so that a later session goes on from there.
//!
//! A journal is a ring of records of fixed length; the newest whole one that fits the file counts. A
//! record is only written after the range that it vouches for was synced, read back and found equal
//! to the sender's hashes. It is not synced itself: a power cut that loses it costs sending again, no
//! more. Taking a journal back is synced, before the first byte of the partial file changes.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::copy::disk::{Disk, read_voted, to_u64, write_full};
use crate::copy::tree_hash::{Cv, TreeHash};

/// Length of a record, in bytes: 44 subtrees are the most of any file, and there is room.
const RECORD_LEN: usize = 2048;

/// How many records the ring holds: a torn one leaves the ones before.
const RECORDS: u64 = 8;

const MAGIC: [u8; 8] = *b"rudpjrn1";

/// What is in front of the subtrees' hashes, in bytes.
const FIXED_LEN: usize = 8 + 8 + 16 + 8 + 8;

/// What a partial file may be continued for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject {
    /// Length of the whole file, in bytes.
    pub(super) size: u64,
    /// The sender's mark for this content.
    pub(super) tag: [u8; 16],
    /// Which file on the disk, so that a journal does not vouch for another of the same name.
    pub(super) inode: u64,
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    disk: Arc<dyn Disk>,
    subject: Subject,
    next: u64,
}

impl Journal {
    /// Reads what a journal says of `subject`: the blocks that are good, and where the next record
    /// goes. Whatever is wrong with the journal means that nothing is known.
    pub(super) fn open(
        file: File,
        disk: Arc<dyn Disk>,
        subject: Subject,
        votes: u8,
    ) -> (Self, TreeHash) {
        let mut best = TreeHash::new();
        let mut next = 0;
        let mut buf = [0; RECORD_LEN];
        let mut scratch = Vec::new();
        for slot in 0..RECORDS {
            let offset = slot * to_u64(RECORD_LEN);
            let read = read_voted(&*disk, &file, &mut buf, offset, votes, &mut scratch);
            if matches!(read, Ok(RECORD_LEN))
                && let Some(tree) = decode(&buf, &subject)
                && tree.blocks() > best.blocks()
            {
                best = tree;
                next = slot + 1;
            }
        }
        let journal = Self {
            file,
            disk,
            subject,
            next,
        };
        (journal, best)
    }

    /// Takes everything back, durably.
    pub(super) fn reset(&mut self) -> io::Result<()> {
        self.next = 0;
        if self.file.metadata()?.len() > 0 {
            self.file.set_len(0)?;
            self.disk.sync(&self.file)?;
        }
        Ok(())
    }

    /// Vouches for the blocks of `tree`.
    pub(super) fn append(&mut self, tree: &TreeHash) -> io::Result<()> {
        let record = encode(&self.subject, tree);
        let offset = (self.next % RECORDS) * to_u64(RECORD_LEN);
        write_full(&*self.disk, &self.file, &record, offset)?;
        self.next += 1;
        Ok(())
    }
}

fn encode(subject: &Subject, tree: &TreeHash) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD_LEN);
    record.extend_from_slice(&MAGIC);
    record.extend_from_slice(&subject.size.to_be_bytes());
    record.extend_from_slice(&subject.tag);
    record.extend_from_slice(&subject.inode.to_be_bytes());
    record.extend_from_slice(&tree.blocks().to_be_bytes());
    for cv in tree.stack() {
        record.extend_from_slice(cv);
    }
    record.resize(RECORD_LEN - 32, 0);
    let check = blake3::hash(&record);
    record.extend_from_slice(check.as_bytes());
    record
}

fn decode(record: &[u8], subject: &Subject) -> Option<TreeHash> {
    let (content, check) = record.split_last_chunk::<32>()?;
    if *blake3::hash(content).as_bytes() != *check {
        return None;
    }
    let (fixed, stack) = content.split_at_checked(FIXED_LEN)?;
    let blocks = u64::from_be_bytes(*fixed.last_chunk()?);
    let depth = usize::try_from(blocks.count_ones()).ok()?;
    let stack: Vec<Cv> = stack.as_chunks::<32>().0.get(..depth)?.to_vec();
    let tree = TreeHash::from_stack(blocks, stack)?;
    // The whole record, so that a field cannot be forgotten here.
    (encode(subject, &tree) == record).then_some(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::disk::PlainDisk;

    const SUBJECT: Subject = Subject {
        size: 100 << 20,
        tag: [7; 16],
        inode: 11,
    };

    fn tree(blocks: u8) -> TreeHash {
        let mut tree = TreeHash::new();
        (0..blocks).for_each(|block| tree.push([block; 32]));
        tree
    }

    fn open(file: &File, subject: Subject) -> (Journal, u64) {
        let file = file.try_clone().unwrap();
        let (journal, tree) = Journal::open(file, Arc::new(PlainDisk), subject, 0);
        (journal, tree.blocks())
    }

    #[test]
    fn the_newest_record_counts_also_after_the_ring_went_round() {
        let file = tempfile::tempfile().unwrap();
        let (mut journal, blocks) = open(&file, SUBJECT);
        assert_eq!(blocks, 0);
        for blocks in 1..30 {
            journal.append(&tree(blocks)).unwrap();
            let (again, found) = open(&file, SUBJECT);
            assert_eq!(found, u64::from(blocks));
            assert_eq!(again.next % RECORDS, journal.next % RECORDS);
        }
        let (_, found) = Journal::open(file.try_clone().unwrap(), Arc::new(PlainDisk), SUBJECT, 0);
        assert_eq!(found.stack(), tree(29).stack());
        assert_eq!(file.metadata().unwrap().len(), 8 * 2048);
    }

    #[test]
    fn a_record_of_another_file_does_not_count() {
        let file = tempfile::tempfile().unwrap();
        open(&file, SUBJECT).0.append(&tree(3)).unwrap();
        let others = [
            Subject { size: 1, ..SUBJECT },
            Subject {
                tag: [8; 16],
                ..SUBJECT
            },
            Subject {
                inode: 12,
                ..SUBJECT
            },
        ];
        for other in others {
            assert_eq!(open(&file, other).1, 0, "{other:?}");
        }
        assert_eq!(open(&file, SUBJECT).1, 3);
    }

    #[test]
    fn a_torn_or_damaged_record_leaves_the_one_before() {
        for damage in [0, 8, 40, 47, 48, 100, 2000, 2047] {
            let file = tempfile::tempfile().unwrap();
            let (mut journal, _) = open(&file, SUBJECT);
            journal.append(&tree(4)).unwrap();
            journal.append(&tree(8)).unwrap();
            let mut byte = [0];
            PlainDisk.read_at(&file, &mut byte, 2048 + damage).unwrap();
            PlainDisk
                .write_at(&file, &[byte[0] ^ 1], 2048 + damage)
                .unwrap();
            assert_eq!(open(&file, SUBJECT).1, 4, "byte {damage}");
            file.set_len(2048 + damage).unwrap();
            assert_eq!(open(&file, SUBJECT).1, 4, "cut at {damage}");
        }
    }

    #[test]
    fn what_is_taken_back_is_gone() {
        let file = tempfile::tempfile().unwrap();
        let (mut journal, _) = open(&file, SUBJECT);
        journal.append(&tree(4)).unwrap();
        journal.reset().unwrap();
        assert_eq!(open(&file, SUBJECT).1, 0);
        journal.append(&tree(1)).unwrap();
        assert_eq!(open(&file, SUBJECT).1, 1);
    }
}
