//! `Receiver`: what the peer sent, until the application has read it.
//!
//! Keeps RCV.NXT and RCV.WND (RFC 9293 §3.3.1), puts the stream into order, decides when to
//! acknowledge and with which SACK blocks ([`ack`]), and how much the peer may send ([`window`],
//! [`tuning`]).
//! Bytes ahead of a gap wait in the [`assembler`], readable ones in the [`queue`].
//!
//! Left out on purpose: sequence-number checks that need the connection's state (RFC 9293 §3.10.7.4
//! steps other than trimming) and timestamps.

mod ack;
mod assembler;
#[cfg(any(test, fuzzing, feature = "__internals"))]
pub mod fuzz;
mod queue;
mod tuning;
mod window;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use self::ack::AckPolicy;
pub use self::ack::{AckReport, SackRanges};
use self::assembler::{Assembler, Insertion};
use self::queue::ReceiveQueue;
use self::tuning::Tuning;
use self::window::Window;
use crate::connection::offset::Offset;
use crate::timestamp::Timestamp;

/// Settings of a receiver.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReceiverParams {
    /// Largest number of bytes that wait for the reader, and so the largest window, in bytes: at first,
    pub capacity: usize,
    /// and as it may grow.
    pub max_capacity: usize,
    /// Longest delay of an ACK; zero acknowledges every segment at once.
    pub ack_delay: Duration,
}

/// What an arriving segment has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Arrival {
    /// Bytes that became readable.
    pub newly_readable: u64,
    /// Whether the segment began beyond `rcv_nxt`.
    pub is_out_of_order: bool,
    /// Whether all of it had arrived before.
    pub is_duplicate: bool,
    /// Whether it made the FIN the next thing in order.
    pub fin_reached: bool,
}

/// What a receiver has counted; counters never decrease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReceiverCounters {
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Segments whose payload or FIN had arrived before, wholly.
    pub segments_duplicate: u64,
    /// Segments that began beyond `rcv_nxt`.
    pub segments_out_of_order: u64,
    /// Out-of-order segments dropped because a limit on memory was reached.
    pub segments_dropped: u64,
    /// Segments that began beyond the window's right edge or behind the FIN.
    pub segments_beyond_window: u64,
}

/// The receiving half of a connection.
///
/// Invariants, beside those of its parts:
/// - nothing held in the assembler is readable: its first range begins beyond `rcv_nxt`;
/// - a FIN position, once known, is `rcv_nxt` or later until the FIN is reached, and `rcv_nxt - 1`
///   from then on, when nothing is held out of order any more;
/// - `rcv_nxt` never exceeds the right edge, but for a FIN right behind it.
#[derive(Debug)]
pub struct Receiver {
    rcv_nxt: Offset,
    /// Position of the first FIN in the stream, once one was taken.
    fin: Option<Offset>,
    is_finished: bool,
    queue: ReceiveQueue,
    assembler: Assembler,
    acks: AckPolicy,
    window: Window,
    tuning: Tuning,
    /// `None` as long as there is nothing to count; without the bytes, which follow from `rcv_nxt`.
    counters: Option<Box<ReceiverCounters>>,
}

/// A segment's place in the stream.
struct Extent {
    start: Offset,
    data_end: Offset,
    fin: bool,
}

impl Extent {
    /// The sequence numbers taken, FIN included.
    fn sequence(&self) -> Range<Offset> {
        self.start..self.data_end + u64::from(self.fin)
    }
}

impl Receiver {
    /// A receiver that expects the first byte; no scaling and no SACK until
    /// [`negotiate`](Self::negotiate).
    pub fn new(params: &ReceiverParams) -> Self {
        Self {
            rcv_nxt: Offset::FIRST,
            fin: None,
            is_finished: false,
            queue: ReceiveQueue::default(),
            assembler: Assembler::default(),
            acks: AckPolicy::new(params.ack_delay),
            window: Window::new(params.capacity, params.max_capacity),
            tuning: Tuning::new(),
            counters: None,
        }
    }

    /// Applies what the handshake agreed on: our receive shift and whether the peer takes SACK.
    pub fn negotiate(&mut self, window_shift: u8, sack: bool) {
        self.window.set_shift(window_shift);
        self.acks.set_sack(sack);
    }

    /// Sets the longest delay of an ACK; zero acknowledges every segment at once.
    pub fn set_ack_delay(&mut self, delay: Duration) {
        self.acks.set_delay(delay);
    }

    /// The window field of a segment with SYN, which is never scaled (RFC 7323 §2.2).
    pub fn window_field_syn(&self) -> u16 {
        self.window.field_syn()
    }

    /// Takes a segment that begins at `start`; what lies outside the window is cut off.
    ///
    /// Segments that lie wholly below `rcv_nxt` or wholly beyond the window may be passed too; the
    /// former are so reported as duplicates (RFC 2883 §4.1). `payload` is queued without a copy if it
    /// lies within `datagram`.
    pub fn on_segment(
        &mut self,
        now: Timestamp,
        start: Offset,
        payload: &[u8],
        fin: bool,
        datagram: &Bytes,
    ) -> Arrival {
        let len = payload.len() as u64;
        let is_regular = start == self.rcv_nxt
            && !fin
            && len != 0
            && len <= self.rcv_wnd()
            && self.fin.is_none()
            && self.assembler.is_empty();
        if !is_regular {
            let extent = Extent {
                start,
                data_end: start + len,
                fin,
            };
            return self.on_irregular(now, &extent, payload, datagram);
        }
        self.rcv_nxt += len;
        self.acks.on_in_order(now, payload.len());
        Arrival {
            newly_readable: self.queue.push(payload, datagram),
            ..Arrival::default()
        }
    }

    /// A segment was not acceptable: an ACK is owed (RFC 9293 §3.10.7.4).
    pub fn on_unacceptable(&mut self) {
        self.acks.demand();
    }

    /// Something else, such as a keepalive or a window probe, wants an ACK now.
    pub fn demand_ack(&mut self) {
        self.acks.demand();
    }

    /// Next offset expected; counts the FIN once it was reached in order.
    pub fn rcv_nxt(&self) -> Offset {
        self.rcv_nxt
    }

    /// Bytes from `rcv_nxt` to the right edge.
    pub fn rcv_wnd(&self) -> u64 {
        self.window.right_edge().saturating_since(self.rcv_nxt)
    }

    /// Fixes the window that a departing segment without SYN tells, and returns its field. `report` is what
    /// [`next_ack`](Self::next_ack) gave for it: one that was queued repeats the right edge that the peer
    /// knows, counted from its own acknowledgment number.
    pub fn advertise(&mut self, report: &AckReport) -> u16 {
        if !report.is_queued {
            return self
                .window
                .advertise(self.rcv_nxt, self.queue.len(), self.acks.segment_size());
        }
        // What arrived in order after the report was made may have been read already.
        let since = distance(self.rcv_nxt, report.rcv_nxt);
        self.window
            .repeat(report.rcv_nxt, self.queue.len().saturating_sub(since))
    }

    /// Whether reading has made so much room that the peer should be told.
    pub fn has_window_update(&self) -> bool {
        // After the FIN the peer has nothing to send.
        !self.is_finished
            && self
                .window
                .has_update(self.rcv_nxt, self.queue.len(), self.acks.segment_size())
    }

    /// Whether an ACK has to leave now.
    pub fn ack_due(&self, now: Timestamp) -> bool {
        self.acks.is_due(now)
    }

    /// When the delayed ACK has to leave, if one is delayed.
    pub fn ack_deadline(&self) -> Option<Timestamp> {
        self.acks.deadline()
    }

    /// How many ACKs are owed at once, each a segment of its own.
    pub fn pending_acks(&self) -> usize {
        self.acks.pending()
    }

    /// How many duplicate ACKs and SACK reports are queued, each of which must be a segment of its own
    /// and cannot ride on data.
    pub fn queued_reports(&self) -> usize {
        self.acks.queued()
    }

    /// How many SACK blocks the next ACK names: with queued reports, the oldest one's.
    pub fn next_ack_blocks(&self) -> usize {
        self.acks.next_blocks(self.rcv_nxt, self.assembler.ranges())
    }

    /// Returns what the next ACK says: the oldest snapshot, or the present state if none waits.
    ///
    /// Tell [`on_ack_sent`](Self::on_ack_sent) once it left.
    pub fn next_ack(&mut self) -> AckReport {
        self.acks.next(self.rcv_nxt, self.assembler.ranges())
    }

    /// The report of the last [`next_ack`](Self::next_ack) left or, without one, a segment with the
    /// present `rcv_nxt`. Ends the delay if it said the present `rcv_nxt`.
    pub fn on_ack_sent(&mut self) {
        self.acks.on_sent(self.rcv_nxt);
    }

    /// Takes a measurement of the round-trip time, which the growth of the window goes by.
    pub fn on_rtt_sample(&mut self, sample: Duration) {
        self.tuning.on_rtt_sample(sample);
    }

    /// The application has consumed `bytes` that it read: the window may grow.
    pub fn on_consumed(&mut self, now: Timestamp, bytes: usize) {
        let segment_size = self.acks.segment_size() as u64;
        let capacity = self.window.capacity();
        let wanted = self
            .tuning
            .on_consumed(now, bytes as u64, capacity, segment_size);
        if let Some(wanted) = wanted {
            self.window.grow_to(wanted);
        }
    }

    /// Bytes that may wait for the reader now.
    pub fn capacity(&self) -> usize {
        usize::try_from(self.window.capacity()).unwrap_or(usize::MAX)
    }

    /// Moves readable bytes to `buf`; returns how many.
    pub fn read(&mut self, buf: &mut [u8]) -> usize {
        self.queue.read(buf)
    }

    /// Takes the next contiguous readable bytes, at most `max`, without a copy.
    pub fn read_chunk(&mut self, max: usize) -> Option<Bytes> {
        self.queue.read_chunk(max)
    }

    /// Copies readable bytes to `buf` without consuming them; returns how many.
    pub fn peek(&self, buf: &mut [u8]) -> usize {
        self.queue.peek(buf)
    }

    /// Bytes that can be read.
    pub fn readable_bytes(&self) -> usize {
        self.queue.len()
    }

    /// Bytes that wait for a gap to be filled.
    pub fn out_of_order_bytes(&self) -> usize {
        usize::try_from(self.assembler.bytes()).unwrap_or(usize::MAX)
    }

    /// Whether the FIN was reached in order.
    #[cfg_attr(
        not(any(test, fuzzing, feature = "__internals")),
        allow(dead_code, reason = "reached through `internals` only")
    )]
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Whether the FIN was reached and everything before it was read.
    pub fn is_eof(&self) -> bool {
        self.is_finished && self.queue.is_empty()
    }

    /// Bytes of memory held: buffers, pinned receive buffers, and the overhead of both.
    pub fn memory(&self) -> usize {
        self.queue.memory() + self.assembler.memory() + self.acks.memory()
    }

    /// The application is gone: drops what is buffered, now and in future, and goes on acknowledging.
    pub fn discard(&mut self) {
        self.queue.discard();
        self.assembler.discard();
    }

    /// What was counted so far.
    pub fn counters(&self) -> ReceiverCounters {
        // Neither SYN nor FIN is a byte.
        let numbers = self.rcv_nxt.saturating_since(Offset::FIRST);
        ReceiverCounters {
            bytes_received: numbers - u64::from(self.is_finished),
            ..self.counters.as_deref().copied().unwrap_or_default()
        }
    }

    /// Every segment but the next one in order without a gap behind it.
    fn on_irregular(
        &mut self,
        now: Timestamp,
        extent: &Extent,
        payload: &[u8],
        datagram: &Bytes,
    ) -> Arrival {
        let sequence = extent.sequence();
        if sequence.is_empty() {
            return Arrival::default();
        }
        let duplicate = self.first_duplicate(&sequence);
        let accepted = self.accept(extent);
        let is_beyond = accepted.sequence().is_empty();
        let is_out_of_order = extent.start > self.rcv_nxt && !is_beyond;
        let mut arrival = Arrival {
            is_out_of_order,
            ..Arrival::default()
        };
        let taken = distance(accepted.data_end, extent.start);
        let payload = payload.get(..taken).unwrap_or(payload);
        let is_new = if is_beyond {
            if duplicate.is_none() {
                self.counters.get_or_insert_default().segments_beyond_window += 1;
            }
            false
        } else if is_out_of_order {
            self.hold(&accepted, payload)
        } else {
            self.deliver(now, &accepted, payload, datagram, &mut arrival)
        };

        if accepted.sequence().end < sequence.end {
            // The peer does not know the window or the end of the stream: tell it.
            self.acks.demand();
        }
        arrival.is_duplicate = !is_new && duplicate.is_some();
        if arrival.is_duplicate || is_out_of_order {
            let counters = self.counters.get_or_insert_default();
            counters.segments_duplicate += u64::from(arrival.is_duplicate);
            counters.segments_out_of_order += u64::from(is_out_of_order);
        }
        if is_out_of_order || duplicate.is_some() {
            // RFC 2883 §4: the block that contains a duplicate follows it.
            let newest = duplicate.as_ref().map_or(extent.start, |range| range.start);
            self.acks
                .touch(newest, self.rcv_nxt, self.assembler.ranges());
            self.acks
                .snapshot(self.rcv_nxt, duplicate, self.assembler.ranges());
        }
        arrival
    }

    /// Returns the first contiguous part of `sequence` that has arrived before: only that is reported
    /// (RFC 2883 §4.2).
    fn first_duplicate(&self, sequence: &Range<Offset>) -> Option<Range<Offset>> {
        if sequence.start < self.rcv_nxt {
            return Some(sequence.start..sequence.end.min(self.rcv_nxt));
        }
        self.assembler.first_held_in(sequence)
    }

    /// Cuts off what lies beyond the window or behind a FIN, and takes note of a FIN.
    fn accept(&mut self, extent: &Extent) -> Extent {
        let right_edge = self.window.right_edge();
        let mut data_end = extent.data_end.min(right_edge);
        // A FIN takes no room, so that it may stand right behind a full window.
        let mut fin =
            extent.fin && extent.data_end <= right_edge && extent.data_end >= self.rcv_nxt;
        if let Some(known) = self.fin {
            data_end = data_end.min(known);
            // Of several FINs the one that comes first in the stream rules.
            fin &= extent.data_end <= known && !self.is_finished;
        }
        if fin {
            self.fin = Some(extent.data_end);
        }
        Extent {
            start: extent.start.min(data_end),
            data_end,
            fin,
        }
    }

    /// Holds an out-of-order segment; returns whether anything of it was new.
    fn hold(&mut self, extent: &Extent, payload: &[u8]) -> bool {
        // What was promised to the peer bounds what it can make us hold. One that sends whole segments
        // never meets the limit: each range has a gap before it that is larger than the overhead.
        match self
            .assembler
            .insert(extent.start, payload, extent.fin, self.rcv_wnd())
        {
            Insertion::Stored(new) => new > 0,
            Insertion::Dropped => {
                self.counters.get_or_insert_default().segments_dropped += 1;
                false
            }
        }
    }

    /// Makes an in-order segment readable, and what it connects to; returns whether anything of it was
    /// new.
    fn deliver(
        &mut self,
        now: Timestamp,
        extent: &Extent,
        payload: &[u8],
        datagram: &Bytes,
        arrival: &mut Arrival,
    ) -> bool {
        let before = self.rcv_nxt;
        let had_gap = !self.assembler.is_empty();
        let limit = self.fin.unwrap_or(Offset::new(u64::MAX));
        loop {
            // Bytes already held win over these.
            let held = self.assembler.first_start();
            let stop = held.map_or(extent.data_end, |held| held.min(extent.data_end));
            let piece = distance(self.rcv_nxt, extent.start)..distance(stop, extent.start);
            if let Some(piece) = payload.get(piece).filter(|piece| !piece.is_empty()) {
                arrival.newly_readable += self.queue.push(piece, datagram);
                self.rcv_nxt = stop;
            }
            if held != Some(self.rcv_nxt) {
                break;
            }
            let Some((end, readable)) = self.assembler.take_first(limit, &mut self.queue) else {
                break;
            };
            arrival.newly_readable += readable;
            self.rcv_nxt = end;
        }
        let delivered = self.rcv_nxt.saturating_since(before);
        if self.fin == Some(self.rcv_nxt) && !self.is_finished {
            self.is_finished = true;
            self.rcv_nxt += 1;
            self.assembler.clear();
            arrival.fin_reached = true;
        }
        // RFC 5681 §4.2: at once for a segment that fills a gap or a part of one; RFC 9293 §3.10.7.4
        // for a FIN.
        if had_gap || arrival.fin_reached {
            self.acks.demand();
        } else if delivered > 0 {
            self.acks.on_in_order(now, payload.len());
        }
        delivered > 0 || arrival.fin_reached
    }

    /// Asserts the invariants of the receiver and its parts.
    ///
    /// # Panics
    ///
    /// When one is broken.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub fn check_invariants(&self) {
        self.queue.check_invariants();
        self.assembler.check_invariants(self.rcv_nxt, self.fin);
        self.acks.check_invariants(self.rcv_nxt);
        assert!(
            self.rcv_nxt <= self.window.right_edge() + u64::from(self.is_finished),
            "rcv_nxt beyond the right edge"
        );
        if self.queue.is_discarding() {
            assert_eq!(self.readable_bytes(), 0);
        } else {
            self.window.check_invariants(self.rcv_nxt, self.queue.len());
        }
        if self.is_finished {
            assert_eq!(
                self.fin.map(|fin| fin + 1),
                Some(self.rcv_nxt),
                "FIN reached"
            );
            assert!(self.assembler.is_empty(), "bytes held behind the FIN");
        } else if let Some(fin) = self.fin {
            assert!(fin >= self.rcv_nxt, "FIN passed");
        }
        assert!(
            self.out_of_order_bytes() as u64 <= self.window.limit(),
            "held beyond the limit"
        );
    }
}

/// `at - origin` as a length.
fn distance(at: Offset, origin: Offset) -> usize {
    usize::try_from(at.saturating_since(origin)).unwrap_or(usize::MAX)
}
