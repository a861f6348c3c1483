//! Loss detection by time: what was sent before something that has arrived, and is late, is lost
//! (RFC 8985 §6).
//!
//! How late it may be adapts. Until reordering is seen there is no patience once three segments have
//! overtaken, as RFC 6675 has it; afterwards it is a quarter of the smallest RTT, and another quarter for
//! each round in which a DSACK tells of a retransmission in vain. Retransmissions are transmissions like
//! any other, so one that is lost again is found the same way.
//!
//! Transmissions wait in a queue in the order of their sending, each a run of segments. Only its head is
//! ever looked at: what is not late there is not late behind it. What has been acknowledged or sent again
//! meanwhile is dropped when it gets to the head, so an ACK costs O(1) amortised over what was sent. Within
//! a run, and only there, the order is that of the sequence numbers; the RFC needs it wherever times are
//! equal.
//!
//! A timeout marks only what is late, and the first segment (RFC 8985 §6.3).

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::delivery_rate::SendSnapshot;
use super::rtt::RttEstimator;
use super::scoreboard::{Piece, Scoreboard};
use crate::Timestamp;
use crate::connection::Offset;
use crate::connection::on_demand::{Blank, OnDemand};
use crate::timestamp::Nanos;

/// RFC 8985 §6.2, step 4: recoveries without DSACK until the window shrinks again.
const PERSISTENCE: u8 = 16;

/// A run of segments of one send, less what is known to be no longer in flight at its beginning.
#[derive(Debug, Clone)]
struct Transmission {
    number: u64,
    sent_at: Timestamp,
    range: Range<Offset>,
}

/// The segment sent last of those that have arrived.
#[derive(Debug, Clone, Copy)]
struct Delivered {
    /// Stands for `RACK.xmit_ts`: a higher number was sent later.
    transmission: u64,
    /// `RACK.end_seq`
    end: Offset,
}

/// What the present ACK delivered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrival {
    /// The transmission sent last, and its RTT.
    newest: Option<(u64, Duration)>,
    highest: Offset,
    /// Lowest end of what was sent only once.
    lowest_original: Option<Offset>,
}

/// When something was delivered, and what helps to tell an original from a retransmission.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryTime {
    /// When the ACK arrived.
    pub now: Timestamp,
    /// When the segment that caused it was sent, as its timestamp has it, in whole milliseconds.
    pub echoed: Option<Timestamp>,
    /// Smallest RTT of the last minutes.
    pub min_rtt: Option<Duration>,
}

/// What the end of an ACK's processing means for the reordering window.
#[derive(Debug, Clone, Copy)]
pub struct AckRound {
    /// Oldest unacknowledged offset.
    pub snd_una: Offset,
    /// Next offset to send.
    pub snd_nxt: Offset,
    /// Whether the ACK reports that a retransmission was a duplicate.
    pub has_dsack: bool,
}

/// The detector.
///
/// Invariants:
/// - the queue is in the order of numbers and so of times;
/// - what is in flight and may be overtaken stands in the queue under its transmission;
/// - there is a deadline only if the head of the queue was overtaken.
#[derive(Debug, Clone)]
pub struct Rack {
    /// Released when nothing is outstanding and nothing waits to be sent.
    flight: OnDemand<Flight>,
    /// `RACK.rtt`
    rtt: Nanos,
    /// `RACK.fack`
    fack: Offset,
    is_reordering_seen: bool,
    /// `RACK.dsack_round`
    dsack_round: Option<Offset>,
    /// `RACK.reo_wnd_mult`
    reo_wnd_mult: u32,
    /// `RACK.reo_wnd_persist`
    reo_wnd_persist: u8,
}

/// What there is to know of what is in flight.
#[derive(Debug, Clone)]
struct Flight {
    queue: VecDeque<Transmission>,
    newest: Option<Delivered>,
    deadline: Option<Timestamp>,
}

impl Flight {
    const NONE: Self = Self {
        queue: VecDeque::new(),
        newest: None,
        deadline: None,
    };
}

impl Blank for Flight {
    fn new() -> Self {
        Self::NONE
    }

    fn blank() -> &'static Self {
        static BLANK: Flight = Flight::NONE;
        &BLANK
    }
}

impl Default for Rack {
    fn default() -> Self {
        Self {
            flight: OnDemand::new(),
            rtt: Nanos::ZERO,
            fack: Offset::ZERO,
            is_reordering_seen: false,
            dsack_round: None,
            reo_wnd_mult: 1,
            reo_wnd_persist: PERSISTENCE,
        }
    }
}

impl Rack {
    /// `range` was sent, new or again.
    pub fn on_sent(&mut self, snapshot: &SendSnapshot, range: Range<Offset>) {
        self.flight.queue.push_back(Transmission {
            number: snapshot.transmission,
            sent_at: snapshot.sent_at,
            range,
        });
    }

    /// The present ACK delivered `piece` (RFC 8985 §6.2, steps 2 and 3), what `arrival` gathers.
    pub fn on_delivered(&mut self, arrival: &mut Arrival, piece: &Piece, time: &DeliveryTime) {
        arrival.highest = arrival.highest.max(piece.end);
        if !piece.was_retransmitted {
            let lowest = arrival.lowest_original.unwrap_or(piece.end);
            arrival.lowest_original = Some(lowest.min(piece.end));
        }
        let SendSnapshot {
            transmission,
            sent_at,
            ..
        } = piece.snapshot;
        let rtt = time.now.saturating_since(sent_at);
        // The echo knows no less than a millisecond.
        let is_older = |echoed: Timestamp| echoed.as_millis() < sent_at.as_millis();
        let is_ambiguous = piece.was_retransmitted
            && (time.echoed.is_some_and(is_older) || time.min_rtt.is_some_and(|min| rtt < min));
        if is_ambiguous {
            // An earlier transmission may be what arrived: none but the first is certain to be no later.
            //
            // Deviation from RFC 8985 §6.2, step 2: the segment is not passed over, for it arrived, and what
            // was sent before its first transmission was overtaken. A probe that happens to be quicker than
            // everything before would otherwise tell nothing, and a timeout would have to.
            self.advance(piece.first_transmission, piece.end);
            return;
        }
        if arrival
            .newest
            .is_none_or(|(newest, _)| newest <= transmission)
        {
            arrival.newest = Some((transmission, rtt));
        }
        self.advance(transmission, piece.end);
    }

    fn advance(&mut self, transmission: u64, end: Offset) {
        let is_later = |newest: Delivered| (newest.transmission, newest.end) < (transmission, end);
        if self.flight.newest.is_none_or(is_later) {
            self.flight.newest = Some(Delivered { transmission, end });
        }
    }

    /// The ACK's blocks have all been taken: looks for reordering and adapts the window (RFC 8985 §6.2,
    /// steps 3 and 4). Returns whether it showed reordering.
    pub fn finish_ack(&mut self, arrival: &Arrival, round: &AckRound) -> bool {
        if let Some((_, rtt)) = arrival.newest {
            self.rtt = rtt.into();
        }
        // Blocks come in any order, so one ACK by itself shows none.
        let is_reordered = arrival
            .lowest_original
            .is_some_and(|lowest| lowest < self.fack);
        self.is_reordering_seen |= is_reordered;
        self.fack = self.fack.max(arrival.highest);
        if self.dsack_round.is_some_and(|end| round.snd_una >= end) {
            self.dsack_round = None;
        }
        if round.has_dsack && self.dsack_round.is_none() {
            self.dsack_round = Some(round.snd_nxt);
            self.reo_wnd_mult = self.reo_wnd_mult.saturating_add(1);
            self.reo_wnd_persist = PERSISTENCE;
        }
        is_reordered
    }

    /// A recovery by retransmission or after a timeout ended.
    pub fn on_recovery_exited(&mut self) {
        self.reo_wnd_persist = self.reo_wnd_persist.saturating_sub(1);
        if self.reo_wnd_persist == 0 {
            self.reo_wnd_mult = 1;
        }
    }

    /// Nothing is in flight any more: all of it counts as lost, or was acknowledged.
    pub fn on_nothing_in_flight(&mut self) {
        if let Some(flight) = self.flight.existing() {
            flight.queue.clear();
            flight.deadline = None;
        }
    }

    /// Gives back the memory that is kept for what is to be sent next, if nothing is outstanding.
    pub fn release_memory(&mut self) {
        if self.flight.queue.is_empty() {
            self.flight.release();
        }
    }

    /// The retransmission timer expired: what was sent more than the RTT and `reo_wnd` ago is lost, what was
    /// sent later may be on its way (RFC 8985 §6.3). Shows each piece.
    pub fn on_timeout(
        &mut self,
        now: Timestamp,
        reo_wnd: Duration,
        scoreboard: &mut Scoreboard,
        visit: &mut impl FnMut(&Piece),
    ) {
        let Some(flight) = self.flight.existing() else {
            return;
        };
        flight.deadline = None;
        while let Some(head) = flight.queue.front() {
            if head.sent_at + self.rtt.get() + reo_wnd > now {
                break;
            }
            scoreboard.mark_transmission_lost(head.number, head.range.clone(), visit);
            flight.queue.pop_front();
        }
    }

    /// A recovery proved spurious: what was late had been reordered. The RFC would not see it, because what
    /// shows it was sent again.
    pub fn on_spurious_recovery(&mut self) {
        self.is_reordering_seen = true;
    }

    /// Returns `RACK.reo_wnd`. `is_urgent` says that a recovery is in progress or that three segments
    /// have overtaken another.
    pub fn reo_wnd(&self, rtt: &RttEstimator, is_urgent: bool) -> Duration {
        if is_urgent && !self.is_reordering_seen {
            return Duration::ZERO;
        }
        let quarter = rtt.min_rtt().unwrap_or_default() / 4;
        quarter
            .saturating_mul(self.reo_wnd_mult)
            .min(rtt.srtt().unwrap_or_default())
    }

    /// Marks what is lost, shows each piece of it, and sets the deadline for what was overtaken but is not
    /// late yet (RFC 8985 §6.2, step 5).
    ///
    /// Deviation from RFC 8985 §6.2, step 5: the deadline is that of the first transmission that was
    /// overtaken, not of the last, because then each is found lost when it is.
    pub fn detect(
        &mut self,
        now: Timestamp,
        reo_wnd: Duration,
        scoreboard: &mut Scoreboard,
        visit: &mut impl FnMut(&Piece),
    ) {
        let Some(flight) = self.flight.existing() else {
            return;
        };
        flight.deadline = None;
        if scoreboard.flight_size() == 0 {
            flight.queue.clear();
        }
        let Some(newest) = flight.newest else {
            return;
        };
        while let Some(head) = flight.queue.front_mut() {
            if head.number > newest.transmission {
                break;
            }
            let Some(start) = scoreboard.first_in_flight(head.number, head.range.clone()) else {
                flight.queue.pop_front();
                continue;
            };
            head.range.start = start;
            let mut overtaken = head.range.clone();
            if head.number == newest.transmission {
                overtaken.end = overtaken.end.min(newest.end);
            }
            if overtaken.is_empty() {
                break;
            }
            let deadline = head.sent_at + self.rtt.get() + reo_wnd;
            if deadline > now {
                flight.deadline = Some(deadline);
                break;
            }
            let is_all = overtaken == head.range;
            scoreboard.mark_transmission_lost(head.number, overtaken, visit);
            if is_all {
                flight.queue.pop_front();
            }
        }
    }

    /// Returns when the reordering timer expires.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.flight.deadline
    }

    /// Says whether the path has reordered segments.
    pub const fn is_reordering_seen(&self) -> bool {
        self.is_reordering_seen
    }
}
