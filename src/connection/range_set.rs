//! `RangeSet`: which parts of a stream are present, as merged half-open ranges.
//!
//! The receiver keeps what arrived out of order in it, the sender what the peer reported by SACK.
//! Every operation costs a search in an [`OffsetMap`] plus the ranges that it merges or removes, whatever
//! the number of ranges held, so that a peer that leaves many holes buys no work with them. An empty set
//! holds no memory. The set itself has no bound; its users ask [`RangeSet::len`] and [`RangeSet::is_isolated`] before they insert.

use std::ops::Range;

use crate::connection::Offset;
use crate::connection::offset_map::OffsetMap;

/// A set of offsets, held as ranges.
///
/// Invariants:
/// - no range is empty;
/// - between two neighbours lies at least one offset that is not in the set;
/// - `bytes` is the sum of the ranges' lengths.
/// - there is a map if and only if there is a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start to end, exclusive.
    ranges: Option<Box<OffsetMap<Offset>>>,
    bytes: u64,
}

impl RangeSet {
    /// Makes an empty set.
    pub const fn new() -> Self {
        Self {
            ranges: None,
            bytes: 0,
        }
    }

    /// Adds `range` and returns how many offsets were not in the set before. An empty or inverted
    /// range adds nothing.
    pub fn insert(&mut self, range: Range<Offset>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let Range { start, end } = range;
        let before = self.bytes;
        let ranges = self.ranges.get_or_insert_default();
        // Most of what is added lies at the end or continues it.
        let last = ranges.last();
        if last.is_none_or(|(_, right)| right < start) {
            ranges.insert(start, end);
            self.bytes += end.saturating_since(start);
            return self.bytes - before;
        }
        // The predecessor, if it reaches `start`, is extended in place.
        let extends = match ranges.below_mut(start + 1) {
            Some((_, right)) if *right >= end => return 0,
            Some((_, right)) if *right >= start => {
                self.bytes += end.saturating_since(*right);
                *right = end;
                true
            }
            Some(_) | None => false,
        };
        if !extends {
            self.bytes += end.saturating_since(start);
        }
        // What begins within or at the end is swallowed.
        let mut last = end;
        while let Some((left, right)) = ranges.remove_first_in(start + 1..end + 1) {
            self.bytes -= right.min(end).saturating_since(left);
            last = last.max(right);
        }
        if !extends {
            ranges.insert(start, last);
        } else if last > end
            && let Some((_, right)) = ranges.below_mut(start + 1)
        {
            *right = last;
        }
        self.bytes - before
    }

    /// Removes every offset below `bound` and returns how many were in the set.
    pub fn remove_below(&mut self, bound: Offset) -> u64 {
        let before = self.bytes;
        let Some(ranges) = &mut self.ranges else {
            return 0;
        };
        while let Some((left, right)) = ranges.remove_first_in(Offset::ZERO..bound) {
            self.bytes -= right.saturating_since(left);
            if right > bound {
                ranges.insert(bound, right);
                self.bytes += right.saturating_since(bound);
                break;
            }
        }
        if ranges.is_empty() {
            self.ranges = None;
        }
        before - self.bytes
    }

    /// Says whether `offset` is in the set.
    pub fn contains(&self, offset: Offset) -> bool {
        self.range_containing(offset).is_some()
    }

    /// Returns the range that `offset` lies in.
    pub fn range_containing(&self, offset: Offset) -> Option<Range<Offset>> {
        let ranges = self.ranges.as_ref()?;
        let (start, end) = match ranges.last() {
            Some(last) if last.0 <= offset => last,
            Some(_) => ranges.below(offset + 1)?,
            None => return None,
        };
        (offset < end).then_some(start..end)
    }

    /// Says whether inserting `range` would add a range of its own: it neither overlaps nor touches
    /// one that is there.
    pub fn is_isolated(&self, range: &Range<Offset>) -> bool {
        self.ranges
            .as_ref()
            .and_then(|ranges| ranges.below(range.end + 1))
            .is_none_or(|(_, end)| end < range.start)
    }

    /// Counts the offsets of `range` that are in the set.
    pub fn covered_in(&self, range: Range<Offset>) -> u64 {
        self.overlapping(range)
            .map(|part| part.end.saturating_since(part.start))
            .sum()
    }

    /// Iterates over the parts of `range` that are not in the set, in ascending order.
    pub fn gaps_in(&self, range: Range<Offset>) -> impl Iterator<Item = Range<Offset>> + '_ {
        let mut at = range.start;
        let last = (!range.is_empty()).then_some(range.end..range.end);
        self.overlapping(range).chain(last).filter_map(move |part| {
            let gap = at..part.start;
            at = part.end;
            (!gap.is_empty()).then_some(gap)
        })
    }

    /// Iterates over the ranges in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<Offset>> + '_ {
        let ranges = self.ranges.iter().flat_map(|ranges| ranges.iter());
        ranges.map(|(start, end)| start..end)
    }

    /// Returns the lowest range.
    pub fn first(&self) -> Option<Range<Offset>> {
        let (start, end) = self.ranges.as_ref()?.first()?;
        Some(start..end)
    }

    /// Returns the highest range.
    pub fn last(&self) -> Option<Range<Offset>> {
        let (start, end) = self.ranges.as_ref()?.last()?;
        Some(start..end)
    }

    /// Returns the number of ranges.
    pub fn len(&self) -> usize {
        self.ranges.as_ref().map_or(0, |ranges| ranges.len())
    }

    /// Returns the number of offsets in the set.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Says whether the set is empty.
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_none()
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        self.ranges = None;
        self.bytes = 0;
    }

    /// The intersections with `range`, ascending.
    fn overlapping(&self, range: Range<Offset>) -> impl Iterator<Item = Range<Offset>> + '_ {
        let Range { start, end } = range;
        let end = end.max(start);
        let ranges = self.ranges.as_deref();
        let reaching = ranges
            .and_then(|ranges| ranges.below(start))
            .map(|(_, right)| start..right.min(end))
            .filter(|part| !part.is_empty());
        let inside = ranges
            .into_iter()
            .flat_map(move |ranges| ranges.range(start..end))
            .map(move |(left, right)| left..right.min(end));
        reaching.into_iter().chain(inside)
    }

    /// Checks what the type promises.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub fn check_invariants(&self) {
        if let Some(ranges) = &self.ranges {
            assert!(!ranges.is_empty(), "a map of nothing");
            ranges.check_invariants();
        }
        let mut total = 0;
        let mut previous_end: Option<Offset> = None;
        for range in self.iter() {
            assert!(range.start < range.end, "empty range {range:?}");
            assert!(
                previous_end.is_none_or(|end| end < range.start),
                "unmerged at {range:?}"
            );
            previous_end = Some(range.end);
            total += range.end.saturating_since(range.start);
        }
        assert_eq!(total, self.bytes, "byte count");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, end: u64) -> Range<Offset> {
        Offset::new(start)..Offset::new(end)
    }

    fn set(ranges: &[(u64, u64)]) -> RangeSet {
        let mut set = RangeSet::new();
        for &(start, end) in ranges {
            set.insert(range(start, end));
        }
        set.check_invariants();
        set
    }

    #[test]
    fn insertion_merges_what_overlaps_or_touches() {
        // Name, inserted in this order, ranges afterwards, bytes newly covered by the last one.
        type Case = (
            &'static str,
            &'static [(u64, u64)],
            &'static [(u64, u64)],
            u64,
        );
        let cases: [Case; 9] = [
            ("first", &[(10, 20)], &[(10, 20)], 10),
            ("apart", &[(10, 20), (30, 40)], &[(10, 20), (30, 40)], 10),
            ("touches the end", &[(10, 20), (20, 30)], &[(10, 30)], 10),
            ("touches the start", &[(10, 20), (5, 10)], &[(5, 20)], 5),
            ("inside", &[(10, 20), (12, 18)], &[(10, 20)], 0),
            ("around", &[(10, 20), (5, 25)], &[(5, 25)], 10),
            (
                "fills a gap",
                &[(10, 20), (30, 40), (20, 30)],
                &[(10, 40)],
                10,
            ),
            (
                "bridges three",
                &[(0, 5), (10, 15), (20, 25), (3, 22)],
                &[(0, 25)],
                10,
            ),
            ("empty", &[(10, 20), (15, 15)], &[(10, 20)], 0),
        ];
        for (name, inserts, expected, newly) in cases {
            let (last, others) = inserts.split_last().unwrap();
            let mut set = set(others);
            assert_eq!(set.insert(range(last.0, last.1)), newly, "{name}");
            set.check_invariants();
            let expected: Vec<_> = expected
                .iter()
                .map(|&(start, end)| range(start, end))
                .collect();
            assert_eq!(set.iter().collect::<Vec<_>>(), expected, "{name}");
        }
    }

    #[test]
    fn removal_cuts_the_range_it_ends_in() {
        let mut set = set(&[(0, 10), (20, 30), (40, 50)]);
        // 10 bytes of the first range and 5 of the second.
        assert_eq!(set.remove_below(Offset::new(25)), 15);
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [range(25, 30), range(40, 50)]
        );
        assert_eq!(set.bytes(), 15);
    }

    #[test]
    fn an_inverted_range_is_empty_everywhere() {
        let mut set = set(&[(10, 20)]);
        let inverted = Offset::new(18)..Offset::new(12);
        assert_eq!(set.insert(inverted.clone()), 0);
        assert_eq!(set.covered_in(inverted.clone()), 0);
        assert_eq!(set.gaps_in(inverted).count(), 0);
    }

    #[test]
    fn isolation_means_a_range_of_its_own() {
        let set = set(&[(10, 20), (30, 40)]);
        for (start, end, isolated) in [
            (0, 9, true),
            (0, 10, false),
            (20, 25, false),
            (21, 29, true),
            (12, 15, false),
            (41, 50, true),
        ] {
            assert_eq!(
                set.is_isolated(&range(start, end)),
                isolated,
                "{start}..{end}"
            );
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_numbers(
            operations in prop::collection::vec((0_u8..4, 0_u64..64, 0_u64..64), 1..40),
        ) {
            let mut set = RangeSet::new();
            let mut naive = BTreeSet::new();
            for (kind, start, end) in operations {
                if kind == 0 {
                    let removed = naive.iter().filter(|&&n| n < start).count() as u64;
                    naive.retain(|&n| n >= start);
                    prop_assert_eq!(set.remove_below(Offset::new(start)), removed);
                } else {
                    let newly = (start..end).filter(|&n| naive.insert(n)).count() as u64;
                    prop_assert_eq!(set.insert(range(start, end)), newly);
                }
                set.check_invariants();
                prop_assert_eq!(set.bytes(), naive.len() as u64);
                prop_assert_eq!(set.is_empty(), naive.is_empty());
                prop_assert_eq!(set.first().map(|r| r.start.get()), naive.first().copied());
                prop_assert_eq!(set.last().map(|r| r.end.get() - 1), naive.last().copied());
                for n in 0..64 {
                    prop_assert_eq!(set.contains(Offset::new(n)), naive.contains(&n));
                }
                let window = range(start, end);
                let covered = (start..end).filter(|n| naive.contains(n)).count() as u64;
                prop_assert_eq!(set.covered_in(window.clone()), covered);
                let gaps: BTreeSet<u64> =
                    set.gaps_in(window).flat_map(|gap| gap.start.get()..gap.end.get()).collect();
                let missing: BTreeSet<u64> =
                    (start..end).filter(|n| !naive.contains(n)).collect();
                prop_assert_eq!(gaps, missing);
            }
        }
    }
}
