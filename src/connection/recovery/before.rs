//! The congestion controller until the handshake is done.

use super::DEFAULT_MSS;
use crate::congestion::{
    Acked, CongestionControl, CongestionController, RecoveryEntered, TimedOut,
};

/// What makes the real one then.
#[derive(Debug)]
pub struct Factory {
    /// Which it is to be.
    pub control: CongestionControl,
    /// The share of losses that BBR bears.
    pub loss_threshold: f64,
}

/// Stands in until the handshake is done and the real controller is made: one segment.
#[derive(Debug)]
pub struct BeforeHandshake;

impl CongestionController for BeforeHandshake {
    fn on_acked(&mut self, _event: &Acked) {}

    fn on_recovery_entered(&mut self, _event: &RecoveryEntered) {}

    fn on_timeout(&mut self, _event: &TimedOut) {}

    fn name(&self) -> &'static str {
        "none"
    }

    fn cwnd(&self) -> u64 {
        DEFAULT_MSS
    }

    fn ssthresh(&self) -> u64 {
        u64::MAX
    }
}
