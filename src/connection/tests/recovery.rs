//! Loss recovery with SACK as the peer sees it: RFC 8985. The RTT is 100 ms.

use super::*;
use crate::wire::{SackBlock, SackBlocks};

impl ConnectionTest {
    /// As [`established`](Self::established), with SACK.
    #[track_caller]
    fn established_with_sack(config: ConfigBuilder) -> Self {
        let mut test = Self::connect(config.sack(true));
        test.expect((S, 1_000, 0, 0));
        test.advance(100);
        test.inject_with(
            (S | A, 5_000, 1_001, 0),
            Options {
                mss: Some(1_000),
                sack_permitted: true,
                ..Options::default()
            },
        );
        test.expect((A, 1_001, 5_001, 0));
        test.expect_event(Event::Connected);
        test
    }

    /// An ACK with SACK blocks.
    fn inject_sack(&mut self, ack: u32, blocks: &[(u32, u32)]) {
        let mut sack_blocks = SackBlocks::new();
        for &(left, right) in blocks {
            sack_blocks.push(SackBlock {
                left: SeqNumber::new(left),
                right: SeqNumber::new(right),
            });
        }
        let options = Options {
            sack_blocks,
            ..Options::default()
        };
        self.inject_with((A, 5_001, ack, 0), options);
    }

    /// Writes `segments` full segments, which all go out.
    #[track_caller]
    fn write_segments(&mut self, segments: u32) {
        let first = 1_001 + u32::try_from(self.connection.sender.data_end().get() - 1).unwrap();
        self.write(segments as usize * 1_000);
        for segment in 0..segments {
            let push = if segment + 1 == segments {
                P
            } else {
                Flags::default()
            };
            self.expect((A | push, first + segment * 1_000, 5_001, 1_000));
        }
    }
}

#[test]
fn reordering_within_a_quarter_of_the_rtt_causes_no_retransmission() {
    let mut test = ConnectionTest::established_with_sack(plain());
    test.write_segments(3);
    test.advance(100);
    test.inject_sack(1_001, &[(2_001, 4_001)]);
    test.advance(24);
    test.inject_sack(4_001, &[]);
    test.advance(10_000);
    let stats = test.connection.stats();
    assert_eq!(
        (stats.segments_retransmitted, stats.reordering_count),
        (0, 1)
    );
    // From now on even many that overtake prove nothing before that time.
    test.write_segments(9);
    test.advance(100);
    test.inject_sack(4_001, &[(5_001, 13_001)]);
    test.advance(24);
    test.expect_nothing();
    test.inject_sack(13_001, &[]);
    assert_eq!(test.connection.stats().segments_retransmitted, 0);
}

#[test]
fn a_lost_segment_of_a_short_flight_is_sent_again_without_a_timeout() {
    let mut test = ConnectionTest::established_with_sack(plain());
    test.write_segments(2);
    test.advance(100);
    test.inject_sack(1_001, &[(2_001, 3_001)]);
    test.advance(24);
    test.expect_nothing();
    test.advance(1);
    test.expect((A, 1_001, 5_001, 1_000));
    test.advance(100);
    test.inject_sack(3_001, &[]);
    let stats = test.connection.stats();
    assert_eq!((stats.rto_count, stats.fast_recovery_count), (0, 1));
}

#[test]
fn a_lost_retransmission_is_found_without_a_timeout() {
    let mut test = ConnectionTest::established_with_sack(plain());
    test.write_segments(6);
    test.advance(100);
    test.inject_sack(1_001, &[(2_001, 7_001)]);
    test.expect((A, 1_001, 5_001, 1_000));
    // It is lost. What is written now arrives.
    test.advance(1);
    test.write_segments(1);
    test.advance(100);
    test.inject_sack(1_001, &[(2_001, 8_001)]);
    test.expect((A, 1_001, 5_001, 1_000));
    test.advance(100);
    test.inject_sack(8_001, &[]);
    let stats = test.connection.stats();
    assert_eq!((stats.rto_count, stats.flight_size), (0, 0));
}
