use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::Timestamp;
use crate::congestion::conformance::{ArbitraryEvent, MAX_MSS, Path};

const MSS: u64 = 1_000;
const NOW: Timestamp = Timestamp::from_millis(1);

/// A controller with an initial window of ten segments of 1,000 bytes.
fn new_reno() -> NewReno {
    NewReno::new(&ControllerParams::new(Timestamp::ZERO, MSS, 10 * MSS))
}

fn ack(controller: &mut NewReno, bytes: u64) {
    controller.on_acked(&Acked::new(NOW, bytes, 0));
    controller.check_invariants();
}

fn lose(controller: &mut NewReno, flight_size: u64) {
    controller.on_recovery_entered(&RecoveryEntered::new(NOW, flight_size, flight_size));
    controller.check_invariants();
}

fn exit(controller: &mut NewReno) {
    controller.on_recovery_exited(&RecoveryExited::new(NOW, 0));
}

fn time_out(controller: &mut NewReno, flight_size: u64, consecutive: u32) {
    controller.on_timeout(&TimedOut::new(NOW, flight_size, consecutive));
    controller.check_invariants();
}

/// In congestion avoidance with a window of ten segments.
fn in_congestion_avoidance() -> NewReno {
    let mut controller = new_reno();
    ack(&mut controller, 10 * MSS);
    lose(&mut controller, 20 * MSS);
    exit(&mut controller);
    assert_eq!((controller.cwnd(), controller.ssthresh()), (10_000, 10_000));
    controller
}

#[test]
fn slow_start_counts_every_acknowledged_byte() {
    let mut controller = new_reno();
    ack(&mut controller, 7 * MSS);
    assert_eq!(controller.cwnd(), 17_000);
    ack(&mut controller, 1);
    assert_eq!(controller.cwnd(), 17_001);
}

#[test]
fn slow_start_ends_exactly_at_ssthresh_and_the_rest_is_congestion_avoidance() {
    let mut controller = new_reno();
    time_out(&mut controller, 10 * MSS, 1);
    assert_eq!((controller.cwnd(), controller.ssthresh()), (1_000, 5_000));
    // 4,000 of 9,500 bytes reach ssthresh; 5,500 pay for one segment at 5,000 and leave 500.
    ack(&mut controller, 9_500);
    assert_eq!((controller.cwnd(), controller.credit), (6_000, 500));
}

#[test]
fn congestion_avoidance_adds_one_segment_per_window() {
    let mut controller = in_congestion_avoidance();
    for _ in 0..9 {
        ack(&mut controller, MSS);
    }
    assert_eq!(controller.cwnd(), 10_000, "9,000 of 10,000 bytes");
    ack(&mut controller, MSS);
    assert_eq!(controller.cwnd(), 11_000);
}

#[test]
fn tiny_acks_are_not_lost_to_integer_division() {
    let mut controller = in_congestion_avoidance();
    for _ in 0..10_000 {
        ack(&mut controller, 1);
    }
    assert_eq!(controller.cwnd(), 11_000);
}

#[test]
fn one_ack_never_buys_more_than_one_segment_of_congestion_avoidance() {
    let mut controller = in_congestion_avoidance();
    ack(&mut controller, u64::MAX);
    assert_eq!(controller.cwnd(), 11_000);
}

#[test]
fn a_loss_halves_the_flight_size() {
    let cases = [
        ("even", 10, 10_000, 5_000),
        ("limited transmit does not count", 10, 12_000, 5_000),
        ("flight below cwnd", 10, 8_000, 4_000),
        ("two segments at least", 10, 3_000, 2_000),
        ("nothing in flight", 10, 0, 2_000),
        ("small window", 2, 2_000, 2_000),
    ];
    for (name, segments, flight_size, expected) in cases {
        let params = ControllerParams::new(Timestamp::ZERO, MSS, segments * MSS);
        let mut controller = NewReno::new(&params);
        lose(&mut controller, flight_size);
        assert_eq!(
            (controller.cwnd(), controller.ssthresh()),
            (expected, expected),
            "{name}"
        );
    }
}

#[test]
fn an_ecn_echo_in_congestion_avoidance_takes_a_fifth() {
    let mut event = RecoveryEntered::new(NOW, 10 * MSS, 10 * MSS);
    event.by_ecn = true;
    let mut controller = in_congestion_avoidance();
    controller.on_recovery_entered(&event);
    assert_eq!(controller.cwnd(), 8_000);
    let mut controller = new_reno();
    controller.on_recovery_entered(&event);
    assert_eq!(controller.cwnd(), 5_000, "in slow start a half");
}

#[test]
fn ecn_echoes_take_the_window_down_to_one_segment() {
    let mut controller = new_reno();
    for (flight_size, expected) in [(10_000, 5_000), (2_000, 1_600), (1_600, MSS), (MSS, MSS)] {
        let mut event = RecoveryEntered::new(NOW, flight_size, flight_size);
        event.by_ecn = true;
        controller.on_recovery_entered(&event);
        exit(&mut controller);
        controller.check_invariants();
        let window = (controller.cwnd(), controller.ssthresh());
        assert_eq!(window, (expected, expected.max(2 * MSS)), "{flight_size}");
    }
}

#[test]
fn an_episode_reduces_once_and_does_not_grow() {
    let mut controller = new_reno();
    lose(&mut controller, 10 * MSS);
    lose(&mut controller, 10 * MSS);
    let mut partial = Acked::new(NOW, 3 * MSS, 0);
    partial.in_recovery = true;
    controller.on_acked(&partial);
    assert_eq!((controller.cwnd(), controller.credit), (5_000, 0));
    // The ACK that ends the episode comes before its end is told: one segment leaves the network with it,
    // the others had arrived before.
    let mut last = Acked::new(NOW, 7 * MSS, 0);
    last.delivered = MSS;
    controller.on_acked(&last);
    assert_eq!((controller.cwnd(), controller.credit), (5_000, 1_000));
    exit(&mut controller);
    lose(&mut controller, 5 * MSS);
    assert_eq!(controller.cwnd(), 2_500, "the next episode reduces again");
}

#[test]
fn a_window_grows_by_a_segment_per_round_trip_though_it_holds_a_fraction_of_one() {
    let mut controller = new_reno();
    lose(&mut controller, 7 * MSS);
    exit(&mut controller);
    assert_eq!(controller.cwnd(), 3_500);
    // Three segments are what goes out of it in a round trip.
    for _ in 0..3 {
        ack(&mut controller, MSS);
    }
    assert_eq!((controller.cwnd(), controller.credit), (4_500, 0));
    for _ in 0..4 {
        ack(&mut controller, MSS);
    }
    assert_eq!((controller.cwnd(), controller.credit), (5_500, 0));
}

#[test]
fn only_the_first_timeout_in_a_row_sets_ssthresh() {
    let mut controller = new_reno();
    ack(&mut controller, 10 * MSS);
    time_out(&mut controller, 20 * MSS, 1);
    assert_eq!((controller.cwnd(), controller.ssthresh()), (1_000, 10_000));
    time_out(&mut controller, 2 * MSS, 2);
    assert_eq!((controller.cwnd(), controller.ssthresh()), (1_000, 10_000));
}

#[test]
fn a_timeout_within_recovery_does_not_raise_ssthresh() {
    let mut controller = new_reno();
    lose(&mut controller, 10 * MSS);
    time_out(&mut controller, 14 * MSS, 1);
    assert_eq!((controller.cwnd(), controller.ssthresh()), (1_000, 5_000));
    ack(&mut controller, MSS);
    assert_eq!(controller.cwnd(), 2_000, "the timeout ended the episode");
}

#[test]
fn after_a_timeout_data_that_had_arrived_before_does_not_open_the_window() {
    let mut controller = new_reno();
    time_out(&mut controller, 100 * MSS, 1);
    // The retransmission fills a hole below 40 segments that had been SACKed.
    let mut event = Acked::new(NOW, 41 * MSS, 0);
    event.delivered = MSS;
    controller.on_acked(&event);
    assert_eq!(controller.cwnd(), 2_000);
    // Past ssthresh of 50 segments, the limit is gone.
    ack(&mut controller, 48 * MSS);
    assert_eq!(controller.cwnd(), 50_000);
    assert!(!controller.is_repairing);
}

#[test]
fn undo_restores_the_window_from_before_the_reduction() {
    let mut controller = in_congestion_avoidance();
    ack(&mut controller, 10 * MSS);
    lose(&mut controller, 11 * MSS);
    controller.on_undo(&Undo::new(NOW, 0));
    assert_eq!((controller.cwnd(), controller.ssthresh()), (11_000, 10_000));
    // A second undo has nothing to take back.
    time_out(&mut controller, 11 * MSS, 1);
    time_out(&mut controller, 11 * MSS, 2);
    controller.on_undo(&Undo::new(NOW, 0));
    controller.on_undo(&Undo::new(NOW, 0));
    assert_eq!((controller.cwnd(), controller.ssthresh()), (11_000, 10_000));
    ack(&mut controller, 11 * MSS);
    assert_eq!(controller.cwnd(), 12_000, "and growth goes on");
}

#[test]
fn idleness_restarts_from_the_initial_window() {
    let restart = IdleRestart::new(NOW, Duration::from_secs(9), Duration::from_secs(1));
    let mut controller = new_reno();
    ack(&mut controller, 30 * MSS);
    controller.on_idle_restart(&restart);
    assert_eq!(
        (controller.cwnd(), controller.ssthresh()),
        (10_000, u64::MAX)
    );
    lose(&mut controller, 10 * MSS);
    exit(&mut controller);
    controller.on_idle_restart(&restart);
    assert_eq!(controller.cwnd(), 5_000, "never raised");
}

#[test]
fn the_window_does_not_grow_while_the_application_is_the_limit() {
    for mut controller in [new_reno(), in_congestion_avoidance()] {
        let mut event = Acked::new(NOW, 10 * MSS, 0);
        event.is_cwnd_limited = false;
        for _ in 0..5 {
            controller.on_acked(&event);
        }
        assert_eq!((controller.cwnd(), controller.credit), (10_000, 0));
    }
}

#[test]
fn a_new_mss_moves_the_floor_and_keeps_the_bytes() {
    let mut controller = in_congestion_avoidance();
    controller.on_mss_changed(1_400);
    assert_eq!(controller.cwnd(), 10_000);
    controller.on_mss_changed(9_000);
    assert_eq!((controller.cwnd(), controller.ssthresh()), (18_000, 18_000));
    time_out(&mut controller, 18_000, 1);
    controller.on_mss_changed(1_000);
    assert_eq!(controller.cwnd(), 1_000, "a loss window stays one segment");
    controller.check_invariants();
}

/// What happens at the end of a round of the recorded curve.
enum Then {
    Ack,
    Lose,
    TimeOut,
    Idle,
}

#[test]
fn the_recorded_window_per_round() {
    use Then::{Ack, Idle, Lose, TimeOut};
    // Segments in each round's window, and what happens to that round.
    let curve = [
        (10, Ack),
        (20, Ack),
        (40, Ack),
        // Slow start ends with the first loss: 80 / 2.
        (80, Lose),
        (40, Ack),
        (41, Ack),
        (42, Ack),
        (43, Lose),
        // 43,000 / 2 = 21,500 bytes.
        (21, Ack),
        (22, TimeOut),
        // ssthresh is 22,500 / 2 = 11,250.
        (1, Ack),
        (2, Ack),
        (4, Ack),
        (8, Ack),
        // 3,250 of 8,000 bytes reach 11,250, where 4,750 are less than a window.
        (11, Ack),
        // 4,750 + 11,250 pay for one segment and leave 4,750.
        (12, Ack),
        (13, Idle),
        (10, Ack),
        // Below ssthresh again: slow start up to 11,250, the rest is credit.
        (11, Ack),
        (12, Ack),
    ];
    let params = ControllerParams::new(Timestamp::ZERO, MSS, 10 * MSS);
    let mut path = Path::new(Box::new(NewReno::new(&params)), &params, 2);
    for (round, (segments, then)) in curve.into_iter().enumerate() {
        assert_eq!(path.cwnd() / MSS, segments, "round {round}");
        match then {
            Ack => path.rounds(1),
            Lose => {
                path.enter_recovery(1);
                path.exit_recovery();
            }
            TimeOut => path.time_out(1),
            Idle => path.idle(),
        }
    }
}

proptest! {
    #[test]
    fn no_order_of_events_breaks_an_invariant(
        mss in prop_oneof![1..10_000_u64, 1..=MAX_MSS],
        initial_window: u64,
        events in prop::collection::vec((any::<u8>(), any::<u8>(), magnitude(), magnitude()), 0..200),
    ) {
        let params = ControllerParams::new(Timestamp::ZERO, mss, initial_window);
        let mut path = Path::new(Box::new(Checked(NewReno::new(&params))), &params, 2);
        prop_assert!(path.is_above_floor());
        for (kind, flags, a, b) in events {
            path.arbitrary(&ArbitraryEvent { kind, flags, a, b });
            prop_assert!(path.is_above_floor(), "cwnd {}", path.cwnd());
        }
    }
}

/// A number of any size: every number of significant bits is equally likely.
fn magnitude() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(value, shift)| value >> shift)
}

/// A `NewReno` whose invariants are checked after every event.
#[derive(Debug)]
struct Checked(NewReno);

impl CongestionController for Checked {
    fn on_acked(&mut self, event: &Acked) {
        self.0.on_acked(event);
        self.0.check_invariants();
    }
    fn on_recovery_entered(&mut self, event: &RecoveryEntered) {
        self.0.on_recovery_entered(event);
        self.0.check_invariants();
    }
    fn on_timeout(&mut self, event: &TimedOut) {
        self.0.on_timeout(event);
        self.0.check_invariants();
    }
    fn on_recovery_exited(&mut self, event: &RecoveryExited) {
        self.0.on_recovery_exited(event);
        self.0.check_invariants();
    }
    fn on_undo(&mut self, event: &Undo) {
        self.0.on_undo(event);
        self.0.check_invariants();
    }
    fn on_idle_restart(&mut self, event: &IdleRestart) {
        self.0.on_idle_restart(event);
        self.0.check_invariants();
    }
    fn on_mss_changed(&mut self, mss: u64) {
        self.0.on_mss_changed(mss);
        self.0.check_invariants();
    }
    fn cwnd(&self) -> u64 {
        self.0.cwnd()
    }
    fn ssthresh(&self) -> u64 {
        self.0.ssthresh()
    }
}

#[test]
fn where_departures_are_not_paced_an_undo_causes_no_burst() {
    // RFC 4015 §3.1, step 9: FlightSize + IW, and slow start up to what was.
    for (is_paced, in_flight, expected) in [
        (true, 20_000, (80_000, u64::MAX)),
        (false, 20_000, (30_000, u64::MAX)),
        (false, 75_000, (80_000, u64::MAX)),
    ] {
        let mut params = ControllerParams::new(Timestamp::ZERO, MSS, 10 * MSS);
        params.is_paced = is_paced;
        let mut controller = NewReno::new(&params);
        ack(&mut controller, 70 * MSS);
        time_out(&mut controller, 80 * MSS, 1);
        controller.on_undo(&Undo::new(NOW, in_flight));
        controller.check_invariants();
        assert_eq!((controller.cwnd(), controller.ssthresh()), expected);
    }
    let mut params = ControllerParams::new(Timestamp::ZERO, MSS, 10 * MSS);
    params.is_paced = false;
    let mut controller = NewReno::new(&params);
    ack(&mut controller, 70 * MSS);
    lose(&mut controller, 80 * MSS);
    exit(&mut controller);
    time_out(&mut controller, 40 * MSS, 1);
    controller.on_undo(&Undo::new(NOW, 0));
    assert_eq!((controller.cwnd(), controller.ssthresh()), (10_000, 40_000));
}
