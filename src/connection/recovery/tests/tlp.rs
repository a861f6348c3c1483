//! Tail loss probes: RFC 8985 §7. SRTT is 100 ms, so the probe of several segments is due after 200 ms,
//! and the RTO after 300.

use super::*;

#[test]
fn a_silent_tail_is_probed_and_its_loss_found_by_the_answer() {
    // RFC 8985 §7: the last three of a flight are lost.
    let mut test = RecoveryTest::new(TLP);
    test.send(5);
    test.advance(100);
    test.ack(2);
    // 2 · 100 after the last transmission.
    test.expire_probe(200);
    test.probe();
    assert_eq!(test.recovery.counters().tlp_count, 1);
    // The probe arrives: 2 and 3 were sent long before it.
    test.advance(100);
    test.sack(2, &[(4, 5)]);
    // RFC 8985 §6.2: no reordering seen, one SACKed segment: 25 ms of patience since 0 + RTT.
    test.expect_recovery(2, 3, 0);
    test.expect_retransmission(2);
    test.advance(100);
    test.ack(5);
    test.expect_exit();
    assert_eq!(test.recovery.counters().rto_count, 0);
}

#[test]
fn a_single_segment_waits_for_the_peers_delayed_ack_but_not_beyond_the_timeout() {
    // Announced delay of an ACK, deadline of the probe timer.
    for (delay, deadline) in [(Some(25), 225), (None, 300)] {
        let mut test = RecoveryTest::new(TLP);
        test.recovery.tlp = Some(Tlp::new(delay.map(ms)));
        test.send(1);
        let expected = (Timestamp::from_millis(deadline), RecoveryTimer::Probe);
        assert_eq!(test.recovery.timer(), Some(expected));
    }
}

#[test]
fn there_is_one_probe_per_tail_and_then_a_timeout() {
    let mut test = RecoveryTest::new(TLP);
    test.send(3);
    test.expire_probe(200);
    // RFC 8985 §7.3: the retransmission timer starts anew.
    assert_eq!(test.deadline(), Some(500));
    test.probe();
    let timeout = (Timestamp::from_millis(500), RecoveryTimer::Timeout);
    assert_eq!(test.recovery.timer(), Some(timeout));
    test.expire();
    test.expect_timeout(3, 3, 1);
    test.expect_retransmission(0);
    // Not after a timeout either.
    assert_eq!(test.recovery.timer().unwrap().1, RecoveryTimer::Timeout);
    assert_eq!(test.recovery.consecutive_timeouts(), 1);
}

#[test]
fn new_data_serves_as_a_probe() {
    let mut test = RecoveryTest::new(TLP);
    test.send(2);
    test.expire_probe(200);
    test.send(1);
    assert!(!test.recovery.is_probe_due());
    assert_eq!(test.recovery.counters().tlp_count, 1);
    test.advance(100);
    test.sack(0, &[(2, 3)]);
    test.expect_recovery(2, 3, 0);
    test.expect_retransmission(0);
    test.ack(3);
    test.expect_exit();
}

#[test]
fn a_loss_that_the_probe_repaired_is_answered_once() {
    // RFC 8985 §7.4.2, case 3.
    let mut test = RecoveryTest::new(TLP);
    test.send(10);
    test.advance(100);
    test.ack(9);
    test.expire_probe(350);
    test.probe();
    test.advance(100);
    test.ack(10);
    // Not known yet: a DSACK may follow.
    test.expect_heard(&[]);
    test.send(4);
    test.advance(100);
    test.ack(11);
    test.expect_heard(&[
        Heard::Entered {
            flight_size: MSS,
            in_flight: 3 * MSS,
        },
        Heard::Exited,
    ]);
    assert_eq!(test.recovery.counters().tlp_repair_count, 1);
    test.ack(14);
}

#[test]
fn a_probe_in_vain_costs_nothing() {
    // RFC 8985 §7.4.2, cases 2 and 4: by DSACK, and by a duplicate ACK without SACK.
    for has_dsack in [true, false] {
        let mut test = RecoveryTest::new(TLP);
        test.send(3);
        test.expire_probe(200);
        test.probe();
        test.ack(3);
        if has_dsack {
            test.sack(3, &[(2, 3)]);
            test.send(1);
        } else {
            test.send(1);
            test.ack(3);
        }
        test.advance(100);
        test.ack(4);
        test.expect_heard(&[]);
        assert_eq!(test.recovery.counters().tlp_repair_count, 0);
    }
}

#[test]
fn a_new_transmission_or_progress_starts_the_timer_anew_and_sack_stops_it() {
    let mut test = RecoveryTest::new(TLP);
    let deadline = |test: &RecoveryTest| {
        let (deadline, timer) = test.recovery.timer().unwrap();
        (deadline.as_millis(), timer)
    };
    test.send(2);
    assert_eq!(deadline(&test), (200, RecoveryTimer::Probe));
    test.advance(50);
    test.send(3);
    assert_eq!(deadline(&test), (250, RecoveryTimer::Probe));
    test.advance(60);
    // 110 + 100, but not before 50 + 200. SRTT is 101.25.
    test.ack(2);
    assert_eq!(deadline(&test), (252, RecoveryTimer::Probe));
    test.sack(2, &[(3, 4)]);
    // RFC 8985 §7.2: no probe while something is SACKed. 2 was sent at 50, RTT 60.
    assert_eq!(deadline(&test).1, RecoveryTimer::Reordering);
    test.ack(5);
    assert_eq!(test.recovery.timer(), None);
}
