//! The large files being received by all sessions of one receiver.
//!
//! A sender that was killed and started again comes back before its old session is noticed to be
//! dead. The new session takes the file over: the old one may not touch it from then on, what it
//! checked so far stays, and nothing waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::checkpoint::Live;

/// The large files being received by all sessions of one receiver.
#[derive(Debug, Default)]
pub(in crate::copy) struct Partials {
    sessions: AtomicU64,
    /// By path below the root.
    live: Mutex<HashMap<Arc<[u8]>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    session: u64,
    live: Arc<Live>,
}

impl Partials {
    /// Returns a number that no other session has.
    pub(super) fn join(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn insert(&self, path: Arc<[u8]>, session: u64, live: Arc<Live>) {
        let before = self.lock().insert(path, Entry { session, live });
        if let Some(before) = before {
            before.live.supersede();
        }
    }

    /// Removes the entry, if it is still of this file.
    pub(super) fn remove(&self, path: &[u8], live: &Arc<Live>) {
        let mut entries = self.lock();
        if entries
            .get(path)
            .is_some_and(|entry| Arc::ptr_eq(&entry.live, live))
        {
            entries.remove(path);
        }
    }

    /// Ends what another session does with this path. Waits for a write under way, not for more.
    pub(super) fn take_over(&self, path: &[u8], session: u64) {
        let live = {
            let mut entries = self.lock();
            match entries.get(path) {
                Some(entry) if entry.session != session => entries.remove(path),
                _ => None,
            }
        };
        if let Some(entry) = live {
            entry.live.supersede();
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<[u8]>, Entry>> {
        // Nothing is left half done in it.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
