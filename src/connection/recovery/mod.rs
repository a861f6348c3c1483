//! What was sent, what was lost, when to send again.
//!
//! [`Recovery`] is told of every transmission, every ACK and every expiry of its timer. It answers how
//! much may be sent, what has to be sent again, and when it wants to be woken. It owns the congestion
//! controller and is the only one to call it, in the order that [`crate::congestion`] promises.
//!
//! The rules: the RTO and its timer (RFC 6298, `rto`, `rtt`), loss by duplicate ACKs and SACK (RFC 5681,
//! RFC 6675, `loss`, `scoreboard`) and by time (RFC 8985, `rack`), tail loss probes (`tlp`), partial ACKs where there is no SACK (RFC 6582, `duplicates`),
//! limited transmit (RFC 3042), proportional rate reduction (RFC 9937, `prr`), pacing (`pacer`),
//! delivery rate (draft-ietf-ccwg-bbr §4.1, `delivery_rate`), window validation (`window_usage`), undoing
//! what proves spurious (RFC 3522, RFC 3708, RFC 4015, RFC 5682, `undo`, `frto`, `spurious`), ACKs in
//! batches (`unanswered`). What an ACK does stands in `ack`.
//!
//! Left out on purpose: `NextSeg` rule 4 of RFC 6675 (the rescue retransmission), RFC 7323 appendix G
//! (see `rtt`).
//!
//! A timeout marks what is late as lost (RFC 8985 §6.3), or without RACK everything outstanding, and sends
//! it again in order under slow start; SACK information is kept and saves what it covers (RFC 6675 §5.1).
//! As long as anything is outstanding the timer runs, so whatever else goes wrong ends in a timeout and
//! never in silence.

mod ack;
mod before;
mod counters;
mod delivery_rate;
mod duplicates;
mod ecn;
mod frto;
mod loss;
mod losses;
mod pacer;
mod path_probe;
mod prr;
mod rack;
mod rto;
mod rtt;
mod sample;
mod scoreboard;
mod spurious;
mod timer;
mod tlp;
mod unanswered;
mod undo;
mod window_usage;

use std::ops::Range;
use std::time::Duration;

pub use self::ack::{AckArrival, AckOutcome};
use self::before::{BeforeHandshake, Factory};
use self::counters::RecoveryCounters;
use self::delivery_rate::RateEstimator;
use self::duplicates::Duplicates;
pub use self::ecn::EcnSender;
use self::frto::Frto;
use self::pacer::Pacer;
use self::path_probe::Excused;
use self::prr::Prr;
use self::rack::Rack;
use self::rto::RtoTimer;
pub use self::rtt::RttEstimator;
use self::scoreboard::Scoreboard;
pub use self::timer::RecoveryTimer;
use self::tlp::Tlp;
use self::unanswered::Unanswered;
use self::undo::Episode;
use self::window_usage::WindowUsage;
use crate::congestion::{
    CongestionController, ControllerParams, IdleRestart, Sent, initial_window,
};
use crate::connection::Offset;
use crate::{Config, Timestamp};

/// RFC 9293 §3.7.1: the send MSS before the peer has announced one.
const DEFAULT_MSS: u64 = 536;
/// RFC 3042 §2: what may be sent beyond the window before a loss is certain.
const LIMITED_TRANSMIT_SEGMENTS: u64 = 2;

/// What the handshake found out.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each with a name at its use"
)]
pub struct RecoveryStart {
    /// Effective send MSS in bytes, options subtracted.
    pub mss: u64,
    /// Whether SACK was negotiated.
    pub sack: bool,
    /// Whether losses are detected by time (RFC 8985 §6); needs SACK.
    pub rack: bool,
    /// Whether a silent tail is probed (RFC 8985 §7); needs that.
    pub tail_loss_probe: bool,
    /// Whether timestamps were negotiated: the sample of an [`AckArrival`] is used.
    pub timestamps: bool,
    /// Whether proportional rate reduction governs recovery, if the controller lets it.
    pub prr: bool,
    /// The handshake's RTT sample, if a valid one was taken.
    pub handshake_rtt: Option<Duration>,
    /// Whether the SYN or SYN-ACK had to be sent again.
    pub syn_retransmitted: bool,
    /// The longest delay of an ACK that the peer announced.
    pub peer_ack_delay: Option<Duration>,
    /// Where the controller's randomness comes from.
    pub seed: u64,
}

/// Where loss recovery stands.
#[derive(Debug, Clone)]
enum Phase {
    /// Nothing is known to be lost.
    Open,
    /// Fast recovery: ends when `recovery_point` is acknowledged.
    FastRecovery {
        /// `snd_nxt` when it began.
        recovery_point: Offset,
        /// Governs what may be sent, unless switched off.
        prr: Option<Box<Prr>>,
    },
    /// The window was reduced because of an echo (RFC 3168 §6.1.2), and nothing is lost: ends when
    /// `recovery_point` is acknowledged.
    Cwr {
        /// `snd_nxt` when it began.
        recovery_point: Offset,
        /// Governs what may be sent, unless switched off.
        prr: Option<Box<Prr>>,
    },
    /// After a timeout, slow start; no fast recovery begins before `recovery_point` is acknowledged.
    Loss {
        /// `snd_nxt` when the timer expired.
        recovery_point: Offset,
    },
}

/// Loss recovery of one connection's sending direction.
///
/// Invariants:
/// - the scoreboard's own;
/// - the timer runs if and only if something is outstanding;
/// - `delivered` equals what is acknowledged plus what is SACKed plus `counted_ahead`.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "settings, independent of each other"
)]
pub struct Recovery {
    /// What makes the controller, until it is made.
    factory: Option<Box<Factory>>,
    initial_window_segments: u32,
    restarts_after_idle: bool,
    /// Whether the windows of controllers that name no rate are paced.
    paces_windows: bool,
    mss: u64,
    sack: bool,
    timestamps: bool,
    prr: bool,
    controller: Box<dyn CongestionController>,
    scoreboard: Scoreboard,
    /// The detector by time, `None` without SACK.
    rack: Option<Rack>,
    /// Tail loss probes, `None` if switched off or without SACK.
    tlp: Option<Tlp>,
    rtt: RttEstimator,
    rto: RtoTimer,
    rate: RateEstimator,
    pacer: Pacer,
    usage: WindowUsage,
    unanswered: Unanswered,
    duplicates: Duplicates,
    frto: Frto,
    ecn: EcnSender,
    /// What was lost, or may be, without a meaning for the window.
    excused: Option<Box<Excused>>,
    /// Whether what was sent last was new data.
    has_sent_new: bool,
    /// Bytes counted as delivered that are still in the scoreboard as unacknowledged: estimated from
    /// duplicate ACKs, or SACKed and taken back.
    counted_ahead: u64,
    phase: Phase,
    /// RFC 6582 §3.2 `recover`, as the offset after it; `None` before the first loss.
    recover: Option<Offset>,
    /// A retransmission is due whatever the window says.
    owes_retransmission: bool,
    /// A loss that the previous episode did not cover is still to be answered by one of its own.
    owes_episode: bool,
    /// The latest reduction, while it may prove spurious.
    episode: Option<Box<Episode>>,
    /// Bytes that limited transmit sent beyond the window since `snd_una` last moved.
    limited_transmit: u64,
    last_sent_at: Option<Timestamp>,
    /// Nothing is written that was not sent.
    has_sent_all: bool,
    progress_at: Timestamp,
    /// `None` as long as there is nothing to count.
    counters: Option<Box<RecoveryCounters>>,
}

impl Recovery {
    /// Makes the state from before the end of the handshake: the initial RTO, a window of one segment.
    /// Only data and the FIN are tracked here, the SYN is not; for it, [`on_rto`](Self::on_rto) just
    /// doubles the RTO.
    pub fn new(config: &Config) -> Self {
        Self {
            factory: Some(Box::new(Factory {
                control: config.congestion.clone(),
                loss_threshold: config.bbr_loss_threshold,
            })),
            initial_window_segments: config.initial_window_segments,
            restarts_after_idle: config.slow_start_after_idle,
            paces_windows: config.pacing,
            mss: DEFAULT_MSS,
            sack: false,
            timestamps: false,
            prr: false,
            controller: Box::new(BeforeHandshake),
            scoreboard: Scoreboard::new(Offset::FIRST),
            rack: None,
            tlp: None,
            rtt: RttEstimator::default(),
            rto: RtoTimer::new(config.initial_rto, config.min_rto, config.max_rto),
            rate: RateEstimator::default(),
            pacer: Pacer::default(),
            usage: WindowUsage::default(),
            unanswered: Unanswered::default(),
            duplicates: Duplicates::default(),
            frto: Frto::new(config.frto),
            ecn: EcnSender::default(),
            excused: None,
            has_sent_new: false,
            counted_ahead: 0,
            phase: Phase::Open,
            recover: None,
            owes_retransmission: false,
            owes_episode: false,
            episode: None,
            limited_transmit: 0,
            last_sent_at: None,
            has_sent_all: false,
            progress_at: Timestamp::ZERO,
            counters: None,
        }
    }

    /// The handshake is done: makes the controller.
    pub fn start(&mut self, now: Timestamp, start: RecoveryStart) {
        self.mss = start.mss.max(1);
        self.sack = start.sack;
        self.timestamps = start.timestamps;
        self.prr = start.prr;
        self.rack = (start.sack && start.rack).then(Rack::default);
        let has_tlp = self.rack.is_some() && start.tail_loss_probe;
        self.tlp = has_tlp.then(|| Tlp::new(start.peer_ack_delay));
        if let Some(sample) = start.handshake_rtt {
            self.rtt.on_sample(now, sample);
        }
        self.rto
            .on_established(&self.rtt, start.syn_retransmitted, start.peer_ack_delay);
        // RFC 5681 §3.1: one segment if the SYN or SYN-ACK was lost.
        let segments = if start.syn_retransmitted {
            1
        } else {
            u64::from(self.initial_window_segments)
        };
        let initial_window = initial_window(self.mss, segments);
        if let Some(factory) = self.factory.take() {
            self.controller = factory.control.make(&ControllerParams {
                now,
                mss: self.mss,
                initial_window,
                initial_rtt: start.handshake_rtt,
                is_paced: self.paces_windows,
                has_sack: start.sack,
                seed: start.seed,
                loss_threshold: factory.loss_threshold,
            });
        }
        // The initial window is small and its pace a guess; spread, it would cost each short transfer half a
        // round trip.
        self.pacer.allow_burst(initial_window);
        if self.flight_size() > 0 {
            self.rto.restart(now);
        }
    }

    /// New data, or the FIN (one number), went out as a run of segments of one send. `range` begins at
    /// [`snd_nxt`](Self::snd_nxt).
    pub fn on_sent(&mut self, now: Timestamp, range: Range<Offset>) {
        debug_assert_eq!(range.start, self.snd_nxt(), "new data is sent in order");
        let bytes = range.end.saturating_since(self.snd_nxt());
        if bytes == 0 {
            return;
        }
        self.has_sent_all = false;
        let was_idle = self.flight_size() == 0;
        if was_idle {
            self.progress_at = now;
        }
        let cwnd = self.cwnd();
        let beyond = self
            .flight_size()
            .saturating_add(bytes)
            .saturating_sub(cwnd)
            .min(bytes);
        if matches!(self.phase, Phase::Open) && self.duplicates.count() > 0 {
            self.limited_transmit = self.limited_transmit.saturating_add(beyond);
        }
        let snapshot = self
            .rate
            .on_sent(now, self.pipe().saturating_add(bytes), was_idle);
        self.scoreboard
            .on_sent(range.end, bytes.div_ceil(self.mss), snapshot);
        if let Some(rack) = &mut self.rack {
            rack.on_sent(&snapshot, range);
        }
        // RFC 6298 §5.1
        self.rto.start(now);
        self.note_probe(now, None);
        self.frto.on_sent(bytes);
        self.usage
            .on_sent(self.snd_una(), self.snd_nxt(), self.pipe(), cwnd, self.mss);
        let allowed_before = self.unanswered.on_sent(now, bytes);
        self.on_departed(now, bytes, allowed_before, false);
        self.schedule_probe(now);
    }

    /// `range`, from [`next_retransmission`](Self::next_retransmission) or
    /// [`next_speculative_retransmission`](Self::next_speculative_retransmission), went out again.
    pub fn on_retransmitted(&mut self, now: Timestamp, range: Range<Offset>) {
        let bytes = range.end.saturating_since(range.start);
        let is_first = range.contains(&self.snd_una());
        let snapshot = self
            .rate
            .on_sent(now, self.pipe().saturating_add(bytes), false);
        let bytes = self.scoreboard.on_retransmitted(range.clone(), snapshot);
        if bytes == 0 {
            return;
        }
        if let Some(rack) = &mut self.rack {
            rack.on_sent(&snapshot, range.clone());
        }
        let end = range.end;
        self.frto.on_retransmitted(end);
        if let Some(episode) = &mut self.episode {
            episode.on_retransmitted(now, range);
        }
        self.owes_retransmission = false;
        let counters = self.counters.get_or_insert_default();
        counters.segments_retransmitted += bytes.div_ceil(self.mss);
        counters.bytes_retransmitted += bytes;
        // RFC 6675 §6 allows to restart the timer with each retransmission in recovery. Only that of the
        // first segment does: the timer waits for its ACK, and it is sent once per timeout.
        if is_first {
            self.rto.restart(now);
        } else {
            self.rto.start(now);
        }
        self.note_probe(now, Some(end));
        self.on_departed(now, bytes, 0, true);
    }

    /// Returns the highest run of segments that was not SACKed, or what is left of it.
    pub fn last_run(&self) -> Option<Range<Offset>> {
        self.scoreboard.last_run()
    }

    /// Returns the lowest lost range that was not sent again, at most `max` bytes.
    pub fn next_retransmission(&self, max: u64) -> Option<Range<Offset>> {
        (!self.frto.holds_retransmissions())
            .then(|| self.scoreboard.next_lost(max))
            .flatten()
    }

    /// Returns a range, at most `max` bytes, that is worth sending again in recovery though it is not
    /// known to be lost, if neither a lost range nor new data can be sent (RFC 6675 §4, `NextSeg` rule 3).
    pub fn next_speculative_retransmission(&self, max: u64) -> Option<Range<Offset>> {
        // What was overtaken is left to the detector by time.
        (self.is_in_recovery() && self.trusts_order())
            .then(|| self.scoreboard.next_hole(max))
            .flatten()
    }

    /// Returns how many payload bytes the window allows now, for new data or retransmissions; pacing is
    /// not included. The first retransmission of an episode is always allowed, so retransmissions have to
    /// be sent before new data.
    pub fn send_allowance(&self, now: Timestamp) -> u64 {
        if self.frto.holds_retransmissions() {
            return self.frto.allowance();
        }
        let (cwnd, pipe) = (self.cwnd(), self.pipe());
        let allowed = match &self.phase {
            Phase::FastRecovery { prr: Some(prr), .. } | Phase::Cwr { prr: Some(prr), .. } => {
                prr.window().saturating_sub(pipe)
            }
            // RFC 3042 §2: what left the network may be replaced by new data, up to two segments, before a
            // loss is certain. With SACK it is `pipe` that decides (RFC 6675 §5, step 3.3): where reordering
            // makes the detector by time patient, much may be SACKed before anything is certain.
            Phase::Open if !self.sack && !self.scoreboard.is_disturbed() => {
                let limit = cwnd.saturating_add(self.mss.saturating_mul(LIMITED_TRANSMIT_SEGMENTS));
                cwnd.saturating_sub(pipe)
                    .min(limit.saturating_sub(self.flight_size()))
            }
            // RFC 6675 §5, steps 3.3 and C
            Phase::FastRecovery { prr: None, .. } | Phase::Cwr { prr: None, .. } => {
                let unanswered = self.unanswered.bytes(now);
                cwnd.saturating_sub(pipe).max(unanswered)
            }
            Phase::Open | Phase::Loss { .. } => cwnd.saturating_sub(pipe),
        };
        // With nothing outstanding no ACK comes that would allow more.
        if self.must_retransmit() || self.flight_size() == 0 {
            allowed.max(self.mss)
        } else {
            allowed
        }
    }

    /// Returns when the ACKs last made progress, or when the oldest outstanding data was sent if that was
    /// later; `None` while nothing is outstanding.
    pub fn oldest_unacked_since(&self) -> Option<Timestamp> {
        (self.flight_size() > 0).then_some(self.progress_at)
    }

    /// Returns the bytes sent and not cumulatively acknowledged (RFC 5681 §2).
    pub fn flight_size(&self) -> u64 {
        self.scoreboard.flight_size()
    }

    /// Returns the bytes estimated in the network (RFC 6675 §2).
    pub fn pipe(&self) -> u64 {
        self.scoreboard
            .pipe()
            .saturating_sub(self.duplicates.held())
    }

    /// Returns the oldest unacknowledged offset.
    pub fn snd_una(&self) -> Offset {
        self.scoreboard.snd_una()
    }

    /// Returns the next offset to send.
    pub fn snd_nxt(&self) -> Offset {
        self.scoreboard.snd_nxt()
    }

    /// Says whether a fast recovery episode is in progress.
    pub fn is_in_recovery(&self) -> bool {
        matches!(self.phase, Phase::FastRecovery { .. })
    }

    /// The sender had nothing to send. Counts only if the window and the pace had room for a segment and no
    /// retransmission was waiting (draft-ietf-ccwg-bbr §4.1.2.4).
    pub fn on_app_limited(&mut self, now: Timestamp) {
        if self.pacer.is_ahead(now) {
            return;
        }
        if self.pipe().saturating_add(self.mss) <= self.cwnd() && !self.scoreboard.has_lost() {
            self.rate.on_app_limited(self.pipe());
        }
    }

    /// Transmission is about to resume; has an effect only if nothing is outstanding and nothing was
    /// sent for longer than one RTO (RFC 5681 §4.1), or than the window is kept unused (RFC 7661 §4.4.3).
    pub fn on_idle(&mut self, now: Timestamp) {
        let Some(last) = self.last_sent_at else {
            return;
        };
        let (idle, rto) = (now.saturating_since(last), self.rto.base());
        if self.flight_size() > 0 {
            return;
        }
        self.validate_idle_window(now, last);
        if !self.restarts_after_idle || idle <= rto {
            return;
        }
        self.controller
            .on_idle_restart(&IdleRestart { now, idle, rto });
        if self.controller.pacing_rate().is_none() {
            self.pacer.allow_burst(initial_window(
                self.mss,
                self.initial_window_segments.into(),
            ));
        }
        self.last_sent_at = Some(now);
    }

    /// Sets the effective send MSS in bytes.
    pub fn set_mss(&mut self, mss: u64) {
        let mss = mss.max(1);
        if mss != self.mss {
            self.mss = mss;
            self.controller.on_mss_changed(mss);
        }
    }

    /// Returns the congestion controller.
    pub fn controller(&self) -> &dyn CongestionController {
        &*self.controller
    }

    /// Returns the RTT estimator.
    pub fn rtt(&self) -> &RttEstimator {
        &self.rtt
    }

    /// Returns the newest delivery rate in bytes per second, and whether the application limited it.
    pub fn latest_rate(&self) -> Option<(u64, bool)> {
        self.rate.latest()
    }

    /// Returns how long what was overtaken may be late before it counts as lost (RFC 8985 §6.2, step 4),
    /// `None` without SACK.
    pub fn reo_wnd(&self) -> Option<Duration> {
        let is_urgent = self.is_loss_likely();
        Some(self.rack.as_ref()?.reo_wnd(&self.rtt, is_urgent))
    }

    /// Returns the counters.
    pub fn counters(&self) -> RecoveryCounters {
        self.counters.as_deref().copied().unwrap_or_default()
    }

    /// The controller's window, at least one segment.
    fn cwnd(&self) -> u64 {
        self.controller.cwnd().max(self.mss)
    }

    fn must_retransmit(&self) -> bool {
        self.owes_retransmission && self.scoreboard.has_lost() && !self.frto.holds_retransmissions()
    }

    /// `allowed_before` of the bytes were allowed before the present episode began.
    fn on_departed(
        &mut self,
        now: Timestamp,
        bytes: u64,
        allowed_before: u64,
        is_retransmit: bool,
    ) {
        if let Phase::FastRecovery { prr: Some(prr), .. } | Phase::Cwr { prr: Some(prr), .. } =
            &mut self.phase
        {
            prr.on_sent(bytes.saturating_sub(allowed_before));
        }
        self.pacer.on_sent(now, bytes, self.pacing_rate());
        self.last_sent_at = Some(now);
        self.has_sent_new = !is_retransmit;
        let in_flight = self.pipe();
        self.controller.on_sent(&Sent {
            now,
            bytes,
            in_flight,
            is_retransmit,
            is_app_limited: self.rate.is_app_limited(),
        });
    }

    /// Nothing is outstanding and nothing waits to be sent: an idle connection keeps no room for what may come,
    /// a transfer that goes on does.
    fn release_memory(&mut self) {
        if self.has_sent_all && self.flight_size() == 0 {
            self.scoreboard.release_memory();
            if let Some(rack) = &mut self.rack {
                rack.release_memory();
            }
        }
    }

    /// Checks what the type promises.
    ///
    /// # Panics
    ///
    /// If it does not hold.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub fn check_invariants(&self) {
        self.scoreboard.check_invariants();
        assert_eq!(
            self.rto_deadline().is_some(),
            self.flight_size() > 0,
            "timer"
        );
        if self.flight_size() == 0 {
            assert_eq!(self.timer(), None, "timer without purpose");
        }
        let acked = self.snd_una().saturating_since(Offset::FIRST);
        let known = acked + self.scoreboard.sacked().bytes() + self.counted_ahead;
        assert_eq!(self.rate.delivered(), known, "delivered");
        assert!(
            self.counted_ahead <= self.scoreboard.unsacked(),
            "counted ahead"
        );
    }
}

#[cfg(test)]
mod tests;
