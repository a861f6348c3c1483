use proptest::prelude::*;

use super::*;
use crate::congestion::fuzz::suites;
use crate::congestion::{
    Acked, CongestionController, IdleRestart, Lost, RecoveryEntered, RecoveryExited, TimedOut, Undo,
};

#[test]
fn every_controller_in_the_box_conforms() {
    for suite in suites() {
        if let Err(violation) = suite.run() {
            panic!("{:?}: {violation}", suite.control);
        }
    }
}

proptest! {
    #[test]
    fn no_stream_of_possible_events_breaks_a_rule(
        start: [u8; 3],
        events in prop::collection::vec(any::<[u8; 2]>(), 0..400),
    ) {
        let bytes = [&[0], &start[..], events.as_flattened()].concat();
        for suite in suites() {
            prop_assert_eq!(suite.run_stream(&bytes), Ok(()), "{:?}", suite.control);
        }
    }

    #[test]
    fn no_stream_of_impossible_events_does_harm(
        start: [u8; 3],
        events in prop::collection::vec(any::<[u8; 4]>(), 0..400),
    ) {
        let bytes = [&[1], &start[..], events.as_flattened()].concat();
        for suite in suites() {
            prop_assert_eq!(suite.run_stream(&bytes), Ok(()), "{:?}", suite.control);
        }
    }
}

/// One way in which a controller can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    ShrinksBelowTheFloor,
    GrowsWhileLimited,
    IgnoresLoss,
    ReducesOnEveryLoss,
    IgnoresUndo,
    IgnoresTimeout,
    HalvesOnEveryTimeout,
    GrowsWhenIdle,
    ReducesMoreOnEcho,
    ReducesOnEveryEcho,
    LowersTheThreshold,
    PacesAtZero,
}

/// Slow start and halving, wrong in one way.
#[derive(Debug)]
struct Faulty {
    fault: Fault,
    mss: u64,
    cwnd: u64,
    ssthresh: u64,
    before: (u64, u64),
    in_recovery: bool,
}

impl Faulty {
    fn halve(&mut self) {
        let floor = if self.fault == Fault::ShrinksBelowTheFloor {
            1
        } else {
            2
        };
        self.cwnd = (self.cwnd / 2).max(self.mss.saturating_mul(floor));
        self.ssthresh = self.cwnd.max(self.mss.saturating_mul(2));
    }
}

impl CongestionController for Faulty {
    fn on_acked(&mut self, event: &Acked) {
        if event.ecn_echo && self.fault == Fault::ReducesOnEveryEcho {
            self.halve();
        } else if event.is_cwnd_limited && !self.in_recovery
            || self.fault == Fault::GrowsWhileLimited
        {
            self.cwnd = self.cwnd.saturating_add(event.bytes);
        }
    }
    fn on_recovery_entered(&mut self, event: &RecoveryEntered) {
        self.before = (self.cwnd, self.ssthresh);
        self.in_recovery = true;
        if self.fault != Fault::IgnoresLoss {
            self.halve();
        }
        if event.by_ecn && self.fault == Fault::ReducesMoreOnEcho {
            self.halve();
        }
        if self.fault == Fault::LowersTheThreshold {
            self.ssthresh = self.mss;
        }
    }
    fn on_recovery_exited(&mut self, _event: &RecoveryExited) {
        self.in_recovery = false;
    }
    fn on_lost(&mut self, _event: &Lost) {
        if self.fault == Fault::ReducesOnEveryLoss {
            self.halve();
        }
    }
    fn on_timeout(&mut self, event: &TimedOut) {
        self.in_recovery = false;
        if event.consecutive <= 1 {
            self.before = (self.cwnd, self.ssthresh);
        }
        if event.consecutive <= 1 || self.fault == Fault::HalvesOnEveryTimeout {
            self.ssthresh = (self.ssthresh / 2).max(self.mss.saturating_mul(2));
        }
        if self.fault != Fault::IgnoresTimeout {
            self.cwnd = self.mss;
        }
    }
    fn on_undo(&mut self, _event: &Undo) {
        self.in_recovery = false;
        if self.fault != Fault::IgnoresUndo {
            self.cwnd = self.cwnd.max(self.before.0);
            self.ssthresh = self.before.1;
        }
    }
    fn on_idle_restart(&mut self, _event: &IdleRestart) {
        if self.fault == Fault::GrowsWhenIdle {
            self.cwnd = self.cwnd.saturating_mul(2);
        }
    }
    fn on_mss_changed(&mut self, mss: u64) {
        self.mss = mss;
        self.cwnd = self.cwnd.max(mss.saturating_mul(2));
        self.ssthresh = self.ssthresh.max(mss.saturating_mul(2));
        self.before = (0, u64::MAX);
    }
    fn cwnd(&self) -> u64 {
        self.cwnd
    }
    fn ssthresh(&self) -> u64 {
        self.ssthresh
    }
    fn pacing_rate(&self) -> Option<u64> {
        (self.fault == Fault::PacesAtZero).then_some(0)
    }
}

fn faulty(fault: Fault) -> CongestionControl {
    CongestionControl::custom(move |params| Faulty {
        fault,
        mss: params.mss,
        cwnd: params.initial_window.max(params.mss),
        ssthresh: u64::MAX,
        before: (0, u64::MAX),
        in_recovery: false,
    })
}

#[test]
fn each_fault_is_found_under_its_rule() {
    let cases = [
        (Fault::ShrinksBelowTheFloor, Rule::MinimumWindow),
        (Fault::GrowsWhileLimited, Rule::NoGrowthWhileLimited),
        (Fault::IgnoresLoss, Rule::LossReduces),
        (Fault::ReducesOnEveryLoss, Rule::OneReductionPerEpisode),
        (Fault::IgnoresUndo, Rule::UndoRestores),
        (Fault::IgnoresTimeout, Rule::TimeoutCollapses),
        (Fault::HalvesOnEveryTimeout, Rule::TimeoutCollapses),
        (Fault::GrowsWhenIdle, Rule::IdleNeverGrows),
        (Fault::ReducesMoreOnEcho, Rule::EchoIsGentle),
        (Fault::ReducesOnEveryEcho, Rule::OneReductionPerEpisode),
        (Fault::LowersTheThreshold, Rule::MinimumThreshold),
        (Fault::PacesAtZero, Rule::PacingRate),
    ];
    for (fault, rule) in cases {
        assert_eq!(
            check(&faulty(fault)).map_err(|violation| violation.rule),
            Err(rule)
        );
    }
    assert_eq!(check(&faulty(Fault::None)), Ok(()));
}

#[test]
fn an_exception_is_not_checked() {
    let suite = Suite::new(&faulty(Fault::IgnoresLoss));
    assert!(suite.run().is_err());
    assert_eq!(suite.except(Rule::LossReduces).run(), Ok(()));
}
