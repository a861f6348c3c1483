//! The two queues that decide which connection is served next: by time and by turn.
//!
//! `TimerQueue` is a binary heap with one entry per connection at most, indexed by slot, so that a
//! deadline is moved or removed in O(log n) without leaving anything stale behind: there is no tick and
//! no early wake-up. `ReadyQueue` is a ring; a connection with more to send goes to its end.

use std::collections::VecDeque;

use super::slot::ConnectionId;
use crate::timestamp::Timestamp;

/// Marks a slot without an entry in the heap.
const ABSENT: u32 = u32::MAX;
/// Turns of gone connections that are not worth a sweep.
const SWEEP_SLACK: usize = 32;

/// Deadlines by slot, earliest first; equal deadlines by slot number.
///
/// Invariants:
/// - no parent is later than its children;
/// - `positions[entry.slot]` is the entry's index in `heap`, and every other position is `ABSENT`.
#[derive(Debug, Default)]
pub(super) struct TimerQueue {
    heap: Vec<Entry>,
    /// Half as large as a `usize`, for each connection has one.
    positions: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    deadline: Timestamp,
    slot: usize,
}

impl TimerQueue {
    /// Returns the earliest deadline.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        self.heap.first().map(|entry| entry.deadline)
    }

    /// Sets, moves or removes the deadline of `slot`.
    pub(super) fn set(&mut self, slot: usize, deadline: Option<Timestamp>) {
        let position = self.positions.get(slot).copied().unwrap_or(ABSENT);
        let index = position as usize;
        match deadline {
            Some(deadline) if position == ABSENT => {
                if self.positions.len() <= slot {
                    self.positions.resize(slot + 1, ABSENT);
                }
                self.heap.push(Entry { deadline, slot });
                self.sift_up(self.heap.len() - 1);
            }
            Some(deadline) => {
                let earlier = deadline < self.heap[index].deadline;
                self.heap[index].deadline = deadline;
                if earlier {
                    self.sift_up(index);
                } else {
                    self.sift_down(index);
                }
            }
            None if position == ABSENT => {}
            None => self.remove_at(index),
        }
    }

    /// Removes and returns the slot with the earliest deadline, if that is not after `now`.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<usize> {
        let first = self.heap.first().filter(|entry| entry.deadline <= now)?;
        let slot = first.slot;
        self.remove_at(0);
        Some(slot)
    }

    fn remove_at(&mut self, position: usize) {
        let removed = self.heap.swap_remove(position);
        self.positions[removed.slot] = ABSENT;
        if position < self.heap.len() {
            // The former last entry may belong above or below the gap that it fills.
            if position > 0 && self.heap[position] < self.heap[(position - 1) / 2] {
                self.sift_up(position);
            } else {
                self.sift_down(position);
            }
        }
    }

    fn sift_up(&mut self, mut position: usize) {
        let entry = self.heap[position];
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent] <= entry {
                break;
            }
            self.place(position, self.heap[parent]);
            position = parent;
        }
        self.place(position, entry);
    }

    fn sift_down(&mut self, mut position: usize) {
        let entry = self.heap[position];
        loop {
            let mut child = 2 * position + 1;
            if child + 1 < self.heap.len() && self.heap[child + 1] < self.heap[child] {
                child += 1;
            }
            if child >= self.heap.len() || entry <= self.heap[child] {
                break;
            }
            self.place(position, self.heap[child]);
            position = child;
        }
        self.place(position, entry);
    }

    fn place(&mut self, position: usize, entry: Entry) {
        self.heap[position] = entry;
        // There is no memory for so many connections.
        self.positions[entry.slot] = u32::try_from(position).unwrap_or(ABSENT);
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn get(&self, slot: usize) -> Option<Timestamp> {
        let position = self.positions.get(slot)?;
        self.heap
            .get(*position as usize)
            .map(|entry| entry.deadline)
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn check_invariants(&self) {
        for (position, entry) in self.heap.iter().enumerate() {
            assert_eq!(
                self.positions[entry.slot] as usize, position,
                "position of slot {}",
                entry.slot
            );
            assert!(
                position == 0 || self.heap[(position - 1) / 2] <= *entry,
                "heap order"
            );
        }
        let present = self
            .positions
            .iter()
            .filter(|&&position| position != ABSENT)
            .count();
        assert_eq!(present, self.heap.len(), "stale positions");
    }
}

/// Connections that may have something to send, each at most once, in the order of their turns.
///
/// Whether a connection is queued stands in its slot; an entry whose connection is gone is skipped.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    turns: VecDeque<ConnectionId>,
}

impl ReadyQueue {
    pub(super) fn push(&mut self, id: ConnectionId) {
        self.turns.push_back(id);
    }

    /// Returns whose turn is next.
    pub(super) fn front(&self) -> Option<ConnectionId> {
        self.turns.front().copied()
    }

    pub(super) fn pop(&mut self) -> Option<ConnectionId> {
        self.turns.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Drops the turns of connections that are gone once they outnumber the `live` ones, so that peers
    /// that come and go while nothing can be sent do not pile them up.
    pub(super) fn sweep(&mut self, live: usize, is_alive: impl Fn(ConnectionId) -> bool) {
        if self.turns.len() > 2 * live + SWEEP_SLACK {
            self.turns.retain(|&id| is_alive(id));
        }
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn check_invariants(&self, live: usize) {
        assert!(
            self.turns.len() <= 2 * live + SWEEP_SLACK + 1,
            "stale turns pile up"
        );
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.turns.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_moved_deadline_leaves_nothing_behind() {
        let mut timers = TimerQueue::default();
        timers.set(3, Some(Timestamp::from_millis(10)));
        timers.set(3, Some(Timestamp::from_millis(30)));
        timers.set(1, Some(Timestamp::from_millis(20)));
        assert_eq!(timers.pop_due(Timestamp::from_millis(10)), None);
        assert_eq!(timers.earliest(), Some(Timestamp::from_millis(20)));
        timers.set(1, None);
        assert_eq!(timers.pop_due(Timestamp::from_millis(30)), Some(3));
        assert_eq!(timers.earliest(), None);
    }

    proptest! {
        #[test]
        fn equals_a_sorted_map(
            steps in prop::collection::vec((0_usize..12, prop::option::of(0_u64..40), 0_u64..40), 1..80),
        ) {
            let mut timers = TimerQueue::default();
            let mut model: BTreeMap<usize, Timestamp> = BTreeMap::new();
            for (slot, deadline, now) in steps {
                let deadline = deadline.map(Timestamp::from_millis);
                timers.set(slot, deadline);
                match deadline {
                    Some(deadline) => model.insert(slot, deadline),
                    None => model.remove(&slot),
                };
                let now = Timestamp::from_millis(now);
                let due = model
                    .iter()
                    .map(|(&slot, &deadline)| (deadline, slot))
                    .min()
                    .filter(|&(deadline, _)| deadline <= now);
                prop_assert_eq!(timers.pop_due(now), due.map(|(_, slot)| slot));
                if let Some((_, slot)) = due {
                    model.remove(&slot);
                }
                prop_assert_eq!(timers.earliest(), model.values().min().copied());
                timers.check_invariants();
            }
        }
    }
}
