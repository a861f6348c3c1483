//! What the earlier ACKs of a batch allow to be sent, while the batch is not through.
//!
//! Inputs come in batches and are answered after the batch. RFC 5681 and RFC 9937 have a sender in mind
//! that answers each ACK by itself: when the ACK that shows a loss arrives, what the ones before it
//! allowed is in flight already. So it has to count as flight here too. Else half of the flight size
//! would be half of what the batch has left of it, and how far the window falls would depend on
//! how ACKs happened to be batched. And it is sent after the batch, beside what recovery allows.

use super::Recovery;
use crate::Timestamp;

/// New data that earlier ACKs of the present batch have allowed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unanswered {
    bytes: u32,
    /// Of these, what limited transmit allowed beyond the window.
    beyond: u32,
    /// The time of the batch: afterwards it was answered, or something else held the data back.
    at: Timestamp,
}

impl Unanswered {
    /// Returns its bytes.
    pub fn bytes(&self, now: Timestamp) -> u64 {
        if self.at == now { self.bytes.into() } else { 0 }
    }

    /// Returns its bytes without those of limited transmit.
    pub fn within_window(&self, now: Timestamp) -> u64 {
        self.bytes(now).saturating_sub(self.beyond.into())
    }

    /// New data was sent; returns how much of it had been allowed before.
    pub fn on_sent(&mut self, now: Timestamp, bytes: u64) -> u64 {
        let sent = self.bytes(now).min(bytes);
        self.bytes = self.bytes.saturating_sub(narrow(bytes));
        sent
    }
}

impl Recovery {
    /// Looks, before an ACK is processed, at what is still to be sent for the ones before it: of `waiting`
    /// bytes of new data that nothing but the congestion window holds back, whole segments.
    pub fn note_waiting(&mut self, now: Timestamp, waiting: u64) {
        if self.is_reducing() {
            // Until it is sent it remains what it was when the episode began.
            return;
        }
        // A controller with a rate of its own has not allowed it yet; what is lost would have gone first. What
        // only the spreading of a window holds back counts: how it is spread must not matter either.
        let is_other = self.controller.pacing_rate().is_some() || self.scoreboard.has_lost();
        let allowed = if is_other {
            0
        } else {
            let allowed = self.send_allowance(now).min(waiting);
            allowed - allowed % self.mss
        };
        let room = self.cwnd().saturating_sub(self.flight_size());
        self.unanswered = Unanswered {
            bytes: narrow(allowed),
            beyond: narrow(allowed.saturating_sub(room)),
            at: now,
        };
    }
}

/// No window has more (RFC 7323 §2.3).
fn narrow(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
