//! Congestion control: the public trait, its events, and the controllers in the box.
//!
//! A controller is a pure state machine that knows only bytes and time. The core tells it what
//! happened through one event struct per hook and asks it four questions: [`cwnd`], [`ssthresh`],
//! [`pacing_rate`] and [`uses_prr`]; its [`name`] and [`phase`] are for statistics. It never touches a
//! socket, a clock or a sequence number.
//!
//! # Call order
//!
//! For one incoming ACK the core calls, in this order:
//!
//! 1. [`on_lost`] once for each segment that this ACK showed to be lost;
//! 2. [`on_recovery_entered`] if that began a recovery episode (never twice within one episode);
//! 3. [`on_undo`] if the ACK proved an earlier reduction spurious;
//! 4. [`on_acked`], exactly once if the ACK newly acknowledged bytes, cumulatively or by SACK, or
//!    carried an ECN echo;
//! 5. [`on_recovery_exited`] if it ended the episode;
//! 6. [`on_recovery_entered`] if the same ACK carried an ECN echo of congestion since that episode began.
//!
//! An episode that an ECN echo begins ([`by_ecn`](RecoveryEntered::by_ecn)) is like any other: what was
//! outstanding ends it. A loss within it is repaired without another [`on_recovery_entered`].
//!
//! [`on_window_unused`] may come before any of these, or when transmission resumes after a pause.
//!
//! [`on_timeout`] is called when the retransmission timer fires, after [`on_lost`] for what it
//! declared lost; a recovery episode in progress ends with it without [`on_recovery_exited`].
//! [`on_sent`] follows each transmission. `now` never goes backwards from one call to the next.
//!
//! # What the core does itself
//!
//! Loss detection, retransmission, the RTT estimate, limited transmit, flow control, the retransmission timer,
//! finding out whether the window is used (RFC 7661), spreading the window of a controller that names no rate over the
//! round trip, and proportional rate reduction (RFC 9937). While the core is in recovery and [`uses_prr`] is true, the
//! amount sent is PRR's, and the controller's `cwnd` should already be its target for the end of the episode.
//!
//! # Writing one
//!
//! Implement [`CongestionController`] and hand it over with [`CongestionControl::custom`]. The event
//! structs may gain fields; to make one in a test, call its `new` and set the fields that matter.
//! With the feature `sim`, the module `conformance` holds every controller, built in or not,
//! against the rules of RFC 5681.
//!
//! ```
//! use reliable_udp::congestion::{
//!     Acked, CongestionControl, CongestionController, RecoveryEntered, TimedOut,
//! };
//!
//! /// Never has more than one segment in flight.
//! #[derive(Debug)]
//! struct StopAndWait {
//!     mss: u64,
//! }
//!
//! impl CongestionController for StopAndWait {
//!     fn on_acked(&mut self, _event: &Acked) {}
//!     fn on_recovery_entered(&mut self, _event: &RecoveryEntered) {}
//!     fn on_timeout(&mut self, _event: &TimedOut) {}
//!     fn on_mss_changed(&mut self, mss: u64) {
//!         self.mss = mss;
//!     }
//!     fn cwnd(&self) -> u64 {
//!         self.mss
//!     }
//!     fn ssthresh(&self) -> u64 {
//!         u64::MAX
//!     }
//! }
//!
//! let control = CongestionControl::custom(|params| StopAndWait { mss: params.mss });
//! # let _ = control;
//! ```
//!
//! [`cwnd`]: CongestionController::cwnd
//! [`ssthresh`]: CongestionController::ssthresh
//! [`pacing_rate`]: CongestionController::pacing_rate
//! [`uses_prr`]: CongestionController::uses_prr
//! [`name`]: CongestionController::name
//! [`phase`]: CongestionController::phase
//! [`on_lost`]: CongestionController::on_lost
//! [`on_recovery_entered`]: CongestionController::on_recovery_entered
//! [`on_undo`]: CongestionController::on_undo
//! [`on_acked`]: CongestionController::on_acked
//! [`on_recovery_exited`]: CongestionController::on_recovery_exited
//! [`on_timeout`]: CongestionController::on_timeout
//! [`on_window_unused`]: CongestionController::on_window_unused
//! [`on_sent`]: CongestionController::on_sent

mod bbr;
#[cfg(any(test, feature = "sim"))]
pub mod conformance;
mod cubic;
mod events;
#[cfg(any(test, fuzzing, feature = "__internals"))]
mod fuzz;
mod hystart;
mod new_reno;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::bbr::Bbr;
pub use self::cubic::Cubic;
pub use self::events::{
    Acked, IdleRestart, Lost, RateSample, RecoveryEntered, RecoveryExited, RttSnapshot, Sent,
    TimedOut, Undo, WindowUnused,
};
#[cfg(any(fuzzing, feature = "__internals"))]
pub use self::fuzz::fuzz_controllers;
pub use self::new_reno::NewReno;
use crate::Timestamp;

/// A pluggable window algorithm.
///
/// All windows are in bytes. See the [module documentation](self) for the order of calls.
/// Implementations must not panic for any order of events; the core trusts `cwnd` but never sends
/// more than the peer's window allows, and treats a `cwnd` below one segment as one segment.
pub trait CongestionController: fmt::Debug + Send + 'static {
    /// Bytes were acknowledged, cumulatively or by SACK, or an ECN echo arrived.
    fn on_acked(&mut self, event: &Acked);

    /// Loss was detected and a recovery episode begins (RFC 6582 §3.2, RFC 6675 §5): the place for
    /// the one multiplicative decrease of this episode.
    fn on_recovery_entered(&mut self, event: &RecoveryEntered);

    /// The retransmission timer fired (RFC 5681 §3.1, equation 4).
    fn on_timeout(&mut self, event: &TimedOut);

    /// A segment was handed to the network, new or again.
    fn on_sent(&mut self, event: &Sent) {
        let _ = event;
    }

    /// One segment was declared lost.
    fn on_lost(&mut self, event: &Lost) {
        let _ = event;
    }

    /// The recovery episode ended: everything outstanding when it began is acknowledged.
    fn on_recovery_exited(&mut self, event: &RecoveryExited) {
        let _ = event;
    }

    /// The latest reduction proved spurious: restore the state from before it (RFC 4015 §3).
    fn on_undo(&mut self, event: &Undo) {
        let _ = event;
    }

    /// Nothing was sent for longer than one RTO and transmission is about to resume (RFC 5681 §4.1).
    ///
    /// Not called when [slow start after idle](crate::ConfigBuilder::slow_start_after_idle) is off.
    fn on_idle_restart(&mut self, event: &IdleRestart) {
        let _ = event;
    }

    /// Less than half of the window was used for five minutes: halve it, but not below the initial window, and
    /// raise the slow-start threshold to three quarters of it before (RFC 7661 §4.4.3).
    fn on_window_unused(&mut self, event: &WindowUnused) {
        let _ = event;
    }

    /// The effective send MSS changed to `mss` bytes.
    fn on_mss_changed(&mut self, mss: u64) {
        let _ = mss;
    }

    /// Returns the congestion window in bytes (RFC 5681 §2).
    fn cwnd(&self) -> u64;

    /// Returns the slow-start threshold in bytes, `u64::MAX` while none is set (RFC 5681 §3.1).
    fn ssthresh(&self) -> u64;

    /// Returns the rate at which departures are spaced, in bytes per second. Zero is taken as one segment per
    /// second. `None` leaves it to the core, which spreads the window over the round trip unless
    /// [pacing](crate::ConfigBuilder::pacing) is off.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }

    /// Returns what it is called, for statistics and logs. Default: the type's name.
    fn name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }

    /// Returns in which of its phases it is, in a few words, for statistics and logs. Default: whether the
    /// window is below the [threshold](Self::ssthresh).
    fn phase(&self) -> &'static str {
        if self.cwnd() < self.ssthresh() {
            "slow start"
        } else {
            "congestion avoidance"
        }
    }

    /// Says whether the core's proportional rate reduction (RFC 9937) governs recovery.
    ///
    /// False for a controller that sets its own window during recovery, for example one that is
    /// based on a model of the path.
    fn uses_prr(&self) -> bool {
        true
    }
}

/// Returns the initial window in bytes, or what a window is restarted with, of a sender that may begin with
/// `segments` (RFC 6928 §2): with segments larger than those of Ethernet it is fewer of them, but two.
pub(crate) fn initial_window(mss: u64, segments: u64) -> u64 {
    /// RFC 6928 §2: ten segments are 14,600 bytes.
    const ETHERNET_SEGMENT: u64 = 1_460;
    let all = mss.saturating_mul(segments);
    all.min(
        segments
            .saturating_mul(ETHERNET_SEGMENT)
            .max(mss.saturating_mul(2)),
    )
}

/// draft-ietf-ccwg-bbr-06 §2.8 `BBR.LossThresh`
pub(crate) const DEFAULT_LOSS_THRESHOLD: f64 = 0.02;

/// What a controller is told when it is made.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ControllerParams {
    /// When the connection was established.
    pub now: Timestamp,
    /// Effective send MSS in bytes, options subtracted.
    pub mss: u64,
    /// Initial window in bytes (RFC 6928), 1 `mss` if a SYN was lost.
    pub initial_window: u64,
    /// The handshake's RTT sample, if one was taken.
    pub initial_rtt: Option<Duration>,
    /// Whether departures are spaced where the controller gives no
    /// [rate](CongestionController::pacing_rate) of its own ([`pacing`](crate::ConfigBuilder::pacing)).
    pub is_paced: bool,
    /// Whether the peer reports what it received out of order (RFC 2018), so that several losses in one round trip
    /// are seen as such.
    pub has_sack: bool,
    /// Where all randomness has to come from: the same for the same initial sequence numbers.
    pub seed: u64,
    /// The fraction lost in a round trip that a model-based controller tolerates while it probes, above 0 and below
    /// 1 ([`bbr_loss_threshold`](crate::ConfigBuilder::bbr_loss_threshold)).
    pub loss_threshold: f64,
}

impl ControllerParams {
    /// Describes a connection with SACK and paced departures established at `now`, without an RTT sample; the seed is
    /// 0 and the loss threshold 2 %.
    pub fn new(now: Timestamp, mss: u64, initial_window: u64) -> Self {
        Self {
            now,
            mss,
            initial_window,
            initial_rtt: None,
            is_paced: true,
            has_sack: true,
            seed: 0,
            loss_threshold: DEFAULT_LOSS_THRESHOLD,
        }
    }
}

/// Makes one controller per connection.
pub type ControllerFactory =
    dyn Fn(&ControllerParams) -> Box<dyn CongestionController> + Send + Sync + 'static;

/// Which controller a connection uses.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum CongestionControl {
    /// RFC 5681 with RFC 6582: slow start, congestion avoidance, fast retransmit and fast recovery.
    NewReno,
    /// RFC 9438 with HyStart++ (RFC 9406): the window of Linux, Windows and macOS. The default.
    #[default]
    Cubic,
    /// BBR version 3 (draft-ietf-ccwg-bbr-06): a model of the path in place of a window that fills its queue.
    Bbr,
    /// The user's own; the factory is called once per connection.
    Custom(Arc<ControllerFactory>),
}

impl CongestionControl {
    /// Wraps a closure that makes a controller for each connection.
    pub fn custom<C, F>(factory: F) -> Self
    where
        C: CongestionController,
        F: Fn(&ControllerParams) -> C + Send + Sync + 'static,
    {
        Self::Custom(Arc::new(move |params| Box::new(factory(params))))
    }

    /// Makes the controller of one connection.
    pub fn make(&self, params: &ControllerParams) -> Box<dyn CongestionController> {
        match self {
            Self::NewReno => Box::new(NewReno::new(params)),
            Self::Cubic => Box::new(Cubic::new(params)),
            Self::Bbr => Box::new(Bbr::new(params)),
            Self::Custom(factory) => factory(params),
        }
    }
}

impl fmt::Debug for CongestionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NewReno => "NewReno",
            Self::Cubic => "Cubic",
            Self::Bbr => "Bbr",
            Self::Custom(_) => "Custom",
        })
    }
}
