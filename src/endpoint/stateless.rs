//! Answers that need no connection: resets for nobody's segments, SYN-ACKs with a cookie, the ACKs of
//! TIME-WAIT; and the limits that keep them from being a weapon.
//!
//! RFC 9293 §3.10.7.1 says what a reset looks like. None is larger than what it answers, they are
//! limited in number per second, and the queue of answers has a limit of its own: what does not fit is
//! dropped and counted, as a router would have done it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::timestamp::Timestamp;
use crate::wire::{self, Flags, Header, Integrity, Segment, SeqNumber};

/// How many answers may wait for the transport.
const QUEUE_LIMIT: usize = 256;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A segment without payload that belongs to no connection.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) remote: SocketAddr,
    pub(super) local_ip: Option<IpAddr>,
    pub(super) header: Header,
    pub(super) integrity: Integrity,
}

impl Answer {
    /// Encodes into `buf`; returns the length, or `None` if it does not fit.
    pub(super) fn encode(&self, buf: &mut [u8]) -> Option<usize> {
        let len = self.header.encode(buf)?;
        wire::seal(buf.get_mut(..len)?, self.integrity);
        Some(len)
    }
}

/// Builds the reset that answers `trigger`, or `None` if it must not be answered.
pub(super) fn reset_for(trigger: &Segment<'_>) -> Option<Header> {
    let header = &trigger.header;
    // RFC 9293 §3.5.2: no reset answers a reset.
    if header.flags.contains(Flags::RST) {
        return None;
    }
    let mut reset = Header {
        src_port: header.dst_port,
        dst_port: header.src_port,
        ..Header::default()
    };
    // RFC 9293 §3.10.7.1
    if header.flags.contains(Flags::ACK) {
        reset.seq = header.ack;
        reset.flags = Flags::RST;
    } else {
        reset.seq = SeqNumber::new(0);
        reset.ack = header.seq + trigger.sequence_len();
        reset.flags = Flags::RST | Flags::ACK;
    }
    Some(reset)
}

/// Answers that wait for the transport, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    answers: VecDeque<Answer>,
}

impl Outbox {
    /// Queues an answer; returns whether there was room.
    pub(super) fn push(&mut self, answer: Answer) -> bool {
        let has_room = self.answers.len() < QUEUE_LIMIT;
        if has_room {
            self.answers.push_back(answer);
        }
        has_room
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn check_invariants(&self) {
        assert!(self.answers.len() <= QUEUE_LIMIT);
    }
}

/// A token bucket that holds one second's worth, kept as time: every token costs its share of a second.
#[derive(Debug)]
pub(super) struct RateLimit {
    cost: Option<u64>,
    credit: u64,
    updated: Timestamp,
}

impl RateLimit {
    pub(super) fn new(now: Timestamp, per_second: u32) -> Self {
        let cost = NANOS_PER_SECOND.checked_div(u64::from(per_second));
        Self {
            cost,
            credit: NANOS_PER_SECOND,
            updated: now,
        }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Timestamp) -> bool {
        let Some(cost) = self.cost else { return false };
        let elapsed = now.as_nanos().saturating_sub(self.updated.as_nanos());
        self.credit = self.credit.saturating_add(elapsed).min(NANOS_PER_SECOND);
        self.updated = self.updated.max(now);
        let is_allowed = self.credit >= cost;
        if is_allowed {
            self.credit -= cost;
        }
        is_allowed
    }
}

/// How many bytes may go to an address that has not proven that it wants them: 3 per byte received, as
/// RFC 9000 §8.1 has it for QUIC.
#[derive(Debug, Default)]
pub(super) struct AddressBudget {
    received: u64,
    sent: u64,
}

impl AddressBudget {
    pub(super) fn on_received(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes as u64);
    }

    /// Takes `bytes` from the budget, if they are there.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let sent = self.sent.saturating_add(bytes as u64);
        let is_allowed = sent <= self.received.saturating_mul(3);
        if is_allowed {
            self.sent = sent;
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_bucket_gives_a_second_at_once_and_then_the_rate() {
        let start = Timestamp::from_millis(5_000);
        let mut limit = RateLimit::new(start, 100);
        assert_eq!((0..200).filter(|_| limit.take(start)).count(), 100);
        // One token costs 10 ms.
        assert!(!limit.take(start + Duration::from_millis(9)));
        assert!(limit.take(start + Duration::from_millis(10)));
        assert!(!limit.take(start + Duration::from_millis(10)));
        let later = start + Duration::from_secs(3_600);
        assert_eq!((0..200).filter(|_| limit.take(later)).count(), 100);
    }

    #[test]
    fn a_rate_of_zero_allows_nothing() {
        assert!(!RateLimit::new(Timestamp::ZERO, 0).take(Timestamp::MAX));
    }

    #[test]
    fn the_budget_is_three_times_what_arrived() {
        let mut budget = AddressBudget::default();
        assert!(!budget.take(1));
        budget.on_received(20);
        assert!(budget.take(40));
        assert!(!budget.take(21));
        assert!(budget.take(20));
        budget.on_received(1);
        assert!(budget.take(3));
        assert!(!budget.take(1));
    }
}
