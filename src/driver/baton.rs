//! One at a time, and nobody waits: whoever finds the baton taken leaves the work to its holder.

use std::sync::TryLockError;

use super::sync::{AtomicBool, Mutex, Ordering};

/// A value that is used by one task at a time, in turns that cover the work of all.
///
/// A task that has made work asks for a turn. If another one is in its turn at the time, that one learns
/// of the request when its turn ends, and has to see to it.
///
/// Why no request is lost: every access to `is_asked` reads and writes, so that all of them stand in one
/// order. A request before the access that begins a turn is covered by the turn, and one before the access
/// that ends it is reported there. One after that happens after the value was let go: its task finds the
/// lock free, or held by a third one, for whom the same applies.
#[derive(Debug)]
pub(super) struct Baton<T> {
    value: Mutex<T>,
    /// Whether a turn was asked for since the latest one began.
    is_asked: AtomicBool,
}

/// A turn that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) struct Turn<R> {
    /// What it came to.
    pub(super) outcome: R,
    /// Whether others asked since it began and rely on this task for another one.
    pub(super) is_asked: bool,
}

impl<T> Baton<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            is_asked: AtomicBool::new(false),
        }
    }

    /// Runs `turn`; `None` if somebody else is in a turn, who sees to what this one was for.
    pub(super) fn take_turn<R>(&self, turn: impl FnOnce(&mut T) -> R) -> Option<Turn<R>> {
        self.is_asked.swap(true, Ordering::AcqRel);
        let mut value = match self.value.try_lock() {
            Ok(value) => value,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.is_asked.swap(false, Ordering::AcqRel);
        let outcome = turn(&mut value);
        drop(value);
        Some(Turn {
            outcome,
            is_asked: self.is_asked.swap(false, Ordering::AcqRel),
        })
    }
}
