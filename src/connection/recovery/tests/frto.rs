//! F-RTO: RFC 5682. The RTO is 300 ms.

use super::*;

const FRTO: Setup = Setup {
    frto: true,
    ..NO_SACK
};
const FRTO_SACK: Setup = Setup {
    frto: true,
    timestamps: false,
    ..RACK
};
const UNDONE: Heard = Heard::Undone { was_timeout: true };

impl RecoveryTest {
    /// A timeout of six segments, of which the first goes out again and is acknowledged, by whatever copy:
    /// two new ones follow, and no retransmission.
    #[track_caller]
    fn expire_and_send_new(&mut self) {
        self.send(6);
        self.expire();
        self.expect_timeout(6, 6, 1);
        self.expect_retransmission(0);
        self.advance(50);
        self.ack(1);
        self.expect_no_retransmission();
        assert_eq!(self.recovery.new_data_wanted(), 2 * MSS);
        self.expect_allowance(2);
        self.send(2);
        self.expect_no_retransmission();
        self.expect_allowance(0);
    }
}

#[test]
fn a_timeout_is_spurious_if_the_second_ack_advances_too() {
    // RFC 5682 §2.1 and §3.1, step 3b.
    for setup in [FRTO, FRTO_SACK] {
        let mut test = RecoveryTest::new(setup);
        test.expire_and_send_new();
        test.advance(10);
        test.ack(2);
        test.expect_heard(&[UNDONE]);
        // As before, and slow start goes on.
        test.expect_window(11 * MSS, u64::MAX);
        test.expect_no_retransmission();
        test.expect_pipe(6);
        let counters = test.recovery.counters();
        assert_eq!((counters.undo_count, counters.frto_count), (1, 1));
        assert_eq!(counters.segments_retransmitted, 1);
    }
}

#[test]
fn a_sack_of_an_original_will_do() {
    // RFC 5682 §3.1, step 3b: 1 is lost, 2 was late.
    let mut test = RecoveryTest::new(FRTO_SACK);
    test.expire_and_send_new();
    test.sack(1, &[(2, 3)]);
    test.expect_heard(&[UNDONE]);
}

#[test]
fn a_timeout_is_real_if_what_was_sent_last_arrives_first() {
    // RFC 5682 §2.1 and §3.1, step 3a.
    let mut test = RecoveryTest::new(FRTO);
    test.expire_and_send_new();
    test.duplicates(1);
    assert_eq!(test.recovery.new_data_wanted(), 0);
    test.expect_retransmission(1);

    let mut test = RecoveryTest::new(FRTO_SACK);
    test.expire_and_send_new();
    test.sack(1, &[(6, 7)]);
    test.expect_retransmission(1);
    assert_eq!(test.recovery.counters().frto_count, 0);
    test.log.lock().unwrap().heard.clear();
}

#[test]
fn without_new_data_the_timeout_is_taken_for_real() {
    // RFC 5682 §2.1, step 2b.
    let mut test = RecoveryTest::new(FRTO);
    test.send(6);
    test.expire();
    test.expect_timeout(6, 6, 1);
    test.expect_retransmission(0);
    test.ack(1);
    test.expect_no_retransmission();
    test.recovery.on_no_new_data();
    test.expect_retransmission(1);
    test.expect_retransmission(2);
}

#[test]
fn the_first_ack_may_decide_that_it_was_real() {
    // RFC 5682 §2.1, step 2a, and with SACK §3.1, step 2: there, duplicates before it mean nothing.
    let mut test = RecoveryTest::new(FRTO);
    test.send(6);
    test.expire();
    test.expect_timeout(6, 6, 1);
    test.expect_retransmission(0);
    test.duplicates(1);
    test.ack(1);
    test.expect_retransmission(1);

    let mut test = RecoveryTest::new(FRTO_SACK);
    test.send(6);
    test.expire();
    test.expect_timeout(6, 6, 1);
    test.expect_retransmission(0);
    test.duplicates(1);
    test.ack(1);
    test.expect_no_retransmission();
    // All of it is acknowledged: step 2a.
    let mut test = RecoveryTest::new(FRTO_SACK);
    test.send(2);
    test.expire();
    test.expect_timeout(2, 2, 1);
    test.expect_retransmission(0);
    test.ack(2);
    assert_eq!(test.recovery.new_data_wanted(), 0);
}

#[test]
fn a_second_timeout_is_examined_only_if_nothing_was_acknowledged_since_the_first() {
    // Step 1.
    let mut test = RecoveryTest::new(FRTO);
    test.send(6);
    for (consecutive, lost) in [(1, 6), (2, 1)] {
        test.expire();
        test.expect_timeout(lost, 6, consecutive);
        test.expect_retransmission(0);
    }
    test.ack(1);
    test.expect_no_retransmission();
    test.send(2);
    // Of the new data and everything else nothing comes back.
    test.expire();
    test.expect_timeout(2, 7, 1);
    test.expect_retransmission(1);
    test.ack(2);
    test.expect_retransmission(2);
}

#[test]
fn a_timeout_right_behind_a_repaired_one_is_examined() {
    // Step 1: all that the first attempt covered is acknowledged, and nothing beyond it.
    for setup in [FRTO, FRTO_SACK] {
        let mut test = RecoveryTest::new(setup);
        test.send(2);
        test.expire();
        test.expect_timeout(2, 2, 1);
        test.expect_retransmission(0);
        test.ack(2);
        test.send(4);
        test.expire();
        test.expect_timeout(4, 4, 1);
        test.expect_retransmission(2);
        test.ack(3);
        test.expect_no_retransmission();
        assert_eq!(test.recovery.new_data_wanted(), 2 * MSS);
    }
}

#[test]
fn a_timeout_within_a_recovery_is_not_examined() {
    let mut test = RecoveryTest::new(FRTO);
    test.send(6);
    test.duplicates(3);
    test.expect_recovery(1, 6, 2);
    test.expect_retransmission(0);
    test.expire();
    test.expect_timeout(6, 6, 1);
    test.expect_retransmission(0);
    test.ack(1);
    test.expect_retransmission(1);
}

#[test]
fn after_a_spurious_timeout_the_next_one_is_examined_too() {
    let mut test = RecoveryTest::new(FRTO);
    test.send(4);
    for count in 1..=2 {
        test.expire();
        let una = test.recovery.snd_una().saturating_since(Offset::FIRST) / MSS;
        test.log.lock().unwrap().heard.clear();
        test.expect_retransmission(una);
        test.advance(50);
        test.ack(una + 1);
        test.send(2);
        test.ack(una + 2);
        // RFC 5682 §2.1, step 3b: the first was found out before what it covered was acknowledged.
        assert_eq!(test.recovery.counters().frto_count, count);
        test.log.lock().unwrap().heard.clear();
    }
    // And a loss among what it covered is worth a fast retransmit.
    test.duplicates(3);
    assert!(test.recovery.is_in_recovery());
    test.log.lock().unwrap().heard.clear();
}
