//! ACKs that arrive together: answered after the last one of them, they lead to what answering each by
//! itself would have led to.

use super::*;

const BATCH: Setup = Setup {
    prr: true,
    window: 20,
    ..RACK
};

/// The ACKs of a window of 20 segments of which one is lost, `before` after its beginning: up to which segment,
/// and what is SACKed.
fn acks(before: u64) -> Vec<(u64, Vec<(u64, u64)>)> {
    let whole = (1..=before).map(|segment| (segment, Vec::new()));
    let holed = (before + 2..=20).map(|end| (before, vec![(before + 1, end)]));
    whole.chain(holed).collect()
}

impl RecoveryTest {
    /// Takes the ACKs and answers each one or all of them; returns the flight size that was halved, and how
    /// many segments were sent.
    fn lose_one(&mut self, before: u64, answers_each: bool, waiting: u64) -> (u64, u64) {
        assert_eq!(self.send_allowed(), 20);
        self.advance(100);
        let mut left = waiting;
        for (segment, blocks) in acks(before) {
            self.recovery.note_waiting(self.now, left * MSS);
            self.sack(segment, &blocks);
            if answers_each {
                left -= self.answer(left);
            }
        }
        left -= self.answer(left);
        let heard = std::mem::take(&mut self.log.lock().unwrap().heard);
        let [Heard::Lost { .. }, Heard::Entered { flight_size, .. }] = heard[..] else {
            panic!("{heard:?}");
        };
        (flight_size / MSS, waiting - left)
    }

    /// Sends what is lost, then as many of `waiting` new segments as may go.
    fn answer(&mut self, waiting: u64) -> u64 {
        while let Some(range) = self.recovery.next_retransmission(MSS)
            && self.recovery.send_allowance(self.now) >= MSS
        {
            self.recovery.on_retransmitted(self.now, range);
        }
        let mut sent = 0;
        while sent < waiting && self.recovery.send_allowance(self.now) >= MSS {
            self.send(1);
            sent += 1;
        }
        sent
    }
}

#[test]
fn a_loss_amid_a_batch_halves_the_window_in_use() {
    for (prr, before) in [true, false]
        .into_iter()
        .flat_map(|prr| [0, 1, 10, 16].map(|n| (prr, n)))
    {
        let setup = Setup { prr, ..BATCH };
        let each = RecoveryTest::new(setup.clone()).lose_one(before, true, 1_000);
        let (flight_size, sent) = RecoveryTest::new(setup).lose_one(before, false, 1_000);
        // In slow start the ACKs before the loss have made the window larger.
        assert_eq!(flight_size, 20 + before, "loss after {before}");
        assert_eq!(flight_size, each.0, "loss after {before}");
        // Recovery spreads its answers over the ACKs or gives one: the sums differ by rounding.
        assert!(
            sent.abs_diff(each.1) <= 2,
            "loss after {before}, PRR {prr}: {sent} sent, {} one by one",
            each.1
        );
    }
}

#[test]
fn an_application_that_has_nothing_to_send_is_not_given_more() {
    // 10 of 20 are acknowledged; with 4 segments waiting, 14 would have been in flight.
    for (waiting, expected) in [(0, 10), (4, 14)] {
        for answers_each in [true, false] {
            let mut test = RecoveryTest::new(BATCH);
            let (flight_size, sent) = test.lose_one(10, answers_each, waiting);
            assert_eq!((flight_size, sent), (expected, waiting), "{answers_each}");
        }
    }
}

#[test]
fn a_later_batch_gets_nothing_of_it() {
    let mut test = RecoveryTest::new(BATCH);
    test.send(20);
    test.advance(100);
    test.recovery.note_waiting(test.now, 1_000 * MSS);
    test.ack(10);
    test.recovery.note_waiting(test.now, 1_000 * MSS);
    test.sack(10, &[(11, 15)]);
    test.expect_recovery(1, 30, 5);
    // 20 from before, and PRR's answer to the 4 that were delivered: 5 in flight and 20 unanswered are
    // more than the target of 15, so 4 · 15 / 30 may go.
    test.expect_allowance(22);
    test.advance(1);
    test.recovery.note_waiting(test.now, 1_000 * MSS);
    test.sack(10, &[(11, 16)]);
    // Nobody came to send them: back to 5 · 15 / 30 in the place of what was delivered.
    assert!(test.recovery.send_allowance(test.now) <= 6 * MSS);
}
