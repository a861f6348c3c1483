//! The sender's answer to congestion echoes (RFC 3168 §6.1.2, RFC 8511), and when it stops marking.
//!
//! An echo reduces the window as a loss does, but nothing is sent again: the phase [`Phase::Cwr`] lasts until
//! what was outstanding is acknowledged, and proportional rate reduction (RFC 9937) spreads the reduction over
//! it. The first new data after any reduction carries CWR, and until it is acknowledged further echoes are of
//! congestion that was answered. A reduction by an echo is never taken back.
//!
//! A path may do three things to marks besides setting them for a reason. It may drop what is marked: then two
//! flights in a row are lost of which no segment arrives, and nothing is marked any more. It may mark
//! everything: then a number of reductions in a row change nothing, and both marking and answering stop. And
//! it may clear the marks, which the classic echo does not show; that does no harm but to congestion control,
//! which goes by losses then.

use super::ack::{AckArrival, Delivery};
use super::prr::Prr;
use super::scoreboard::Piece;
use super::undo::Episode;
use super::{Phase, Recovery};
use crate::Timestamp;
use crate::congestion::RecoveryEntered;
use crate::connection::Offset;
use crate::ecn::EcnState;

/// Flights in a row of which nothing arrived that was marked before marking stops. One alone may be chance.
const MAX_STRIKES: u8 = 2;
/// Deviation from RFC 3168 §6.1.2: after so many reductions in a row, with an echo on every ACK in between, echoes are
/// ignored as soon as the window is no larger than the initial one, because a path that marks everything would keep
/// it at its smallest for ever. They are enough to bring an initial window of ten segments there by a fifth each.
const MAX_FULL_ROUNDS: u8 = 8;

/// ECN as the sender sees it.
///
/// Invariants:
/// - nothing is marked unless the state was once [`EcnState::Capable`], and no CWR is due while it is
///   [`EcnState::Off`];
/// - `marked_from <= marked_below` once anything was marked.
#[derive(Debug, Clone, Default)]
pub struct EcnSender {
    state: EcnState,
    /// The next new data carries CWR, and whether for an echo.
    is_cwr_due: bool,
    is_echo_answered_by_it: bool,
    /// An echo on an ACK no higher is of congestion that was answered.
    answered: Offset,
    /// Where marked data begins and ends, that before a suspension left aside.
    marked_from: Offset,
    marked_below: Offset,
    /// Nothing is marked until this is acknowledged.
    suspended_until: Offset,
    /// Whether something that was marked has ever arrived.
    is_confirmed: bool,
    strikes: u8,
    /// Reductions since the last ACK without an echo.
    full_rounds: u8,
    reductions: u64,
    segments_marked: u64,
}

impl EcnSender {
    /// Returns where the connection stands.
    pub const fn state(&self) -> EcnState {
        self.state
    }

    /// Returns how often an echo has reduced the window.
    pub const fn reductions(&self) -> u64 {
        self.reductions
    }

    /// Returns how many segments left with a mark.
    pub const fn segments_marked(&self) -> u64 {
        self.segments_marked
    }

    /// The window was reduced, for whatever reason, with `snd_nxt` the next to send.
    pub(super) fn on_reduced(&mut self, snd_nxt: Offset) {
        if self.state != EcnState::Off {
            // RFC 3168 §6.1.2
            self.is_cwr_due = true;
            self.answered = snd_nxt;
        }
    }

    /// The reduction for a loss was taken back; one for an echo before it was not.
    pub(super) fn on_undone(&mut self) {
        self.is_cwr_due = self.is_echo_answered_by_it;
    }

    /// Something was delivered. What was marked and sent once shows that marks pass.
    pub(super) fn on_delivered(&mut self, piece: &Piece) {
        let is_marked = self.marked_from <= piece.start && piece.start < self.marked_below;
        if is_marked && !piece.was_retransmitted {
            self.on_confirmed();
        }
    }

    fn on_confirmed(&mut self) {
        self.is_confirmed = true;
        self.strikes = 0;
        if self.state == EcnState::BlackHoled {
            // It was late and not lost.
            self.state = EcnState::Capable;
        }
    }

    /// What is outstanding is lost, with `snd_una` and `snd_nxt` its bounds, and nothing that was marked has
    /// arrived since the last such loss.
    pub(super) fn on_flight_lost(&mut self, snd_una: Offset, snd_nxt: Offset) {
        let is_suspended = snd_una < self.suspended_until;
        if self.state != EcnState::Capable || (!is_suspended && self.marked_below <= snd_una) {
            return;
        }
        if !is_suspended {
            self.strikes = self.strikes.saturating_add(1);
        }
        self.suspended_until = snd_nxt;
        if self.strikes >= MAX_STRIKES {
            self.state = EcnState::BlackHoled;
            tracing::debug!("nothing that is marked arrives");
        }
    }

    /// Marked data left, the next after what was sent before.
    fn on_marked(&mut self, start: Offset, end: Offset, segments: u64) {
        if self.marked_below <= self.suspended_until || self.marked_below == Offset::ZERO {
            self.marked_from = start;
        }
        self.marked_below = end;
        self.segments_marked = self.segments_marked.saturating_add(segments);
    }
}

impl Recovery {
    /// The handshake has agreed on this.
    pub fn start_ecn(&mut self, state: EcnState) {
        self.ecn.state = state;
    }

    /// Returns ECN as the sender sees it.
    pub fn ecn(&self) -> &EcnSender {
        &self.ecn
    }

    /// Says whether new data is to leave as ECT(0).
    pub fn marks_new_data(&self) -> bool {
        self.ecn.state == EcnState::Capable && self.ecn.suspended_until <= self.snd_una()
    }

    /// New data left as ECT(0), or is about to.
    pub fn on_marked(&mut self, start: Offset, end: Offset) {
        let segments = end.saturating_since(start).div_ceil(self.mss);
        self.ecn.on_marked(start, end, segments);
    }

    /// Takes the CWR that the new data which leaves next has to carry.
    pub fn take_cwr(&mut self) -> bool {
        self.ecn.is_echo_answered_by_it = false;
        std::mem::take(&mut self.ecn.is_cwr_due)
    }

    /// A recovery begins: if nothing that was marked has ever arrived, that is a sign of its own.
    pub(super) fn note_first_flight_lost(&mut self) {
        if !self.ecn.is_confirmed {
            let (snd_una, snd_nxt) = (self.snd_una(), self.snd_nxt());
            self.ecn.on_flight_lost(snd_una, snd_nxt);
        }
    }

    /// Says whether the window is being reduced, by fast recovery or because of an echo.
    pub(super) fn is_reducing(&self) -> bool {
        matches!(self.phase, Phase::FastRecovery { .. } | Phase::Cwr { .. })
    }

    /// Says whether the ACK carries an echo that is not answered yet.
    pub(super) fn take_echo(&mut self, arrival: &AckArrival<'_>, delivery: &Delivery) -> bool {
        if self.ecn.state != EcnState::Capable {
            return false;
        }
        // Without SACK, a duplicate tells of an arrival before anything is acknowledged.
        let is_duplicate = !self.sack && arrival.is_duplicate && matches!(self.phase, Phase::Open);
        if is_duplicate && delivery.delivered > 0 {
            self.ecn.on_confirmed();
        }
        if !arrival.ecn_echo {
            if delivery.delivered > 0 {
                self.ecn.full_rounds = 0;
            }
            return false;
        }
        if let Some(episode) = &mut self.episode {
            episode.confirm();
        }
        let is_old = arrival.ack <= self.ecn.answered && self.ecn.answered > Offset::ZERO;
        !is_old && self.flight_size() + delivery.acked > 0
    }

    /// RFC 3168 §6.1.2: an echo is answered like a loss, but for the retransmission, and once per window.
    pub(super) fn answer_echo(&mut self, now: Timestamp, delivery: &Delivery) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        self.ecn.full_rounds = self.ecn.full_rounds.saturating_add(1);
        // A large window may well be marked all through, for as long as others fill the queue.
        let initial_window = u64::from(self.initial_window_segments).saturating_mul(self.mss);
        if self.ecn.full_rounds > MAX_FULL_ROUNDS && self.cwnd() <= initial_window {
            self.ecn.state = EcnState::AlwaysMarked;
            tracing::debug!("everything is marked, whatever the window");
            return;
        }
        self.ecn.reductions += 1;
        let recovery_point = self.snd_nxt();
        self.ecn.on_reduced(recovery_point);
        self.ecn.is_echo_answered_by_it = true;
        self.episode = None;
        let outstanding = self.flight_size().saturating_add(delivery.acked);
        let flight_size = outstanding.saturating_add(self.unanswered.within_window(now));
        let event = RecoveryEntered {
            now,
            flight_size: self.usage.on_recovery_entered(flight_size, self.cwnd()),
            in_flight: self.pipe(),
            by_ecn: true,
        };
        self.controller.on_recovery_entered(&event);
        let prr = self.begin_rate_reduction(now, delivery);
        self.phase = Phase::Cwr {
            recovery_point,
            prr,
        };
        tracing::debug!(flight_size, cwnd = self.cwnd(), "congestion echo");
    }

    /// A loss within the window whose echo was answered: it is repaired, but reduces nothing (RFC 3168
    /// §6.1.2).
    pub(super) fn repair_within_reduction(&mut self, prr: Option<Box<Prr>>) {
        let recovery_point = self.snd_nxt();
        self.counters.get_or_insert_default().fast_recovery_count += 1;
        self.recover = Some(recovery_point);
        self.owes_retransmission = true;
        self.owes_episode = false;
        let mut episode = Episode::new(false);
        episode.confirm();
        self.episode = Some(Box::new(episode));
        self.reset_probe();
        self.scoreboard.reset_high_rxt();
        self.limited_transmit = 0;
        self.phase = Phase::FastRecovery {
            recovery_point,
            prr,
        };
        tracing::debug!("recovery within a reduction");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undone_loss_takes_back_its_own_cwr_and_not_that_of_an_echo() {
        let capable = EcnSender {
            state: EcnState::Capable,
            ..EcnSender::default()
        };
        let mut ecn = capable.clone();
        ecn.on_reduced(Offset::FIRST);
        ecn.on_undone();
        assert!(!ecn.is_cwr_due);
        let mut ecn = EcnSender {
            is_echo_answered_by_it: true,
            ..capable
        };
        ecn.on_reduced(Offset::FIRST);
        ecn.on_undone();
        assert!(ecn.is_cwr_due);
    }
}
