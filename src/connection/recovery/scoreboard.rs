//! The scoreboard: what was sent and is not acknowledged, and what is known about it (RFC 6675 §3).
//!
//! Records are byte ranges, one per run of segments of one send, split on demand. They hold only what
//! is neither acknowledged nor SACKed, and are found by their offset (`OffsetMap`), so that an ACK costs
//! a few searches plus the records that it newly covers, however large the window is. Which records are lost is found by a boundary that only rises
//! (`loss_frontier`), never by scanning; which one goes out next is the first of an ordered set.
//!
//! What a hostile peer can make of it is bounded: an isolated SACK block is refused once there are more
//! SACKed ranges than segments outstanding (a receiver cannot hold more pieces than were sent), so both
//! memory and work stay proportional to what this side sent.
//!
//! A record also knows the transmission that carried it last, so that a detector by time can ask what of
//! a transmission is still in flight, and declare it lost.

mod books;
#[cfg(any(test, fuzzing, feature = "__internals"))]
mod check;
mod record;

use std::ops::Range;

use self::books::Books;
pub use self::record::Piece;
use self::record::{Record, RecordState};
use super::delivery_rate::SendSnapshot;
use crate::connection::Offset;
use crate::connection::on_demand::OnDemand;
use crate::connection::range_set::RangeSet;

/// SACKed ranges accepted beyond the number of segments outstanding: retransmissions may be cut
/// elsewhere than the originals were.
const SPARE_RANGES: u64 = 64;
/// How many neighbouring lost records one retransmission may join.
const MAX_JOINED: usize = 64;

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
    /// Released when nothing is outstanding and nothing waits to be sent.
    books: OnDemand<Books>,
    /// Octets in flight, each copy counted.
    pipe: u64,
    loss_frontier: Offset,
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
            books: OnDemand::new(),
            pipe: 0,
            loss_frontier: start,
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
    pub fn unsacked(&self) -> u64 {
        self.flight_size().saturating_sub(self.books.sacked.bytes())
    }

    /// Returns `pipe` (RFC 6675 §2).
    pub const fn pipe(&self) -> u64 {
        self.pipe
    }

    /// Returns what the peer holds above `snd_una`.
    pub fn sacked(&self) -> &RangeSet {
        &self.books.sacked
    }

    /// Says whether something is lost and not sent again yet.
    pub fn has_lost(&self) -> bool {
        !self.books.lost.is_empty()
    }

    /// Says whether anything outstanding is lost or was sent again.
    pub fn is_disturbed(&self) -> bool {
        self.books.lost_bytes > 0 || self.books.resent_bytes > 0
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
        self.books.high_rxt = self.books.high_rxt.max(range.end);
        let mut bytes = 0;
        let mut next = self.cut(range.start);
        while let Some((start, place)) = self.within(next, range.end) {
            let Books {
                records,
                lost,
                lost_bytes,
                resent_bytes,
                ..
            } = &mut *self.books;
            let record = &mut records[place];
            let end = record.end;
            let len = end.saturating_since(start);
            bytes += len;
            record.snapshot = snapshot;
            record.was_retransmitted = true;
            match record.state {
                RecordState::Lost => {
                    lost.remove(start);
                    *lost_bytes -= len;
                    *resent_bytes += len;
                    self.pipe += len;
                    record.state = RecordState::Retransmitted;
                }
                RecordState::Sent => {
                    *resent_bytes += len;
                    self.pipe += len;
                    record.state = RecordState::Doubled;
                }
                RecordState::Retransmitted | RecordState::Doubled => {}
            }
            next = self.following(end, range.end);
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
        self.take(self.snd_una..ack, visit);
        self.books.sacked.remove_below(ack);
        self.snd_una = ack;
        moved
    }

    /// Notes that the peer holds `block` and shows each piece newly reported, in order. Returns whether
    /// the block was accepted, see the [module documentation](self).
    pub fn sack(&mut self, block: Range<Offset>, visit: &mut impl FnMut(&Piece)) -> bool {
        let mut block = self.clip(block);
        // Most blocks repeat what earlier ACKs have reported, and add to its end at most.
        let is_within = |known: &Range<Offset>| known.contains(&block.start);
        let known = self
            .books
            .recent
            .iter()
            .find(|known| is_within(known))
            .cloned();
        if let Some(known) = known.or_else(|| self.books.sacked.range_containing(block.start)) {
            block.start = known.end.min(block.end);
        }
        if block.is_empty() {
            return true;
        }
        if self.books.sacked.len() as u64 >= self.max_ranges()
            && self.books.sacked.is_isolated(&block)
        {
            return false;
        }
        self.take(block.clone(), visit);
        self.books.sacked.insert(block.clone());
        self.note_recent(block);
        true
    }

    /// Keeps `block`, which is all SACKed, for the ACKs to come.
    fn note_recent(&mut self, block: Range<Offset>) {
        if let Some(extended) = self
            .books
            .recent
            .iter_mut()
            .find(|known| known.end == block.start)
        {
            extended.end = block.end;
        } else {
            self.books.recent.rotate_right(1);
            self.books.recent[0] = block;
        }
    }

    /// Everything below `frontier` that is not SACKed is lost (RFC 6675 §4, `IsLost`). Shows each
    /// piece that was not known to be.
    pub fn mark_lost_below(&mut self, frontier: Offset, visit: &mut impl FnMut(&Piece)) {
        let frontier = frontier.min(self.snd_nxt);
        if frontier <= self.loss_frontier {
            return;
        }
        let from = self.loss_frontier;
        self.loss_frontier = frontier;
        self.mark_lost(from..frontier, visit);
    }

    /// Returns the first offset in `range` of what `transmission` carried and is still in flight.
    pub fn first_in_flight(&self, transmission: u64, range: Range<Offset>) -> Option<Offset> {
        let mut places = self.books.places.range(self.clip(range));
        places.find_map(|(start, place)| {
            #[cfg(test)]
            self.touched.set(self.touched.get() + 1);
            self.books.records[place]
                .is_in_flight(transmission)
                .then_some(start)
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
        let mut next = self.cut(range.start);
        while let Some((start, place)) = self.within(next, range.end) {
            let books = &mut *self.books;
            let record = &mut books.records[place];
            let end = record.end;
            if record.is_in_flight(transmission) {
                let piece = record.piece(start);
                // The earlier copy of a doubled record is as late as this one or later.
                self.pipe -= piece.len() * record.state.copies();
                if record.state != RecordState::Sent {
                    books.resent_bytes -= piece.len();
                }
                record.state = RecordState::Lost;
                books.lost.insert(start, place);
                books.lost_bytes += piece.len();
                visit(&piece);
            }
            next = self.following(end, range.end);
        }
    }

    /// The first `len` bytes not SACKed are lost, however often they were sent. Shows what was in flight.
    pub fn mark_head_lost(&mut self, len: u64, visit: &mut impl FnMut(&Piece)) {
        if let Some((start, record)) = self.first_record() {
            let transmission = record.snapshot.transmission;
            self.mark_transmission_lost(transmission, start..start + len, visit);
        }
    }

    /// Returns what was noted when the first byte that is neither acknowledged nor SACKed was last sent.
    pub fn head(&self) -> Option<&SendSnapshot> {
        Some(&self.first_record()?.1.snapshot)
    }

    /// The first `len` bytes that are not SACKed are lost, if they were sent only once. Shows the piece.
    pub fn mark_first_lost(&mut self, len: u64, visit: &mut impl FnMut(&Piece)) {
        if let Some((start, _)) = self.books.places.first() {
            let end = self.end_within(start, start + len);
            self.mark_lost(start..end, visit);
        }
    }

    /// Everything not SACKed is lost, retransmissions included (RFC 6675 §5.1). Shows each piece that was
    /// in flight.
    pub fn mark_all_lost(&mut self, visit: &mut impl FnMut(&Piece)) {
        let Books {
            records,
            places,
            lost,
            ..
        } = &mut *self.books;
        lost.clear();
        for (start, place) in places.iter() {
            #[cfg(test)]
            self.touched.set(self.touched.get() + 1);
            lost.insert(start, place);
            let record = &mut records[place];
            if record.state != RecordState::Lost {
                record.state = RecordState::Lost;
                visit(&record.piece(start));
            }
        }
        self.pipe = 0;
        self.books.resent_bytes = 0;
        self.books.lost_bytes = self.unsacked();
    }

    /// What was marked lost and not sent again is in flight after all: it counts as carried by
    /// `transmission`, so that it can be found lost once more.
    pub fn unmark_lost(&mut self, transmission: u64) {
        if self.has_lost() {
            let Books { records, lost, .. } = &mut *self.books;
            for (_, place) in lost.iter() {
                let record = &mut records[place];
                record.state = RecordState::Sent;
                record.snapshot.transmission = transmission;
            }
            lost.clear();
            self.pipe += std::mem::take(&mut self.books.lost_bytes);
        }
        self.loss_frontier = self.snd_una;
    }

    /// If the peer has discarded what it had SACKed, because its cumulative ACK stops where a SACKed
    /// range begins, forgets all SACK information (RFC 2018 §8, RFC 6675 §5.1) and returns how many
    /// bytes that was; they count as sent once more under `snapshot`.
    pub fn forget_reneged(&mut self, snapshot: SendSnapshot) -> u64 {
        if !self.books.sacked.contains(self.snd_una) {
            return 0;
        }
        let ranges = std::mem::take(&mut self.books.sacked);
        self.books.recent = Default::default();
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

    /// Gives back the memory that is kept for what is to be sent next, if nothing is outstanding.
    pub fn release_memory(&mut self) {
        if self.flight_size() == 0 {
            self.books.release();
        }
    }

    /// Recovery begins: nothing was retransmitted in this episode yet (RFC 6675 §5, step 3.1).
    pub fn reset_high_rxt(&mut self) {
        if let Some(books) = self.books.existing() {
            books.high_rxt = self.snd_una;
        }
    }

    /// Returns the lowest lost range, at most `max` bytes (RFC 6675 §4, `NextSeg` rule 1).
    pub fn next_lost(&self, max: u64) -> Option<Range<Offset>> {
        let (start, place) = self.books.lost.first()?;
        let limit = start + max;
        let mut end = self.books.records[place].end;
        let mut joined = 1;
        while end < limit
            && joined < MAX_JOINED
            && let Some((next, place)) = self.books.places.at_or_above(end)
            && next == end
            && self.books.records[place].state == RecordState::Lost
        {
            end = self.books.records[place].end;
            joined += 1;
        }
        let range = start..end.min(limit);
        (!range.is_empty()).then_some(range)
    }

    /// Returns the lowest range, at most `max` bytes, that is not lost, was not sent again, and lies
    /// below something SACKed (RFC 6675 §4, `NextSeg` rule 3).
    pub fn next_hole(&self, max: u64) -> Option<Range<Offset>> {
        let highest = self.books.sacked.last()?.start;
        let from = self.books.high_rxt.max(self.loss_frontier);
        if from >= highest {
            return None;
        }
        let (start, place) = self.books.places.at_or_above(from)?;
        if start >= highest {
            return None;
        }
        let record = &self.books.records[place];
        let range = start..record.end.min(start + max);
        (record.state == RecordState::Sent && !range.is_empty()).then_some(range)
    }

    /// Returns the highest record; `None` if nothing is outstanding or all of it SACKed.
    pub fn last_run(&self) -> Option<Range<Offset>> {
        let (start, place) = self.books.places.last()?;
        Some(start..self.books.records[place].end)
    }

    /// Returns the number of the transmission that carried the highest record last.
    pub fn last_transmission(&self) -> Option<u64> {
        let (_, place) = self.books.places.last()?;
        Some(self.books.records.get(place)?.snapshot.transmission)
    }

    fn max_ranges(&self) -> u64 {
        self.segments
            .saturating_sub(self.oldest_segment())
            .saturating_add(SPARE_RANGES)
    }

    fn oldest_segment(&self) -> u64 {
        self.first_record()
            .map_or(self.segments, |(_, record)| record.segments_before)
    }

    fn first_record(&self) -> Option<(Offset, &Record)> {
        let (start, place) = self.books.places.first()?;
        Some((start, self.books.records.get(place)?))
    }

    fn clip(&self, range: Range<Offset>) -> Range<Offset> {
        let start = range.start.clamp(self.snd_una, self.snd_nxt);
        start..range.end.clamp(start, self.snd_nxt)
    }

    fn insert(&mut self, start: Offset, record: Record) {
        self.pipe += record.end.saturating_since(start) * record.state.copies();
        let place = self.books.records.insert(record);
        self.books.places.insert(start, place);
    }

    /// Makes `at` a boundary between records; returns the first record from there on.
    fn cut(&mut self, at: Offset) -> Option<(Offset, usize)> {
        let next = self.books.places.at_or_above(at);
        if next.is_none_or(|(start, _)| start > at)
            && let Some((_, below)) = self.books.places.below(at)
            && let Some(place) = self.split(below, at)
        {
            return Some((at, place));
        }
        next
    }

    /// Returns `next` if it begins below `end`, shortened to end there.
    fn within(&mut self, next: Option<(Offset, usize)>, end: Offset) -> Option<(Offset, usize)> {
        let (start, place) = next.filter(|(start, _)| *start < end)?;
        self.split(place, end);
        Some((start, place))
    }

    /// Returns the first record from `at` on, if `at` is below `end`.
    fn following(&self, at: Offset, end: Offset) -> Option<(Offset, usize)> {
        (at < end)
            .then(|| self.books.places.at_or_above(at))
            .flatten()
    }

    /// Returns where the record that begins at `start` ends, or `end` if that is lower.
    fn end_within(&self, start: Offset, end: Offset) -> Offset {
        let record = self.books.places.at_or_above(start);
        record.map_or(end, |(_, place)| self.books.records[place].end.min(end))
    }

    /// Splits the record at `place` if `at` lies within; returns the upper part's place.
    fn split(&mut self, place: usize, at: Offset) -> Option<usize> {
        #[cfg(test)]
        self.touched.set(self.touched.get() + 1);
        let record = &mut self.books.records[place];
        if record.end <= at {
            return None;
        }
        let upper = *record;
        record.end = at;
        let place = self.books.records.insert(upper);
        if upper.state == RecordState::Lost {
            self.books.lost.insert(at, place);
        }
        self.books.places.insert(at, place);
        Some(place)
    }

    /// Removes the records in `range`, cut at its ends.
    fn take(&mut self, range: Range<Offset>, visit: &mut impl FnMut(&Piece)) {
        let mut next = self.cut(range.start);
        while let Some((start, place)) = self.within(next, range.end) {
            self.books.places.remove(start);
            let record = self.books.records.remove(place);
            let piece = record.piece(start);
            self.pipe -= piece.len() * record.state.copies();
            match record.state {
                RecordState::Sent => {}
                RecordState::Lost => {
                    self.books.lost.remove(start);
                    self.books.lost_bytes -= piece.len();
                }
                RecordState::Retransmitted | RecordState::Doubled => {
                    self.books.resent_bytes -= piece.len();
                }
            }
            visit(&piece);
            next = self.following(piece.end, range.end);
        }
    }

    /// Marks the originals in `range` lost; records that were sent again keep their newer copy.
    fn mark_lost(&mut self, range: Range<Offset>, visit: &mut impl FnMut(&Piece)) {
        let mut next = self.cut(range.start);
        while let Some((start, place)) = self.within(next, range.end) {
            next = self.following(self.books.records[place].end, range.end);
            let record = &mut self.books.records[place];
            let piece = record.piece(start);
            match record.state {
                RecordState::Sent => {
                    record.state = RecordState::Lost;
                    self.books.lost.insert(start, place);
                    self.books.lost_bytes += piece.len();
                }
                RecordState::Doubled => record.state = RecordState::Retransmitted,
                RecordState::Lost | RecordState::Retransmitted => continue,
            }
            self.pipe -= piece.len();
            visit(&piece);
        }
    }
}

#[cfg(test)]
mod tests;
