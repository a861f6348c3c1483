//! Loss recovery with SACK as the peer sees it: RFC 8985. The RTT is 100 ms.

use super::*;
use crate::connection::handshake::own_extension;
use crate::wire::{Extension, SackBlock, SackBlocks};

impl ConnectionTest {
    /// As [`established`](Self::established), with SACK. Tail loss probes are off unless asked for.
    #[track_caller]
    fn established_with_sack(config: ConfigBuilder) -> Self {
        Self::established_after(100, config.sack(true).tail_loss_probe(false), None)
    }

    /// Connected after `rtt` ms to a peer that has SACK and announces its ACK delay, if any.
    #[track_caller]
    fn established_after(rtt: u64, config: ConfigBuilder, extension: Option<Extension>) -> Self {
        let mut test = Self::connect(config);
        test.expect((S, 1_000, 0, 0));
        test.advance(rtt);
        if extension.is_some() {
            test.peer_integrity = Integrity::Crc32c;
        }
        test.inject_with(
            (S | A, 5_000, 1_001, 0),
            Options {
                mss: Some(1_000),
                sack_permitted: true,
                extension,
                ..Options::default()
            },
        );
        test.expect((A, 1_001, 5_001, 0));
        test.expect_event(Event::Connected);
        test
    }

    /// An ACK with SACK blocks.
    fn inject_sack(&mut self, ack: u32, blocks: &[(u32, u32)]) {
        self.handle_sack(ack, blocks);
        self.drain();
    }

    /// The same as part of a batch, which [`drain`](Self::drain) answers.
    fn handle_sack(&mut self, ack: u32, blocks: &[(u32, u32)]) {
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
        let header = segment(A, 5_001, ack, self.peer_window, options);
        let bytes = encode(&header, &[], self.peer_integrity);
        let segment = Segment::decode(&bytes).unwrap();
        self.connection.handle_segment(self.now, &segment, &bytes);
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
fn a_loss_amid_a_batch_of_acks_halves_the_window_in_use() {
    let mut test = ConnectionTest::established_with_sack(plain());
    test.peer_window = 60_000;
    test.inject((A, 5_001, 1_001, 0));
    test.write(40_000);
    for segment in 0..10 {
        test.expect((A, 1_001 + segment * 1_000, 5_001, 1_000));
    }
    test.advance(100);
    // Four ACKs open the window to 14 segments, of which one by one as many would have been sent. The fifth
    // segment is lost.
    for ack in [2_001, 3_001, 4_001, 5_001] {
        test.handle_sack(ack, &[]);
    }
    for end in [7_001, 8_001, 9_001, 10_001, 11_001] {
        test.handle_sack(5_001, &[(6_001, end)]);
    }
    test.drain();
    assert_eq!(test.connection.stats().ssthresh, 7_000);
    test.expect((A, 5_001, 5_001, 1_000));
    // Eight that the ACKs before the loss allowed, two of limited transmit.
    for segment in 10..20 {
        test.expect((A, 1_001 + segment * 1_000, 5_001, 1_000));
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
    assert!(test.connection.stats().is_in_recovery);
    test.advance(100);
    test.inject_sack(3_001, &[]);
    let stats = test.connection.stats();
    assert_eq!((stats.rto_count, stats.fast_recovery_count), (0, 1));
    assert!(!stats.is_in_recovery);
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

/// The acceptance: at an RTT of 20 ms, within 2 RTT + 50 ms = 90 ms of the first transmission, the way to
/// the peer included.
#[test]
fn a_lost_tail_is_repaired_by_a_probe_and_not_by_a_timeout() {
    for lost in 1..=3 {
        let config = plain().sack(true).extension(true);
        let extension = own_extension(&config.clone().build().unwrap());
        let mut test = ConnectionTest::established_after(20, config, Some(extension));
        let begin = test.now;
        test.write_segments(5);
        let una = 6_001 - lost * 1_000;
        test.advance(20);
        test.inject_sack(una, &[]);
        // 40 ms after the last transmission, for a single segment 25 ms more.
        let wait = if lost == 1 { 45 } else { 20 };
        test.advance(wait - 1);
        test.expect_nothing();
        test.advance(1);
        test.expect((A | P, 5_001, 5_001, 1_000));
        let mut at = una;
        while at < 5_001 {
            // The answer to the previous one.
            test.advance(20);
            test.inject_sack(at, &[(5_001, 6_001)]);
            test.expect((A, at, 5_001, 1_000));
            at += 1_000;
        }
        let took = test.now.saturating_since(begin) + Duration::from_millis(10);
        assert!(took <= Duration::from_millis(90), "{took:?} for {lost}");
        test.advance(20);
        test.inject_sack(6_001, &[]);
        let stats = test.connection.stats();
        assert_eq!((stats.rto_count, stats.tlp_count), (0, 1));
        assert_eq!(stats.flight_size, 0);
    }
}

#[test]
fn a_probe_takes_new_data_even_beyond_the_congestion_window() {
    let config = plain().sack(true).initial_window(2);
    let mut test = ConnectionTest::established_after(100, config, None);
    test.write(4_000);
    test.expect((A, 1_001, 5_001, 1_000));
    test.expect((A, 2_001, 5_001, 1_000));
    test.advance(200);
    test.expect((A, 3_001, 5_001, 1_000));
    // One only.
    test.advance(100);
    test.expect_nothing();
    test.inject_sack(4_001, &[]);
    test.expect((A | P, 4_001, 5_001, 1_000));
    test.inject_sack(5_001, &[]);
}

#[test]
fn a_probe_repeats_the_fin_with_the_data_before_it() {
    let config = plain().sack(true).data_retries(0).user_timeout(None);
    let mut test = ConnectionTest::established_after(100, config, None);
    test.write(1_500);
    test.expect((A, 1_001, 5_001, 1_000));
    test.expect((A | P, 2_001, 5_001, 500));
    test.finish();
    test.expect((A | F, 2_501, 5_001, 0));
    test.advance(200);
    test.expect((A | P | F, 1_501, 5_001, 1_000));
    // Probes are no retries; the timeout is the first and, here, the last.
    test.advance(299);
    assert_eq!(test.connection.state(), State::FinWait1);
    test.advance(1);
    test.expect_timed_out(TimeoutCause::DataRetries { retries: 0 });
}

#[test]
fn a_timeout_by_a_delay_spike_is_taken_back_by_timestamps() {
    use crate::wire::Timestamps;

    let mut test = ConnectionTest::connect(plain().timestamps(true).mss(1_012));
    test.expect((S, 1_000, 0, 0));
    test.advance(100);
    let timestamps = |tsecr| Options {
        mss: Some(1_012),
        timestamps: Some(Timestamps { tsval: 7, tsecr }),
        ..Options::default()
    };
    test.inject_with((S | A, 5_000, 1_001, 0), timestamps(1));
    test.expect((A, 1_001, 5_001, 0));
    // At 101 ms; the RTO is 300 ms.
    test.write(3_000);
    for seq in [1_001, 2_001, 3_001] {
        test.sent
            .pop_front()
            .filter(|(h, _)| h.seq.get() == seq)
            .unwrap();
    }
    let before = test.connection.stats().cwnd;
    test.advance(300);
    test.sent
        .pop_front()
        .filter(|(h, _)| h.seq.get() == 1_001)
        .unwrap();
    assert!(test.connection.stats().cwnd < before);
    test.advance(50);
    // The ACK of the original.
    test.inject_with(
        (A, 5_001, 2_001, 0),
        Options {
            mss: None,
            ..timestamps(101)
        },
    );
    test.expect_nothing();
    let stats = test.connection.stats();
    assert_eq!((stats.rto_count, stats.undo_count), (1, 1));
    assert!(
        stats.cwnd >= before && stats.bytes_in_flight == 2_000,
        "{stats:?}"
    );
    test.inject_with(
        (A, 5_001, 4_001, 0),
        Options {
            mss: None,
            ..timestamps(101)
        },
    );
    assert_eq!(test.connection.stats().flight_size, 0);
}

#[test]
fn new_data_that_examines_a_timeout_may_have_to_leave_room_for_sack_blocks() {
    // RFC 5682 §3.1, step 2b.
    let mut test = ConnectionTest::established_with_sack(plain());
    test.write_segments(4);
    // A gap in what the peer sends: every segment of ours carries a block, and 988 bytes.
    test.inject((A, 6_001, 1_001, 1_000));
    test.expect((A, 5_001, 5_001, 0));
    test.advance(300);
    test.expect((A, 1_001, 5_001, 988));
    test.write(4_000);
    test.expect_nothing();
    test.advance(10);
    test.inject((A, 5_001, 2_001, 0));
    test.expect((A, 5_001, 5_001, 988));
    test.expect((A, 5_989, 5_001, 988));
    // Two segments of new data, and no retransmission before the next ACK.
    test.expect_nothing();
    test.inject((A, 5_001, 3_001, 0));
    assert_eq!(test.connection.stats().frto_count, 1);
    test.sent.clear();
}
