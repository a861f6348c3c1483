//! NewReno.

use crate::congestion::{Acked, CongestionController, ControllerParams, RecoveryEntered, TimedOut};

/// NewReno.
#[derive(Debug)]
pub struct NewReno {
    cwnd: u64,
}

impl NewReno {
    /// Makes one.
    pub fn new(params: &ControllerParams) -> Self {
        Self { cwnd: params.initial_window }
    }
}

impl CongestionController for NewReno {
    fn on_acked(&mut self, _event: &Acked) {}
    fn on_recovery_entered(&mut self, _event: &RecoveryEntered) {}
    fn on_timeout(&mut self, _event: &TimedOut) {}
    fn cwnd(&self) -> u64 {
        self.cwnd
    }
    fn ssthresh(&self) -> u64 {
        u64::MAX
    }
}
