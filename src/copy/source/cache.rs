//! Blocks of source files between the session that reads them and those that take them later.
//!
//! Sessions go through the same tree in the same order, each at its receiver's pace. Whoever comes
//! to a block first reads it; it stays until every session that is still to come there has taken it,
//! or until the budget is used up and it is the oldest. Who comes later than that reads it again. So
//! no session ever waits for another, except for a reading that is under way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ReadError;
use super::block::Block;
use super::load::Load;
use super::version::Version;
use crate::copy::path::WirePath;

/// What an entry is counted for besides its bytes and its path, in bytes: its place in the maps, and the
/// sessions that are to take it.
pub(super) const ENTRY_OVERHEAD: u64 = 512;

/// Stands for the file's hash in place of a block's index.
pub(super) const DIGEST: u64 = u64::MAX;

/// How many files that a session passed are remembered; more than any has without a verdict.
const MAX_PASSED: usize = 8192;

pub(super) type SessionId = u64;

/// Names a block.
#[derive(Debug, Clone)]
pub(super) struct BlockId {
    pub(super) path: WirePath,
    pub(super) version: Version,
    /// How many files the walk found before this one: tells which sessions are still to come here.
    /// If the tree changes between two walks it is somewhat off, which costs a reading or some
    /// memory.
    pub(super) order: u64,
    /// The block's index, or [`DIGEST`].
    pub(super) index: u64,
}

/// The blocks, and which session is to take them.
///
/// # Invariants
/// - `used` is the cost of all entries and readings under way, `ahead` that of those readings ahead
///   and entries that are pinned.
/// - `ages` lists exactly the entries that are ready.
/// - An entry has claims, all of registered sessions, and is pinned at most by one of them. A session
///   pins at most one entry.
/// - `used` exceeds the budget by at most one block per registered session: only what a session
///   waits for is read without room for it, after everything unpinned went.
#[derive(Debug)]
pub(super) struct Cache {
    state: Mutex<State>,
    budget: u64,
}

#[derive(Debug, Default)]
struct State {
    sessions: BTreeMap<SessionId, Progress>,
    next_session: SessionId,
    files: HashMap<WirePath, Cached>,
    ages: BTreeMap<u64, (WirePath, u64)>,
    next_age: u64,
    used: u64,
    ahead: u64,
    #[cfg(test)]
    peak: u64,
}

/// How far a session is.
#[derive(Debug, Default)]
struct Progress {
    /// Order and index of the first block that it has not taken, nor one behind it.
    next: (u64, u64),
    /// Order of the first file whose hash it has not taken, nor one behind it.
    next_digest: u64,
    /// Files from `next` on that it does not want.
    passed: BTreeSet<u64>,
    pinned: Option<(WirePath, u64)>,
}

/// What there is of a file.
#[derive(Debug)]
struct Cached {
    version: Version,
    blocks: BTreeMap<u64, Slot>,
}

#[derive(Debug)]
enum Slot {
    Loading(Arc<Load>),
    Ready(Entry),
}

#[derive(Debug)]
struct Entry {
    block: Arc<Block>,
    cost: u64,
    age: u64,
    claims: Vec<SessionId>,
    pinned_by: Option<SessionId>,
}

/// What a session finds at a block.
enum Found {
    Ready(Arc<Block>),
    Loading(Arc<Load>),
    /// Nothing: it is to read the block, and others wait for it from now on.
    Missing(Arc<Load>),
}

impl Cache {
    pub(super) fn new(budget: u64) -> Self {
        Self {
            state: Mutex::default(),
            budget,
        }
    }

    /// Begins a session: what is read from now on is kept for it.
    pub(super) fn register(&self) -> SessionId {
        let mut state = self.lock();
        let id = state.next_session;
        state.next_session += 1;
        state.sessions.insert(id, Progress::default());
        id
    }

    /// Ends a session: nothing is kept for it any more.
    pub(super) fn leave(&self, session: SessionId) {
        let mut state = self.lock();
        state.sessions.remove(&session);
        let paths: Vec<_> = state.files.keys().cloned().collect();
        for path in paths {
            state.release(session, &path);
        }
    }

    /// The session does not want the content of this file: nothing of it is kept for it.
    pub(super) fn pass(&self, session: SessionId, path: &WirePath, order: u64) {
        let mut state = self.lock();
        if let Some(progress) = state.sessions.get_mut(&session)
            && order >= progress.next.0
        {
            progress.passed.insert(order);
            if progress.passed.len() > MAX_PASSED {
                progress.passed.pop_first();
            }
        }
        state.release(session, path);
    }

    /// Takes a block, and reads it if need be. `room`: the most that it may cost. `may_go_on` is asked
    /// now and then while another session reads it.
    pub(super) fn take(
        &self,
        session: SessionId,
        id: &BlockId,
        room: u64,
        may_go_on: &dyn Fn() -> bool,
        read: impl FnOnce() -> Result<Block, ReadError>,
    ) -> Result<Arc<Block>, ReadError> {
        loop {
            let load = match self.find(session, id, room) {
                Found::Ready(block) => return Ok(block),
                Found::Loading(load) => match load.wait(may_go_on) {
                    Some(Ok(block)) => {
                        self.lock().took(session, id);
                        return Ok(block);
                    }
                    Some(Err(error)) => return Err(error),
                    None => continue,
                },
                Found::Missing(load) => load,
            };
            let reading = Reading::new(self, id, room, load, None);
            let block = read().map(Arc::new);
            if block.is_ok() {
                // Before it is kept: not for this session.
                self.lock().took(session, id);
            }
            reading.finish(block.clone());
            return block;
        }
    }

    /// Reads a block that the session will take next, unless there is no room for it, it is there,
    /// or the session was faster. `is_wanted` is asked after reading.
    pub(super) fn read_ahead(
        &self,
        session: SessionId,
        id: &BlockId,
        room: u64,
        is_wanted: impl FnOnce() -> bool,
        read: impl FnOnce() -> Result<Block, ReadError>,
    ) {
        let Some(load) = self.lock().begin_ahead(session, id, room, self.budget) else {
            return;
        };
        let reading = Reading::new(self, id, room, load, Some(session));
        let block = read().map(Arc::new);
        if is_wanted() {
            reading.finish(block);
        } else {
            reading.without_pin().finish(block);
        }
    }

    fn find(&self, session: SessionId, id: &BlockId, room: u64) -> Found {
        let mut state = self.lock();
        match state.slot(id) {
            Some(Slot::Ready(entry)) => {
                let block = Arc::clone(&entry.block);
                state.took(session, id);
                Found::Ready(block)
            }
            Some(Slot::Loading(load)) => Found::Loading(Arc::clone(load)),
            None => {
                state.make_room(room, self.budget);
                Found::Missing(state.begin(id, room))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn slot(&self, id: &BlockId) -> Option<&Slot> {
        let cached = self.files.get(&id.path)?;
        (cached.version == id.version)
            .then(|| cached.blocks.get(&id.index))
            .flatten()
    }

    fn entry_mut(&mut self, path: &WirePath, index: u64) -> Option<&mut Entry> {
        match self.files.get_mut(path)?.blocks.get_mut(&index)? {
            Slot::Ready(entry) => Some(entry),
            Slot::Loading(_) => None,
        }
    }

    /// Whether the session is still to take the block.
    fn wants(progress: &Progress, id: &BlockId) -> bool {
        if id.index == DIGEST {
            return id.order >= progress.next_digest;
        }
        (id.order, id.index) >= progress.next && !progress.passed.contains(&id.order)
    }

    /// The session has the block.
    fn took(&mut self, session: SessionId, id: &BlockId) {
        if let Some(progress) = self.sessions.get_mut(&session) {
            if id.index == DIGEST {
                progress.next_digest = progress.next_digest.max(id.order.saturating_add(1));
            } else {
                let next = (id.order, id.index.saturating_add(1));
                progress.next = progress.next.max(next);
                progress.passed = progress.passed.split_off(&progress.next.0);
            }
        }
        if self.slot(id).is_some() {
            self.drop_claim(session, &id.path, id.index);
        }
    }

    /// Drops all claims of the session on the content of a file.
    fn release(&mut self, session: SessionId, path: &WirePath) {
        let Some(cached) = self.files.get(path) else {
            return;
        };
        let indices: Vec<_> = cached.blocks.keys().copied().collect();
        for index in indices {
            self.drop_claim(session, path, index);
        }
    }

    /// Drops a claim, and the entry if it was the last.
    fn drop_claim(&mut self, session: SessionId, path: &WirePath, index: u64) {
        let Some(entry) = self.entry_mut(path, index) else {
            return;
        };
        entry.claims.retain(|claim| *claim != session);
        let is_unclaimed = entry.claims.is_empty();
        if entry.pinned_by == Some(session) {
            entry.pinned_by = None;
            self.ahead = self
                .ahead
                .saturating_sub(entry_cost(self.files.get(path), index));
            if let Some(progress) = self.sessions.get_mut(&session) {
                progress.pinned = None;
            }
        }
        if is_unclaimed {
            self.remove(path, index);
        }
    }

    /// Removes an entry or a reading that is under way; the latter is still counted until it ends.
    fn remove(&mut self, path: &WirePath, index: u64) {
        let Some(cached) = self.files.get_mut(path) else {
            return;
        };
        let removed = cached.blocks.remove(&index);
        if cached.blocks.is_empty() {
            self.files.remove(path);
        }
        if let Some(Slot::Ready(entry)) = removed {
            self.ages.remove(&entry.age);
            self.used = self.used.saturating_sub(entry.cost);
            if let Some(session) = entry.pinned_by {
                self.ahead = self.ahead.saturating_sub(entry.cost);
                if let Some(progress) = self.sessions.get_mut(&session) {
                    progress.pinned = None;
                }
            }
        }
    }

    /// Lets the oldest entries go until there is room, or nothing left that may go.
    fn make_room(&mut self, room: u64, budget: u64) {
        while self.used.saturating_add(room) > budget {
            let oldest = self.ages.values().find(|(path, index)| {
                let slot = self.files.get(path).and_then(|file| file.blocks.get(index));
                matches!(slot, Some(Slot::Ready(entry)) if entry.pinned_by.is_none())
            });
            let Some((path, index)) = oldest.cloned() else {
                return;
            };
            self.remove(&path, index);
        }
    }

    /// Marks the block as being read. Another version of the file is of no use to anybody.
    fn begin(&mut self, id: &BlockId, room: u64) -> Arc<Load> {
        let is_other = |cached: &Cached| cached.version != id.version;
        if let Some(cached) = self.files.get(&id.path).filter(|cached| is_other(cached)) {
            let indices: Vec<_> = cached.blocks.keys().copied().collect();
            for index in indices {
                self.remove(&id.path, index);
            }
        }
        let load = Arc::new(Load::default());
        let cached = self.files.entry(id.path.clone());
        let cached = cached.or_insert_with(|| Cached {
            version: id.version,
            blocks: BTreeMap::new(),
        });
        let slot = Slot::Loading(Arc::clone(&load));
        cached.blocks.insert(id.index, slot);
        self.used = self.used.saturating_add(room);
        #[cfg(test)]
        {
            self.peak = self.peak.max(self.used);
        }
        load
    }

    fn begin_ahead(
        &mut self,
        session: SessionId,
        id: &BlockId,
        room: u64,
        budget: u64,
    ) -> Option<Arc<Load>> {
        let is_due = self.slot(id).is_none()
            && Self::wants(self.sessions.get(&session)?, id)
            && self.ahead.saturating_add(room) <= budget;
        if !is_due {
            return None;
        }
        self.make_room(room, budget);
        if self.used.saturating_add(room) > budget {
            return None;
        }
        self.ahead = self.ahead.saturating_add(room);
        Some(self.begin(id, room))
    }

    /// The reading of a block has ended: it is kept for those who are still to take it.
    fn finish(&mut self, id: &BlockId, load: &Arc<Load>, block: Option<Arc<Block>>) -> bool {
        let is_current =
            matches!(self.slot(id), Some(Slot::Loading(current)) if Arc::ptr_eq(current, load));
        if !is_current {
            return false;
        }
        let claims: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, progress)| Self::wants(progress, id))
            .map(|(session, _)| *session)
            .collect();
        let Some(block) = block.filter(|_| !claims.is_empty()) else {
            self.remove(&id.path, id.index);
            return false;
        };
        let age = self.next_age;
        self.next_age += 1;
        let cost = cost_of(id, block.held());
        let entry = Entry {
            block,
            cost,
            age,
            claims,
            pinned_by: None,
        };
        if let Some(cached) = self.files.get_mut(&id.path) {
            cached.blocks.insert(id.index, Slot::Ready(entry));
            self.ages.insert(age, (id.path.clone(), id.index));
            self.used = self.used.saturating_add(cost);
        }
        true
    }

    /// Keeps an entry, until the session that it was read ahead for has taken it.
    fn pin(&mut self, session: SessionId, id: &BlockId) {
        let Some(progress) = self.sessions.get_mut(&session) else {
            return;
        };
        let before = progress.pinned.take();
        if let Some((path, index)) = before
            && let Some(entry) = self.entry_mut(&path, index)
        {
            entry.pinned_by = None;
            let cost = entry.cost;
            self.ahead = self.ahead.saturating_sub(cost);
        }
        let Some(entry) = self.entry_mut(&id.path, id.index) else {
            return;
        };
        if !entry.claims.contains(&session) {
            return;
        }
        entry.pinned_by = Some(session);
        let cost = entry.cost;
        self.ahead = self.ahead.saturating_add(cost);
        if let Some(progress) = self.sessions.get_mut(&session) {
            progress.pinned = Some((id.path.clone(), id.index));
        }
    }
}

/// What a block of so many bytes in memory counts for.
pub(super) fn cost_of(id: &BlockId, held: u64) -> u64 {
    let path = u64::try_from(id.path.as_bytes().len()).unwrap_or(u64::MAX);
    held.saturating_add(path).saturating_add(ENTRY_OVERHEAD)
}

fn entry_cost(cached: Option<&Cached>, index: u64) -> u64 {
    match cached.and_then(|cached| cached.blocks.get(&index)) {
        Some(Slot::Ready(entry)) => entry.cost,
        Some(Slot::Loading(_)) | None => 0,
    }
}

/// A reading under way. Dropped without an end, as when reading panics, it sends those who wait to
/// read for themselves.
struct Reading<'a> {
    cache: &'a Cache,
    id: &'a BlockId,
    room: u64,
    load: Arc<Load>,
    is_ahead: bool,
    pin_for: Option<SessionId>,
    result: Option<Result<Arc<Block>, ReadError>>,
}

impl<'a> Reading<'a> {
    fn new(
        cache: &'a Cache,
        id: &'a BlockId,
        room: u64,
        load: Arc<Load>,
        ahead_for: Option<SessionId>,
    ) -> Self {
        Self {
            cache,
            id,
            room,
            load,
            is_ahead: ahead_for.is_some(),
            pin_for: ahead_for,
            result: None,
        }
    }

    fn without_pin(mut self) -> Self {
        self.pin_for = None;
        self
    }

    fn finish(mut self, result: Result<Arc<Block>, ReadError>) {
        self.result = Some(result);
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        state.used = state.used.saturating_sub(self.room);
        if self.is_ahead {
            state.ahead = state.ahead.saturating_sub(self.room);
        }
        let block = self.result.as_ref().and_then(|result| result.as_ref().ok());
        let is_kept = state.finish(self.id, &self.load, block.cloned());
        if let Some(session) = self.pin_for
            && is_kept
        {
            state.pin(session, self.id);
        }
        state.make_room(0, self.cache.budget);
        drop(state);
        self.load.end(self.result.take());
    }
}

#[cfg(test)]
impl Cache {
    /// What is counted now, and the most that it ever was; in bytes.
    pub(super) fn usage(&self) -> (u64, u64) {
        let state = self.lock();
        (state.used, state.peak)
    }

    /// How many wait for the reading of a block that is under way, which its reader does not.
    pub(super) fn waiting(&self, path: &WirePath, index: u64) -> usize {
        let state = self.lock();
        let slot = state
            .files
            .get(path)
            .and_then(|file| file.blocks.get(&index));
        match slot {
            Some(Slot::Loading(load)) => Arc::strong_count(load) - 2,
            Some(Slot::Ready(_)) | None => 0,
        }
    }

    /// With no reading under way.
    pub(super) fn check_invariants(&self) {
        let state = self.lock();
        let (mut used, mut ahead, mut ages, mut pins) = (0, 0, Vec::new(), Vec::new());
        for (path, cached) in &state.files {
            assert!(!cached.blocks.is_empty());
            for (index, slot) in &cached.blocks {
                let Slot::Ready(entry) = slot else {
                    panic!("a reading is under way");
                };
                used += entry.cost;
                ages.push((entry.age, (path.clone(), *index)));
                assert!(!entry.claims.is_empty());
                for claim in &entry.claims {
                    assert!(state.sessions.contains_key(claim), "a claim of nobody");
                }
                if let Some(session) = entry.pinned_by {
                    ahead += entry.cost;
                    assert!(entry.claims.contains(&session), "a pin without a claim");
                    pins.push((session, (path.clone(), *index)));
                }
            }
        }
        ages.sort_by_key(|(age, _)| *age);
        pins.sort_by_key(|(session, _)| *session);
        assert_eq!(state.used, used);
        assert_eq!(state.ahead, ahead);
        assert!(state.ages.clone().into_iter().eq(ages));
        let pinned = state.sessions.iter();
        let pinned = pinned.filter_map(|(id, progress)| Some((*id, progress.pinned.clone()?)));
        assert!(pinned.eq(pins));
        assert!(state.used <= self.budget, "more than the budget at rest");
    }
}
