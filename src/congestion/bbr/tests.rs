use std::time::Duration;

use super::*;
use crate::congestion::{RateSample, RttSnapshot};

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
fn without_an_rtt_the_first_sample_makes_the_initial_pacing_rate() {
    let mut test = BbrTest::new();
    test.bbr = Bbr::new(&ControllerParams::new(Timestamp::ZERO, MSS, 10 * MSS));
    // 10,000 bytes in 1 ms, 2.77 times over: the draft's guess.
    assert_eq!(test.bbr.pacing_rate(), Some(27_700_000));
    // An ACK of a retransmission tells no RTT.
    test.now = test.now + RTT;
    let mut event = test.event(10_000, 0);
    event.rtt = RttSnapshot::default();
    test.bbr.on_acked(&event);
    assert_eq!(test.bbr.pacing_rate(), Some(27_700_000));
    // 1,000 bytes at a time, as an application has them: 10,000 in 100 ms, 2.77 times over.
    test.round(10_000, 0);
    assert_eq!(test.bbr.pacing_rate(), Some(277_000));
    // Once: a longer RTT later lowers nothing.
    test.now = test.now + RTT;
    let mut event = test.event(10_000, 0);
    event.rtt = RttSnapshot::new(Some(2 * RTT), 2 * RTT, RTT);
    test.bbr.on_acked(&event);
    assert_eq!(test.bbr.pacing_rate(), Some(277_000));
}

impl BbrTest {
    /// In CRUISE, with a BDP of 100 segments.
    fn in_probe_bw() -> Self {
        let mut test = Self::new();
        for rate in [200_000, 400_000, 800_000, RATE, RATE, RATE, RATE] {
            test.round(rate, 200 * MSS);
        }
        assert!(matches!(test.bbr.state, State::Drain { .. }));
        // Drained, and so past DOWN at once.
        test.round(RATE, 90 * MSS);
        assert_eq!(test.bbr.state, State::ProbeCruise);
        test
    }

    /// Goes through round trips without a queue until `state` comes.
    fn until(&mut self, state: State) {
        for _ in 0..80 {
            if self.bbr.state == state {
                return;
            }
            self.round(RATE, 80 * MSS);
        }
        panic!("{state:?} never came: {:?}", self.bbr);
    }

    fn lose(&mut self, segments: u64, tx_in_flight: u64) {
        let prior_lost = self.lost;
        for _ in 0..segments {
            self.lost += MSS;
            let mut event = Lost::new(self.now, MSS, self.now - RTT);
            event.tx_in_flight = tx_in_flight;
            event.prior_delivered = self.delivered;
            event.prior_lost = prior_lost;
            event.total_lost = self.lost;
            self.bbr.on_lost(&event);
        }
    }

    fn recover(&mut self, by_ecn: bool) {
        let mut event = RecoveryEntered::new(self.now, 100 * MSS, 90 * MSS);
        event.by_ecn = by_ecn;
        self.bbr.on_recovery_entered(&event);
    }
}

#[test]
fn drain_ends_when_a_bdp_is_left_or_after_three_rounds() {
    let mut test = BbrTest::new();
    for rate in [200_000, 400_000, 800_000, RATE, RATE, RATE, RATE] {
        test.round(rate, 200 * MSS);
    }
    // Three rounds and the one that has to be over.
    for _ in 0..3 {
        test.round(RATE, 150 * MSS);
        assert!(matches!(test.bbr.state, State::Drain { .. }));
    }
    test.round(RATE, 150 * MSS);
    assert_eq!(test.bbr.state, State::ProbeDown);
    // 1 MB/s * 0.9 * 0.99
    assert_eq!(test.bbr.pacing_rate(), Some(891_000));
}

#[test]
fn the_cycle_is_down_cruise_refill_up() {
    let mut test = BbrTest::in_probe_bw();
    test.until(State::ProbeCruise);
    assert_eq!(
        (test.bbr.name(), test.bbr.phase()),
        ("BBR", "ProbeBW CRUISE")
    );
    assert_eq!(test.bbr.pacing_rate(), Some(990_000));
    let begun = test.now;
    test.until(State::ProbeRefill);
    // Two to three seconds, or 62 to 63 rounds of 100 ms.
    let waited = test.now.saturating_since(begun);
    let bounds = Duration::from_millis(1_900)..=Duration::from_millis(3_100);
    assert!(bounds.contains(&waited), "{waited:?}");
    assert_eq!(test.bbr.pacing_rate(), Some(990_000));
    test.round(RATE, 100 * MSS);
    assert_eq!(test.bbr.state, State::ProbeUp);
    // 1 MB/s * 1.25 * 0.99
    assert_eq!(test.bbr.pacing_rate(), Some(1_237_500));
    // Three rounds that deliver no more end it.
    for _ in 0..2 {
        test.round(RATE, 110 * MSS);
        assert_eq!(test.bbr.state, State::ProbeUp);
    }
    test.round(RATE, 110 * MSS);
    assert_eq!(test.bbr.state, State::ProbeDown);
}

#[test]
fn a_small_window_probes_as_often_as_reno() {
    let mut test = BbrTest::new();
    // 50 kB/s: a BDP of five segments.
    for rate in [50_000; 5] {
        test.round(rate, 4 * MSS);
    }
    test.until_refill_within(6);
}

impl BbrTest {
    #[track_caller]
    fn until_refill_within(&mut self, rounds: u32) {
        for _ in 0..rounds {
            if self.bbr.state == State::ProbeRefill {
                return;
            }
            self.round(50_000, 4 * MSS);
        }
        panic!("{:?}", self.bbr);
    }
}

#[test]
fn a_probe_that_loses_more_than_the_threshold_ends_and_sets_the_bound() {
    let mut test = BbrTest::in_probe_bw();
    test.until(State::ProbeUp);
    // 2 % of 125 segments are 2.5.
    test.lose(2, 125 * MSS);
    assert_eq!(test.bbr.state, State::ProbeUp);
    assert_eq!(test.bbr.bounds.inflight_longterm, u64::MAX);
    test.lose(3, 125 * MSS);
    assert_eq!(test.bbr.state, State::ProbeDown);
    // Of 124 before the last one, 2.48 are tolerated and 2 lost: (2,480 - 2,000) / 0.98 = 489 bytes more.
    assert_eq!(test.bbr.bounds.inflight_longterm, 124_489);
    assert!(test.bbr.probe.was_too_high);
    // Once per probe.
    test.lose(20, 125 * MSS);
    assert_eq!(test.bbr.bounds.inflight_longterm, 124_489);
    // In CRUISE 15 % of it stay free.
    test.until(State::ProbeCruise);
    assert_eq!(test.bbr.cwnd(), 124_489 - 18_673);
}

#[test]
fn a_higher_threshold_lets_a_probe_lose_more() {
    let mut test = BbrTest::in_probe_bw();
    test.bbr.loss_threshold = threshold(0.1);
    test.until(State::ProbeUp);
    test.lose(12, 125 * MSS);
    assert_eq!(test.bbr.state, State::ProbeUp);
    test.lose(13, 125 * MSS);
    assert_eq!(test.bbr.state, State::ProbeDown);
}

#[test]
fn outside_probes_a_round_with_a_loss_costs_what_was_not_delivered_and_at_most_three_tenths() {
    let mut test = BbrTest::in_probe_bw();
    // Until no sample holds data that Drain has sent.
    for _ in 0..4 {
        test.round(RATE, 80 * MSS);
    }
    assert_eq!(test.bbr.state, State::ProbeCruise);
    test.lose(1, 100 * MSS);
    // 95 % of what was paced at 99 %, twice, for what was delivered before the first loss counts too.
    test.round(940_500, 80 * MSS);
    assert_eq!(test.bbr.bounds.bw_shortterm, Bandwidth::new(RATE));
    test.lose(1, 100 * MSS);
    test.round(940_500, 80 * MSS);
    assert_eq!(test.bbr.bounds.bw_shortterm, Bandwidth::new(950_000));
    assert_eq!(test.bbr.max_bw.get(), Bandwidth::new(RATE));
    // Nothing of note is delivered: 0.7 times as much.
    test.lose(1, 100 * MSS);
    test.round(1_000, 80 * MSS);
    test.lose(1, 100 * MSS);
    test.round(1_000, 80 * MSS);
    assert!(test.bbr.bounds.bw_shortterm >= Bandwidth::new(665_000 * 7 / 10));
    // The next probe forgets it.
    test.until(State::ProbeRefill);
    assert_eq!(test.bbr.bounds.bw_shortterm, Bandwidth::INFINITE);
    assert_eq!(test.bbr.bw, Bandwidth::new(RATE));
}

#[test]
fn startup_ends_when_a_round_of_recovery_has_lost_too_much_in_six_places() {
    for (ranges, ends) in [(5, false), (6, true)] {
        let mut test = BbrTest::new();
        test.round(200_000, 20 * MSS);
        test.round(400_000, 40 * MSS);
        test.lose(1, 40 * MSS);
        test.recover(false);
        let in_recovery = |test: &mut BbrTest, lost: u64| {
            test.now = test.now + RTT;
            let mut event = test.event(800_000, 80 * MSS);
            event.in_recovery = true;
            event.total_lost += lost;
            test.bbr.on_acked(&event);
        };
        in_recovery(&mut test, 0);
        test.lose(ranges, 80 * MSS);
        in_recovery(&mut test, ranges * MSS);
        in_recovery(&mut test, ranges * MSS);
        assert_eq!(test.bbr.has_filled_pipe, ends, "{ranges} ranges");
        assert_eq!(test.bbr.undoable.state, ends.then_some(State::Startup));
    }
}

#[test]
fn a_congestion_echo_ends_startup_and_a_probe() {
    let mut test = BbrTest::new();
    test.round(200_000, 20 * MSS);
    test.recover(true);
    test.round(400_000, 40 * MSS);
    assert!(matches!(test.bbr.state, State::Drain { .. }));

    let mut test = BbrTest::in_probe_bw();
    test.until(State::ProbeUp);
    test.recover(true);
    assert_eq!(test.bbr.state, State::ProbeDown);
    // What was in flight.
    assert_eq!(test.bbr.bounds.inflight_longterm, 90 * MSS);
}

#[test]
fn five_seconds_without_a_lower_rtt_lead_to_probe_rtt_and_back() {
    let mut test = BbrTest::in_probe_bw();
    let mut rounds = 0;
    while test.bbr.state != State::ProbeRtt {
        test.round(RATE, 80 * MSS);
        rounds += 1;
        assert!(rounds < 60, "{:?}", test.bbr);
    }
    assert!(test.now > Timestamp::from_millis(5_000));
    // Half a BDP; the window from before comes back.
    assert_eq!(test.bbr.cwnd(), 50 * MSS);
    test.round(RATE, 50 * MSS);
    let begun = test.now;
    while test.bbr.state == State::ProbeRtt {
        assert!(test.bbr.cwnd() <= 50 * MSS);
        test.round(500_000, 40 * MSS);
    }
    assert!(test.now.saturating_since(begun) > Duration::from_millis(200));
    assert_eq!(test.bbr.state, State::ProbeCruise);
    assert!(test.bbr.cwnd() >= 200 * MSS);
    assert_eq!(test.bbr.max_bw.get(), Bandwidth::new(RATE));
}

#[test]
fn after_idleness_probe_rtt_is_skipped_and_the_rate_is_the_bandwidth() {
    let mut test = BbrTest::in_probe_bw();
    test.now = test.now + Duration::from_secs(60);
    let mut event = Sent::new(test.now, MSS, MSS);
    event.is_app_limited = true;
    test.bbr.on_sent(&event);
    assert_eq!(test.bbr.pacing_rate(), Some(990_000));
    test.round(RATE, 0);
    assert_ne!(test.bbr.state, State::ProbeRtt);
}

#[test]
fn the_application_is_no_reason_to_forget_the_bandwidth() {
    let mut test = BbrTest::in_probe_bw();
    for _ in 0..200 {
        test.now = test.now + RTT;
        let mut event = test.event(10_000, 0);
        event.rate.as_mut().unwrap().is_app_limited = true;
        test.bbr.on_acked(&event);
    }
    assert_eq!(test.bbr.max_bw.get(), Bandwidth::new(RATE));
}

#[test]
fn a_timeout_leaves_one_segment_until_it_is_repaired() {
    let mut test = BbrTest::in_probe_bw();
    let before = test.bbr.cwnd();
    test.lose(100, 100 * MSS);
    test.bbr.on_timeout(&TimedOut::new(test.now, 100 * MSS, 1));
    assert_eq!(test.bbr.cwnd(), MSS);
    test.now = test.now + RTT;
    let mut event = test.event(10_000, 0);
    event.after_timeout = true;
    test.bbr.on_acked(&event);
    assert_eq!(test.bbr.cwnd(), 4 * MSS);
    test.round(RATE, 0);
    assert!(test.bbr.cwnd() >= before);
}

#[test]
fn an_undo_restores_window_bounds_and_state() {
    let mut test = BbrTest::in_probe_bw();
    test.until(State::ProbeUp);
    let cwnd = test.bbr.cwnd();
    test.lose(10, 125 * MSS);
    test.recover(false);
    assert_eq!(test.bbr.state, State::ProbeDown);
    test.bbr.on_undo(&Undo::new(test.now, 100 * MSS));
    assert_eq!(test.bbr.state, State::ProbeRefill);
    assert_eq!(test.bbr.bounds, Bounds::NONE);
    assert_eq!(test.bbr.cwnd(), cwnd);
}

#[test]
fn the_newest_segments_rtt_and_not_the_delayed_one_is_the_paths() {
    let mut test = BbrTest::new();
    test.now = test.now + RTT;
    let mut event = test.event(100_000, 0);
    event.rtt = RttSnapshot::new(Some(Duration::from_millis(90)), RTT, RTT);
    event.rtt.newest = Some(Duration::from_millis(60));
    test.bbr.on_acked(&event);
    assert_eq!(test.bbr.min_rtt.get(), Some(Duration::from_millis(60)));
}

#[test]
fn probing_times_follow_from_the_seed() {
    let waits = |seed| {
        let mut params = ControllerParams::new(Timestamp::ZERO, MSS, 10 * MSS);
        params.seed = seed;
        let mut bbr = Bbr::new(&params);
        [(); 5].map(|()| {
            bbr.start_probe_down(Timestamp::ZERO);
            bbr.probe.clone()
        })
    };
    let text = |seed| format!("{:?}", waits(seed));
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}

#[test]
fn a_threshold_that_is_none_is_the_drafts() {
    for (fraction, millionths) in [
        (0.02, 20_000),
        (0.1, 100_000),
        (f64::NAN, 20_000),
        (0.0, 20_000),
        (1.0, 20_000),
        (-1.0, 20_000),
    ] {
        assert_eq!(threshold(fraction), millionths, "{fraction}");
    }
}

#[test]
fn a_probe_waits_for_63_rounds_at_most() {
    let mut test = BbrTest::in_probe_bw();
    let mut rounds = 0;
    // Ten rounds take 100 ms, and the BDP is more than 63 segments.
    while test.bbr.state != State::ProbeRefill {
        test.now = test.now + RTT / 10;
        test.ack(RATE, 80 * MSS);
        rounds += 1;
        assert!(rounds <= 63, "{:?}", test.bbr);
    }
    assert!(rounds >= 62, "{rounds}");
}

#[test]
fn the_probe_after_one_that_went_too_far_is_short_and_if_it_was_safe_another_follows_at_once() {
    let mut test = BbrTest::in_probe_bw();
    test.until(State::ProbeUp);
    test.lose(3, 125 * MSS);
    // No ProbeRTT before the next probe.
    test.bbr.min_rtt = MinRtt::new(test.now, Some(RTT));
    test.until(State::ProbeUp);
    // 80 segments are left of the 180 of before the ACK, and the bound is 124.
    test.round(RATE, 80 * MSS);
    assert_eq!(test.bbr.state, State::ProbeDown);
    test.round(RATE, 80 * MSS);
    assert_eq!(test.bbr.state, State::ProbeRefill);
    test.round(RATE, 80 * MSS);
    assert_eq!(test.bbr.state, State::ProbeUp);
}

#[test]
fn a_bound_that_is_reached_without_losses_grows_by_more_in_each_round() {
    let mut test = BbrTest::in_probe_bw();
    test.bbr.bounds.inflight_longterm = 150 * MSS;
    test.until(State::ProbeUp);
    let bounds = [(); 3].map(|()| {
        let cwnd = test.bbr.cwnd();
        test.bbr.on_sent(&Sent::new(test.now, MSS, cwnd));
        test.round(RATE, 80 * MSS);
        test.bbr.bounds.inflight_longterm
    });
    // A segment for each 150, 75 and 37.5 that are acknowledged: 100, 200 less nothing, and 50 that are left and 100.
    assert_eq!(bounds, [150, 152, 156].map(|segments| segments * MSS));
    // A window that is not filled does not.
    for _ in 0..2 {
        test.round(RATE, 80 * MSS);
    }
    let before = test.bbr.bounds.inflight_longterm;
    test.round(RATE, 80 * MSS);
    assert_eq!(test.bbr.bounds.inflight_longterm, before);
}

#[test]
fn what_was_in_flight_without_losses_raises_the_bound() {
    for (lost, expected) in [(2, 100), (3, 90)] {
        let mut test = BbrTest::in_probe_bw();
        test.bbr.bounds.inflight_longterm = 90 * MSS;
        test.now = test.now + RTT;
        let mut event = test.event(RATE, 80 * MSS);
        // 2 % of 100 segments are two.
        event.total_lost += lost * MSS;
        test.bbr.on_acked(&event);
        assert_eq!(test.bbr.bounds.inflight_longterm, expected * MSS, "{lost}");
    }
}

#[test]
fn down_lasts_until_there_is_headroom() {
    let mut test = BbrTest::in_probe_bw();
    test.until(State::ProbeUp);
    test.lose(3, 125 * MSS);
    test.bbr.bounds.inflight_longterm = 110 * MSS;
    // 85 % are 93.5, less than the BDP.
    test.round(RATE, 95 * MSS);
    assert_eq!(test.bbr.state, State::ProbeDown);
    test.round(RATE, 93 * MSS);
    assert_eq!(test.bbr.state, State::ProbeCruise);
}

#[test]
fn a_bandwidth_that_is_not_seen_again_is_forgotten_after_two_cycles() {
    let mut test = BbrTest::in_probe_bw();
    for _ in 0..2 {
        test.until(State::ProbeCruise);
        for _ in 0..80 {
            if test.bbr.state == State::ProbeUp {
                break;
            }
            test.round(RATE / 2, 40 * MSS);
        }
        for _ in 0..5 {
            test.round(RATE / 2, 40 * MSS);
        }
    }
    assert_eq!(test.bbr.max_bw.get(), Bandwidth::new(RATE / 2));
}

#[test]
fn losses_during_probe_rtt_cost_neither_window_nor_bandwidth() {
    let mut test = BbrTest::in_probe_bw();
    test.until(State::ProbeRtt);
    test.round(500_000, 50 * MSS);
    test.lose(1, 50 * MSS);
    test.recover(false);
    for _ in 0..2 {
        test.lose(1, 50 * MSS);
        test.round(100_000, 40 * MSS);
    }
    assert_eq!(test.bbr.state, State::ProbeRtt);
    assert!(test.bbr.bounds.bw_shortterm < Bandwidth::new(RATE));
    while test.bbr.state == State::ProbeRtt {
        test.round(100_000, 40 * MSS);
    }
    assert_eq!(test.bbr.bounds.bw_shortterm, Bandwidth::INFINITE);
    assert!(test.bbr.cwnd() >= 200 * MSS, "{}", test.bbr.cwnd());
}

#[test]
fn probe_rtt_before_the_pipe_was_full_leads_back_to_startup() {
    let mut test = BbrTest::new();
    let mut rounds = 0;
    while test.bbr.state != State::ProbeRtt {
        test.now = test.now + RTT;
        let mut event = test.event(100_000, 0);
        event.rate.as_mut().unwrap().is_app_limited = true;
        test.bbr.on_acked(&event);
        rounds += 1;
        assert!(rounds < 60, "{:?}", test.bbr);
    }
    // More than the three rounds that fill a pipe, but what they deliver is as much as ProbeRTT lets out.
    while test.bbr.state == State::ProbeRtt {
        test.round(50_000, MSS);
    }
    assert_eq!(test.bbr.state, State::Startup);
    assert!(!test.bbr.has_filled_pipe);
}

#[test]
fn an_undo_leads_back_to_startup() {
    let mut test = BbrTest::new();
    test.round(200_000, 20 * MSS);
    test.recover(true);
    test.round(400_000, 40 * MSS);
    assert!(test.bbr.bounds.inflight_longterm < u64::MAX);
    test.bbr.on_undo(&Undo::new(test.now, 40 * MSS));
    assert_eq!(test.bbr.state, State::Startup);
    assert!(!test.bbr.has_filled_pipe);
    assert_eq!(test.bbr.bounds, Bounds::NONE);
}

#[test]
fn a_bound_is_seven_tenths_of_the_bdp_at_least_and_no_pause_of_the_application_sets_one() {
    for (is_app_limited, expected) in [(false, 70 * MSS), (true, u64::MAX)] {
        let mut test = BbrTest::in_probe_bw();
        test.until(State::ProbeUp);
        // One segment of 20.
        test.lost += MSS;
        let mut event = Lost::new(test.now, MSS, test.now - RTT);
        event.tx_in_flight = 20 * MSS;
        event.prior_lost = test.lost - MSS;
        event.total_lost = test.lost;
        event.is_app_limited = is_app_limited;
        test.bbr.on_lost(&event);
        assert_eq!(test.bbr.state, State::ProbeDown);
        assert_eq!(test.bbr.bounds.inflight_longterm, expected);
    }
}

#[test]
fn without_sack_one_loss_ends_startup_and_a_probe() {
    let mut test = BbrTest::new();
    test.bbr.has_sack = false;
    test.round(200_000, 20 * MSS);
    test.lose(1, 100 * MSS);
    test.recover(false);
    test.now = test.now + RTT;
    let mut event = test.event(400_000, 40 * MSS);
    event.in_recovery = true;
    test.bbr.on_acked(&event);
    assert!(test.bbr.has_filled_pipe);
    // What was delivered in the round trip is known to fit.
    assert_eq!(test.bbr.bounds.inflight_longterm, 40 * MSS);

    let mut test = BbrTest::in_probe_bw();
    test.bbr.has_sack = false;
    test.until(State::ProbeUp);
    test.lose(1, 125 * MSS);
    assert_eq!(test.bbr.state, State::ProbeDown);
}

#[test]
fn the_short_term_bound_limits_the_window() {
    let mut test = BbrTest::in_probe_bw();
    test.bbr.bounds.inflight_shortterm = 80 * MSS;
    test.round(RATE, 60 * MSS);
    assert_eq!(test.bbr.cwnd(), 80 * MSS);
}
