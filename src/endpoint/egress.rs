//! Departing datagrams: answers that need no connection first, then one turn for each connection that has
//! something to send.

use bytes::Bytes;

use super::slot::Handle;
use super::{Departure, Endpoint};
use crate::tap::Direction;
use crate::timestamp::Timestamp;

impl Endpoint {
    /// Writes the next datagrams into `buf`, which holds at least one datagram of the configured size and
    /// is filled with up to `max_segments`. To be called until it returns `None`.
    #[cfg_attr(
        not(any(test, fuzzing, feature = "sim", feature = "__internals")),
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
        let departure = match self.poll_answer(buf) {
            Some(answer) => answer,
            None => self.poll_connections(now, max_segments, buf, pieces)?,
        };
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

    /// Returns whether [`poll_transmit`](Self::poll_transmit) may have something to send; if not, it would
    /// return `None`.
    pub fn has_transmit(&self) -> bool {
        !self.outbox.is_empty() || !self.ready.is_empty()
    }

    fn poll_answer(&mut self, buf: &mut [u8]) -> Option<Departure> {
        while let Some(answer) = self.outbox.pop() {
            if let Some(len) = answer.encode(buf) {
                return Some(Departure {
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
        mut pieces: Option<&mut Vec<Bytes>>,
    ) -> Option<Departure> {
        while let Some(id) = self.ready.pop() {
            let index = id.slot();
            let Some(slot) = self
                .slots
                .get_mut(index)
                .filter(|slot| slot.id(index) == id)
            else {
                continue;
            };
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
            // What the budget does not cover counts as lost; the connection sends it again by its timer.
            let is_allowed = match &mut slot.handle {
                Handle::HalfOpen(budget) => budget.take(transmit.len),
                Handle::Queued | Handle::Held | Handle::Released => true,
            };
            let departure = Departure {
                remote: slot.remote,
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
