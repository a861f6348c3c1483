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
/// Bytes of a page: large enough that taking and freeing one does not count beside what it holds.
const PAGE: usize = 16_384;

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
    /// Page `n` holds the positions from `n * PAGE`, up to the highest one that has arrived.
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
        // What is new mostly lies above all that is held.
        if range.is_empty() || self.end().is_none_or(|end| end <= range.start) {
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
        if let Some(held) = self.end()
            && held <= start
            && start < end
        {
            return self.append(start..end, payload, held == start, budget);
        }
        let new = end.saturating_since(start) - self.ranges.covered_in(start..end);
        if new == 0 {
            return Insertion::Stored(0);
        }
        let touches_a_range = self.ranges.covered_in(start.saturating_back(1)..end + 1) > 0;
        let count = self.ranges.len() + usize::from(!touches_a_range);
        if !self.has_room(new, count, budget) {
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

    /// Holds what lies above all that is held, as nearly all does that arrives behind a gap.
    fn append(
        &mut self,
        range: Range<Offset>,
        payload: &[u8],
        is_adjacent: bool,
        budget: u64,
    ) -> Insertion {
        let new = range.end.saturating_since(range.start);
        let count = self.ranges.len() + usize::from(!is_adjacent);
        if !self.has_room(new, count, budget) {
            return Insertion::Dropped;
        }
        if !self.is_discarding {
            write(&mut self.pages, range.start, payload);
        }
        self.ranges.insert(range);
        Insertion::Stored(new)
    }

    /// Says whether `new` sequence numbers more, in `count` ranges then, exceed no limit.
    fn has_room(&self, new: u64, count: usize, budget: u64) -> bool {
        let charge = self.ranges.bytes() + new + (count * RANGE_OVERHEAD) as u64;
        count <= MAX_RANGES && charge <= budget
    }

    /// Where the last range ends.
    fn end(&self) -> Option<Offset> {
        self.ranges.last().map(|range| range.end)
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
        let page = pages
            .entry(number)
            .or_insert_with(|| Vec::with_capacity(PAGE));
        if page.len() <= within {
            // A page fills from below: only what is skipped has to be written twice.
            page.resize(within, 0);
            page.extend_from_slice(part);
        } else {
            let end = within + part.len();
            page.resize(page.len().max(end), 0);
            page[within..end].copy_from_slice(part);
        }
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
mod tests;
