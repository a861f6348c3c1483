//! The scoreboard: what was sent and is not acknowledged, and what is known about it (RFC 6675 §3).
//!
//! Records are byte ranges, one per run of segments of one send, split on demand. They hold only what
//! is neither acknowledged nor SACKed, so that an ACK costs O(log n) plus the records that it newly
//! covers, however large the window is. Which records are lost is found by a boundary that only rises
//! (`loss_frontier`), never by scanning; which one goes out next is the first of an ordered set.
//!
//! What a hostile peer can make of it is bounded: an isolated SACK block is refused once there are more
//! SACKed ranges than segments outstanding (a receiver cannot hold more pieces than were sent), so both
//! memory and work stay proportional to what this side sent.
//!
//! A record also knows the transmission that carried it last, so that a detector by time can ask what of
//! a transmission is still in flight, and declare it lost.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::delivery_rate::SendSnapshot;
use crate::connection::Offset;
use crate::connection::range_set::RangeSet;

/// SACKed ranges accepted beyond the number of segments outstanding: retransmissions may be cut
/// elsewhere than the originals were.
const SPARE_RANGES: u64 = 64;
/// How many neighbouring lost records one retransmission may join.
const MAX_JOINED: usize = 64;

/// What is known about a range that is neither acknowledged nor SACKed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    /// Sent, and one copy is in flight.
    Sent,
    /// Lost, and not sent again yet.
    Lost,
    /// Lost, and sent again: one copy is in flight.
    Retransmitted,
    /// Sent again though it was not lost (RFC 6675 §4, `NextSeg` rule 3): two copies are in flight.
    Doubled,
}

impl RecordState {
    /// How often `SetPipe` (RFC 6675 §4) counts an octet.
    const fn copies(self) -> u64 {
        match self {
            Self::Lost => 0,
            Self::Sent | Self::Retransmitted => 1,
            Self::Doubled => 2,
        }
    }
}

/// One record, without its start, which is the key.
#[derive(Debug, Clone, Copy)]
struct Record {
    end: Offset,
    state: RecordState,
    was_retransmitted: bool,
    /// How many segments had been sent on the connection before this record's first one.
    segments_before: u64,
    first_transmission: u64,
    snapshot: SendSnapshot,
}

/// Part of the scoreboard that an operation reports to its caller.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// Its first offset.
    pub start: Offset,
    /// The offset after its last.
    pub end: Offset,
    /// Whether it was sent more than once (RFC 6298 §3).
    pub was_retransmitted: bool,
    /// The number of the transmission that carried it first.
    pub first_transmission: u64,
    /// The counters at its latest transmission.
    pub snapshot: SendSnapshot,
}

impl Piece {
    /// Returns its length in bytes.
    pub const fn len(&self) -> u64 {
        self.end.saturating_since(self.start)
    }
}

/// What was sent and is not acknowledged.
///
/// Invariants:
/// - records and `sacked` together cover `snd_una..snd_nxt` exactly once;
/// - `lost` holds the starts of the records in state `Lost`;
/// - `pipe`, `lost_bytes` and `resent_bytes` equal a recount of the records;
/// - no record below `loss_frontier` is `Sent` or `Doubled`;
/// - `snd_una <= snd_nxt`, `loss_frontier <= snd_nxt`.
#[derive(Debug, Clone)]
pub struct Scoreboard {
    snd_una: Offset,
    snd_nxt: Offset,
    records: BTreeMap<Offset, Record>,
    sacked: RangeSet,
    lost: BTreeSet<Offset>,
    /// Octets in flight, each copy counted.
    pipe: u64,
    lost_bytes: u64,
    /// Octets in state `Retransmitted` or `Doubled`.
    resent_bytes: u64,
    loss_frontier: Offset,
    /// `HighRxt` (RFC 6675 §2), as the offset after it.
    high_rxt: Offset,
    /// Segments of new data sent on the connection.
    segments: u64,
    /// Records looked at, to prove bounds on the work.
    #[cfg(test)]
    pub touched: std::cell::Cell<u64>,
}

impl Scoreboard {
    /// Makes an empty scoreboard at `start`.
    pub const fn new(start: Offset) -> Self {
        Self {
            snd_una: start,
            snd_nxt: start,
            records: BTreeMap::new(),
            sacked: RangeSet::new(),
            lost: BTreeSet::new(),
            pipe: 0,
            lost_bytes: 0,
            resent_bytes: 0,
            loss_frontier: start,
            high_rxt: start,
            segments: 0,
            #[cfg(test)]
            touched: std::cell::Cell::new(0),
        }
    }

    /// Returns the oldest unacknowledged offset.
    pub const fn snd_una(&self) -> Offset {
        self.snd_una
    }

    /// Returns the next offset to send.
    pub const fn snd_nxt(&self) -> Offset {
        self.snd_nxt
    }

    /// Returns the bytes sent and not cumulatively acknowledged (RFC 5681 §2).
    pub const fn flight_size(&self) -> u64 {
        self.snd_nxt.saturating_since(self.snd_una)
    }

    /// Returns the bytes sent that are neither acknowledged nor SACKed.
    pub const fn unsacked(&self) -> u64 {
        self.flight_size().saturating_sub(self.sacked.bytes())
    }

    /// Returns `pipe` (RFC 6675 §2).
    pub const fn pipe(&self) -> u64 {
        self.pipe
    }

    /// Returns what the peer holds above `snd_una`.
    pub const fn sacked(&self) -> &RangeSet {
        &self.sacked
    }

    /// Says whether something is lost and not sent again yet.
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Says whether anything outstanding is lost or was sent again.
    pub const fn is_disturbed(&self) -> bool {
        self.lost_bytes > 0 || self.resent_bytes > 0
    }

    /// Appends `snd_nxt..end`, sent as a run of `segments`.
    pub fn on_sent(&mut self, end: Offset, segments: u64, snapshot: SendSnapshot) {
        let start = self.snd_nxt;
        if end <= start {
            return;
        }
        let record = Record {
            end,
            state: RecordState::Sent,
            was_retransmitted: false,
            segments_before: self.segments,
            first_transmission: snapshot.transmission,
            snapshot,
        };
        self.segments = self.segments.saturating_add(segments);
        self.snd_nxt = end;
        self.insert(start, record);
    }

    /// What of `range` is outstanding and not SACKed was sent again; returns its length.
    pub fn on_retransmitted(&mut self, range: Range<Offset>, snapshot: SendSnapshot) -> u64 {
        let range = self.clip(range);
        self.split_at(range.start);
        self.split_at(range.end);
        self.high_rxt = self.high_rxt.max(range.end);
        let mut bytes = 0;
        for (start, record) in self.records.range_mut(range) {
            #[cfg(test)]
            self.touched.set(self.touched.get() + 1);
            let len = record.end.saturating_since(*start);
            bytes += len;
            record.snapshot = snapshot;
            record.was_retransmitted = true;
            match record.state {
                RecordState::Lost => {
                    self.lost.remove(start);
                    self.lost_bytes -= len;
                    self.resent_bytes += len;
                    self.pipe += len;
                    record.state = RecordState::Retransmitted;
                }
                RecordState::Sent => {
                    self.resent_bytes += len;
                    self.pipe += len;
                    record.state = RecordState::Doubled;
                }
                RecordState::Retransmitted | RecordState::Doubled => {}
            }
        }
        bytes
    }

    /// Removes everything below `ack` and shows each piece that was not SACKed, in order. Returns how
    /// far `snd_una` moved.
    pub fn acknowledge(&mut self, ack: Offset, visit: &mut impl FnMut(&Piece)) -> u64 {
        let ack = ack.min(self.snd_nxt);
        let moved = ack.saturating_since(self.snd_una);
        if moved == 0 {
            return 0;
        }
        self.split_at(ack);
        self.take(self.snd_una..ack, visit);
        self.sacked.remove_below(ack);
        self.snd_una = ack;
        moved
    }

    /// Notes that the peer holds `block` and shows each piece newly reported, in order. Returns whether
    /// the block was accepted, see the [module documentation](self).
    pub fn sack(&mut self, block: Range<Offset>, visit: &mut impl FnMut(&Piece)) -> bool {
        let mut block = self.clip(block);
        // Most blocks repeat what earlier ACKs have reported, and add to its end at most.
        if let Some(known) = self.sacked.range_containing(block.start) {
            block.start = known.end.min(block.end);
        }
        if block.is_empty() {
            return true;
        }
        if self.sacked.len() as u64 >= self.max_ranges() && self.sacked.is_isolated(&block) {
            return false;
        }
        self.split_at(block.start);
        self.split_at(block.end);
        self.take(block.clone(), visit);
        self.sacked.insert(block);
        true
    }

    /// Everything below `frontier` that is not SACKed is lost (RFC 6675 §4, `IsLost`). Shows each
    /// piece that was not known to be.
    pub fn mark_lost_below(&mut self, frontier: Offset, visit: &mut impl FnMut(&Piece)) {
        let frontier = frontier.min(self.snd_nxt);
        if frontier <= self.loss_frontier {
            return;
        }
        self.split_at(frontier);
        let from = self.loss_frontier;
        self.loss_frontier = frontier;
        self.mark_lost(from..frontier, visit);
    }

    /// Returns the first offset in `range` of what `transmission` carried and is still in flight.
    pub fn first_in_flight(&self, transmission: u64, range: Range<Offset>) -> Option<Offset> {
        let mut records = self.records.range(self.clip(range));
        records.find_map(|(&start, record)| {
            #[cfg(test)]
            self.touched.set(self.touched.get() + 1);
            record.is_in_flight(transmission).then_some(start)
        })
    }

    /// What of `range` was sent last by `transmission` and is in flight is lost. Shows each piece.
    pub fn mark_transmission_lost(
        &mut self,
        transmission: u64,
        range: Range<Offset>,
        visit: &mut impl FnMut(&Piece),
    ) {
        let range = self.clip(range);
        self.split_at(range.start);
        self.split_at(range.end);
        for (&start, record) in self.records.range_mut(range) {
            #[cfg(test)]
            self.touched.set(self.touched.get() + 1);
            if !record.is_in_flight(transmission) {
                continue;
            }
            let piece = record.piece(start);
            // The earlier copy of a doubled record is as late as this one or later.
            self.pipe -= piece.len() * record.state.copies();
            if record.state != RecordState::Sent {
                self.resent_bytes -= piece.len();
            }
            record.state = RecordState::Lost;
            self.lost.insert(start);
            self.lost_bytes += piece.len();
            visit(&piece);
        }
    }

    /// The first `len` bytes not SACKed are lost, however often they were sent. Shows what was in flight.
    pub fn mark_head_lost(&mut self, len: u64, visit: &mut impl FnMut(&Piece)) {
        if let Some((&start, record)) = self.records.first_key_value() {
            let transmission = record.snapshot.transmission;
            self.mark_transmission_lost(transmission, start..start + len, visit);
        }
    }

    /// Returns what was noted when the first byte that is neither acknowledged nor SACKed was last sent.
    pub fn head(&self) -> Option<&SendSnapshot> {
        Some(&self.records.first_key_value()?.1.snapshot)
    }

    /// The first `len` bytes that are not SACKed are lost, if they were sent only once. Shows the piece.
    pub fn mark_first_lost(&mut self, len: u64, visit: &mut impl FnMut(&Piece)) {
        if let Some((&start, _)) = self.records.first_key_value() {
            self.split_at(start + len);
            self.mark_lost(start..start + 1, visit);
        }
    }

    /// Everything not SACKed is lost, retransmissions included (RFC 6675 §5.1). Shows each piece that was
    /// in flight.
    pub fn mark_all_lost(&mut self, visit: &mut impl FnMut(&Piece)) {
        for (&start, record) in &mut self.records {
            #[cfg(test)]
            self.touched.set(self.touched.get() + 1);
            if record.state != RecordState::Lost {
                record.state = RecordState::Lost;
                visit(&record.piece(start));
            }
        }
        self.lost = self.records.keys().copied().collect();
        self.pipe = 0;
        self.resent_bytes = 0;
        self.lost_bytes = self.unsacked();
    }

    /// What was marked lost and not sent again is in flight after all: it counts as carried by
    /// `transmission`, so that it can be found lost once more.
    pub fn unmark_lost(&mut self, transmission: u64) {
        for start in std::mem::take(&mut self.lost) {
            if let Some(record) = self.records.get_mut(&start) {
                record.state = RecordState::Sent;
                record.snapshot.transmission = transmission;
            }
        }
        self.pipe += self.lost_bytes;
        self.lost_bytes = 0;
        self.loss_frontier = self.snd_una;
    }

    /// If the peer has discarded what it had SACKed, because its cumulative ACK stops where a SACKed
    /// range begins, forgets all SACK information (RFC 2018 §8, RFC 6675 §5.1) and returns how many
    /// bytes that was; they count as sent once more under `snapshot`.
    pub fn forget_reneged(&mut self, snapshot: SendSnapshot) -> u64 {
        if !self.sacked.contains(self.snd_una) {
            return 0;
        }
        let ranges = std::mem::take(&mut self.sacked);
        let segments_before = self.oldest_segment();
        for Range { start, end } in ranges.iter() {
            // Which transmission a later ACK answers is unknown: RFC 6298 §3.
            let state = RecordState::Sent;
            self.insert(
                start,
                Record {
                    end,
                    state,
                    was_retransmitted: true,
                    segments_before,
                    first_transmission: snapshot.transmission,
                    snapshot,
                },
            );
        }
        self.loss_frontier = self.snd_una;
        ranges.bytes()
    }

    /// Recovery begins: nothing was retransmitted in this episode yet (RFC 6675 §5, step 3.1).
    pub fn reset_high_rxt(&mut self) {
        self.high_rxt = self.snd_una;
    }

    /// Returns the lowest lost range, at most `max` bytes (RFC 6675 §4, `NextSeg` rule 1).
    pub fn next_lost(&self, max: u64) -> Option<Range<Offset>> {
        let start = *self.lost.first()?;
        let limit = start + max;
        let mut end = start;
        for (&next, record) in self.records.range(start..).take(MAX_JOINED) {
            if next != end || end >= limit || record.state != RecordState::Lost {
                break;
            }
            end = record.end;
        }
        let range = start..end.min(limit);
        (!range.is_empty()).then_some(range)
    }

    /// Returns the lowest range, at most `max` bytes, that is not lost, was not sent again, and lies
    /// below something SACKed (RFC 6675 §4, `NextSeg` rule 3).
    pub fn next_hole(&self, max: u64) -> Option<Range<Offset>> {
        let highest = self.sacked.last()?.start;
        let from = self.high_rxt.max(self.loss_frontier);
        if from >= highest {
            return None;
        }
        let (&start, record) = self.records.range(from..highest).next()?;
        let range = start..record.end.min(start + max);
        (record.state == RecordState::Sent && !range.is_empty()).then_some(range)
    }

    /// Returns the highest record; `None` if nothing is outstanding or all of it SACKed.
    pub fn last_run(&self) -> Option<Range<Offset>> {
        let (&start, record) = self.records.last_key_value()?;
        Some(start..record.end)
    }

    fn max_ranges(&self) -> u64 {
        self.segments
            .saturating_sub(self.oldest_segment())
            .saturating_add(SPARE_RANGES)
    }

    fn oldest_segment(&self) -> u64 {
        self.records
            .first_key_value()
            .map_or(self.segments, |(_, record)| record.segments_before)
    }

    fn clip(&self, range: Range<Offset>) -> Range<Offset> {
        let start = range.start.clamp(self.snd_una, self.snd_nxt);
        start..range.end.clamp(start, self.snd_nxt)
    }

    fn insert(&mut self, start: Offset, record: Record) {
        self.pipe += record.end.saturating_since(start) * record.state.copies();
        self.records.insert(start, record);
    }

    /// Makes `at` a boundary between records.
    fn split_at(&mut self, at: Offset) {
        let Some((_, record)) = self.records.range_mut(..at).next_back() else {
            return;
        };
        #[cfg(test)]
        self.touched.set(self.touched.get() + 1);
        if record.end <= at {
            return;
        }
        let upper = *record;
        record.end = at;
        if upper.state == RecordState::Lost {
            self.lost.insert(at);
        }
        self.records.insert(at, upper);
    }

    /// Removes the records in `range`, at whose ends records begin or end.
    fn take(&mut self, range: Range<Offset>, visit: &mut impl FnMut(&Piece)) {
        while let Some((&start, _)) = self.records.range(range.clone()).next() {
            let Some(record) = self.records.remove(&start) else {
                return;
            };
            #[cfg(test)]
            self.touched.set(self.touched.get() + 1);
            let piece = record.piece(start);
            self.pipe -= piece.len() * record.state.copies();
            match record.state {
                RecordState::Sent => {}
                RecordState::Lost => {
                    self.lost.remove(&start);
                    self.lost_bytes -= piece.len();
                }
                RecordState::Retransmitted | RecordState::Doubled => {
                    self.resent_bytes -= piece.len();
                }
            }
            visit(&piece);
        }
    }

    /// Marks the originals in `range` lost; records that were sent again keep their newer copy.
    fn mark_lost(&mut self, range: Range<Offset>, visit: &mut impl FnMut(&Piece)) {
        for (&start, record) in self.records.range_mut(range) {
            #[cfg(test)]
            self.touched.set(self.touched.get() + 1);
            let piece = record.piece(start);
            match record.state {
                RecordState::Sent => {
                    record.state = RecordState::Lost;
                    self.lost.insert(start);
                    self.lost_bytes += piece.len();
                }
                RecordState::Doubled => record.state = RecordState::Retransmitted,
                RecordState::Lost | RecordState::Retransmitted => continue,
            }
            self.pipe -= piece.len();
            visit(&piece);
        }
    }

    /// Checks what the type promises.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub fn check_invariants(&self) {
        self.sacked.check_invariants();
        assert!(self.snd_una <= self.snd_nxt && self.loss_frontier <= self.snd_nxt);
        let (mut pipe, mut lost_bytes, mut resent_bytes, mut unsacked) = (0, 0, 0, 0);
        let mut at = self.snd_una;
        for (&start, record) in &self.records {
            assert!(
                start >= at && record.end > start,
                "records out of order at {start:?}"
            );
            let gap = self.sacked.covered_in(at..start);
            assert_eq!(
                gap,
                start.saturating_since(at),
                "hole in the scoreboard below {start:?}"
            );
            assert_eq!(
                self.sacked.covered_in(start..record.end),
                0,
                "SACKed record {start:?}"
            );
            at = record.end;
            let len = record.end.saturating_since(start);
            unsacked += len;
            pipe += len * record.state.copies();
            let is_lost = record.state == RecordState::Lost;
            assert_eq!(
                self.lost.contains(&start),
                is_lost,
                "set of lost records at {start:?}"
            );
            match record.state {
                RecordState::Lost => lost_bytes += len,
                RecordState::Retransmitted | RecordState::Doubled => resent_bytes += len,
                RecordState::Sent => {}
            }
            if matches!(record.state, RecordState::Sent | RecordState::Doubled) {
                assert!(
                    start >= self.loss_frontier,
                    "{start:?} is below the frontier"
                );
            }
        }
        let tail = self.sacked.covered_in(at..self.snd_nxt);
        assert_eq!(
            tail,
            self.snd_nxt.saturating_since(at),
            "hole at the end of the scoreboard"
        );
        assert_eq!(unsacked, self.unsacked(), "unsacked");
        assert_eq!(pipe, self.pipe, "pipe");
        assert_eq!(lost_bytes, self.lost_bytes, "lost bytes");
        assert_eq!(resent_bytes, self.resent_bytes, "resent bytes");
        assert!(
            self.lost
                .iter()
                .all(|start| self.records.contains_key(start)),
            "stale lost"
        );
    }
}

impl Record {
    fn is_in_flight(&self, transmission: u64) -> bool {
        self.snapshot.transmission == transmission && self.state != RecordState::Lost
    }

    const fn piece(&self, start: Offset) -> Piece {
        Piece {
            start,
            end: self.end,
            was_retransmitted: self.was_retransmitted,
            first_transmission: self.first_transmission,
            snapshot: self.snapshot,
        }
    }
}

#[cfg(test)]
mod tests;
