//! A controller and the least model of a connection that gives it consistent events, or any at all.

use std::time::Duration;

use crate::Timestamp;
use crate::congestion::{
    Acked, CongestionController, ControllerParams, IdleRestart, Lost, RateSample, RecoveryEntered,
    RecoveryExited, RttSnapshot, Sent, TimedOut, Undo, WindowUnused,
};

const RTT: Duration = Duration::from_millis(100);
const RTO: Duration = Duration::from_millis(300);
const NON_VALIDATED_PERIOD: Duration = Duration::from_secs(300);
/// Far above any datagram, and far enough from overflow for a window of two segments.
pub(in crate::congestion) const MAX_MSS: u64 = 1 << 48;

/// An event whose hook and numbers are chosen by a generator; any value is a valid event.
#[derive(Debug, Clone, Copy)]
pub(in crate::congestion) struct ArbitraryEvent {
    pub(in crate::congestion) kind: u8,
    pub(in crate::congestion) flags: u8,
    pub(in crate::congestion) a: u64,
    pub(in crate::congestion) b: u64,
}

/// A controller and the least model of a connection that gives it consistent events.
#[derive(Debug)]
pub(in crate::congestion) struct Path {
    pub(in crate::congestion) controller: Box<dyn CongestionController>,
    pub(in crate::congestion) is_cwnd_limited: bool,
    /// What every ACK measures.
    pub(super) rtt: Duration,
    pub(super) now: Timestamp,
    pub(super) mss: u64,
    min_segments: u64,
    pub(super) in_recovery: bool,
    /// Segments that the window must have now; 1 after a timeout or an ECN echo, until it had `min_segments` again.
    floor_segments: u64,
    /// Segments that it must have after idleness; 1 if the initial window is below `min_segments`.
    idle_floor_segments: u64,
    total_delivered: u64,
    total_lost: u64,
}

impl Path {
    pub(in crate::congestion) fn new(
        controller: Box<dyn CongestionController>,
        params: &ControllerParams,
        min_segments: u64,
    ) -> Self {
        let is_small = params.initial_window < params.mss.saturating_mul(min_segments);
        let floor_segments = if is_small { 1 } else { min_segments };
        Self {
            controller,
            is_cwnd_limited: true,
            rtt: RTT,
            now: params.now,
            mss: params.mss,
            min_segments,
            in_recovery: false,
            floor_segments,
            idle_floor_segments: floor_segments,
            total_delivered: 0,
            total_lost: 0,
        }
    }

    pub(in crate::congestion) fn cwnd(&self) -> u64 {
        self.controller.cwnd()
    }

    pub(in crate::congestion) fn is_above_floor(&self) -> bool {
        self.cwnd() >= self.mss.saturating_mul(self.floor_segments)
    }

    /// Once the window has its minimum again, it must keep it.
    fn settle(&mut self) {
        if self.cwnd() >= self.mss.saturating_mul(self.min_segments) {
            self.floor_segments = self.min_segments;
        }
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Sends a full window and has it acknowledged, two segments per ACK, `count` times over.
    pub(in crate::congestion) fn rounds(&mut self, count: u32) {
        for _ in 0..count {
            let mut left = self.cwnd().min(1_000 * self.mss);
            self.controller.on_sent(&Sent::new(self.now, left, left));
            self.wait(self.rtt);
            while left > 0 {
                let bytes = left.min(2 * self.mss);
                left -= bytes;
                self.ack(bytes, left);
            }
        }
    }

    pub(in crate::congestion) fn ack(&mut self, bytes: u64, in_flight: u64) {
        self.acked(bytes, in_flight, false);
    }

    pub(super) fn acked(&mut self, bytes: u64, in_flight: u64, ecn_echo: bool) {
        self.total_delivered = self.total_delivered.saturating_add(bytes);
        let mut event = Acked::new(self.now, bytes, in_flight);
        event.total_delivered = self.total_delivered;
        event.total_lost = self.total_lost;
        event.rtt = RttSnapshot::new(Some(self.rtt), self.rtt, self.rtt);
        event.is_cwnd_limited = self.is_cwnd_limited;
        event.in_recovery = self.in_recovery;
        event.ecn_echo = ecn_echo;
        let mut rate = RateSample::new(bytes.saturating_add(in_flight), self.rtt);
        rate.prior_delivered = self.total_delivered.saturating_sub(rate.delivered);
        rate.tx_in_flight = rate.delivered;
        rate.prior_lost = self.total_lost;
        rate.is_app_limited = !self.is_cwnd_limited;
        event.rate = Some(rate);
        self.controller.on_acked(&event);
        self.settle();
    }

    pub(in crate::congestion) fn lose(&mut self, segments: u32) {
        for _ in 0..segments {
            self.total_lost = self.total_lost.saturating_add(self.mss);
            let mut event = Lost::new(self.now, self.mss, self.now - self.rtt);
            event.tx_in_flight = self.cwnd();
            event.prior_delivered = self.total_delivered;
            event.prior_lost = self.total_lost.saturating_sub(self.mss);
            event.total_lost = self.total_lost;
            self.controller.on_lost(&event);
        }
    }

    pub(in crate::congestion) fn enter_recovery(&mut self, lost_segments: u32) {
        let flight_size = self.cwnd();
        self.wait(self.rtt);
        self.lose(lost_segments);
        let lost = u64::from(lost_segments).saturating_mul(self.mss);
        self.enter(flight_size, flight_size.saturating_sub(lost), false);
    }

    pub(super) fn enter(&mut self, flight_size: u64, in_flight: u64, by_ecn: bool) {
        let mut event = RecoveryEntered::new(self.now, flight_size, in_flight);
        event.by_ecn = by_ecn;
        if by_ecn {
            self.floor_segments = 1;
        }
        self.controller.on_recovery_entered(&event);
        self.in_recovery = true;
        self.settle();
    }

    /// The ACK that ends the episode, and its end.
    pub(in crate::congestion) fn exit_recovery(&mut self) {
        self.wait(self.rtt);
        self.in_recovery = false;
        self.ack(self.mss, 0);
        self.controller
            .on_recovery_exited(&RecoveryExited::new(self.now, 0));
        self.settle();
    }

    pub(in crate::congestion) fn time_out(&mut self, consecutive: u32) {
        self.time_out_with(self.cwnd(), consecutive);
    }

    pub(super) fn time_out_with(&mut self, flight_size: u64, consecutive: u32) {
        self.wait(RTO);
        self.lose(1);
        self.floor_segments = 1;
        self.in_recovery = false;
        self.controller
            .on_timeout(&TimedOut::new(self.now, flight_size, consecutive));
        self.settle();
    }

    pub(in crate::congestion) fn undo(&mut self, was_timeout: bool) {
        let mut event = Undo::new(self.now, self.cwnd());
        event.was_timeout = was_timeout;
        self.controller.on_undo(&event);
        self.in_recovery = false;
        self.settle();
    }

    pub(in crate::congestion) fn idle(&mut self) {
        self.wait(10 * RTO);
        self.floor_segments = self.floor_segments.min(self.idle_floor_segments);
        self.controller
            .on_idle_restart(&IdleRestart::new(self.now, 10 * RTO, RTO));
        self.settle();
    }

    pub(in crate::congestion) fn leave_unused(&mut self) {
        self.wait(NON_VALIDATED_PERIOD);
        self.controller
            .on_window_unused(&WindowUnused::new(self.now));
        self.settle();
    }

    pub(in crate::congestion) fn change_mss(&mut self, mss: u64) {
        self.mss = mss;
        self.controller.on_mss_changed(mss);
        self.settle();
    }

    /// Calls one hook, in no legal order and with numbers that need not agree with each other.
    pub(in crate::congestion) fn arbitrary(&mut self, event: &ArbitraryEvent) {
        let ArbitraryEvent { kind, flags, a, b } = *event;
        let is_set = |bit: u8| flags & (1 << bit) != 0;
        self.wait(Duration::from_nanos(a.rotate_left(32) & 0xffff_ffff));
        self.is_cwnd_limited = is_set(0);
        let now = self.now;
        match kind % 16 {
            0..6 => {
                let mut acked = Acked::new(now, a, b);
                acked.delivered = if is_set(1) { b } else { a };
                acked.total_delivered = a.max(b);
                acked.is_cwnd_limited = is_set(0);
                acked.in_recovery = is_set(2);
                acked.ecn_echo = is_set(3);
                acked.rtt = RttSnapshot::new(
                    is_set(4).then(|| Duration::from_nanos(b)),
                    Duration::from_nanos(a),
                    Duration::from_nanos(b),
                );
                acked.rate = is_set(5).then(|| {
                    let mut rate = RateSample::new(b, Duration::from_nanos(a));
                    rate.prior_delivered = if is_set(6) { a } else { b };
                    rate.tx_in_flight = a;
                    rate.prior_lost = b;
                    rate.is_app_limited = is_set(7);
                    rate
                });
                self.controller.on_acked(&acked);
            }
            6 | 7 => {
                let mut entered = RecoveryEntered::new(now, a, b);
                entered.by_ecn = is_set(1);
                if entered.by_ecn {
                    self.floor_segments = 1;
                }
                self.controller.on_recovery_entered(&entered);
            }
            8 => {
                let mut exited = RecoveryExited::new(now, b);
                exited.excess = if is_set(1) { a } else { 0 };
                self.controller.on_recovery_exited(&exited);
            }
            9 => {
                self.floor_segments = 1;
                let consecutive = u32::from(flags >> 4);
                self.controller
                    .on_timeout(&TimedOut::new(now, a, consecutive));
            }
            10 => {
                let mut undo = Undo::new(now, a);
                undo.was_timeout = is_set(1);
                self.controller.on_undo(&undo);
            }
            11 => {
                self.floor_segments = self.floor_segments.min(self.idle_floor_segments);
                let (idle, rto) = (Duration::from_nanos(a), Duration::from_nanos(b));
                self.controller
                    .on_idle_restart(&IdleRestart::new(now, idle, rto));
            }
            14 => self.leave_unused(),
            12 => self.change_mss(a.clamp(1, MAX_MSS)),
            13 => {
                let mut lost = Lost::new(now, a, Timestamp::from_nanos(b));
                lost.tx_in_flight = b;
                lost.prior_delivered = a;
                lost.prior_lost = b;
                lost.total_lost = a.max(b);
                lost.is_app_limited = is_set(1);
                self.controller.on_lost(&lost);
            }
            _ => {
                let mut sent = Sent::new(now, a, b);
                sent.is_retransmit = is_set(1);
                self.controller.on_sent(&sent);
            }
        }
        self.settle();
    }
}
