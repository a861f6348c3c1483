//! Departing datagrams: answers that need no connection first, then one turn for each connection that has
//! something to send.
//!
//! Short runs for one address share a send, whatever connections they belong to: with many connections
//! between two endpoints it is the system calls that cost, and the system takes any datagrams of one size.

use bytes::Bytes;

use super::slot::Handle;
use super::{Departure, Endpoint};
use crate::tap::Direction;
use crate::timestamp::Timestamp;

/// The largest datagram there is, and so room for whatever a connection sends in one run of one segment.
const LARGEST_DATAGRAM: usize = 65_535;

/// A run that did not fit the send for which it was made, and waits for the next one.
#[derive(Debug, Default)]
pub(super) struct Overhang {
    departure: Option<Departure>,
    /// Where runs are written before they join a send; empty until needed.
    bytes: Vec<u8>,
}

impl Overhang {
    /// Moves the run into `buf`, as much of it as one send takes now.
    fn take(&mut self, max_segments: usize, buf: &mut [u8]) -> Option<Departure> {
        let whole = self.departure.take()?;
        let segments = whole.segments.min(max_segments.max(1));
        let len = whole.len.min(segments * whole.segment_size);
        let run = self.bytes.get(..len)?;
        buf.get_mut(..len)?.copy_from_slice(run);
        if segments < whole.segments {
            self.bytes.copy_within(len..whole.len, 0);
            self.departure = Some(Departure {
                len: whole.len - len,
                segments: whole.segments - segments,
                ..whole
            });
        }
        Some(Departure {
            len,
            segments,
            ..whole
        })
    }
}

/// Who may have the next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Anybody,
    /// Only those with a few bytes to send, which are cheap to copy.
    Terse,
}

impl Departure {
    /// Adds a run behind this one if both can leave in one send; says whether it did.
    fn append(&mut self, next: &Self, run: &[u8], max_segments: usize, buf: &mut [u8]) -> bool {
        let is_alike = (next.remote, next.local_ip, next.ecn)
            == (self.remote, self.local_ip, self.ecn)
            && (next.segment_size == self.segment_size
                || (next.segment_size < self.segment_size && next.segments == 1))
            && self.segments + next.segments <= max_segments;
        let Some(place) = buf.get_mut(self.len..self.len + next.len) else {
            return false;
        };
        if is_alike {
            place.copy_from_slice(run);
            self.connection = self
                .connection
                .filter(|_| self.connection == next.connection);
            self.len += next.len;
            self.segments += next.segments;
        }
        is_alike
    }

    /// Whether another segment may stand behind the last one.
    fn is_open(&self, max_segments: usize) -> bool {
        self.segments < max_segments && self.len == self.segments * self.segment_size
    }
}

impl Endpoint {
    /// Writes the next datagrams into `buf`, which holds at least one datagram of the configured size and
    /// is filled with up to `max_segments`. To be called until it returns `None`.
    #[cfg_attr(
        not(any(test, fuzzing, feature = "__internals")),
        allow(dead_code, reason = "the driver gathers")
    )]
    pub fn poll_transmit(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut [u8],
    ) -> Option<Departure> {
        self.transmit(now, max_segments, buf, None)
    }

    /// Does what [`poll_transmit`](Self::poll_transmit) does, but may leave the payloads of a long run where
    /// they lie: then `buf` holds nothing but the headers, [`Departure::header_len`] is set, and `pieces` refers
    /// to the payloads in order. Clears `pieces` first.
    pub fn poll_transmit_gathered(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut [u8],
        pieces: &mut Vec<Bytes>,
    ) -> Option<Departure> {
        pieces.clear();
        // The tap wants to see segments in one piece.
        let pieces = Some(pieces).filter(|_| self.tap.is_none());
        self.transmit(now, max_segments, buf, pieces)
    }

    fn transmit(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut [u8],
        pieces: Option<&mut Vec<Bytes>>,
    ) -> Option<Departure> {
        let mut departure = match self.overhang.take(max_segments, buf) {
            Some(departure) => departure,
            None => self.next_run(now, max_segments, buf, Turn::Anybody, pieces)?,
        };
        if departure.header_len.is_none() && !self.is_path_probe(&departure) {
            self.extend(now, max_segments, buf, &mut departure);
        }
        self.stats.datagrams_sent += departure.segments as u64;
        self.stats.bytes_sent += departure.len as u64;
        self.show(
            now,
            Direction::Outgoing,
            (departure.remote, departure.local_ip),
            buf.get(..departure.len).unwrap_or_default(),
            departure.segment_size,
        );
        Some(departure)
    }

    /// Whether a departure probes the path's MTU. It leaves alone: if the system refuses it, its connection has to
    /// learn of it, and others must lose nothing by it.
    fn is_path_probe(&self, departure: &Departure) -> bool {
        let connection = departure.connection.and_then(|id| self.connection(id));
        connection.is_some_and(|connection| departure.segment_size > connection.datagram_size())
    }

    /// Lets short runs share the send.
    fn extend(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut [u8],
        departure: &mut Departure,
    ) {
        while departure.is_open(max_segments)
            && self.overhang.departure.is_none()
            && self.has_transmit()
        {
            let mut run = std::mem::take(&mut self.overhang.bytes);
            run.resize(LARGEST_DATAGRAM, 0);
            let left = max_segments - departure.segments;
            let next = self.next_run(now, left, &mut run, Turn::Terse, None);
            let has_joined = next.is_some_and(|next| {
                let bytes = run.get(..next.len).unwrap_or_default();
                departure.append(&next, bytes, max_segments, buf)
            });
            self.overhang.bytes = run;
            if !has_joined {
                self.overhang.departure = next;
                return;
            }
        }
    }

    fn next_run(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut [u8],
        turn: Turn,
        pieces: Option<&mut Vec<Bytes>>,
    ) -> Option<Departure> {
        self.poll_answer(buf)
            .or_else(|| self.poll_connections(now, max_segments, buf, turn, pieces))
    }

    /// The system refused a departure, which is the latest one, because its datagrams are larger than the
    /// interface takes.
    pub fn handle_refused(&mut self, now: Timestamp, departure: &Departure) {
        let Some(id) = departure.connection else {
            return;
        };
        let index = id.slot();
        let slot = self.slots.get_mut(index);
        if let Some(slot) = slot.filter(|slot| slot.id(index) == id) {
            slot.connection.handle_refused(now, departure.segment_size);
            self.after_input(now, index);
        }
    }

    /// Returns whether [`poll_transmit`](Self::poll_transmit) may have something to send; if not, it would
    /// return `None`.
    pub fn has_transmit(&self) -> bool {
        self.overhang.departure.is_some() || !self.outbox.is_empty() || !self.ready.is_empty()
    }

    fn poll_answer(&mut self, buf: &mut [u8]) -> Option<Departure> {
        while let Some(answer) = self.outbox.pop() {
            if let Some(len) = answer.encode(buf) {
                return Some(Departure {
                    connection: None,
                    remote: answer.remote,
                    local_ip: answer.local_ip,
                    ecn: None,
                    len,
                    segment_size: len,
                    segments: 1,
                    header_len: None,
                });
            }
            self.stats.answers_dropped += 1;
        }
        None
    }

    fn poll_connections(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut [u8],
        turn: Turn,
        mut pieces: Option<&mut Vec<Bytes>>,
    ) -> Option<Departure> {
        while let Some(id) = self.ready.front() {
            let index = id.slot();
            let slot = self.slots.get_mut(index);
            let Some(slot) = slot.filter(|slot| slot.id(index) == id) else {
                self.ready.pop();
                continue;
            };
            if turn == Turn::Terse && !slot.connection.is_terse() {
                return None;
            }
            self.ready.pop();
            let connection = &mut slot.connection;
            let transmit = match &mut pieces {
                Some(pieces) => connection.poll_transmit_gathered(now, max_segments, buf, pieces),
                None => connection.poll_transmit(now, max_segments, buf),
            };
            let Some(transmit) = transmit else {
                slot.is_ready = false;
                self.settle(now, index);
                continue;
            };
            self.ready.push(id);
            self.stats.black_holes += slot.take_black_holes();
            // What the budget does not cover counts as lost; the connection sends it again by its timer.
            let is_allowed = match &mut slot.handle {
                Handle::HalfOpen(budget) => budget.take(transmit.len),
                Handle::Queued | Handle::Held | Handle::Released => true,
            };
            let departure = Departure {
                connection: Some(id),
                remote: slot.remote(),
                local_ip: slot.source_ip,
                ecn: transmit.ecn,
                len: transmit.len,
                segment_size: transmit.segment_size,
                segments: transmit.segments,
                header_len: transmit.header_len,
            };
            self.settle(now, index);
            if is_allowed {
                return Some(departure);
            }
            if let Some(pieces) = &mut pieces {
                pieces.clear();
            }
            self.stats.amplification_suppressed += 1;
        }
        None
    }
}
