use super::*;

#[test]
fn every_controller_in_the_box_conforms() {
    for control in [CongestionControl::NewReno] {
        if let Err(violation) = check(&control) {
            panic!("{control:?}: {violation}");
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
}

/// Slow start and halving, wrong in one way.
#[derive(Debug)]
struct Faulty {
    fault: Fault,
    mss: u64,
    cwnd: u64,
    ssthresh: u64,
    before: (u64, u64),
}

impl Faulty {
    fn halve(&mut self) {
        let floor = if self.fault == Fault::ShrinksBelowTheFloor {
            1
        } else {
            2
        };
        self.ssthresh = (self.cwnd / 2).max(self.mss.saturating_mul(floor));
        self.cwnd = self.ssthresh;
    }
}

impl CongestionController for Faulty {
    fn on_acked(&mut self, event: &Acked) {
        if event.is_cwnd_limited || self.fault == Fault::GrowsWhileLimited {
            self.cwnd = self.cwnd.saturating_add(event.bytes);
        }
    }
    fn on_recovery_entered(&mut self, _event: &RecoveryEntered) {
        self.before = (self.cwnd, self.ssthresh);
        if self.fault != Fault::IgnoresLoss {
            self.halve();
        }
    }
    fn on_lost(&mut self, _event: &Lost) {
        if self.fault == Fault::ReducesOnEveryLoss {
            self.halve();
        }
    }
    fn on_timeout(&mut self, event: &TimedOut) {
        if event.consecutive == 1 {
            self.before = (self.cwnd, self.ssthresh);
        }
        if event.consecutive == 1 || self.fault == Fault::HalvesOnEveryTimeout {
            self.ssthresh = (self.ssthresh / 2).max(self.mss.saturating_mul(2));
        }
        if self.fault != Fault::IgnoresTimeout {
            self.cwnd = self.mss;
        }
    }
    fn on_undo(&mut self, _event: &Undo) {
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
    }
    fn cwnd(&self) -> u64 {
        self.cwnd
    }
    fn ssthresh(&self) -> u64 {
        self.ssthresh
    }
}

fn faulty(fault: Fault) -> CongestionControl {
    CongestionControl::custom(move |params| Faulty {
        fault,
        mss: params.mss,
        cwnd: params.initial_window.max(params.mss),
        ssthresh: u64::MAX,
        before: (0, 0),
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
