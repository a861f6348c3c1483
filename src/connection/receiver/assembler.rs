//! `Assembler`: bytes that arrived ahead of a gap, until the gap is filled.
//!
//! Which positions are held is a set of ranges (what SACK reports, RFC 2018); the bytes lie in pages
//! at fixed positions of the stream, so that overlaps, merges and arrivals in any order move nothing.
//! A position that is held keeps its first byte: old data wins. Bytes are copied in once; a page that
//! has become readable goes to the reader as it is.
//!
//! The peer is hostile: ranges are counted, each is charged [`RANGE_OVERHEAD`], and pages only exist
//! inside the window that we advertised, so that no pattern of segments costs more than that window,
//! two pages and the ranges' overhead.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::queue::ReceiveQueue;
use crate::connection::offset::Offset;
use crate::connection::range_set::RangeSet;

/// Most ranges held; more segments that would make another range are dropped.
pub(super) const MAX_RANGES: usize = 1_024;
/// Bytes charged for a range beside what it holds.
pub(super) const RANGE_OVERHEAD: usize = 96;
/// Bytes of a page.
const PAGE: usize = 4_096;

/// Out-of-order ranges and their bytes.
///
/// Invariants:
/// - at most [`MAX_RANGES`] ranges;
/// - every page holds a byte of some range, and every byte of a range but a FIN's has its page
///   (no pages once discarding).
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Sequence numbers held; a FIN takes one like a byte.
    ranges: RangeSet,
    /// Page `n` holds the positions from `n * PAGE`.
    pages: BTreeMap<u64, Vec<u8>>,
    is_discarding: bool,
}

/// What became of an out-of-order arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Insertion {
    /// So many sequence numbers were new; 0 if all were held.
    Stored(u64),
    /// Taking it would exceed a limit; nothing was stored.
    Dropped,
}

impl Assembler {
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Sequence numbers held.
    pub(super) fn bytes(&self) -> u64 {
        self.ranges.bytes()
    }

    /// Bytes of memory held, overhead included.
    pub(super) fn memory(&self) -> usize {
        self.pages.len() * PAGE + self.ranges.len() * RANGE_OVERHEAD
    }

    pub(super) fn ranges(&self) -> &RangeSet {
        &self.ranges
    }

    /// Where the first range begins.
    pub(super) fn first_start(&self) -> Option<Offset> {
        self.ranges.first().map(|range| range.start)
    }

    /// Returns the first contiguous part of `range` that is held.
    pub(super) fn first_held_in(&self, range: &Range<Offset>) -> Option<Range<Offset>> {
        if self.ranges.is_empty() || range.is_empty() {
            return None;
        }
        let start = match self.ranges.gaps_in(range.clone()).next() {
            Some(gap) if gap.start == range.start => gap.end,
            _ => range.start,
        };
        let held = self
            .ranges
            .range_containing(start)
            .filter(|_| start < range.end)?;
        Some(start..held.end.min(range.end))
    }

    /// Holds `payload`, which begins at `start`, and the FIN behind it if `fin`; what is held already
    /// stays. The bytes held and the ranges' overhead may not exceed `budget`.
    pub(super) fn insert(
        &mut self,
        start: Offset,
        payload: &[u8],
        fin: bool,
        budget: u64,
    ) -> Insertion {
        let data_end = start + payload.len() as u64;
        let end = data_end + u64::from(fin);
        let new = end.saturating_since(start) - self.ranges.covered_in(start..end);
        if new == 0 {
            return Insertion::Stored(0);
        }
        let touches_a_range = self.ranges.covered_in(start.saturating_back(1)..end + 1) > 0;
        let count = self.ranges.len() + usize::from(!touches_a_range);
        let charge = self.ranges.bytes() + new + (count * RANGE_OVERHEAD) as u64;
        if count > MAX_RANGES || charge > budget {
            return Insertion::Dropped;
        }
        if !self.is_discarding {
            for gap in self.ranges.gaps_in(start..data_end) {
                let from = distance(gap.start, start);
                if let Some(piece) = payload.get(from..distance(gap.end, start)) {
                    write(&mut self.pages, gap.start, piece);
                }
            }
        }
        self.ranges.insert(start..end);
        Insertion::Stored(new)
    }

    /// Moves the first range's bytes below `limit` to `queue`. Returns where they end and how many
    /// became readable.
    pub(super) fn take_first(
        &mut self,
        limit: Offset,
        queue: &mut ReceiveQueue,
    ) -> Option<(Offset, u64)> {
        let first = self.ranges.first()?;
        self.ranges.remove_below(first.end);
        let next_start = self.first_start();
        let end = first.end.min(limit);
        let mut readable = 0;
        let mut at = first.start;
        while at < end {
            let number = at.get() / PAGE as u64;
            let page_start = Offset::new(number * PAGE as u64);
            let page_end = page_start + PAGE as u64;
            let stop = end.min(page_end);
            let part = distance(at, page_start)..distance(stop, page_start);
            if next_start.is_some_and(|next| next < page_end) {
                if let Some(bytes) = self.pages.get(&number).and_then(|page| page.get(part)) {
                    readable += queue.copy(bytes);
                }
            } else if let Some(page) = self.pages.remove(&number) {
                readable += hand_over(page, part, queue);
            }
            at = stop;
        }
        Some((end, readable))
    }

    /// Forgets everything held.
    pub(super) fn clear(&mut self) {
        self.ranges.clear();
        self.pages.clear();
    }

    /// Drops the bytes, now and in future, but goes on keeping the ranges.
    pub(super) fn discard(&mut self) {
        self.is_discarding = true;
        self.pages.clear();
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn check_invariants(&self, rcv_nxt: Offset, fin: Option<Offset>) {
        assert!(
            self.ranges.len() <= MAX_RANGES,
            "{} ranges",
            self.ranges.len()
        );
        if let Some(first) = self.first_start() {
            assert!(first > rcv_nxt, "{first:?} is readable at {rcv_nxt:?}");
        }
        let mut expected = std::collections::BTreeSet::new();
        for range in self.ranges.iter() {
            let data_end = fin.map_or(range.end, |fin| range.end.min(fin));
            if range.start < data_end && !self.is_discarding {
                expected.extend(page_of(range.start)..=page_of(data_end.saturating_back(1)));
            }
        }
        let held: std::collections::BTreeSet<_> = self.pages.keys().copied().collect();
        assert!(
            expected.is_subset(&held),
            "pages {held:?}, needed {expected:?}"
        );
        // A FIN below bytes that were already held leaves their pages until it is reached.
        assert!(
            fin.is_some() || expected == held,
            "pages {held:?}, needed {expected:?}"
        );
    }
}

/// `at - origin`, where `at` lies at most one segment or page further.
fn distance(at: Offset, origin: Offset) -> usize {
    usize::try_from(at.saturating_since(origin)).unwrap_or(usize::MAX)
}

/// Copies `bytes` to their places.
fn write(pages: &mut BTreeMap<u64, Vec<u8>>, start: Offset, bytes: &[u8]) {
    let mut at = start;
    let mut rest = bytes;
    while !rest.is_empty() {
        let number = page_of(at);
        let within = distance(at, Offset::new(number * PAGE as u64));
        // `within` is a remainder modulo PAGE, so that the part is not empty and fits the page.
        let (part, left) = rest.split_at(rest.len().min(PAGE - within));
        let page = pages.entry(number).or_insert_with(|| vec![0; PAGE]);
        page[within..within + part.len()].copy_from_slice(part);
        at += part.len() as u64;
        rest = left;
    }
}

/// Gives the reader a page that nothing else needs.
fn hand_over(page: Vec<u8>, part: Range<usize>, queue: &mut ReceiveQueue) -> u64 {
    // A small part would keep a page for little.
    if part.len() < PAGE / 2 {
        return queue.copy(page.get(part).unwrap_or_default());
    }
    queue.push_owned(Bytes::from(page).slice(part), PAGE)
}

fn page_of(at: Offset) -> u64 {
    at.get() / PAGE as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An assembler with its reader; dropping it with readable bytes or ranges that no `expect_*`
    /// consumed fails the test.
    struct AssemblerTest {
        assembler: Assembler,
        queue: ReceiveQueue,
        budget: u64,
    }

    impl AssemblerTest {
        fn new() -> Self {
            Self {
                assembler: Assembler::default(),
                queue: ReceiveQueue::default(),
                budget: 1_000_000,
            }
        }

        #[track_caller]
        fn insert(&mut self, start: u64, payload: &str) -> Insertion {
            let start = Offset::new(start);
            let result = self
                .assembler
                .insert(start, payload.as_bytes(), false, self.budget);
            self.assembler.check_invariants(Offset::ZERO, None);
            result
        }

        #[track_caller]
        fn expect_ranges(&self, expected: &[(u64, u64)]) {
            let ranges: Vec<_> = self
                .assembler
                .ranges
                .iter()
                .map(|r| (r.start.get(), r.end.get()))
                .collect();
            assert_eq!(ranges, expected);
        }

        #[track_caller]
        fn expect_first(&mut self, end: u64, bytes: &str) {
            let taken = self
                .assembler
                .take_first(Offset::new(u64::MAX), &mut self.queue);
            assert_eq!(taken, Some((Offset::new(end), bytes.len() as u64)));
            let mut buf = vec![0; bytes.len()];
            self.queue.read(&mut buf);
            assert_eq!(String::from_utf8_lossy(&buf), bytes);
            self.queue.check_invariants();
            self.assembler.check_invariants(Offset::ZERO, None);
        }
    }

    impl Drop for AssemblerTest {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                assert!(self.queue.is_empty(), "bytes left unread");
                assert!(
                    self.assembler.is_empty(),
                    "ranges left: {:?}",
                    self.assembler.ranges
                );
                assert_eq!(self.assembler.pages.len(), 0, "pages left");
            }
        }
    }

    #[test]
    fn old_data_wins_in_every_shape_of_overlap() {
        // Held: "held" at 20..24. The second arrival is all capitals.
        let cases = [
            (
                "before, apart",
                10,
                "ABCD",
                vec![(14, "ABCD"), (24, "held")],
            ),
            ("before, adjacent", 16, "ABCD", vec![(24, "ABCDheld")]),
            ("over the start", 18, "ABCD", vec![(24, "ABheld")]),
            ("same", 20, "ABCD", vec![(24, "held")]),
            ("inside", 21, "AB", vec![(24, "held")]),
            ("from the start", 20, "AB", vec![(24, "held")]),
            ("to the end", 22, "AB", vec![(24, "held")]),
            ("around", 18, "ABCDEFGH", vec![(26, "ABheldGH")]),
            ("over the end", 22, "ABCD", vec![(26, "heldCD")]),
            ("after, adjacent", 24, "ABCD", vec![(28, "heldABCD")]),
            ("after, apart", 30, "ABCD", vec![(24, "held"), (34, "ABCD")]),
        ];
        for (name, start, payload, expected) in cases {
            println!("{name}");
            let mut test = AssemblerTest::new();
            test.insert(20, "held");
            test.insert(start, payload);
            for (end, bytes) in expected {
                test.expect_first(end, bytes);
            }
        }
    }

    #[test]
    fn one_arrival_fills_several_gaps() {
        let mut test = AssemblerTest::new();
        test.insert(10, "aa");
        test.insert(14, "bb");
        test.insert(18, "cc");
        test.expect_ranges(&[(10, 12), (14, 16), (18, 20)]);
        assert_eq!(test.insert(8, "ABCDEFGHIJKLMN"), Insertion::Stored(8));
        test.expect_first(22, "ABaaEFbbIJccMN");
    }

    #[test]
    fn the_first_held_part_is_found() {
        let mut test = AssemblerTest::new();
        test.insert(10, "aaaa");
        test.insert(20, "bbbb");
        let cases = [
            ("nothing", 0..10, None),
            ("the gap", 14..20, None),
            ("empty", 11..11, None),
            ("start", 8..12, Some(10..12)),
            ("inside", 11..13, Some(11..13)),
            ("beyond the end", 12..18, Some(12..14)),
            ("both", 5..30, Some(10..14)),
            ("second", 15..30, Some(20..24)),
        ];
        for (name, range, expected) in cases {
            let offsets = |r: Range<u64>| Offset::new(r.start)..Offset::new(r.end);
            assert_eq!(
                test.assembler.first_held_in(&offsets(range)),
                expected.map(offsets),
                "{name}"
            );
        }
        test.assembler.clear();
    }

    #[test]
    fn pages_are_shared_by_ranges_and_given_up_with_the_last() {
        let mut test = AssemblerTest::new();
        let page = "x".repeat(PAGE);
        // 100..4196 crosses into page 1, where 5000..5001 lies as well.
        test.insert(100, &page);
        test.insert(5_000, "y");
        assert_eq!(test.assembler.memory(), 2 * PAGE + 2 * RANGE_OVERHEAD);
        test.expect_first(4_196, &page);
        assert_eq!(test.assembler.memory(), PAGE + RANGE_OVERHEAD);
        test.expect_first(5_001, "y");
        assert_eq!(test.assembler.memory(), 0);
    }

    #[test]
    fn single_bytes_with_gaps_cost_bounded_memory() {
        let mut test = AssemblerTest::new();
        test.budget = u64::MAX;
        for n in 0..10_000 {
            let result = test.insert(10 + 2 * n, "x");
            let expected = if n < 1_024 {
                Insertion::Stored(1)
            } else {
                Insertion::Dropped
            };
            assert_eq!(result, expected, "{n}");
        }
        assert_eq!(test.assembler.bytes(), 1_024);
        assert_eq!(test.assembler.memory(), PAGE + 1_024 * RANGE_OVERHEAD);
        // What makes no new range is still taken.
        assert_eq!(test.insert(11, "y"), Insertion::Stored(1));
        test.assembler.clear();
    }

    #[test]
    fn the_budget_counts_bytes_and_overhead() {
        let mut test = AssemblerTest::new();
        // Two ranges of 4 bytes: 2 * (4 + 96) = 200.
        test.budget = 200;
        assert_eq!(test.insert(10, "aaaa"), Insertion::Stored(4));
        assert_eq!(test.insert(20, "bbbbb"), Insertion::Dropped);
        assert_eq!(test.insert(20, "bbbb"), Insertion::Stored(4));
        assert_eq!(test.insert(20, "bbbb"), Insertion::Stored(0));
        assert_eq!(test.insert(30, "c"), Insertion::Dropped);
        test.expect_ranges(&[(10, 14), (20, 24)]);
        test.assembler.clear();
    }

    #[test]
    fn after_discard_only_the_ranges_are_kept() {
        let mut test = AssemblerTest::new();
        test.insert(10, "aaaa");
        test.assembler.discard();
        test.queue.discard();
        test.insert(14, "bbbb");
        assert_eq!(test.assembler.memory(), RANGE_OVERHEAD);
        let taken = test
            .assembler
            .take_first(Offset::new(u64::MAX), &mut test.queue);
        assert_eq!(taken, Some((Offset::new(18), 0)));
    }
}
