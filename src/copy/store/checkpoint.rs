//! Checkpoints of a large file: every 4 MiB are synced, read back, compared, and vouched for.
//!
//! The work goes on behind the writing, one checkpoint at a time, so that receiving,
//! writing, and reading back overlap. They may end in any order; the journal grows in the file's.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Task;
use super::journal::Journal;
use super::storage::{Checked, Problem, Storage};
use crate::copy::tree_hash::{BLOCK_LEN_U64, Cv, TreeHash};

/// Blocks between two checkpoints. With one at work and the next not begun, a kill makes the sender
/// send less than twice as many again.
pub(super) const BLOCKS: usize = 4;

/// Checkpoints at work at a time.
pub(super) const MAX_OUTSTANDING: usize = 1;

/// What the session, its checkpoints, and a session that takes over share of one file.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) file: Arc<File>,
    pub(super) size: u64,
    /// Whether another session took the file over; held by whoever works on the file's name or
    /// content, so that taking over comes before or after, never within.
    superseded: Mutex<bool>,
    ledger: Mutex<Ledger>,
}

/// What is known to be good.
///
/// # Invariants
/// - Everything that `good` holds was synced, read back, and equal to the sender's hashes.
/// - The journal never holds more than `good`.
#[derive(Debug)]
pub(super) struct Ledger {
    /// `None`: nobody can go on with this file.
    pub(super) journal: Option<Journal>,
    pub(super) good: TreeHash,
    pub(super) problem: Option<Problem>,
    /// Checkpoints that ended before one in front of them, by their first block.
    early: BTreeMap<u64, Checked>,
}

impl Live {
    pub(super) fn new(
        file: Arc<File>,
        size: u64,
        journal: Option<Journal>,
        good: TreeHash,
    ) -> Self {
        Self {
            file,
            size,
            superseded: Mutex::new(false),
            ledger: Mutex::new(Ledger {
                journal,
                good,
                problem: None,
                early: BTreeMap::new(),
            }),
        }
    }

    /// Holds off a session that wants to take over; `None`: one has done so.
    pub(super) fn hold(&self) -> Option<MutexGuard<'_, bool>> {
        let superseded = lock(&self.superseded);
        (!*superseded).then_some(superseded)
    }

    pub(super) fn supersede(&self) {
        let mut superseded = lock(&self.superseded);
        if std::mem::replace(&mut *superseded, true) {
            return;
        }
        // A checkpoint still at work vouches for nothing any more.
        lock(&self.ledger).journal = None;
        // Whoever takes over locks it through a handle of its own, while a checkpoint may still
        // have this one.
        let _ = self.file.unlock();
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Takes what a checkpoint found, and what came early, in the file's order.
    fn settle(&self, start: u64, checked: Checked) {
        let mut ledger = lock(&self.ledger);
        ledger.early.insert(start, checked);
        while ledger.problem.is_none() {
            let next = ledger.good.blocks();
            let Some(checked) = ledger.early.remove(&next) else {
                break;
            };
            ledger.advance(checked, self.size);
        }
    }
}

impl Ledger {
    fn advance(&mut self, checked: Checked, size: u64) {
        let Checked { good, problem } = checked;
        self.problem = problem;
        let end = good.blocks().saturating_mul(BLOCK_LEN_U64);
        // A whole file needs no journal: it is about to get its name.
        if good.blocks() > self.good.blocks()
            && end < size
            && let Some(journal) = &mut self.journal
            && let Err(error) = journal.append(&good)
        {
            self.problem.get_or_insert(Problem::Failed(error));
            return;
        }
        self.good = good;
    }
}

/// One range to be made sure of.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) live: Arc<Live>,
    pub(super) storage: Storage,
    /// The blocks before the range.
    pub(super) before: TreeHash,
    /// The sender's hashes of the range's blocks.
    pub(super) cvs: Vec<Cv>,
    /// Where the range ends, in bytes.
    pub(super) end: u64,
}

/// A checkpoint that was begun, or is about to be.
#[derive(Debug)]
pub(super) struct Outstanding {
    /// Until somebody begins it.
    unbegun: Arc<Mutex<Option<Checkpoint>>>,
    /// Closed once whoever began it is done.
    done: Receiver<()>,
}

impl Outstanding {
    /// Waits for the end. Whoever waits is a blocking task itself, and there are only so many threads
    /// for those: what no other has begun is done here, or all could wait for each other.
    pub(super) fn wait(self) {
        let unbegun = lock(&self.unbegun).take();
        if let Some(checkpoint) = unbegun {
            checkpoint.run();
        } else {
            let _ = self.done.recv();
        }
    }
}

impl Checkpoint {
    /// Splits into work that may be done elsewhere, and what waits for its end.
    pub(super) fn into_task(self) -> (Task, Outstanding) {
        let (closes_when_done, done) = sync_channel::<()>(0);
        let unbegun = Arc::new(Mutex::new(Some(self)));
        let shared = Arc::clone(&unbegun);
        let task = Box::new(move || {
            let unbegun = lock(&shared).take();
            if let Some(checkpoint) = unbegun {
                checkpoint.run();
            }
            drop(closes_when_done);
        });
        (task, Outstanding { unbegun, done })
    }

    pub(super) fn run(self) {
        let start = self.before.blocks();
        let file = &self.live.file;
        let checked = match self.storage.disk.sync_data(file) {
            Ok(()) => self
                .storage
                .check_blocks(file, self.before, &self.cvs, self.end),
            Err(error) => Checked {
                good: self.before,
                problem: Some(Problem::Failed(error)),
            },
        };
        self.live.settle(start, checked);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they guard is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
