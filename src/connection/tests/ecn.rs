//! Congestion echoes of a peer that wants to do harm.

use super::*;
use crate::ecn::{Ecn, EcnState};
use crate::wire::{SackBlock, SackBlocks};

const E: Flags = Flags::ECE;
const W: Flags = Flags::CWR;

/// Connected to a peer that has agreed on ECN; 1001 and 5001 come next.
fn agreed() -> ConnectionTest {
    agreed_by(plain())
}

fn agreed_by(config: ConfigBuilder) -> ConnectionTest {
    let mut test = ConnectionTest::connect(config);
    test.expect((S, 1_000, 0, 0));
    test.advance(100);
    test.inject_with(
        (S | A | E, 5_000, 1_001, 0),
        Options {
            mss: Some(1_000),
            ..Options::default()
        },
    );
    test.expect((A, 1_001, 5_001, 0));
    test.expect_event(Event::Connected);
    assert_eq!(test.connection.stats().ecn, EcnState::Capable);
    test
}

#[test]
fn an_echo_on_every_ack_slows_down_to_one_segment_and_is_then_ignored() {
    let mut test = agreed();
    test.peer_window = 60_000;
    test.write(200_000);
    let (mut smallest, mut rounds) = (u64::MAX, 0);
    while test.connection.sender.snd_una().get() < 200_001 {
        test.advance(100);
        rounds += 1;
        assert!(rounds < 200, "no progress");
        for (header, payload) in std::mem::take(&mut test.sent) {
            let end = header.seq.get() + u32::try_from(payload.len()).unwrap();
            test.inject((A | E, 5_001, end, 0));
        }
        smallest = smallest.min(test.connection.stats().cwnd);
    }
    let stats = test.connection.stats();
    assert_eq!(stats.ecn, EcnState::AlwaysMarked);
    assert_eq!(smallest, 1_000);
    assert_eq!((stats.ecn_reductions, stats.rto_count), (8, 0));
    assert!(stats.cwnd > 4_000, "{}", stats.cwnd);
}

/// Eight round trips may be short, and the queue somebody else's.
#[test]
fn echoes_are_not_ignored_before_the_window_is_small() {
    let mut test = agreed_by(plain().initial_window(2));
    test.peer_window = 60_000;
    let (mut rounds, mut largest) = (0, 0);
    while test.connection.stats().ecn == EcnState::Capable {
        if test.connection.sender.unsent() < 60_000 {
            test.write(60_000);
        }
        test.advance(100);
        rounds += 1;
        assert!(rounds < 200, "no end");
        let echo = if rounds > 6 { E } else { Flags::EMPTY };
        for (header, payload) in std::mem::take(&mut test.sent) {
            let end = header.seq.get() + u32::try_from(payload.len()).unwrap();
            test.inject((A | echo, 5_001, end, 0));
        }
        largest = largest.max(test.connection.stats().cwnd);
    }
    let stats = test.connection.stats();
    assert_eq!(stats.ecn, EcnState::AlwaysMarked);
    assert!(largest >= 60_000, "{largest}");
    // Eight would leave 60,000 / 2 * 0.8^7, which is 6,291.
    assert!(stats.ecn_reductions > 8, "{}", stats.ecn_reductions);
    assert!(stats.cwnd <= 3_000, "{}", stats.cwnd);
    test.sent.clear();
}

/// Nothing is outstanding then that could be acknowledged, so that nothing else would ever allow more.
#[test]
fn an_echo_on_an_ack_that_delivers_nothing_leaves_room_for_a_segment() {
    let mut test = ConnectionTest::connect(plain().sack(true));
    test.expect((S, 1_000, 0, 0));
    test.advance(100);
    let offer = Options {
        mss: Some(1_000),
        sack_permitted: true,
        ..Options::default()
    };
    test.inject_with((S | A | E, 5_000, 1_001, 0), offer);
    test.expect((A, 1_001, 5_001, 0));
    test.write(1_000);
    test.expect((A | P, 1_001, 5_001, 1_000));
    // What it SACKs it could as well have acknowledged.
    let mut sack_blocks = SackBlocks::new();
    sack_blocks.push(SackBlock {
        left: SeqNumber::new(1_001),
        right: SeqNumber::new(2_001),
    });
    let sacks = Options {
        sack_blocks,
        ..Options::default()
    };
    test.inject_with((A, 5_001, 1_001, 0), sacks);
    test.inject((A | E, 5_001, 2_001, 0));
    assert_eq!(test.connection.stats().ecn_reductions, 1);
    test.write(1_000);
    test.expect((A | P | W, 2_001, 5_001, 1_000));
}

#[test]
fn the_flags_on_any_segment_break_nothing() {
    let control = [
        Flags::EMPTY,
        Flags::FIN,
        Flags::RST,
        Flags::URG,
        S,
        S | A,
        A,
        A | Flags::FIN,
        A | Flags::PSH | Flags::URG,
    ];
    let marks = [None, Some(Ecn::Ect0), Some(Ecn::Ect1), Some(Ecn::Ce)];
    for flags in control {
        for extra in [E, W, E | W] {
            for mark in marks {
                for (seq, ack, len) in [
                    (5_001, 1_001, 0),
                    (5_001, 3_001, 10),
                    (5_000, 1_001, 1),
                    (9_000, 9_000, 5),
                ] {
                    let mut test = agreed();
                    test.write(2_000);
                    test.connection.note_mark(mark);
                    test.inject((flags | extra, seq, ack, len));
                    let stats = test.connection.stats();
                    assert!(stats.cwnd >= 1_000, "{flags:?} {extra:?} {mark:?}");
                    assert!(stats.ecn_reductions <= 1);
                    test.sent.clear();
                }
            }
        }
    }
}

#[test]
fn an_echo_takes_back_the_right_to_undo() {
    for has_echo in [false, true] {
        let mut test = agreed();
        test.write(3_000);
        for seq in [1_001, 2_001, 3_001] {
            let len = 1_000;
            let push = if seq == 3_001 {
                Flags::PSH
            } else {
                Flags::EMPTY
            };
            test.expect((A | push, seq, 5_001, len));
        }
        let before = test.connection.stats().cwnd;
        // The timer expires, though the ACKs are only late (F-RTO).
        test.advance(400);
        test.expect((A, 1_001, 5_001, 1_000));
        test.write(2_000);
        let echo = if has_echo { E } else { Flags::EMPTY };
        test.inject((A | echo, 5_001, 2_001, 0));
        test.inject((A | echo, 5_001, 4_001, 0));
        let stats = test.connection.stats();
        assert_eq!(stats.undo_count, u64::from(!has_echo));
        assert_eq!(
            stats.cwnd >= before,
            !has_echo,
            "{} of {before}",
            stats.cwnd
        );
        test.sent.clear();
    }
}
