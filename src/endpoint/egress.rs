//! Departing datagrams: answers that need no connection first, then one turn for each connection that has
//! something to send.

use super::slot::Handle;
use super::{Departure, Endpoint};
use crate::tap::Direction;
use crate::timestamp::Timestamp;

impl Endpoint {
    /// Writes the next datagrams into `buf`, which holds at least one datagram of the configured size and
    /// is filled with up to `max_segments`. To be called until it returns `None`.
    pub fn poll_transmit(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut [u8],
    ) -> Option<Departure> {
        let departure = self
            .poll_answer(buf)
            .or_else(|| self.poll_connections(now, max_segments, buf))?;
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
            let Some(transmit) = slot.connection.poll_transmit(now, max_segments, buf) else {
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
            };
            self.settle(now, index);
            if is_allowed {
                return Some(departure);
            }
            self.stats.amplification_suppressed += 1;
        }
        None
    }
}
