//! What proves that the latest reduction of the window was spurious, and what follows from it.

use super::ack::{AckArrival, Delivery};
use super::frto::FrtoAck;
use super::undo::Episode;
use super::{Phase, Recovery};
use crate::Timestamp;
use crate::congestion::Undo;

impl Recovery {
    /// Says whether the ACK proves that the latest reduction was spurious.
    pub(super) fn is_spurious(
        &mut self,
        now: Timestamp,
        arrival: &AckArrival<'_>,
        delivery: &Delivery,
    ) -> bool {
        let snd_una = self.snd_una();
        // What was not sent again is the network's own duplicate, or a lie.
        let counters = self.counters.as_deref_mut();
        let unreported = counters.as_ref().map_or(0, |counters| {
            (counters.segments_retransmitted).saturating_sub(counters.segments_spurious)
        });
        let duplicate = arrival.dsack().filter(|_| unreported > 0);
        let mut segments_spurious = 0;
        if let Some(counters) = counters {
            let bytes = duplicate.map_or(0, |range| range.end.saturating_since(range.start));
            counters.segments_spurious += bytes.div_ceil(self.mss).min(unreported);
            segments_spurious = counters.segments_spurious;
        }
        // RFC 3522 §3.2, step 5: where the ACKs of a whole flight were lost, the echo is old too. That is no
        // question where ACKs, as duplicates, were what began the recovery.
        let is_timeout = self.episode.as_deref().is_some_and(Episode::was_timeout);
        let covers_all = snd_una == self.scoreboard.snd_nxt();
        let were_acks_lost =
            arrival.dsack().is_some() || (is_timeout && segments_spurious == 0 && covers_all);
        let by_order = self.is_spurious_by_order(arrival, delivery);
        if self
            .episode
            .as_ref()
            .is_some_and(|episode| episode.is_expired(snd_una))
        {
            self.episode = None;
        }
        let Some(episode) = (self.episode.as_mut()).filter(|episode| !episode.is_final()) else {
            return false;
        };
        let has_echo = self.timestamps && arrival.rtt_tsecr.is_some();
        let echoed = arrival.rtt.filter(|_| has_echo).map(|rtt| now - rtt);
        let by_echo = episode.on_echo(echoed, delivery.made_progress(), snd_una) && !were_acks_lost;
        let by_dsack = duplicate.is_some_and(|range| episode.on_duplicate(range));
        if by_order && !by_echo && !by_dsack {
            self.counters.get_or_insert_default().frto_count += 1;
        }
        by_echo || by_dsack || by_order
    }

    /// RFC 5682, steps 2 and 3.
    fn is_spurious_by_order(&mut self, arrival: &AckArrival<'_>, delivery: &Delivery) -> bool {
        let dsack = arrival.dsack();
        let sacked = arrival.sack.iter().skip(usize::from(dsack.is_some()));
        let is_bare = !delivery.made_progress() && (!self.sack || delivery.newly_sacked == 0);
        let ack = FrtoAck {
            snd_una: self.snd_una(),
            snd_nxt: self.snd_nxt(),
            acked: delivery.acked,
            is_duplicate: arrival.is_duplicate && is_bare && dsack.is_none(),
            with_sack: self.sack,
            sack_end: sacked.map(|range| range.end).max(),
            has_original: delivery.has_original,
        };
        let was_holding = self.frto.holds_retransmissions();
        let is_spurious = self.frto.on_ack(&ack, self.mss);
        if was_holding && !self.frto.holds_retransmissions() {
            // RFC 5682 §2.1, step 3a: a window of three segments, two of which the new data takes. If it has
            // arrived, nothing but a retransmission keeps ACKs coming.
            self.owes_retransmission = true;
        }
        is_spurious
    }

    /// Takes the latest reduction back (RFC 4015 §3). Returns whether that ends a fast recovery.
    pub(super) fn undo(&mut self, now: Timestamp) -> bool {
        let was_timeout = self.episode.take().is_some_and(|e| e.was_timeout());
        let has_ended = self.is_in_recovery();
        self.frto.stop();
        if !matches!(self.phase, Phase::Open) {
            let transmission = self.rate.on_sent(now, self.pipe(), false);
            self.scoreboard.unmark_lost(transmission.transmission);
            let all = self.snd_una()..self.snd_nxt();
            if let Some(rack) = &mut self.rack
                && !all.is_empty()
            {
                rack.on_sent(&transmission, all);
            }
            self.duplicates.reset();
            self.owes_retransmission = false;
        }
        if matches!(self.phase, Phase::Loss { .. }) {
            self.phase = Phase::Open;
            self.on_episode_ended();
        }
        if was_timeout {
            // RFC 5682 §2.1, step 3b: what is lost now is worth a fast retransmit.
            self.recover = None;
        }
        if !was_timeout && let Some(rack) = &mut self.rack {
            rack.on_spurious_recovery();
        }
        self.ecn.on_undone();
        self.counters.get_or_insert_default().undo_count += 1;
        self.usage.forget_loss();
        let mut event = Undo::new(now, self.pipe());
        event.was_timeout = was_timeout;
        self.controller.on_undo(&event);
        tracing::debug!(was_timeout, cwnd = self.cwnd(), "reduction undone");
        has_ended
    }

    /// RFC 5682, step 2b: returns how many bytes of new data are to be sent before any retransmission,
    /// 0 if none have to.
    pub fn new_data_wanted(&self) -> u64 {
        self.frto.allowance()
    }

    /// There is no new data to send, or no room for it: the timeout is taken for real (RFC 5682 §2.1, step
    /// 2b).
    pub fn on_no_new_data(&mut self) {
        self.frto.stop();
    }
}
