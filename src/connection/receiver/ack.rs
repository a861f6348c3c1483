//! When to acknowledge, and which SACK blocks to report.
//!
//! RFC 9293 §3.8.6.3 and RFC 5681 §4.2: an ACK for at least every second full-sized segment, after a
//! bounded delay otherwise, and at once for what is out of order or fills a gap. RFC 2018 §4: the
//! blocks that an ACK reports, newest first. RFC 2883 §4: a duplicate is reported in the first block.
//!
//! What an ACK for an out-of-order or duplicate segment says is fixed when the segment arrives (a snapshot)
//! and waits in a bounded queue. In-order segments only make one ACK due. Segments of a batch are processed
//! before any output, so that a batch in order causes a single ACK.
//!
//! Deviation from RFC 5681 §4.2: behind a gap, not every segment of a batch causes an ACK of its own. The
//! first three do, which is what a sender counts; of the others those are reported together whose blocks fit
//! one ACK, if SACK was agreed, because it tells the sender as much (RFC 6675 goes by blocks) at the cost of
//! one. Otherwise each loss would make the path back, and both ends, handle an ACK for every segment of a
//! round trip. Duplicates are reported one by one (RFC 2883 §4).

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::connection::offset::Offset;
use crate::connection::range_set::RangeSet;
use crate::timestamp::{Nanos, Timestamp};

/// Most snapshots that wait; beyond it the oldest are dropped.
const MAX_SNAPSHOTS: usize = 256;
/// Snapshots of one acknowledgment number that say no more than one segment's arrival: RFC 5681 §3.2 and RFC
/// 6675 §5 count so many.
const SINGLE_REPORTS: u32 = 3;
/// Blocks that any ACK can report: beside timestamps there is room for three (RFC 2018 §3).
const SURE_BLOCKS: usize = 3;
/// Full-sized segments acknowledged at once at the start and after idling: enough for the peer's slow
/// start to leave the initial window of 10 (RFC 6928).
const QUICK_ACKS: u8 = 16;
/// Pause after which the peer may be in slow start again: no RTO, after which it would restart
/// (RFC 5681 §4.1), is commonly shorter.
const IDLE: Duration = Duration::from_millis(200);
/// Segments below the default MSS (RFC 9293 §3.7.1) do not show that the peer's MSS has shrunk.
const DEFAULT_MSS: u32 = 536;

/// Up to four ranges, as many as the SACK option can hold (RFC 2018 §3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SackRanges {
    ranges: [Range<Offset>; Self::MAX],
    len: usize,
}

impl SackRanges {
    /// Most ranges held.
    pub const MAX: usize = 4;

    /// Appends a range; returns false if there is no room.
    pub fn push(&mut self, range: Range<Offset>) -> bool {
        let Some(slot) = self.ranges.get_mut(self.len) else {
            return false;
        };
        *slot = range;
        self.len += 1;
        true
    }

    /// Returns the ranges in the order in which they are to be sent.
    pub fn as_slice(&self) -> &[Range<Offset>] {
        self.ranges.get(..self.len).unwrap_or_default()
    }

    fn as_mut_slice(&mut self) -> &mut [Range<Offset>] {
        self.ranges.get_mut(..self.len).unwrap_or_default()
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.len
    }

    fn is_full(&self) -> bool {
        self.len == Self::MAX
    }
}

/// What one ACK says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AckReport {
    /// Acknowledgment number.
    pub rcv_nxt: Offset,
    /// Ranges received out of order, newest first; none without SACK.
    pub sack: SackRanges,
    /// Whether the first range is a duplicate (RFC 2883 §4).
    pub has_dsack: bool,
    /// Whether it was queued when a segment arrived out of order or again.
    pub is_queued: bool,
}

impl AckReport {
    /// Moves the acknowledgment number up to `ack` and drops the ranges that it has reached: below it
    /// the peer would take the first for a duplicate.
    fn raise_to(&mut self, ack: Offset) {
        let old = std::mem::take(&mut self.sack);
        let dsack = usize::from(self.has_dsack);
        for (index, range) in old.as_slice().iter().enumerate() {
            if index < dsack || range.start > ack {
                self.sack.push(range.clone());
            }
        }
        self.rcv_nxt = ack;
    }
}

/// The acknowledgment state.
///
/// Invariants:
/// - at most [`MAX_SNAPSHOTS`] snapshots, whose `rcv_nxt` never decrease;
/// - there is a deadline, or an ACK is due, whenever in-order bytes are not acknowledged;
/// - no report's `rcv_nxt` is below `highest_reported`.
#[derive(Debug)]
pub(super) struct AckPolicy {
    delay: Nanos,
    is_sack_enabled: bool,
    /// `None` as long as nothing is reported.
    reports: Option<Box<Reports>>,
    /// Acknowledgment number of the newest snapshot, and how many there were of it.
    edge: Offset,
    at_edge: u32,
    /// One ACK of the present state is owed at once.
    is_due: bool,
    deadline: Option<Timestamp>,
    unacked_bytes: u32,
    unacked_full: u8,
    quick_acks: u8,
    last_arrival: Timestamp,
    /// Estimate of the peer's full-sized segment, in bytes.
    segment_size: u32,
    last_len: u32,
    /// Number of the report handed out last, until [`on_sent`](Self::on_sent).
    reported: Option<Offset>,
    highest_reported: Offset,
}

/// What there is to report of segments that arrived out of order or again.
#[derive(Debug, Default)]
struct Reports {
    snapshots: VecDeque<AckReport>,
    recent: RecentBlocks,
    /// So many of the newest snapshot's first blocks are told of by no earlier one.
    news: usize,
}

impl AckPolicy {
    pub(super) fn new(delay: Duration) -> Self {
        Self {
            delay: delay.into(),
            is_sack_enabled: false,
            reports: None,
            edge: Offset::ZERO,
            at_edge: 0,
            is_due: false,
            deadline: None,
            unacked_bytes: 0,
            unacked_full: 0,
            quick_acks: QUICK_ACKS,
            last_arrival: Timestamp::ZERO,
            segment_size: 0,
            last_len: 0,
            reported: None,
            highest_reported: Offset::ZERO,
        }
    }

    pub(super) fn set_delay(&mut self, delay: Duration) {
        self.delay = delay.into();
    }

    pub(super) fn set_sack(&mut self, enabled: bool) {
        self.is_sack_enabled = enabled;
    }

    pub(super) fn segment_size(&self) -> usize {
        usize::try_from(self.segment_size).unwrap_or(usize::MAX)
    }

    /// A segment with `len` bytes of new payload arrived in order, and no gap is open.
    pub(super) fn on_in_order(&mut self, now: Timestamp, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let is_full = self.observe(now, len);
        self.unacked_bytes = self.unacked_bytes.saturating_add(len);
        if is_full {
            self.unacked_full = self.unacked_full.saturating_add(1);
            if self.quick_acks > 0 {
                self.quick_acks -= 1;
                self.is_due = true;
            }
        }
        // RFC 5681 §4.2: at least every second full-sized segment.
        if self.unacked_full >= 2
            || self.unacked_bytes / 2 >= self.segment_size
            || self.delay == Nanos::ZERO
        {
            self.is_due = true;
        }
        if self.deadline.is_none() && !self.is_due {
            self.deadline = Some(now + self.delay.get());
        }
    }

    /// One ACK of the present state is owed at once.
    pub(super) fn demand(&mut self) {
        self.is_due = true;
    }

    /// Out-of-order bytes at `at` arrived, or arrived again: their block is the newest.
    pub(super) fn touch(&mut self, at: Offset, rcv_nxt: Offset, ranges: &RangeSet) {
        if let Some(block) = ranges.range_containing(at) {
            let reports = self.reports.get_or_insert_default();
            reports.recent.touch(at, &block, rcv_nxt);
        }
    }

    /// Queues an ACK that says what is true now, with `duplicate` in the first block.
    pub(super) fn snapshot(
        &mut self,
        rcv_nxt: Offset,
        duplicate: Option<Range<Offset>>,
        ranges: &RangeSet,
    ) {
        if self.edge < rcv_nxt {
            self.edge = rcv_nxt;
            self.at_edge = 0;
        }
        self.at_edge = self.at_edge.saturating_add(1);
        if duplicate.is_none() && self.join(rcv_nxt, ranges) {
            return;
        }
        let mut report = self.report(rcv_nxt, duplicate, ranges);
        report.is_queued = true;
        let reports = self.reports.get_or_insert_default();
        if reports.snapshots.len() >= MAX_SNAPSHOTS {
            reports.snapshots.pop_front();
        }
        reports.news = 1;
        reports.snapshots.push_back(report);
        // It leaves at once and says all that one ACK of the present state would.
        self.settle();
    }

    /// Tells of the newest segment in the newest snapshot too, if both fit it.
    fn join(&mut self, rcv_nxt: Offset, ranges: &RangeSet) -> bool {
        if !self.is_sack_enabled || self.at_edge <= SINGLE_REPORTS {
            return false;
        }
        let Some(reports) = &mut self.reports else {
            return false;
        };
        let newest = reports.recent.iter().next();
        let Some(block) = newest.and_then(|at| ranges.range_containing(at)) else {
            return false;
        };
        let Some(last) = reports.snapshots.back_mut() else {
            return false;
        };
        if last.rcv_nxt != rcv_nxt || last.has_dsack {
            return false;
        }
        let is_swallowed =
            |other: &Range<Offset>| block.start <= other.start && other.end <= block.end;
        if let Some((first, others)) = last.sack.as_mut_slice().split_first_mut()
            && is_swallowed(first)
        {
            if !others.iter().any(is_swallowed) {
                *first = block;
                return true;
            }
        } else if reports.news >= SURE_BLOCKS {
            return false;
        } else {
            reports.news += 1;
        }
        let mut report = self.report(rcv_nxt, None, ranges);
        report.is_queued = true;
        let reports = self.reports.as_mut();
        if let Some(last) = reports.and_then(|reports| reports.snapshots.back_mut()) {
            *last = report;
        }
        true
    }

    /// Whether an ACK has to leave now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.is_due || self.queued() > 0 || self.deadline.is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    /// ACKs that are owed at once.
    pub(super) fn pending(&self) -> usize {
        self.queued() + usize::from(self.is_due)
    }

    /// Snapshots that wait.
    pub(super) fn queued(&self) -> usize {
        let reports = self.reports.as_ref();
        reports.map_or(0, |reports| reports.snapshots.len())
    }

    /// How many blocks [`next`](Self::next) would return.
    pub(super) fn next_blocks(&self, rcv_nxt: Offset, ranges: &RangeSet) -> usize {
        let reports = self.reports.as_ref();
        let Some(snapshot) = reports.and_then(|reports| reports.snapshots.front()) else {
            return self.report(rcv_nxt, None, ranges).sack.len();
        };
        let mut report = snapshot.clone();
        report.raise_to(self.highest_reported.max(report.rcv_nxt));
        report.sack.len()
    }

    /// Returns the oldest snapshot, or the present state if none waits.
    pub(super) fn next(&mut self, rcv_nxt: Offset, ranges: &RangeSet) -> AckReport {
        let reports = self.reports.as_mut();
        let snapshot = reports.and_then(|reports| reports.snapshots.pop_front());
        let mut report = snapshot.unwrap_or_else(|| self.report(rcv_nxt, None, ranges));
        // No block is left that was reported lately.
        self.reports
            .take_if(|reports| reports.snapshots.is_empty() && ranges.is_empty());
        if report.rcv_nxt < self.highest_reported {
            report.raise_to(self.highest_reported);
        }
        self.highest_reported = report.rcv_nxt;
        self.reported = Some(report.rcv_nxt);
        report
    }

    /// A segment with the report handed out last, or with the present `rcv_nxt`, left. One that says
    /// less than the present settles nothing else.
    pub(super) fn on_sent(&mut self, rcv_nxt: Offset) {
        let acked = self.reported.take().unwrap_or(rcv_nxt);
        self.highest_reported = self.highest_reported.max(acked);
        if acked == rcv_nxt {
            self.settle();
        }
    }

    /// Bytes of memory held by the snapshots.
    pub(super) fn memory(&self) -> usize {
        self.reports.as_ref().map_or(0, |reports| {
            size_of::<Reports>() + reports.snapshots.capacity() * size_of::<AckReport>()
        })
    }

    /// Learns from the size of a segment, and returns whether it is full-sized.
    fn observe(&mut self, now: Timestamp, len: u32) -> bool {
        if now.saturating_since(self.last_arrival) >= IDLE {
            self.quick_acks = QUICK_ACKS;
        }
        self.last_arrival = now;
        // Two equal segments in a row that are smaller than the estimate: the path's MTU has shrunk.
        let has_shrunk = len == self.last_len && len >= DEFAULT_MSS;
        self.last_len = len;
        let is_full = len >= self.segment_size || has_shrunk;
        if is_full {
            self.segment_size = len;
        }
        is_full
    }

    /// All that has arrived in order is acknowledged, or about to be.
    fn settle(&mut self) {
        self.is_due = false;
        self.deadline = None;
        self.unacked_bytes = 0;
        self.unacked_full = 0;
    }

    /// RFC 2883 §4: the duplicate first, then the block that contains it; RFC 2018 §4: the block that
    /// the newest segment belongs to, then those reported most recently, as many as there is room for.
    fn report(
        &self,
        rcv_nxt: Offset,
        duplicate: Option<Range<Offset>>,
        ranges: &RangeSet,
    ) -> AckReport {
        let mut sack = SackRanges::default();
        if !self.is_sack_enabled {
            return AckReport {
                rcv_nxt,
                sack,
                has_dsack: false,
                is_queued: false,
            };
        }
        let has_dsack = duplicate.is_some_and(|duplicate| sack.push(duplicate));
        if !ranges.is_empty() {
            let dsack = usize::from(has_dsack);
            let recent = self
                .reports
                .iter()
                .flat_map(|reports| reports.recent.iter())
                .filter_map(|at| ranges.range_containing(at));
            for block in recent.chain(ranges.iter()) {
                if sack.is_full() {
                    break;
                }
                if !sack
                    .as_slice()
                    .iter()
                    .skip(dsack)
                    .any(|held| held.start == block.start)
                {
                    sack.push(block);
                }
            }
        }
        AckReport {
            rcv_nxt,
            sack,
            has_dsack,
            is_queued: false,
        }
    }

    #[cfg(test)]
    pub(super) fn end_quick_acks(&mut self) {
        self.quick_acks = 0;
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn check_invariants(&self, rcv_nxt: Offset) {
        if let Some(Reports { snapshots, .. }) = self.reports.as_deref() {
            let len = snapshots.len();
            assert!(len <= MAX_SNAPSHOTS, "{len} snapshots");
            assert!(
                snapshots
                    .iter()
                    .is_sorted_by_key(|snapshot| snapshot.rcv_nxt)
            );
            assert!(snapshots.iter().all(|snapshot| snapshot.rcv_nxt <= rcv_nxt));
        }
        assert!(
            self.unacked_bytes == 0 || self.is_due || self.deadline.is_some(),
            "no ACK planned"
        );
        assert!(self.highest_reported <= rcv_nxt);
    }
}

/// Which blocks were reported lately: a position inside each, newest first.
///
/// A few more than an ACK can report, since some merge or become readable.
#[derive(Debug, Default)]
struct RecentBlocks {
    at: [Offset; Self::MAX],
    len: usize,
}

impl RecentBlocks {
    const MAX: usize = 8;

    fn iter(&self) -> impl Iterator<Item = Offset> {
        self.at.iter().copied().take(self.len)
    }

    /// Puts `at`, a position in `block`, first; forgets positions below `rcv_nxt` and others in `block`.
    fn touch(&mut self, at: Offset, block: &Range<Offset>, rcv_nxt: Offset) {
        // Most arrivals extend the block that was the newest before.
        if let [newest, others @ ..] = self.at.get_mut(..self.len).unwrap_or_default()
            && block.contains(newest)
            && !others.iter().any(|other| block.contains(other))
        {
            *newest = at;
            return;
        }
        let old = std::mem::take(self);
        let kept = old
            .iter()
            .filter(|other| *other > rcv_nxt && !block.contains(other));
        for (slot, position) in self.at.iter_mut().zip([at].into_iter().chain(kept)) {
            *slot = position;
            self.len += 1;
        }
    }
}
