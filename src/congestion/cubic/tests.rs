use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::congestion::conformance::{ArbitraryEvent, MAX_MSS, Path};
use crate::congestion::{CongestionControl, RateSample, RttSnapshot, conformance};

const MSS: u64 = 1_000;
const RTT: Duration = Duration::from_millis(100);

/// A controller whose window stands at `segments` of 1,000 bytes, on a path of 100 ms.
struct CubicTest {
    cubic: Cubic,
    now: Timestamp,
}

impl CubicTest {
    fn new(segments: u64) -> Self {
        let params = ControllerParams::new(Timestamp::ZERO, MSS, segments * MSS);
        Self {
            cubic: Cubic::new(&params),
            now: Timestamp::ZERO,
        }
    }

    fn cwnd(&self) -> u64 {
        self.cubic.cwnd()
    }

    fn ack(&mut self, bytes: u64) {
        let mut event = Acked::new(self.now, bytes, 0);
        event.rtt = RttSnapshot::new(None, RTT, RTT);
        self.cubic.on_acked(&event);
        self.cubic.check_invariants();
    }

    /// Lets a round trip pass in which a whole window is acknowledged, segment by segment.
    fn round(&mut self) {
        let segments = self.cwnd() / MSS;
        for _ in 0..segments {
            self.now = self.now + RTT / u32::try_from(segments).unwrap();
            self.ack(MSS);
        }
    }

    fn lose(&mut self) {
        let flight_size = self.cwnd();
        self.cubic
            .on_recovery_entered(&RecoveryEntered::new(self.now, flight_size, flight_size));
        self.cubic
            .on_recovery_exited(&RecoveryExited::new(self.now, 0));
        self.cubic.check_invariants();
    }
}

#[test]
fn a_loss_takes_three_tenths_and_the_curve_returns_to_the_peak_after_k() {
    // RFC 9438 §4.2: K = cbrt((1000 - 700) / 0.4) = cbrt(750) = 9.0856 s.
    let mut test = CubicTest::new(1_000);
    test.lose();
    assert_eq!((test.cwnd(), test.cubic.ssthresh()), (700 * MSS, 700 * MSS));
    test.ack(MSS);
    let began = test.now;
    let mut seconds = Vec::new();
    for second in 1..=12_u64 {
        while test.now < began + Duration::from_secs(second) {
            test.round();
        }
        seconds.push(test.cwnd() / MSS);
    }
    // 0.4 · (t - 9.0856)^3 + 1000 at t = 1 s to 12 s.
    let curve = [
        788, 857, 909, 947, 972, 988, 996, 999, 1_000, 1_000, 1_002, 1_009,
    ];
    for (second, (&got, expected)) in (1..).zip(seconds.iter().zip(curve)) {
        // A round trip ahead at most, and a segment for rounding.
        assert!(
            (expected - 2..=expected + 11).contains(&got),
            "{got} segments after {second} s instead of {expected}"
        );
    }
}

#[test]
fn where_reno_would_be_faster_it_is_followed() {
    // With 10 segments and 100 ms the cubic curve takes cbrt(3 / 0.4) = 1.96 s back to 10.
    let mut test = CubicTest::new(10);
    test.lose();
    assert_eq!(test.cwnd(), 7 * MSS);
    for _ in 0..6 {
        test.round();
    }
    // W_est grows by 0.529 a round: 7 + 6 · 0.529 = 10.2; the curve is at 0.4 · (0.6 - 1.96)^3 + 10 = 9.0.
    assert!(
        (9 * MSS..=11 * MSS).contains(&test.cwnd()),
        "{}",
        test.cwnd()
    );
    let at_peak = test.cwnd();
    for _ in 0..4 {
        test.round();
    }
    // RFC 9438 §4.3: from there by a whole segment a round.
    assert!(test.cwnd() >= at_peak + 3 * MSS, "{}", test.cwnd());
}

#[test]
fn the_reno_friendly_window_is_the_estimate_and_not_more() {
    // From 7 segments and from 6.3, of which 6 can be sent.
    for segments in [10, 9] {
        let mut test = CubicTest::new(segments);
        test.lose();
        for _ in 0..200 {
            test.now = test.now + RTT / 8;
            test.ack(MSS);
            let epoch = test.cubic.window.epoch.unwrap();
            if epoch.w_cubic(test.now.saturating_since(epoch.start)) < epoch.w_est {
                // RFC 9438 §4.3, in whole segments; bytes are rounded down.
                let lag = epoch.w_est - real(test.cwnd() / MSS);
                assert!(lag.abs() < 0.51, "{lag} behind {epoch:?}");
            }
        }
    }
}

#[test]
fn a_peak_that_was_not_reached_again_makes_room() {
    let mut test = CubicTest::new(1_000);
    test.lose();
    assert!((test.cubic.window.w_max - 1_000.0).abs() < 1e-9);
    test.round();
    let cwnd = real(test.cwnd()) + test.cubic.window.credit;
    test.lose();
    // RFC 9438 §4.7: (1 + 0.7) / 2
    let expected = cwnd / real(MSS) * 0.85;
    assert!((test.cubic.window.w_max - expected).abs() < 1e-9);
}

#[test]
fn a_peak_missed_by_less_than_a_segment_was_reached() {
    for (missing, expected) in [(0.5, 999.5), (1.5, 998.5 * 0.85)] {
        let mut test = CubicTest::new(1_000);
        test.lose();
        test.round();
        test.cubic.window.cwnd = 998 * MSS;
        test.cubic.window.credit = (2.0 - missing) * real(MSS);
        test.lose();
        let w_max = test.cubic.window.w_max;
        assert!((w_max - expected).abs() < 1e-9, "{missing}: {w_max}");
    }
}

#[test]
fn after_a_timeout_the_curve_starts_at_the_end_of_slow_start() {
    let mut test = CubicTest::new(100);
    test.cubic
        .on_timeout(&TimedOut::new(test.now, 100 * MSS, 1));
    assert_eq!((test.cwnd(), test.cubic.ssthresh()), (MSS, 70 * MSS));
    while test.cwnd() < 70 * MSS {
        test.round();
    }
    test.ack(MSS);
    let epoch = test.cubic.window.epoch.unwrap();
    // RFC 9438 §4.8
    assert!(
        epoch.k.abs() < 1e-9 && (epoch.w_max - 70.0).abs() < 1.0,
        "{epoch:?}"
    );
}

#[test]
fn the_curve_waits_while_the_application_is_the_limit() {
    let (mut busy, mut pausing) = (CubicTest::new(1_000), CubicTest::new(1_000));
    for test in [&mut busy, &mut pausing] {
        test.lose();
        test.round();
    }
    let mut idle = Acked::new(pausing.now, MSS, 0);
    idle.is_cwnd_limited = false;
    pausing.cubic.on_acked(&idle);
    pausing.now = pausing.now + Duration::from_secs(20);
    for test in [&mut busy, &mut pausing] {
        test.round();
    }
    let (busy, pausing) = (busy.cwnd(), pausing.cwnd());
    assert!(pausing.abs_diff(busy) <= 2 * MSS, "{pausing} and {busy}");
}

#[test]
fn the_curve_waits_while_nothing_is_in_flight() {
    let (mut busy, mut pausing) = (CubicTest::new(1_000), CubicTest::new(1_000));
    for test in [&mut busy, &mut pausing] {
        test.lose();
        test.round();
    }
    // Everything is acknowledged, of a window that was full; what follows fills it again.
    pausing.now = pausing.now + Duration::from_secs(20);
    let sent = Sent::new(pausing.now, MSS, MSS);
    pausing.cubic.on_sent(&sent);
    for test in [&mut busy, &mut pausing] {
        test.round();
    }
    assert_eq!(pausing.cwnd(), busy.cwnd());
}

#[test]
fn the_end_of_the_first_slow_start_is_the_prior_window() {
    let mut test = CubicTest::new(100);
    test.cubic.window.hystart = Some(Box::new(HyStart::ending()));
    let mut event = Acked::new(test.now, MSS, MSS);
    event.rate = Some(RateSample::new(MSS, RTT));
    test.cubic.on_acked(&event);
    // RFC 9438 §4.10: cwnd_prior = cwnd, K = 0 and W_max = cwnd.
    let window = test.cubic.window;
    assert_eq!((window.cwnd, window.ssthresh), (100 * MSS, 100 * MSS));
    assert!((window.cwnd_prior - 100.0).abs() < 1e-9);
    let epoch = window.epoch.unwrap();
    assert!(epoch.k.abs() < 1e-9 && (epoch.w_max - 100.0).abs() < 1e-9);
}

#[test]
fn an_undo_leaves_a_window_that_has_outgrown_it() {
    let mut test = CubicTest::new(10);
    test.lose();
    for _ in 0..40 {
        test.round();
    }
    let before = test.cubic.window.clone();
    assert!(before.cwnd > 10 * MSS);
    test.cubic.on_undo(&Undo::new(test.now, 0));
    // RFC 9438 §4.9.2
    let after = test.cubic.window.clone();
    assert_eq!((after.cwnd, after.ssthresh), (before.cwnd, before.ssthresh));
    assert_eq!(
        after.epoch.map(|epoch| epoch.start),
        before.epoch.map(|epoch| epoch.start)
    );
}

#[test]
fn an_undo_restores_the_curve() {
    let mut test = CubicTest::new(1_000);
    test.lose();
    test.round();
    let before = test.cubic.window.clone();
    test.lose();
    test.cubic.on_undo(&Undo::new(test.now, 0));
    let after = test.cubic.window.clone();
    assert_eq!((after.cwnd, after.ssthresh), (before.cwnd, before.ssthresh));
    let (before, after) = (before.epoch.unwrap(), after.epoch.unwrap());
    assert_eq!((before.start, before.k), (after.start, after.k));
}

#[test]
fn a_segment_size_that_changes_between_two_timeouts_leaves_them_to_be_undone() {
    let mut test = CubicTest::new(100);
    test.lose();
    let before = test.cubic.window.clone();
    for consecutive in 1..=2 {
        let timeout = TimedOut::new(test.now, before.cwnd, consecutive);
        test.cubic.on_timeout(&timeout);
    }
    test.cubic.on_mss_changed(MSS / 2);
    assert_eq!(test.cwnd(), MSS / 2);
    test.cubic.on_undo(&Undo::new(test.now, 0));
    test.cubic.check_invariants();
    let after = &test.cubic.window;
    assert_eq!((after.cwnd, after.ssthresh), (before.cwnd, before.ssthresh));
    assert!((after.w_max - 2.0 * before.w_max).abs() < 1e-9);
}

#[test]
fn an_ecn_echo_takes_fifteen_percent() {
    let mut test = CubicTest::new(100);
    test.lose();
    let mut echo = RecoveryEntered::new(test.now, 70 * MSS, 70 * MSS);
    echo.by_ecn = true;
    test.cubic.on_recovery_entered(&echo);
    assert_eq!(test.cwnd(), 59_500);
}

#[test]
fn ecn_echoes_take_the_window_down_to_one_segment() {
    let mut test = CubicTest::new(4);
    // In congestion avoidance 0.85 of it remain, below the threshold 0.7.
    for expected in [2_800, 2_380, 2_023, 1_719, 1_203, MSS, MSS] {
        let cwnd = test.cwnd();
        let mut echo = RecoveryEntered::new(test.now, cwnd, cwnd);
        echo.by_ecn = true;
        test.cubic.on_recovery_entered(&echo);
        test.cubic
            .on_recovery_exited(&RecoveryExited::new(test.now, 0));
        test.cubic.check_invariants();
        // RFC 9438 §4.6: the threshold is two segments at least, below which it is slow start.
        assert_eq!(test.cwnd(), expected);
        assert_eq!(test.cubic.ssthresh(), expected.max(2 * MSS));
    }
}

#[test]
fn where_departures_are_not_paced_an_undo_causes_no_burst() {
    let mut test = CubicTest::new(10);
    test.cubic.is_paced = false;
    for _ in 0..3 {
        test.round();
    }
    test.lose();
    test.ack(MSS);
    let before = test.cubic.window.clone();
    assert_eq!(before.cwnd, 56 * MSS);
    test.cubic
        .on_timeout(&TimedOut::new(test.now, before.cwnd, 1));
    test.cubic.on_undo(&Undo::new(test.now, 20 * MSS));
    test.cubic.check_invariants();
    // RFC 4015 §3.1, step 9; the curve goes on where slow start reaches what was.
    assert_eq!((test.cwnd(), test.cubic.ssthresh()), (30 * MSS, 56 * MSS));
    assert_eq!(
        test.cubic.window.epoch.unwrap().start,
        before.epoch.unwrap().start
    );
}

#[test]
fn it_conforms() {
    assert_eq!(conformance::check(&CongestionControl::Cubic), Ok(()));
}

proptest! {
    #[test]
    fn no_order_of_events_breaks_an_invariant(
        mss in prop_oneof![1..10_000_u64, 1..=MAX_MSS],
        initial_window: u64,
        events in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u64>(), any::<u64>(), 0..64_u32), 0..200),
    ) {
        let params = ControllerParams::new(Timestamp::ZERO, mss, initial_window);
        let mut path = Path::new(Box::new(Cubic::new(&params)), &params, 2);
        prop_assert!(path.is_above_floor());
        for (kind, flags, a, b, shift) in events {
            path.arbitrary(&ArbitraryEvent { kind, flags, a: a >> shift, b: b >> (63 - shift) });
            prop_assert!(path.is_above_floor(), "cwnd {}", path.cwnd());
        }
    }
}

#[test]
fn what_an_unused_window_overran_the_path_by_comes_off_it_after_recovery() {
    let mut test = CubicTest::new(100);
    test.lose();
    assert_eq!(test.cwnd(), 70 * MSS);
    let mut event = RecoveryExited::new(test.now, 0);
    // 0.7 of 20 segments.
    event.excess = 20 * MSS;
    test.cubic
        .on_recovery_entered(&RecoveryEntered::new(test.now, 70 * MSS, 0));
    let before = test.cwnd();
    test.cubic.on_recovery_exited(&event);
    assert_eq!(test.cwnd(), before - 14 * MSS);
    assert_eq!(test.cubic.ssthresh(), test.cwnd());
    // Never below two segments.
    event.excess = u64::MAX;
    test.cubic.on_recovery_exited(&event);
    assert_eq!(test.cwnd(), 2 * MSS);
}

#[test]
fn an_unused_window_is_halved_to_the_initial_one_and_remembers_three_quarters() {
    let mut test = CubicTest::new(10);
    test.cubic.window.cwnd = 80 * MSS;
    test.cubic.window.ssthresh = 20 * MSS;
    for (cwnd, ssthresh) in [(40, 60), (20, 60), (10, 60), (10, 60)] {
        test.cubic.on_window_unused(&WindowUnused::new(test.now));
        assert_eq!(
            (test.cwnd(), test.cubic.ssthresh()),
            (cwnd * MSS, ssthresh * MSS)
        );
    }
}

#[test]
fn after_a_timeout_what_had_arrived_before_opens_no_window() {
    let mut test = CubicTest::new(100);
    test.cubic
        .on_timeout(&TimedOut::new(test.now, 100 * MSS, 1));
    // The hole is filled: 40 segments are acknowledged, of which one was delivered now.
    let mut event = Acked::new(test.now, 40 * MSS, 0);
    event.delivered = MSS;
    test.cubic.on_acked(&event);
    assert_eq!(test.cwnd(), 2 * MSS);
}
