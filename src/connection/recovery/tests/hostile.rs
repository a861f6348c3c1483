//! Peers that lie, and streams of events that make no sense.

use proptest::prelude::*;

use super::*;

#[test]
fn an_ack_of_what_was_never_sent_changes_nothing() {
    let mut test = RecoveryTest::new(SACK);
    test.send(3);
    assert_eq!(test.sack(4, &[(1, 2)]), AckOutcome::default());
    test.expect_pipe(3);
}

#[test]
fn an_old_ack_changes_nothing() {
    let mut test = RecoveryTest::new(SACK);
    test.send(3);
    test.ack(2);
    let before = test.deadline();
    test.advance(10);
    assert_eq!(test.ack(1), AckOutcome::default());
    // A block below the cumulative ACK reports a duplicate (RFC 2883), nothing new.
    assert_eq!(test.sack(2, &[(0, 1)]), AckOutcome::default());
    assert_eq!(
        (test.recovery.flight_size(), test.deadline()),
        (MSS, before)
    );
}

#[test]
fn everything_sacked_and_nothing_acknowledged_ends_in_a_timeout() {
    let mut test = RecoveryTest::new(SACK);
    test.send(5);
    test.sack(0, &[(0, 5)]);
    test.expect_pipe(0);
    test.expect_no_retransmission();
    test.expire();
    test.expect_timeout(5, 5, 1);
    test.expect_retransmission(0);
}

#[derive(Debug, Clone)]
enum Step {
    Send(u64),
    Retransmit(u64),
    Speculate(u64),
    Ack {
        ahead: u64,
        blocks: Vec<(u64, u64)>,
        is_duplicate: bool,
        rtt: Option<u64>,
    },
    Expire,
    ExpireReordering,
    ExpireProbe,
    Advance(u64),
    SetMss(u64),
    AppLimited,
    Idle,
}

fn step() -> impl Strategy<Value = Step> {
    let blocks = prop::collection::vec((0_u64..20_000, 0_u64..6_000), 0..4);
    let ahead = prop_oneof![3 => Just(0), 2 => 0_u64..8_000, 1 => 0_u64..40_000];
    let rtt = prop::option::of(prop_oneof![0_u64..500, Just(u64::MAX)]);
    prop_oneof![
        4 => (1_u64..5_000).prop_map(Step::Send),
        4 => (0_u64..3_000).prop_map(Step::Retransmit),
        1 => (0_u64..3_000).prop_map(Step::Speculate),
        8 => (ahead, blocks, any::<bool>(), rtt).prop_map(|(ahead, blocks, is_duplicate, rtt)| {
            Step::Ack { ahead, blocks, is_duplicate, rtt }
        }),
        1 => Just(Step::Expire),
        2 => Just(Step::ExpireReordering),
        2 => Just(Step::ExpireProbe),
        2 => (0_u64..2_000).prop_map(Step::Advance),
        1 => (1_u64..9_000).prop_map(Step::SetMss),
        1 => Just(Step::AppLimited),
        1 => Just(Step::Idle),
    ]
}

impl RecoveryTest {
    fn take(&mut self, step: &Step) {
        let (now, una) = (self.now, self.recovery.snd_una());
        match step {
            Step::Send(len) => {
                let start = self.recovery.snd_nxt();
                self.recovery.on_sent(now, start..start + *len);
            }
            Step::Retransmit(max) => {
                if let Some(range) = self.recovery.next_retransmission(*max) {
                    self.recovery.on_retransmitted(now, range);
                }
            }
            Step::Speculate(max) => {
                if let Some(range) = self.recovery.next_speculative_retransmission(*max) {
                    self.recovery.on_retransmitted(now, range);
                }
            }
            Step::Ack {
                ahead,
                blocks,
                is_duplicate,
                rtt,
            } => {
                let ack = una + *ahead;
                let sack: Vec<_> = blocks
                    .iter()
                    .map(|&(at, len)| una + at..una + at + len)
                    .collect();
                self.arrive(&AckArrival {
                    ack,
                    sack: &sack,
                    is_duplicate: *is_duplicate,
                    rtt: rtt.map(Duration::from_millis),
                    rtt_tsecr: Some(1),
                    ecn_echo: false,
                });
            }
            Step::Expire => self.recovery.on_rto(now),
            Step::ExpireReordering => {
                if let Some((deadline, RecoveryTimer::Reordering)) = self.recovery.timer() {
                    self.now = now.max(deadline);
                    self.recovery.on_reordering_timeout(self.now);
                }
            }
            Step::ExpireProbe => {
                if let Some((deadline, RecoveryTimer::Probe)) = self.recovery.timer() {
                    self.now = now.max(deadline);
                    self.recovery.on_probe_timeout(self.now);
                    if let Some(range) = self.recovery.last_run() {
                        self.recovery.on_retransmitted(self.now, range);
                    }
                }
            }
            Step::Advance(millis) => self.advance(*millis),
            Step::SetMss(mss) => self.recovery.set_mss(*mss),
            Step::AppLimited => self.recovery.on_app_limited(now),
            Step::Idle => self.recovery.on_idle(now),
        }
        self.recovery.check_invariants();
    }

    /// Lets everything be acknowledged, as the sender of a working connection would get there, and
    /// returns in how many steps.
    fn drain(&mut self) -> u32 {
        let mut steps = 0;
        self.recovery.set_mss(MSS);
        while self.recovery.flight_size() > 0 && steps < 1_000 {
            steps += 1;
            let allowance = self.recovery.send_allowance(self.now);
            let Some(range) = self.recovery.next_retransmission(allowance) else {
                // Nothing may be sent: then the timer must run.
                let (deadline, timer) = self.recovery.timer().expect("deadlock");
                self.now = self.now.max(deadline);
                match timer {
                    RecoveryTimer::Timeout => self.take(&Step::Expire),
                    RecoveryTimer::Reordering => self.take(&Step::ExpireReordering),
                    RecoveryTimer::Probe => self.take(&Step::ExpireProbe),
                }
                continue;
            };
            self.recovery.on_retransmitted(self.now, range.clone());
            self.advance(100);
            if range.start <= self.recovery.snd_una() {
                let ahead = range.end.saturating_since(self.recovery.snd_una());
                self.take(&Step::Ack {
                    ahead,
                    blocks: vec![],
                    is_duplicate: false,
                    rtt: None,
                });
            }
            self.recovery.check_invariants();
        }
        steps
    }
}

proptest! {
    #[test]
    fn no_stream_of_events_breaks_or_blocks_recovery(
        sack: bool,
        rack: bool,
        tail_loss_probe: bool,
        prr: bool,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut test = RecoveryTest::new(Setup { sack, rack, tail_loss_probe, prr, ..SACK });
        for step in &steps {
            test.take(step);
        }
        let steps = test.drain();
        test.log.lock().unwrap().heard.clear();
        prop_assert!(steps < 1_000);
        prop_assert_eq!(test.recovery.pipe(), 0);
        prop_assert_eq!(test.recovery.timer(), None);
    }
}
