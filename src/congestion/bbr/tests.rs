use std::time::Duration;

use super::*;
use crate::congestion::conformance::{Rule, Suite};
use crate::congestion::{CongestionControl, RateSample, RttSnapshot};

const MSS: u64 = 1_000;
/// The path: 1 MB/s and 100 ms, so that 100 segments are a BDP.
const RTT: Duration = Duration::from_millis(100);
const RATE: u64 = 1_000_000;

/// A controller on a path that delivers what the test says.
#[derive(Debug)]
struct BbrTest {
    bbr: Bbr,
    now: Timestamp,
    delivered: u64,
    lost: u64,
}

impl BbrTest {
    fn new() -> Self {
        let mut params = ControllerParams::new(Timestamp::ZERO, MSS, 10 * MSS);
        params.initial_rtt = Some(RTT);
        Self {
            bbr: Bbr::new(&params),
            now: Timestamp::ZERO,
            delivered: 0,
            lost: 0,
        }
    }

    /// An ACK at the end of a round trip in which `rate` was delivered, with `in_flight` left.
    fn round(&mut self, rate: u64, in_flight: u64) {
        self.now = self.now + RTT;
        self.ack(rate, in_flight);
    }

    fn event(&mut self, rate: u64, in_flight: u64) -> Acked {
        let bytes = rate / 10;
        let prior_delivered = self.delivered;
        self.delivered += bytes;
        let mut event = Acked::new(self.now, bytes, in_flight);
        event.total_delivered = self.delivered;
        event.total_lost = self.lost;
        event.rtt = RttSnapshot::new(Some(RTT), RTT, RTT);
        let mut sample = RateSample::new(bytes, RTT);
        sample.prior_delivered = prior_delivered;
        sample.tx_in_flight = bytes;
        sample.prior_lost = self.lost;
        event.rate = Some(sample);
        event
    }

    fn ack(&mut self, rate: u64, in_flight: u64) {
        let event = self.event(rate, in_flight);
        self.bbr.on_acked(&event);
        self.bbr.check_invariants();
    }
}

#[test]
fn startup_paces_the_initial_window_and_ends_after_three_rounds_without_growth() {
    let mut test = BbrTest::new();
    // 10,000 bytes in 100 ms, 2.77 times over.
    assert_eq!(test.bbr.pacing_rate(), Some(277_000));
    for rate in [100_000, 200_000, 400_000, 800_000, RATE] {
        test.round(rate, 100 * MSS);
    }
    assert_eq!(test.bbr.state, State::Startup);
    // 1 MB/s * 2.77 * 0.99
    assert_eq!(test.bbr.pacing_rate(), Some(2_742_300));
    test.round(RATE, 200 * MSS);
    test.round(RATE, 200 * MSS);
    assert_eq!(test.bbr.state, State::Startup);
    test.round(RATE, 200 * MSS);
    assert!(matches!(test.bbr.state, State::Drain { .. }));
    // 1 MB/s * 0.5 * 0.99; twice the BDP, and the whole round trip that each ACK here acknowledges at once.
    assert_eq!(test.bbr.pacing_rate(), Some(495_000));
    assert_eq!(test.bbr.cwnd(), 300 * MSS);
}

#[test]
fn every_rule_holds_that_a_model_can_keep() {
    let suite = Suite::new(&CongestionControl::Bbr)
        // A loss below the threshold is no reason to send less while the model is made or checked.
        .except(Rule::LossReduces)
        // Each round trip with a loss lowers the short-term model.
        .except(Rule::OneReductionPerEpisode)
        // It is the model, and not the use of the window, that says how large it has to be.
        .except(Rule::NoGrowthWhileLimited);
    if let Err(violation) = suite.run() {
        panic!("{violation}");
    }
}
