//! What one ACK does, step by step, in the order in which the controller is promised to hear of it.

use std::ops::Range;
use std::time::Duration;

use super::loss::{Evidence, Verdict, detect};
use super::losses::Losses;
use super::rack::{AckRound, Arrival, DeliveryTime};
use super::sample::{Karn, Newest};
use super::scoreboard::Piece;
use super::tlp::{ProbeAck, Tlp};
use super::undo::Episode;
use super::{Phase, Recovery};
use crate::Timestamp;
use crate::congestion::{Acked, RateSample, RecoveryEntered, RecoveryExited};
use crate::connection::Offset;
use crate::ecn::EcnState;

/// An ACK that is acceptable (RFC 9293 §3.10.7.4).
#[derive(Debug, Clone, Copy)]
pub struct AckArrival<'a> {
    /// The acknowledgment number; beyond `snd_nxt` the arrival is ignored.
    pub ack: Offset,
    /// SACK blocks, no higher than `snd_nxt`. One below `ack` reports a duplicate (RFC 2883).
    pub sack: &'a [Range<Offset>],
    /// Whether it meets the five conditions of RFC 5681 §2. Not looked at where SACK is negotiated:
    /// there a duplicate is an ACK that SACKs something new (RFC 6675 §2).
    pub is_duplicate: bool,
    /// The RTT by the timestamp that it echoes, `None` without timestamps.
    pub rtt: Option<Duration>,
    /// The timestamp that it echoes.
    pub rtt_tsecr: Option<u32>,
    /// Whether it carries a congestion echo (ECE), answered or not.
    pub ecn_echo: bool,
}

/// What an ACK did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AckOutcome {
    /// Bytes newly acknowledged cumulatively.
    pub acked: u64,
    /// Bytes newly acknowledged or SACKed.
    pub delivered: u64,
    /// Whether `snd_una` moved.
    pub made_progress: bool,
    /// Whether a retransmission is due at once, whatever the window says.
    pub must_retransmit: bool,
}

impl AckArrival<'_> {
    /// Returns the duplicate that it reports (RFC 2883 §4): a first block that is acknowledged, or part of
    /// the second one.
    pub fn dsack(&self) -> Option<&Range<Offset>> {
        let first = self.sack.first()?;
        let is_within =
            |other: &Range<Offset>| other.start <= first.start && first.end <= other.end;
        let is_duplicate = first.end <= self.ack || self.sack.get(1).is_some_and(is_within);
        is_duplicate.then_some(first)
    }
}

/// What an ACK took off the scoreboard.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delivery {
    /// How far `snd_una` moved.
    pub(super) acked: u64,
    /// Bytes delivered for the first time, estimates included.
    pub(super) delivered: u64,
    /// Bytes newly SACKed, or assumed so because of a duplicate ACK.
    pub(super) newly_sacked: u64,
    /// The latest transmission of what was newly SACKed.
    newest_sacked: Option<u64>,
    /// Whether something was delivered that was sent once only.
    pub(super) has_original: bool,
    /// Whether it answers a tail loss probe.
    pub(super) answers_probe: bool,
    /// RTT sample.
    sample: Option<Duration>,
    /// The segment sent last of those delivered, and its RTT.
    newest: Newest,
    newest_rtt: Option<Duration>,
    /// What the detector by time has to know.
    arrived: Arrival,
}

impl Delivery {
    pub(super) const fn made_progress(&self) -> bool {
        self.acked > 0
    }
}

impl Recovery {
    /// Processes an ACK.
    pub fn on_ack(&mut self, now: Timestamp, arrival: &AckArrival<'_>) -> AckOutcome {
        // A segment that was never sent cannot be acknowledged; what says so is not believed in any part.
        if arrival.ack > self.snd_nxt() {
            return AckOutcome::default();
        }
        let prior_in_flight = self.pipe();
        let prior_lost = self.rate.lost();
        let delivery = self.take_delivery(now, arrival);
        if let Some(sample) = delivery.sample {
            self.rtt.on_sample(now, sample);
            self.rto.on_sample(&self.rtt);
        }
        if delivery.made_progress() {
            self.on_progress(now);
        } else if delivery.newest_sacked < self.scoreboard.head().map(|head| head.transmission)
            && delivery.newest_sacked.is_some()
        {
            // Deviation from RFC 6298 §5.3: not only an ACK that advances restarts the timer, because one that
            // SACKs something new shows as well that the path is alive. But only if that was sent before the
            // first segment was last: what was sent after it tells the detector by time what became of it, and
            // must not put the timeout off for ever.
            self.rto.restart(now);
        }
        // The smallest RTT is that of segments whose ACK was delayed; what the newest one took may be less, and is
        // no less a round trip.
        let min_rtt = self
            .rtt
            .min_rtt()
            .map(|min_rtt| delivery.newest_rtt.map_or(min_rtt, |rtt| rtt.min(min_rtt)));
        let newest = delivery.newest.snapshot();
        let rate = self.rate.finish(now, delivery.delivered, newest, min_rtt);

        if delivery.made_progress() {
            self.validate_window(now);
        }
        let has_echo = self.take_echo(arrival, &delivery);
        self.update_reordering(arrival, &delivery);
        let repaired = self.take_probe_answer(arrival, &delivery);
        let is_cwnd_limited = self.usage.is_limited(self.cwnd());
        // RFC 4015 §3.1, step 9: not with an ACK that tells of congestion.
        let is_congested = arrival.ecn_echo && self.ecn.state() == EcnState::Capable;
        let has_ended = if self.is_spurious(now, arrival, &delivery) && !is_congested {
            self.undo(now)
        } else {
            self.react(now, &delivery) || self.answer_repair(now, repaired)
        };
        if has_echo && !has_ended {
            self.answer_echo(now, &delivery);
        }
        if delivery.delivered > 0 || delivery.made_progress() || has_echo {
            let event = Acked {
                now,
                bytes: delivery.acked,
                delivered: delivery.delivered,
                total_delivered: self.rate.delivered(),
                total_lost: self.rate.lost(),
                rtt: self.rtt.snapshot(delivery.sample, delivery.newest_rtt),
                rate,
                prior_in_flight,
                in_flight: self.pipe(),
                is_cwnd_limited,
                in_recovery: self.is_reducing() && !has_ended,
                after_timeout: matches!(self.phase, Phase::Loss { .. }),
                ecn_echo: has_echo,
            };
            self.controller.on_acked(&event);
        }
        if has_ended {
            self.exit_recovery(now);
            if has_echo {
                self.answer_echo(now, &delivery);
            }
        }
        if !has_ended || has_echo {
            let is_safe = delivery.made_progress() && self.rate.lost() == prior_lost;
            self.reduce_rate(now, &delivery, is_safe);
        }
        if delivery.made_progress() || delivery.newly_sacked > 0 {
            self.schedule_probe(now);
        }
        let outcome = AckOutcome {
            acked: delivery.acked,
            delivered: delivery.delivered,
            made_progress: delivery.made_progress(),
            must_retransmit: self.must_retransmit(),
        };
        self.trace(arrival, &outcome, rate);
        outcome
    }

    /// Updates the scoreboard and counts what the ACK delivered.
    fn take_delivery(&mut self, now: Timestamp, arrival: &AckArrival<'_>) -> Delivery {
        let (mut removed, mut karn) = (0, Karn::default());
        let (mut has_original, mut newest) = (false, Newest::default());
        let mut arrived = Arrival::default();
        let rack = &mut self.rack;
        let advanced = DeliveryTime {
            now,
            echoed: arrival.rtt.map(|rtt| now - rtt),
            min_rtt: self.rtt.min_rtt(),
        };
        // RFC 7323 §4.3: the echo is that of the last segment that arrived in order, so it says nothing about
        // what is SACKed.
        let sacked = DeliveryTime {
            echoed: None,
            ..advanced
        };
        let ecn = &mut self.ecn;
        let excused = &mut self.excused;
        let mut on_delivered = |piece: &Piece, time: &DeliveryTime| {
            ecn.on_delivered(piece);
            if let Some(excused) = excused {
                excused.on_delivered(piece);
            }
            newest.on_delivered(piece);
            if let Some(rack) = rack {
                rack.on_delivered(&mut arrived, piece, time);
            }
        };
        let acked = self.scoreboard.acknowledge(arrival.ack, &mut |piece| {
            removed += piece.len();
            karn.on_acknowledged(piece);
            has_original |= !piece.was_retransmitted;
            on_delivered(piece, &advanced);
        });
        let (mut newly_sacked, mut newest_sacked) = (0, None);
        if self.sack {
            for block in arrival.sack {
                let is_accepted = self.scoreboard.sack(block.clone(), &mut |piece| {
                    newly_sacked += piece.len();
                    newest_sacked = newest_sacked.max(Some(piece.snapshot.transmission));
                    has_original |= !piece.was_retransmitted;
                    on_delivered(piece, &sacked);
                });
                if !is_accepted {
                    self.counters.get_or_insert_default().sack_blocks_refused += 1;
                }
            }
        }
        let newest_rtt = newest.rtt(now);
        let delivered = self.count_once(removed + newly_sacked, acked);

        if acked > 0 {
            self.limited_transmit = 0;
            if self.is_in_recovery() && !self.sack {
                let outstanding = self.scoreboard.flight_size();
                self.duplicates.on_partial_ack(acked, outstanding, self.mss);
            } else {
                self.duplicates.reset();
            }
        }
        let (held, credit) = if self.sack {
            // RFC 6675 §2: any ACK that SACKs something new is a duplicate.
            if newly_sacked > 0 {
                self.duplicates.on_duplicate(0);
            }
            (newly_sacked, 0)
        } else if arrival.is_duplicate && acked == 0 {
            self.count_duplicate()
        } else {
            (0, 0)
        };
        // RFC 7323 §4.1: only an ACK that advances gives a sample. Our own clock is finer than the
        // millisecond of the echo, which serves where Karn's rule forbids ours.
        // With the ACK of a duplicate the echo is that of the original (RFC 7323 §4.3), and the sample would
        // measure how long its ACK, and not the path, was lost.
        let is_sample = self.timestamps && acked > 0 && arrival.dsack().is_none();
        let echoed = arrival.rtt.filter(|_| is_sample);
        Delivery {
            acked,
            delivered: delivered + credit,
            newly_sacked: held,
            newest_sacked,
            has_original,
            answers_probe: newly_sacked > 0 && self.tlp.as_ref().is_some_and(Tlp::is_probing),
            sample: karn.sample(now).or(echoed),
            newest,
            newest_rtt,
            arrived,
        }
    }

    /// Counts a duplicate ACK where there is no SACK: it stands for one segment, but all of them for no
    /// more than is outstanding besides the one that is missing. Returns what it takes off `pipe` and what
    /// it delivers; the latter is less if earlier duplicates had counted for too much.
    fn count_duplicate(&mut self) -> (u64, u64) {
        // After a timeout nothing counts as in flight, so a duplicate takes nothing off it.
        if matches!(self.phase, Phase::Loss { .. }) {
            return (0, 0);
        }
        let others = self.scoreboard.unsacked().saturating_sub(self.mss);
        let held = self.mss.min(others.saturating_sub(self.duplicates.held()));
        let credit = self.mss.min(others.saturating_sub(self.counted_ahead));
        self.duplicates.on_duplicate(held);
        self.counted_ahead += credit;
        (held, credit)
    }

    /// Of `removed` bytes that left the scoreboard, returns those not counted as delivered before.
    fn count_once(&mut self, removed: u64, acked: u64) -> u64 {
        // In recovery without SACK, one segment of a partial ACK is the retransmission, which no duplicate
        // ACK stood for (RFC 6582 §3.2, step 3).
        let hole = if self.is_in_recovery() && !self.sack && acked > 0 {
            self.mss
        } else {
            0
        };
        let known = self.counted_ahead.min(removed.saturating_sub(hole));
        let surplus = (self.counted_ahead - known).saturating_sub(self.scoreboard.unsacked());
        self.counted_ahead -= known + surplus;
        removed.saturating_sub(known + surplus)
    }

    fn on_progress(&mut self, now: Timestamp) {
        self.progress_at = now;
        self.rto.on_progress();
        if self.flight_size() == 0 {
            // RFC 6298 §5.2
            self.rto.stop();
            // An undo does not look for losses, which would end the reordering timer otherwise.
            if let Some(rack) = &mut self.rack {
                rack.on_nothing_in_flight();
            }
            self.release_memory();
        } else {
            // RFC 6298 §5.3. In recovery this is the "Slow-but-Steady" variant of RFC 6582 §4.
            self.rto.restart(now);
        }
    }

    /// RFC 8985 §6.2, steps 3 and 4.
    fn update_reordering(&mut self, arrival: &AckArrival<'_>, delivery: &Delivery) {
        let round = AckRound {
            snd_una: self.snd_una(),
            snd_nxt: self.snd_nxt(),
            // A duplicate without a retransmission is the network's own.
            has_dsack: arrival.dsack().is_some() && self.counters().segments_retransmitted > 0,
        };
        if let Some(rack) = &mut self.rack
            && rack.finish_ack(&delivery.arrived, &round)
        {
            self.counters.get_or_insert_default().reordering_count += 1;
        }
    }

    /// RFC 8985 §7.4: returns what had been outstanding if the ACK shows that a probe repaired a loss.
    fn take_probe_answer(&mut self, arrival: &AckArrival<'_>, delivery: &Delivery) -> Option<u64> {
        let is_bare = arrival.sack.is_empty() && !delivery.made_progress();
        self.tlp.as_mut()?.on_ack(&ProbeAck {
            ack: arrival.ack,
            dsack: arrival.dsack(),
            is_bare_duplicate: arrival.is_duplicate && is_bare,
        })
    }

    /// RFC 8985 §7.4.2: a loss that a probe repaired is answered as any other; the episode is over as soon as
    /// it begins. Returns whether there was one.
    fn answer_repair(&mut self, now: Timestamp, repaired: Option<u64>) -> bool {
        let Some(flight_size) = repaired.filter(|_| matches!(self.phase, Phase::Open)) else {
            return false;
        };
        self.counters.get_or_insert_default().tlp_repair_count += 1;
        self.episode = None;
        self.ecn.on_reduced(self.snd_nxt());
        self.controller.on_recovery_entered(&RecoveryEntered {
            now,
            flight_size,
            in_flight: self.pipe(),
            by_ecn: false,
        });
        true
    }

    /// Detects losses, and begins a recovery episode if there is reason to. Returns whether the one in
    /// progress has ended.
    fn react(&mut self, now: Timestamp, delivery: &Delivery) -> bool {
        let snd_una = self.snd_una();
        if let Phase::Loss { recovery_point } = self.phase
            && snd_una >= recovery_point
        {
            self.phase = Phase::Open;
            self.frto.stop();
            self.on_episode_ended();
        }
        let verdict = if self.trusts_order() {
            self.verdict()
        } else {
            Verdict::Nothing
        };
        match self.phase {
            Phase::Open | Phase::Cwr { .. } => {
                let mut by_count = verdict != Verdict::Nothing && self.may_enter_recovery();
                if by_count {
                    let has_news = self.mark(now, verdict);
                    // A probe of the path's MTU that is lost and sent again leaves a hole as well.
                    by_count = has_news || !self.is_hole_excused();
                }
                let by_time = self.mark_by_time(now);
                let is_loss = by_count || by_time || self.owes_episode;
                if let Phase::Cwr { recovery_point, .. } = self.phase
                    && snd_una >= recovery_point
                {
                    // A loss is one of the next window.
                    self.owes_episode = is_loss;
                    return true;
                }
                if is_loss {
                    self.enter_recovery(now, delivery);
                }
                false
            }
            Phase::FastRecovery { recovery_point, .. } => {
                if let Verdict::Below(_) = verdict {
                    self.mark(now, verdict);
                }
                self.mark_by_time(now);
                // RFC 6675 §5 step A; RFC 6582 §3.2 step 3, full acknowledgment. A loss beyond it begins
                // the next episode with the next ACK.
                let has_ended = snd_una >= recovery_point;
                if !self.sack && delivery.made_progress() && !has_ended {
                    // RFC 6582 §3.2 step 3, partial acknowledgment: the next segment is lost too.
                    self.mark(now, Verdict::First);
                    self.owes_retransmission = true;
                }
                has_ended
            }
            Phase::Loss { .. } => {
                // RFC 6675 §5.1: losses are noted, but no recovery begins before `recovery_point`.
                if let Verdict::Below(_) = verdict {
                    self.mark(now, verdict);
                }
                self.mark_by_time(now);
                false
            }
        }
    }

    /// Says whether what was overtaken may be judged by counting what overtook it: until reordering was
    /// seen (RFC 8985 §3.3).
    pub(super) fn trusts_order(&self) -> bool {
        self.rack
            .as_ref()
            .is_none_or(|rack| !rack.is_reordering_seen())
    }

    /// Says whether there is reason enough not to wait for late segments where reordering was never seen
    /// (RFC 8985 §6.2, step 4).
    pub(super) fn is_loss_likely(&self) -> bool {
        !matches!(self.phase, Phase::Open | Phase::Cwr { .. }) || self.verdict() != Verdict::Nothing
    }

    fn verdict(&self) -> Verdict {
        detect(&Evidence {
            snd_una: self.snd_una(),
            sacked: self.scoreboard.sacked(),
            duplicates: self.duplicates.count(),
            mss: self.mss,
        })
    }

    /// RFC 6582 §3.2 step 1: without SACK, duplicate ACKs for what a recovery or a timeout has sent again
    /// in vain must not start another recovery. With SACK, [`Phase::Loss`] is all that is needed.
    fn may_enter_recovery(&self) -> bool {
        self.sack || self.recover.is_none_or(|recover| self.snd_una() > recover)
    }

    /// Marks what is lost, and says whether any of it is a sign of congestion.
    fn mark(&mut self, now: Timestamp, verdict: Verdict) -> bool {
        let mut is_any = false;
        let mss = self.mss;
        let Losses {
            scoreboard,
            mut report,
            ..
        } = Losses::new(self, now);
        let mut visit = |piece: &Piece| is_any |= report.on_lost(piece);
        match verdict {
            Verdict::Nothing => {}
            Verdict::First => scoreboard.mark_first_lost(mss, &mut visit),
            Verdict::Below(frontier) => scoreboard.mark_lost_below(frontier, &mut visit),
        }
        is_any
    }

    /// Marks what is lost by RFC 8985 §6.2, step 5, and says whether any of it is a sign of congestion.
    pub(super) fn mark_by_time(&mut self, now: Timestamp) -> bool {
        let Some(reo_wnd) = self.reo_wnd() else {
            return false;
        };
        let Losses {
            scoreboard,
            rack,
            mut report,
        } = Losses::new(self, now);
        let mut is_any = false;
        if let Some(rack) = rack {
            rack.detect(now, reo_wnd, scoreboard, &mut |piece| {
                is_any |= report.on_lost(piece);
            });
        }
        is_any
    }

    pub(super) fn enter_recovery(&mut self, now: Timestamp, delivery: &Delivery) {
        if let Phase::Cwr { prr, .. } = &mut self.phase {
            let prr = prr.take();
            self.repair_within_reduction(prr);
            return;
        }
        let recovery_point = self.snd_nxt();
        self.ecn.on_reduced(recovery_point);
        self.note_first_flight_lost();
        self.counters.get_or_insert_default().fast_recovery_count += 1;
        self.recover = Some(recovery_point);
        self.owes_retransmission = true;
        self.owes_episode = false;
        self.episode = Some(Box::new(Episode::new(false)));
        self.reset_probe();
        self.scoreboard.reset_high_rxt();
        let flight_size = self.flight_size() + self.unanswered.within_window(now);
        // RFC 5681 §3.2 step 2: what limited transmit sent does not count.
        let flight_size = flight_size.saturating_sub(self.limited_transmit);
        let event = RecoveryEntered {
            now,
            flight_size: self.usage.on_recovery_entered(flight_size, self.cwnd()),
            in_flight: self.pipe(),
            by_ecn: false,
        };
        self.limited_transmit = 0;
        self.controller.on_recovery_entered(&event);
        let prr = self.begin_rate_reduction(now, delivery);
        self.phase = Phase::FastRecovery {
            recovery_point,
            prr,
        };
        tracing::debug!(
            flight_size = event.flight_size,
            pipe = event.in_flight,
            "recovery begins"
        );
    }

    fn exit_recovery(&mut self, now: Timestamp) {
        let was_repairing = self.is_in_recovery();
        self.phase = Phase::Open;
        if was_repairing {
            self.duplicates.reset();
            self.owes_retransmission = false;
            self.owes_episode = self.rack.is_some() && self.scoreboard.has_lost();
            self.on_episode_ended();
        }
        let in_flight = self.pipe();
        let resent = self.episode.as_deref().map_or(0, Episode::resent);
        let excess = self.usage.on_recovery_exited(resent);
        self.controller.on_recovery_exited(&RecoveryExited {
            now,
            in_flight,
            excess,
        });
        tracing::debug!(cwnd = self.cwnd(), "recovery ends");
    }

    pub(super) fn on_episode_ended(&mut self) {
        let snd_nxt = self.snd_nxt();
        if let Some(episode) = &mut self.episode {
            episode.on_exited(snd_nxt);
        }
        if let Some(rack) = &mut self.rack {
            rack.on_recovery_exited();
        }
    }

    fn trace(&self, arrival: &AckArrival<'_>, outcome: &AckOutcome, rate: Option<RateSample>) {
        tracing::trace!(
            ack = ?arrival.ack,
            sack = ?arrival.sack,
            tsecr = ?arrival.rtt_tsecr,
            acked = outcome.acked,
            delivered = outcome.delivered,
            rate = rate.map(|rate| rate.bytes_per_second()),
            flight_size = self.flight_size(),
            pipe = self.pipe(),
            cwnd = self.cwnd(),
            "ack"
        );
    }
}
