//! The tail loss probe: when the last segments of a flight are lost, nothing follows that would tell, so
//! one segment is sent to be answered (RFC 8985 §7).
//!
//! Decides when a probe is due and what its answer means; what goes out is the sender's decision. There is
//! one probe per tail: until it is answered, the retransmission timer waits alone.

use std::ops::Range;
use std::time::Duration;

use super::rtt::{GRANULARITY, RttEstimator};
use crate::Timestamp;
use crate::connection::Offset;
use crate::timestamp::Nanos;

/// RFC 8985 §7.2: the probe timeout before the first RTT sample.
const INITIAL_PTO: Duration = Duration::from_secs(1);
/// RFC 8985 §7.2: how long a peer is assumed to delay an ACK (`WCDelAckT`), unless it announced less.
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);
/// Timers here and at the peer are late by up to a tick each.
const TIMER_SLACK: Duration = GRANULARITY.saturating_mul(2);

/// A probe on its way.
#[derive(Debug, Clone, Copy)]
struct Probe {
    /// `TLP.end_seq`
    end: Offset,
    /// `TLP.is_retrans`: the end of what was sent again, `None` if it was new data.
    resent: Option<Offset>,
    /// What was outstanding when it was sent.
    flight_size: u64,
}

/// What is outstanding when a probe is scheduled.
#[derive(Debug, Clone, Copy)]
pub struct Outstanding {
    /// When something was last sent.
    pub sent_at: Timestamp,
    /// When the oldest segment was sent, if nothing follows the newest: what is outstanding is a tail.
    pub tail_since: Option<Timestamp>,
    /// Bytes sent and not acknowledged.
    pub flight_size: u64,
    /// Effective send MSS.
    pub mss: u64,
    /// When the retransmission timer expires.
    pub rto_deadline: Timestamp,
}

/// An ACK, as far as it may answer a probe.
#[derive(Debug, Clone, Copy)]
pub struct ProbeAck<'a> {
    /// Acknowledgment number.
    pub ack: Offset,
    /// The duplicate that it reports.
    pub dsack: Option<&'a Range<Offset>>,
    /// Whether it is a duplicate ACK that reports nothing.
    pub is_bare_duplicate: bool,
}

/// The probe timer and the probe that is out.
///
/// Invariant: at most one of a deadline, a due probe and a probe on its way.
#[derive(Debug, Clone)]
pub struct Tlp {
    /// `TLP.max_ack_delay`
    max_ack_delay: Nanos,
    deadline: Option<Timestamp>,
    /// When the latest deadline would have been but for the bound on a tail in two flights.
    regular: Timestamp,
    is_due: bool,
    probe: Option<Probe>,
}

impl Tlp {
    /// Makes an idle one; `peer_ack_delay` is the longest delay of an ACK that the peer announced.
    pub fn new(peer_ack_delay: Option<Duration>) -> Self {
        Self {
            max_ack_delay: peer_ack_delay.unwrap_or(MAX_ACK_DELAY).into(),
            deadline: None,
            regular: Timestamp::ZERO,
            is_due: false,
            probe: None,
        }
    }

    /// Starts the timer anew, unless a probe is on its way (RFC 8985 §7.2).
    ///
    /// Deviation from RFC 8985 §7.2: the time counts from the last transmission and not from the last ACK,
    /// after which one `srtt` passes at least; and in a tail not for longer than two and a half from its first. An ACK of what went before the tail arrives about when that of
    /// the tail should, and would put the probe off by a round trip.
    pub fn schedule(&mut self, now: Timestamp, rtt: &RttEstimator, outstanding: &Outstanding) {
        self.cancel();
        if self.probe.is_some() {
            return;
        }
        let (base, extra) = rtt.srtt().map_or((Duration::ZERO, INITIAL_PTO), |srtt| {
            // A single segment may have to wait for the peer's ACK timer.
            let delay = if outstanding.flight_size <= outstanding.mss {
                self.max_ack_delay.get()
            } else {
                Duration::ZERO
            };
            (srtt, srtt.max(TIMER_SLACK).saturating_add(delay))
        });
        let regular = (outstanding.sent_at + base).max(now) + extra;
        let mut deadline = regular;
        if let (Some(srtt), Some(since)) = (rtt.srtt(), outstanding.tail_since)
            && outstanding.flight_size > outstanding.mss
        {
            // A tail may leave in two flights. The second must not put the probe off by a round trip if both
            // are lost: half an `srtt` beyond the RFC's two is patience enough for the ACK of the first.
            deadline = deadline.min((since + srtt * 2 + srtt / 2).max(now));
        }
        self.deadline = Some(deadline.min(outstanding.rto_deadline));
        self.regular = regular.min(outstanding.rto_deadline);
    }

    /// Nothing is to be probed now.
    pub fn cancel(&mut self) {
        self.deadline = None;
        self.is_due = false;
    }

    /// Recovery or a timeout takes over.
    pub fn reset(&mut self) {
        self.cancel();
        self.probe = None;
    }

    /// The timer expired: a probe is due.
    pub fn on_expired(&mut self) {
        self.deadline = None;
        self.is_due = self.probe.is_none();
    }

    /// Something was sent, new data or again up to `resent`; `end` is the next offset to send. Returns
    /// whether it was the probe that was due.
    pub fn on_sent(&mut self, end: Offset, resent: Option<Offset>, flight_size: u64) -> bool {
        let is_probe = std::mem::take(&mut self.is_due);
        if is_probe {
            self.probe = Some(Probe {
                end,
                resent,
                flight_size,
            });
        }
        is_probe
    }

    /// Takes an ACK. If it shows that the probe repaired a loss, returns what had been outstanding when
    /// the probe was sent (RFC 8985 §7.4.2).
    pub fn on_ack(&mut self, ack: &ProbeAck<'_>) -> Option<u64> {
        let probe = self.probe.filter(|probe| ack.ack >= probe.end)?;
        let is_reported = ack
            .dsack
            .is_some_and(|range| Some(range.end) == probe.resent);
        let is_harmless = probe.resent.is_none() || is_reported;
        let is_repair = !is_harmless && ack.ack > probe.end;
        if is_harmless || is_repair || ack.is_bare_duplicate {
            self.probe = None;
        }
        is_repair.then_some(probe.flight_size)
    }

    /// Returns from when on the timeout waits that is restarted at `now` because of a probe: one that is early
    /// must not make the timeout early as well.
    pub fn timeout_from(&self, now: Timestamp) -> Timestamp {
        self.regular.max(now)
    }

    /// Returns when the probe timer expires.
    pub const fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    /// Says whether a probe is on its way.
    pub const fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    /// Says whether a probe is to be sent now.
    pub const fn is_due(&self) -> bool {
        self.is_due
    }
}
