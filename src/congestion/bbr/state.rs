//! The states, and the gains that belong to each (draft §5.1, §5.6.1).

/// Draft §2.5, §5.6.1: pacing gains, in percent.
pub(super) const STARTUP_PACING: u64 = 277;
const DRAIN_PACING: u64 = 50;
const DOWN_PACING: u64 = 90;
const UP_PACING: u64 = 125;
/// Draft §2.6, §2.16.2, §5.6.1: window gains, in percent of the BDP.
const DEFAULT_CWND: u64 = 200;
const UP_CWND: u64 = 225;
pub(super) const PROBE_RTT_CWND: u64 = 50;

/// `BBR.state`
///
/// ```text
///        Startup <-------------+
///           |                  |
///         Drain                |
///           |                  |
///   +---> DOWN <---------+     |    from every state, when no lower RTT was seen for 5 s
///   |       |            |  ProbeRTT <--
///   |    CRUISE <--------+-----+    back to CRUISE, or to Startup if the pipe was never full
///   |       |
///   |    REFILL
///   |       |
///   +----- UP
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Doubles the rate each round trip until the pipe is full.
    Startup,
    /// Lets the queue of Startup drain.
    Drain {
        /// `BBR.drain_start_round`
        start_round: u64,
    },
    /// Sends a little less than is delivered, so that the queue drains and others find room.
    ProbeDown,
    /// Sends what is delivered.
    ProbeCruise,
    /// Fills the pipe for a round trip without a queue.
    ProbeRefill,
    /// Sends more than is delivered, to see whether more can be.
    ProbeUp,
    /// Keeps little in flight, to see the RTT without a queue of its own.
    ProbeRtt,
}

impl State {
    /// Returns what it is called in statistics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Drain { .. } => "Drain",
            Self::ProbeDown => "ProbeBW DOWN",
            Self::ProbeCruise => "ProbeBW CRUISE",
            Self::ProbeRefill => "ProbeBW REFILL",
            Self::ProbeUp => "ProbeBW UP",
            Self::ProbeRtt => "ProbeRTT",
        }
    }

    /// Returns `BBR.pacing_gain` in percent.
    pub(super) const fn pacing_gain(self) -> u64 {
        match self {
            Self::Startup => STARTUP_PACING,
            Self::Drain { .. } => DRAIN_PACING,
            Self::ProbeDown => DOWN_PACING,
            Self::ProbeUp => UP_PACING,
            Self::ProbeCruise | Self::ProbeRefill | Self::ProbeRtt => 100,
        }
    }

    /// Returns `BBR.cwnd_gain` in percent.
    pub(super) const fn cwnd_gain(self) -> u64 {
        match self {
            Self::ProbeUp => UP_CWND,
            Self::ProbeRtt => PROBE_RTT_CWND,
            Self::Startup
            | Self::Drain { .. }
            | Self::ProbeDown
            | Self::ProbeCruise
            | Self::ProbeRefill => DEFAULT_CWND,
        }
    }

    /// `IsInAProbeBWState()`
    pub(super) const fn is_probe_bw(self) -> bool {
        match self {
            Self::ProbeDown | Self::ProbeCruise | Self::ProbeRefill | Self::ProbeUp => true,
            Self::Startup | Self::Drain { .. } | Self::ProbeRtt => false,
        }
    }

    /// `IsProbingBW()`: accelerates, so that a loss says nothing about what the path can take in the short term.
    pub(super) const fn is_probing(self) -> bool {
        match self {
            Self::Startup | Self::ProbeRefill | Self::ProbeUp => true,
            Self::Drain { .. } | Self::ProbeDown | Self::ProbeCruise | Self::ProbeRtt => false,
        }
    }
}
