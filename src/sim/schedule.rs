//! `Schedule`: what happens when; items of the same instant come out in the order they went in.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::timestamp::Timestamp;

/// A queue ordered by time, first in first out among equals.
#[derive(Debug)]
pub(crate) struct Schedule<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    pushed: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Timestamp,
    number: u64,
    item: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<T> Schedule<T> {
    /// Makes an empty schedule.
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            pushed: 0,
        }
    }

    /// Adds an item.
    pub(crate) fn push(&mut self, at: Timestamp, item: T) {
        let number = self.pushed;
        self.pushed += 1;
        self.heap.push(Reverse(Entry { at, number, item }));
    }

    /// Returns the earliest item if its time has come.
    pub(crate) fn peek_due(&self, now: Timestamp) -> Option<&T> {
        let Reverse(entry) = self.heap.peek()?;
        (entry.at <= now).then_some(&entry.item)
    }

    /// Takes the earliest item if its time has come.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, T)> {
        if self.next_at()? > now {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        Some((entry.at, entry.item))
    }

    /// Returns the time of the earliest item.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Tells whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_by_time_and_then_in_order() {
        let mut schedule = Schedule::new();
        for (at, item) in [(5, 'a'), (3, 'b'), (5, 'c'), (3, 'd'), (9, 'e')] {
            schedule.push(Timestamp::from_millis(at), item);
        }
        assert_eq!(schedule.next_at(), Some(Timestamp::from_millis(3)));
        let due: String = std::iter::from_fn(|| schedule.pop_due(Timestamp::from_millis(5)))
            .map(|(_, item)| item)
            .collect();
        assert_eq!(due, "bdac");
        assert_eq!(schedule.peek_due(Timestamp::from_millis(8)), None);
        assert_eq!(schedule.peek_due(Timestamp::from_millis(9)), Some(&'e'));
        assert!(!schedule.is_empty());
    }
}
