//! `OffsetMap`: values by position in a stream, ordered, for windows of a million entries.
//!
//! A directory of short sorted runs. Where a key's run stands in the directory is guessed from how far the
//! key lies between the first and the last one, and the guess is corrected by doubling steps: what a stream
//! fills evenly is found at once, however much of it there is, and the worst that a peer can arrange is the
//! logarithm of the number of runs. Both ends, where most happens, are found without a guess.
//!
//! Memory is kept for reuse, so that a window in motion allocates nothing, for as long as the map lives.

use std::collections::VecDeque;
use std::ops::Range;

use crate::connection::Offset;

/// Most entries of a run. What an insertion moves is a fraction of it; the directory is as much shorter.
const RUN: usize = 128;
/// Two neighbours that have no more than this together become one.
const MERGED: usize = RUN / 2;

/// A run's place in the directory.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// No key of the run lies below, none of earlier runs at or above.
    from: Offset,
    /// Index into `runs`.
    run: usize,
}

/// Where an entry stands: the slot, and the index within the run.
type Position = (usize, usize);

/// An ordered map from offsets.
///
/// Invariants:
/// - keys ascend within a run and from run to run;
/// - a run in the directory has 1 to [`RUN`] entries, and one in `spare` none;
/// - `len` is the number of entries.
#[derive(Debug, Clone)]
pub struct OffsetMap<V> {
    directory: VecDeque<Slot>,
    runs: Vec<VecDeque<(Offset, V)>>,
    spare: Vec<usize>,
    len: usize,
    /// Slots looked at and entries moved, to prove bounds on the work.
    #[cfg(test)]
    pub steps: Steps,
}

/// A count that readers may raise.
#[cfg(test)]
#[derive(Debug)]
pub struct Steps(std::sync::atomic::AtomicU64);

#[cfg(test)]
impl Steps {
    const fn new() -> Self {
        Self(std::sync::atomic::AtomicU64::new(0))
    }

    pub fn get(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub fn set(&self, steps: u64) {
        self.0.store(steps, std::sync::atomic::Ordering::Relaxed);
    }

    pub fn replace(&self, steps: u64) -> u64 {
        self.0.swap(steps, std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
impl Clone for Steps {
    fn clone(&self) -> Self {
        Self(self.get().into())
    }
}

impl<V> Default for OffsetMap<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> OffsetMap<V> {
    /// Makes an empty map, which holds no memory.
    pub const fn new() -> Self {
        Self {
            directory: VecDeque::new(),
            runs: Vec::new(),
            spare: Vec::new(),
            len: 0,
            #[cfg(test)]
            steps: Steps::new(),
        }
    }
}

impl<V: Copy> OffsetMap<V> {
    /// Returns the number of entries.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Says whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes all entries and keeps the memory.
    pub fn clear(&mut self) {
        for slot in self.directory.drain(..) {
            self.runs[slot.run].clear();
            self.spare.push(slot.run);
        }
        self.len = 0;
    }

    /// Returns the lowest entry.
    pub fn first(&self) -> Option<(Offset, V)> {
        self.runs[self.directory.front()?.run].front().copied()
    }

    /// Returns the highest entry.
    pub fn last(&self) -> Option<(Offset, V)> {
        self.runs[self.directory.back()?.run].back().copied()
    }

    /// Returns the highest entry below `key`.
    pub fn below(&self, key: Offset) -> Option<(Offset, V)> {
        let (slot, index) = self.position_below(key)?;
        self.run(slot).get(index).copied()
    }

    /// Returns the highest entry below `key`, its value to be changed.
    pub fn below_mut(&mut self, key: Offset) -> Option<(Offset, &mut V)> {
        let (slot, index) = self.position_below(key)?;
        let run = self.directory[slot].run;
        self.runs[run]
            .get_mut(index)
            .map(|(key, value)| (*key, value))
    }

    /// Returns the lowest entry at `key` or above.
    pub fn at_or_above(&self, key: Offset) -> Option<(Offset, V)> {
        let (slot, index) = self.position_of(key)?;
        self.run(slot).get(index).copied()
    }

    /// Adds an entry, or replaces the one with this key.
    pub fn insert(&mut self, key: Offset, value: V) {
        let Some(last) = self.directory.len().checked_sub(1) else {
            self.open(0, key);
            self.push_back(0, key, value);
            return;
        };
        let slot = self.slot_of(key);
        let run = self.run(slot);
        if slot == last && run.back().is_none_or(|(highest, _)| *highest < key) {
            // What is appended leaves full runs behind, not halves.
            if run.len() >= RUN {
                self.open(last + 1, key);
                self.push_back(last + 1, key, value);
            } else {
                self.push_back(last, key, value);
            }
            return;
        }
        let index = self.index_in(slot, key);
        let run = &mut self.runs[self.directory[slot].run];
        if let Some(entry) = run.get_mut(index)
            && entry.0 == key
        {
            entry.1 = value;
            return;
        }
        let (slot, index) = if run.len() >= RUN {
            self.split(slot, index)
        } else {
            (slot, index)
        };
        let place = &mut self.directory[slot];
        place.from = place.from.min(key);
        let run = &mut self.runs[place.run];
        #[cfg(test)]
        self.steps
            .set(self.steps.get() + index.min(run.len() - index) as u64);
        run.insert(index, (key, value));
        self.len += 1;
    }

    /// Removes the entry with this key.
    pub fn remove(&mut self, key: Offset) -> Option<V> {
        self.remove_first_in(key..key + 1).map(|(_, value)| value)
    }

    /// Removes the lowest entry with a key in `range`.
    pub fn remove_first_in(&mut self, range: Range<Offset>) -> Option<(Offset, V)> {
        let (slot, index) = self.position_of(range.start)?;
        let run = self.directory[slot].run;
        if self.runs[run].get(index)?.0 >= range.end {
            return None;
        }
        #[cfg(test)]
        self.steps
            .set(self.steps.get() + index.min(self.runs[run].len() - index) as u64);
        let entry = self.runs[run].remove(index);
        self.len -= 1;
        if self.runs[run].is_empty() {
            self.close(slot);
        } else {
            self.merge(slot);
        }
        entry
    }

    /// Iterates over the entries with a key in `range`, in ascending order.
    pub fn range(&self, range: Range<Offset>) -> impl Iterator<Item = (Offset, V)> + '_ {
        let end = (self.directory.len(), 0);
        let (slot, index) = self.position_of(range.start).unwrap_or(end);
        self.directory
            .range(slot..)
            .enumerate()
            .flat_map(move |(nth, slot)| {
                let skipped = if nth == 0 { index } else { 0 };
                self.runs[slot.run].range(skipped..)
            })
            .copied()
            .inspect(|_| self.note_step())
            .take_while(move |(key, _)| *key < range.end)
    }

    /// Iterates over all entries in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Offset, V)> + '_ {
        self.directory
            .iter()
            .flat_map(|slot| self.runs[slot.run].iter())
            .copied()
    }

    fn run(&self, slot: usize) -> &VecDeque<(Offset, V)> {
        &self.runs[self.directory[slot].run]
    }

    /// The first entry at `key` or above.
    fn position_of(&self, key: Offset) -> Option<Position> {
        if self.first()?.0 >= key {
            return Some((0, 0));
        }
        let slot = self.slot_of(key);
        let index = self.index_in(slot, key);
        if index < self.run(slot).len() {
            return Some((slot, index));
        }
        (slot + 1 < self.directory.len()).then_some((slot + 1, 0))
    }

    /// The last entry below `key`.
    fn position_below(&self, key: Offset) -> Option<Position> {
        if self.is_empty() {
            return None;
        }
        let slot = self.slot_of(key);
        if let Some(index) = self.index_in(slot, key).checked_sub(1) {
            return Some((slot, index));
        }
        let slot = slot.checked_sub(1)?;
        Some((slot, self.run(slot).len() - 1))
    }

    /// The slot whose run `key` lies in or would be added to; the directory is not empty.
    fn slot_of(&self, key: Offset) -> usize {
        let last = self.directory.len() - 1;
        let from = |slot: usize| {
            self.note_step();
            self.directory[slot].from
        };
        if last == 0 || key < from(1) {
            return 0;
        }
        let highest = from(last);
        if key >= highest {
            return last;
        }
        search(last, key + 1, from(0)..highest, from).saturating_sub(1)
    }

    /// The number of entries of a run that lie below `key`.
    fn index_in(&self, slot: usize, key: Offset) -> usize {
        let run = self.run(slot);
        let Slot { from, .. } = self.directory[slot];
        // The next run's beginning is at hand, this one's end may have to be fetched.
        let end = match self.directory.get(slot + 1) {
            Some(next) => next.from,
            None => match run.back() {
                Some((highest, _)) if key <= *highest => *highest + 1,
                Some(_) | None => return run.len(),
            },
        };
        search(run.len(), key, from..end, |index| {
            self.note_step();
            run[index].0
        })
    }

    #[cfg(test)]
    fn note_step(&self) {
        self.steps.set(self.steps.get() + 1);
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "only tests count")]
    const fn note_step(&self) {}

    fn push_back(&mut self, slot: usize, key: Offset, value: V) {
        let run = self.directory[slot].run;
        self.runs[run].push_back((key, value));
        self.len += 1;
    }

    /// Puts an empty run at `slot`, for keys from `from` on.
    fn open(&mut self, slot: usize, from: Offset) {
        let run = self.spare.pop().unwrap_or_else(|| {
            self.runs.push(VecDeque::new());
            self.runs.len() - 1
        });
        self.directory.insert(slot, Slot { from, run });
    }

    fn close(&mut self, slot: usize) {
        if let Some(slot) = self.directory.remove(slot) {
            self.spare.push(slot.run);
        }
    }

    /// Halves a run; returns where the entry before which `index` stood is then.
    fn split(&mut self, slot: usize, index: usize) -> Position {
        let run = self.directory[slot].run;
        let half = self.runs[run].len() / 2;
        let from = self.runs[run][half].0;
        self.open(slot + 1, from);
        let upper = self.directory[slot + 1].run;
        let mut moved = std::mem::take(&mut self.runs[upper]);
        moved.extend(self.runs[run].drain(half..));
        self.runs[upper] = moved;
        #[cfg(test)]
        self.steps.set(self.steps.get() + half as u64);
        if index <= half {
            (slot, index)
        } else {
            (slot + 1, index - half)
        }
    }

    /// Appends the next run to this one if both are short.
    fn merge(&mut self, slot: usize) {
        let Some(next) = self.directory.get(slot + 1) else {
            return;
        };
        let (run, next) = (self.directory[slot].run, next.run);
        if self.runs[run].len() + self.runs[next].len() > MERGED {
            return;
        }
        let mut moved = std::mem::take(&mut self.runs[next]);
        #[cfg(test)]
        self.steps.set(self.steps.get() + moved.len() as u64);
        self.runs[run].append(&mut moved);
        self.runs[next] = moved;
        self.close(slot + 1);
    }

    /// Checks what the type promises.
    ///
    /// # Panics
    ///
    /// If it does not hold.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub fn check_invariants(&self) {
        let mut previous: Option<Offset> = None;
        let mut len = 0;
        for slot in &self.directory {
            let run = &self.runs[slot.run];
            assert!((1..=RUN).contains(&run.len()), "{} in a run", run.len());
            assert!(
                previous.is_none_or(|key| key < slot.from),
                "a run from {:?} on begins too low",
                slot.from
            );
            for &(key, _) in run {
                assert!(key >= slot.from, "{key:?} lies before its run");
                assert!(
                    previous.is_none_or(|previous| previous < key),
                    "out of order at {key:?}"
                );
                previous = Some(key);
            }
            len += run.len();
        }
        assert_eq!(len, self.len, "number of entries");
        assert!(
            self.spare.iter().all(|&run| self.runs[run].is_empty()),
            "entries in a spare run"
        );
        let runs = self.directory.len() + self.spare.len();
        assert_eq!(runs, self.runs.len(), "number of runs");
    }
}

/// Returns how many of `len` ascending keys, spread over `span`, lie below `key`: looks where it should be if
/// they are spread evenly, and from there ever farther away.
fn search(len: usize, key: Offset, span: Range<Offset>, at: impl Fn(usize) -> Offset) -> usize {
    let Some(last) = len.checked_sub(1) else {
        return 0;
    };
    let share = key.saturating_since(span.start).saturating_mul(len as u64)
        / span.end.saturating_since(span.start).max(1);
    let mut probe = usize::try_from(share).map_or(last, |guess| guess.min(last));
    // What lies before `low` is below the key, and what lies from `high` on is not.
    let (mut low, mut high) = (0, len);
    let mut step = 1;
    if at(probe) < key {
        low = probe + 1;
        while probe + step < high {
            probe += step;
            if at(probe) >= key {
                high = probe;
                break;
            }
            low = probe + 1;
            step *= 2;
        }
    } else {
        high = probe;
        while probe >= step {
            probe -= step;
            if at(probe) < key {
                low = probe + 1;
                break;
            }
            high = probe;
            step *= 2;
        }
    }
    while low < high {
        let middle = low.midpoint(high);
        if at(middle) < key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

impl<V: Copy + PartialEq> PartialEq for OffsetMap<V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<V: Copy + Eq> Eq for OffsetMap<V> {}

#[cfg(test)]
mod tests;
