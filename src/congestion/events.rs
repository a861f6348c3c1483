//! What a controller is told: one struct for each hook of
//! [`CongestionController`](super::CongestionController), in the terms of bytes and time.

use std::time::Duration;

use crate::Timestamp;

/// The state of the RTT estimator when an event was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RttSnapshot {
    /// This ACK's own sample; `None` if it gave none (Karn's rule, RFC 6298 §3).
    pub sample: Option<Duration>,
    /// The RTT of the segment sent last among those newly acknowledged, cumulatively or by SACK; `None` if it was
    /// sent more than once. While [`sample`](Self::sample) is that of the earliest one, and so holds the delay of a
    /// delayed ACK, this is as near to the path's as one ACK can tell.
    pub newest: Option<Duration>,
    /// Smoothed RTT, zero before the first sample.
    pub srtt: Duration,
    /// Smallest sample of the last two and a half to five minutes, zero before the first one.
    pub min_rtt: Duration,
}

impl RttSnapshot {
    /// Describes the estimator after `sample`, the latest of samples whose smallest is `min_rtt`; it is that of
    /// the newest segment too.
    pub fn new(sample: Option<Duration>, srtt: Duration, min_rtt: Duration) -> Self {
        Self {
            sample,
            newest: sample,
            srtt,
            min_rtt,
        }
    }
}

/// A delivery-rate sample in the sense of draft-ietf-ccwg-bbr §4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateSample {
    /// Bytes delivered over `interval`.
    pub delivered: u64,
    /// The longer of the send and the ACK interval; never zero.
    pub interval: Duration,
    /// Total bytes delivered on the connection when the sampled segment was sent.
    pub prior_delivered: u64,
    /// Bytes in flight right after the sampled segment was sent.
    pub tx_in_flight: u64,
    /// Total bytes lost on the connection when the sampled segment was sent.
    pub prior_lost: u64,
    /// Whether the application, not the network, limited the rate.
    pub is_app_limited: bool,
}

impl RateSample {
    /// Describes `delivered` bytes over `interval` (at least 1 ns is assumed), not limited by the
    /// application; the fields taken at sending are 0.
    pub fn new(delivered: u64, interval: Duration) -> Self {
        Self {
            delivered,
            interval: interval.max(Duration::from_nanos(1)),
            prior_delivered: 0,
            tx_in_flight: 0,
            prior_lost: 0,
            is_app_limited: false,
        }
    }

    /// Returns the rate in bytes per second.
    pub fn bytes_per_second(&self) -> u64 {
        let nanos = self.interval.as_nanos().max(1);
        u64::try_from(u128::from(self.delivered) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
    }
}

/// A segment, or a run of segments of one send, went out.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Sent {
    /// When.
    pub now: Timestamp,
    /// Payload bytes.
    pub bytes: u64,
    /// Bytes in flight, this send included ([`pipe`, RFC 6675 §2](Acked::in_flight)).
    pub in_flight: u64,
    /// Whether the bytes had been sent before.
    pub is_retransmit: bool,
    /// Whether the application, not the network, limits the rate, as in the [`RateSample`] that their
    /// acknowledgment will give.
    pub is_app_limited: bool,
}

impl Sent {
    /// Describes `bytes` sent for the first time, with `in_flight` bytes in the network afterwards.
    pub fn new(now: Timestamp, bytes: u64, in_flight: u64) -> Self {
        Self {
            now,
            bytes,
            in_flight,
            is_retransmit: false,
            is_app_limited: false,
        }
    }
}

/// An ACK that acknowledged something new.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each with a name at its use"
)]
pub struct Acked {
    /// When it arrived.
    pub now: Timestamp,
    /// Bytes newly acknowledged cumulatively; may be 0 for a duplicate ACK.
    pub bytes: u64,
    /// Bytes newly delivered: acknowledged cumulatively or by SACK for the first time. Never counts a byte twice.
    pub delivered: u64,
    /// Total bytes delivered on the connection, this ACK included.
    pub total_delivered: u64,
    /// Total bytes declared lost on the connection.
    pub total_lost: u64,
    /// RTT estimator after this ACK.
    pub rtt: RttSnapshot,
    /// Delivery-rate sample, if this ACK gave a valid one.
    pub rate: Option<RateSample>,
    /// Bytes estimated in the network before this ACK (`pipe`, RFC 6675 §2).
    pub prior_in_flight: u64,
    /// Bytes estimated in the network after it.
    pub in_flight: u64,
    /// Whether the window is used: it was full when the acknowledged data was sent, or at least half of it was
    /// lately acknowledged in one round trip (RFC 7661 §4.3). If not, the application was the limit and the
    /// window must not grow.
    pub is_cwnd_limited: bool,
    /// Whether the core is in a recovery episode (after this ACK was processed).
    pub in_recovery: bool,
    /// Whether what was outstanding at a timeout is not all acknowledged yet (after this ACK was processed).
    pub after_timeout: bool,
    /// Whether it carried a congestion echo that is not yet answered; false while ECN is not negotiated.
    pub ecn_echo: bool,
}

impl Acked {
    /// Describes an ordinary ACK: `bytes` newly acknowledged, all of them newly delivered, of a window
    /// that was full, outside recovery.
    ///
    /// `in_flight` is what remains in the network. The totals are `bytes` and 0, there is no RTT or
    /// rate sample and no ECN echo, until the fields are set.
    pub fn new(now: Timestamp, bytes: u64, in_flight: u64) -> Self {
        Self {
            now,
            bytes,
            delivered: bytes,
            total_delivered: bytes,
            total_lost: 0,
            rtt: RttSnapshot::default(),
            rate: None,
            prior_in_flight: in_flight.saturating_add(bytes),
            in_flight,
            is_cwnd_limited: true,
            in_recovery: false,
            after_timeout: false,
            ecn_echo: false,
        }
    }
}

/// One segment was declared lost.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Lost {
    /// When.
    pub now: Timestamp,
    /// Its payload bytes.
    pub bytes: u64,
    /// When it was last sent.
    pub sent_at: Timestamp,
    /// Bytes in flight right after it was sent.
    pub tx_in_flight: u64,
    /// Total bytes delivered on the connection when it was sent.
    pub prior_delivered: u64,
    /// Total bytes lost on the connection when it was sent.
    pub prior_lost: u64,
    /// Whether the application limited the rate when it was sent.
    pub is_app_limited: bool,
    /// Total bytes declared lost on the connection, this segment included.
    pub total_lost: u64,
    /// Whether it does not directly follow on the segment that was declared lost before it.
    pub starts_range: bool,
}

impl Lost {
    /// Describes the loss of `bytes` sent at `sent_at`, the first of the connection.
    ///
    /// The other fields taken at sending are 0 and false until they are set.
    pub fn new(now: Timestamp, bytes: u64, sent_at: Timestamp) -> Self {
        Self {
            now,
            bytes,
            sent_at,
            tx_in_flight: 0,
            prior_delivered: 0,
            prior_lost: 0,
            is_app_limited: false,
            total_lost: bytes,
            starts_range: true,
        }
    }
}

/// A recovery episode begins.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RecoveryEntered {
    /// When.
    pub now: Timestamp,
    /// Bytes sent and not cumulatively acknowledged (RFC 5681 §2), and what earlier ACKs of the same batch
    /// have allowed to be sent; of a window that was not used, no less than what was lately acknowledged in
    /// one round trip (RFC 7661 §4.4.1). The reduction starts from this and not from the window, which may be
    /// far larger.
    pub flight_size: u64,
    /// Bytes estimated in the network, losses subtracted (`pipe`, RFC 6675 §2).
    pub in_flight: u64,
    /// Whether an ECN echo and not a loss is the reason.
    pub by_ecn: bool,
}

impl RecoveryEntered {
    /// Describes an episode begun by a loss.
    pub fn new(now: Timestamp, flight_size: u64, in_flight: u64) -> Self {
        Self {
            now,
            flight_size,
            in_flight,
            by_ecn: false,
        }
    }
}

/// A recovery episode ended.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RecoveryExited {
    /// When.
    pub now: Timestamp,
    /// Bytes estimated in the network.
    pub in_flight: u64,
    /// Bytes by which an unused window overran the path when it was used at last: half of them come off the
    /// window (RFC 7661 §4.4.1). 0 if the window was validated.
    pub excess: u64,
}

impl RecoveryExited {
    /// Describes the end of an episode.
    pub fn new(now: Timestamp, in_flight: u64) -> Self {
        Self {
            now,
            in_flight,
            excess: 0,
        }
    }
}

/// The retransmission timer fired.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TimedOut {
    /// When.
    pub now: Timestamp,
    /// Bytes sent and not cumulatively acknowledged before it fired.
    pub flight_size: u64,
    /// Bytes estimated in the network, losses subtracted (`pipe`, RFC 6675 §2).
    pub in_flight: u64,
    /// How often it has fired in a row for the same data, from 1. Only the first may reduce
    /// `ssthresh` (RFC 5681 §3.1).
    pub consecutive: u32,
}

impl TimedOut {
    /// Describes the `consecutive`-th expiry in a row, counted from 1, with nothing left in the network.
    pub fn new(now: Timestamp, flight_size: u64, consecutive: u32) -> Self {
        Self {
            now,
            flight_size,
            in_flight: 0,
            consecutive,
        }
    }
}

/// The latest reduction was spurious.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Undo {
    /// When that was found out.
    pub now: Timestamp,
    /// Bytes estimated in the network.
    pub in_flight: u64,
    /// Whether a timeout, not a fast recovery, is undone.
    pub was_timeout: bool,
}

impl Undo {
    /// Describes a spurious fast recovery; set `was_timeout` for a spurious timeout.
    pub fn new(now: Timestamp, in_flight: u64) -> Self {
        Self {
            now,
            in_flight,
            was_timeout: false,
        }
    }

    /// RFC 4015 §3.1, step 9: how much of a window of `before` bytes comes back at once where nothing spaces
    /// departures: an initial window beyond what is in flight. To the rest slow start leads.
    pub(super) fn unpaced_window(&self, before: u64, initial_window: u64) -> u64 {
        before.min(self.in_flight.saturating_add(initial_window))
    }
}

/// Transmission resumes after an idle period.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct IdleRestart {
    /// When.
    pub now: Timestamp,
    /// How long nothing was sent.
    pub idle: Duration,
    /// The retransmission timeout, the unit in which RFC 2861 counts idleness.
    pub rto: Duration,
}

impl IdleRestart {
    /// Describes the end of an idle period of length `idle`.
    pub fn new(now: Timestamp, idle: Duration, rto: Duration) -> Self {
        Self { now, idle, rto }
    }
}

/// The window was not used for the whole of RFC 7661's non-validated period.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WindowUnused {
    /// When that was found out.
    pub now: Timestamp,
}

impl WindowUnused {
    /// Describes the end of the period.
    pub fn new(now: Timestamp) -> Self {
        Self { now }
    }
}
