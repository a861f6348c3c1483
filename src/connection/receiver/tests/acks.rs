//! When an ACK leaves and what it reports.

use super::*;
use crate::connection::range_set::RangeSet;

#[test]
fn full_segments_are_acknowledged_at_once_at_the_start() {
    let mut test = ReceiverTest::new();
    for n in 0..16 {
        test.segment(1 + n * MSS, MSS);
        test.expect_ack(1 + (n + 1) * MSS, &[]);
    }
    test.segment(1 + 16 * MSS, MSS);
    test.expect_no_ack();
    test.segment(1 + 17 * MSS, MSS);
    test.expect_ack(1 + 18 * MSS, &[]);
    test.expect_read(18 * MSS);
}

#[test]
fn full_segments_are_acknowledged_at_once_after_idling() {
    let mut test = ReceiverTest::at(10_001);
    test.advance(199);
    test.segment(10_001, MSS * 10);
    test.advance(25);
    test.expect_ack(20_001, &[]);
    test.advance(175);
    test.segment(20_001, MSS * 10);
    test.expect_ack(30_001, &[]);
    test.expect_read(20_000);
}

#[test]
fn every_second_full_segment_is_acknowledged() {
    let mut test = ReceiverTest::at(1_001);
    for n in [1, 3, 5] {
        test.segment(1 + n * MSS, MSS);
        test.expect_no_ack();
        test.segment(1 + (n + 1) * MSS, MSS);
        test.expect_ack(1 + (n + 2) * MSS, &[]);
    }
    test.expect_read(6 * MSS);
}

#[test]
fn small_segments_are_acknowledged_once_they_make_two_full_ones() {
    let mut test = ReceiverTest::at(1_001);
    for n in 0..19 {
        test.segment(1_001 + n * 100, 100);
        test.expect_no_ack();
    }
    test.segment(2_901, 100);
    test.expect_ack(3_001, &[]);
    test.expect_read(2_000);
}

#[test]
fn growing_segments_are_full_sized() {
    let mut test = ReceiverTest::at(1_001);
    test.segment(1_001, 1_100);
    test.expect_no_ack();
    // 2,500 bytes are less than two segments of the new size.
    test.segment(2_101, 1_400);
    test.expect_ack(3_501, &[]);
    test.expect_read(2_500);
}

#[test]
fn a_smaller_mss_is_learned() {
    let mut test = ReceiverTest::at(1_401);
    // Segments of 1,400 are over; the second of 1,200 shows the new size.
    test.segment(1_401, 1_200);
    test.segment(2_601, 1_200);
    test.segment(3_801, 1_200);
    test.expect_ack(5_001, &[]);
    for n in 0..3 {
        test.segment(5_001 + 2_400 * n, 1_200);
        test.expect_no_ack();
        test.segment(6_201 + 2_400 * n, 1_200);
        test.expect_ack(7_401 + 2_400 * n, &[]);
    }
    test.expect_read(10_800);
}

#[test]
fn a_lone_segment_is_acknowledged_after_the_delay() {
    let mut test = ReceiverTest::at(1_001);
    test.segment(1_001, 100);
    test.advance(20);
    // The delay runs from the first unacknowledged segment.
    test.segment(1_101, 100);
    assert_eq!(test.receiver.ack_deadline(), Some(Timestamp::ZERO + DELAY));
    test.advance(4);
    test.expect_no_ack();
    test.advance(1);
    test.expect_ack(1_201, &[]);
    test.expect_read(200);
}

#[test]
fn a_zero_delay_acknowledges_every_segment() {
    let params = ReceiverParams {
        capacity: 65_535,
        max_capacity: 65_535,
        ack_delay: Duration::ZERO,
    };
    let mut receiver = Receiver::new(&params);
    for n in 0..40 {
        receiver.on_segment(
            Timestamp::ZERO,
            Offset::new(1 + n),
            b"x",
            false,
            &Bytes::new(),
        );
        assert_eq!(receiver.pending_acks(), 1, "{n}");
        receiver.on_ack_sent();
    }
}

#[test]
fn a_batch_in_order_causes_one_ack() {
    let mut test = ReceiverTest::new();
    for n in 0..50 {
        test.segment(1 + n * MSS, MSS);
    }
    assert_eq!(test.receiver.pending_acks(), 1);
    test.expect_ack(50_001, &[]);
    test.expect_no_ack();
    test.expect_read(50_000);
}

#[test]
fn sack_blocks_follow_the_examples_of_rfc_2018() {
    // RFC 2018 §5, case 2: the first of eight segments is lost.
    let mut test = ReceiverTest::at(5_000);
    for end in [6_000, 6_500, 7_000, 7_500, 8_000, 8_500, 9_000] {
        test.segment(end - 500, 500);
        test.expect_ack(5_000, &[(5_500, end)]);
    }
    test.segment(5_000, 500);
    test.expect_ack(9_000, &[]);
    test.expect_read(4_000);

    // Case 3: the second, fourth, sixth and eighth are lost; then the fourth and the second arrive.
    let mut test = ReceiverTest::at(5_000);
    test.segment(5_000, 500);
    test.segment(6_000, 500);
    test.expect_ack(5_500, &[(6_000, 6_500)]);
    test.segment(7_000, 500);
    test.expect_ack(5_500, &[(7_000, 7_500), (6_000, 6_500)]);
    test.segment(8_000, 500);
    test.expect_ack(5_500, &[(8_000, 8_500), (7_000, 7_500), (6_000, 6_500)]);
    test.segment(6_500, 500);
    test.expect_ack(5_500, &[(6_000, 7_500), (8_000, 8_500)]);
    test.segment(5_500, 500);
    test.expect_ack(7_500, &[(8_000, 8_500)]);
    test.expect_read(2_500);
}

#[test]
fn duplicates_follow_the_examples_of_rfc_2883() {
    // RFC 2883 §4.1.1: a duplicate of what was acknowledged.
    let mut test = ReceiverTest::at(3_000);
    test.segment(3_000, 500);
    test.segment(3_500, 500);
    test.receiver.on_ack_sent();
    assert!(test.segment(3_000, 500).is_duplicate);
    test.expect_dsack(4_000, &[(3_000, 3_500)]);
    test.expect_read(1_000);

    // §4.1.2: the same with a gap open.
    let mut test = ReceiverTest::at(3_500);
    test.segment(4_000, 500);
    test.expect_ack(3_500, &[(4_000, 4_500)]);
    test.segment(3_000, 500);
    test.expect_dsack(3_500, &[(3_000, 3_500), (4_000, 4_500)]);

    // §4.1.3: a duplicate of what is out of order; its block follows.
    let mut test = ReceiverTest::at(3_500);
    for end in [4_500, 5_000, 5_500] {
        test.segment(end - 500, 500);
        test.expect_ack(3_500, &[(4_000, end)]);
    }
    assert!(test.segment(5_000, 500).is_duplicate);
    test.expect_dsack(3_500, &[(5_000, 5_500), (4_000, 5_500)]);
}

#[test]
fn the_first_duplicate_part_of_a_segment_is_reported() {
    let mut test = ReceiverTest::at(1_000);
    test.segment(1_500, 500);
    test.segment(2_500, 500);
    test.expect_ack(1_000, &[(1_500, 2_000)]);
    test.expect_ack(1_000, &[(2_500, 3_000), (1_500, 2_000)]);
    // Out of order, over both: new are 1,200..1,500 and 2,000..2,500.
    let arrival = test.segment(1_200, 1_700);
    assert!(arrival.is_out_of_order && !arrival.is_duplicate);
    test.expect_dsack(1_000, &[(1_500, 2_000), (1_200, 3_000)]);
    // In order, with an old part in front: new are 1,000..1,200.
    let arrival = test.segment(900, 300);
    assert_eq!(arrival.newly_readable, 2_000);
    test.expect_dsack(3_000, &[(900, 1_000)]);
    test.expect_read(2_000);
}

#[test]
fn every_out_of_order_or_duplicate_segment_has_its_own_ack() {
    let mut test = ReceiverTest::at(1_001);
    for start in [2_001, 3_001, 4_001, 3_001] {
        test.segment(start, MSS);
    }
    assert_eq!(test.receiver.pending_acks(), 4);
    test.expect_ack(1_001, &[(2_001, 3_001)]);
    test.expect_ack(1_001, &[(2_001, 4_001)]);
    test.expect_ack(1_001, &[(2_001, 5_001)]);
    test.expect_dsack(1_001, &[(3_001, 4_001), (2_001, 5_001)]);
    test.expect_no_ack();
}

#[test]
fn without_sack_duplicate_acks_carry_no_blocks() {
    let mut test = ReceiverTest::at(1_001);
    test.receiver.negotiate(5, false);
    test.segment(2_001, MSS);
    test.segment(2_001, MSS);
    test.expect_ack(1_001, &[]);
    test.expect_ack(1_001, &[]);
}

#[test]
fn beyond_four_blocks_the_newest_are_reported() {
    let mut test = ReceiverTest::at(1_001);
    for n in 1..=10_u64 {
        test.segment(1_001 + n * 2_000, MSS);
    }
    while test.receiver.pending_acks() > 1 {
        test.receiver.next_ack();
        test.receiver.on_ack_sent();
    }
    let block = |n: u64| (1_001 + n * 2_000, 2_001 + n * 2_000);
    test.expect_ack(1_001, &[block(10), block(9), block(8), block(7)]);
    // An older block that is touched again comes first.
    test.segment(2_001 + 6_000, MSS);
    test.expect_ack(1_001, &[(7_001, 10_001), block(10), block(9), block(8)]);
}

#[test]
fn a_block_that_grows_does_not_displace_the_others() {
    let mut test = ReceiverTest::at(1_001);
    for n in 1..=4_u64 {
        test.segment(1_001 + n * 2_000, 100);
    }
    for n in 1..=9 {
        test.segment(9_001 + n * 100, 100);
    }
    while test.receiver.pending_acks() > 1 {
        test.receiver.next_ack();
        test.receiver.on_ack_sent();
    }
    let blocks = [
        (9_001, 10_001),
        (7_001, 7_101),
        (5_001, 5_101),
        (3_001, 3_101),
    ];
    test.expect_ack(1_001, &blocks);
}

#[test]
fn a_snapshot_covers_what_was_due_before_it() {
    let mut test = ReceiverTest::at(1_001);
    test.segment(1_001, MSS);
    test.segment(2_001, MSS);
    test.segment(4_001, MSS);
    assert_eq!(test.receiver.pending_acks(), 1);
    test.expect_ack(3_001, &[(4_001, 5_001)]);
    test.expect_no_ack();
    test.expect_read(2_000);
}

#[test]
fn a_full_queue_drops_the_oldest_acks() {
    let mut test = ReceiverTest::at(4_001);
    for n in 0..300 {
        assert!(test.segment(1 + n * 10, 10).is_duplicate);
    }
    assert_eq!(test.receiver.pending_acks(), 256);
    // The first 44 are gone.
    for n in 44..300 {
        test.expect_dsack(4_001, &[(1 + n * 10, 11 + n * 10)]);
    }
}

#[test]
fn behind_a_gap_a_batch_is_reported_by_one_ack_once_three_have_told_of_it() {
    let mut test = ReceiverTest::at(1_001);
    for n in 0..5 {
        test.segment(2_001 + n * MSS, MSS);
    }
    test.expect_ack(1_001, &[(2_001, 3_001)]);
    test.expect_ack(1_001, &[(2_001, 4_001)]);
    test.expect_ack(1_001, &[(2_001, 7_001)]);
    test.expect_no_ack();
    test.segment(7_001, MSS);
    test.segment(8_001, MSS);
    test.expect_ack(1_001, &[(2_001, 9_001)]);
    test.expect_no_ack();
    // The next gap is counted from its beginning.
    test.segment(1_001, 500);
    test.expect_ack(1_501, &[(2_001, 9_001)]);
    for n in 0..4 {
        test.segment(9_001 + n * MSS, MSS);
    }
    for end in [10_001, 11_001, 13_001] {
        test.expect_ack(1_501, &[(2_001, end)]);
    }
    test.expect_no_ack();
    test.segment(1_501, 500);
    test.expect_ack(13_001, &[]);
    test.expect_read(12_000);
}

#[test]
fn one_ack_reports_no_more_new_blocks_than_it_has_room_for() {
    let mut test = ReceiverTest::at(1_001);
    for n in 1..=7_u64 {
        test.segment(1_001 + n * 2_000, MSS);
    }
    let block = |n: u64| (1_001 + n * 2_000, 2_001 + n * 2_000);
    test.expect_ack(1_001, &[block(1)]);
    test.expect_ack(1_001, &[block(2), block(1)]);
    // Beside timestamps there is room for three.
    test.expect_ack(1_001, &[block(5), block(4), block(3), block(2)]);
    test.expect_ack(1_001, &[block(7), block(6), block(5), block(4)]);
    test.expect_no_ack();
}

#[test]
fn without_sack_every_segment_behind_a_gap_has_its_ack() {
    let mut test = ReceiverTest::at(1_001);
    test.receiver.negotiate(5, false);
    for n in 0..10 {
        test.segment(2_001 + n * MSS, MSS);
    }
    for _ in 0..10 {
        test.expect_ack(1_001, &[]);
    }
    test.expect_no_ack();
}

proptest! {
    /// However arrivals and departures mix, a sender that gets every ACK knows of all that is held.
    #[test]
    fn what_is_held_has_been_reported(
        arrivals in prop::collection::vec((1_u64..60, any::<bool>()), 1..120),
    ) {
        let mut test = ReceiverTest::at(1_001);
        let mut known = RangeSet::new();
        let mut drain = |test: &mut ReceiverTest| {
            while test.receiver.queued_reports() > 0 {
                let report = test.receiver.next_ack();
                for block in report.sack.as_slice().iter().take(3) {
                    known.insert(block.clone());
                }
                test.receiver.on_ack_sent();
            }
        };
        for (slot, is_end_of_batch) in arrivals {
            test.segment(1_001 + slot * 100, 100);
            if is_end_of_batch {
                drain(&mut test);
            }
        }
        drain(&mut test);
        let held: Vec<_> = test.receiver.assembler.ranges().iter().collect();
        for range in held {
            let len = range.end.saturating_since(range.start);
            prop_assert_eq!(known.covered_in(range), len);
        }
        // What is owed besides is not of interest here.
        while test.receiver.pending_acks() > 0 {
            test.receiver.next_ack();
            test.receiver.on_ack_sent();
        }
    }
}

#[test]
fn filling_a_gap_is_acknowledged_at_once() {
    let mut test = ReceiverTest::at(1_001);
    test.segment(3_001, MSS);
    test.expect_ack(1_001, &[(3_001, 4_001)]);
    test.segment(1_001, 500);
    test.expect_ack(1_501, &[(3_001, 4_001)]);
    assert_eq!(test.segment(1_501, 1_500).newly_readable, 2_500);
    test.expect_ack(4_001, &[]);
    test.expect_read(3_000);
}

#[test]
fn an_old_snapshot_does_not_take_the_ack_back() {
    let mut test = ReceiverTest::at(1_001);
    test.segment(2_001, MSS);
    test.segment(4_001, MSS);
    test.segment(1_001, MSS);
    // A data segment with the present number overtakes the snapshots.
    test.receiver.on_ack_sent();
    test.expect_ack(3_001, &[]);
    test.expect_ack(3_001, &[(4_001, 5_001)]);
    test.expect_no_ack();
    test.expect_read(2_000);
}

#[test]
fn sending_an_old_snapshot_leaves_the_newer_ack_due() {
    let mut test = ReceiverTest::at(1_001);
    test.segment(2_001, MSS);
    test.segment(1_001, MSS);
    test.expect_ack(1_001, &[(2_001, 3_001)]);
    test.expect_ack(3_001, &[]);
    test.expect_no_ack();
    test.expect_read(2_000);
}

#[test]
fn unacceptable_segments_and_demands_are_answered() {
    let mut test = ReceiverTest::at(1_001);
    test.receiver.on_unacceptable();
    test.expect_ack(1_001, &[]);
    test.receiver.demand_ack();
    test.expect_ack(1_001, &[]);
    // A keepalive probe with one byte of garbage.
    assert!(test.segment(1_000, 1).is_duplicate);
    test.expect_dsack(1_001, &[(1_000, 1_001)]);
    // A pure ACK takes no sequence number and gets no answer.
    assert_eq!(test.segment(1_001, 0), Arrival::default());
    test.expect_no_ack();
}

/// RFC 5681 §2, (e): a duplicate ACK repeats the window; and it must not take the right edge back by
/// counting the window from a number that it does not name.
#[test]
fn a_queued_report_repeats_the_right_edge() {
    let mut test = ReceiverTest::with_capacity(9_984);
    test.segment(1_001, MSS);
    test.segment(2_001, MSS);
    test.segment(1, MSS);
    // The right edge is 1 + 9,984; units are 32.
    for (ack, window) in [
        (1, 9_984),
        (1, 9_984),
        (3_001, 6_984_u64.next_multiple_of(32)),
    ] {
        let report = test.receiver.next_ack();
        assert_eq!(report.rcv_nxt.get(), ack);
        assert_eq!(u64::from(test.receiver.advertise(&report)) * 32, window);
        test.receiver.on_ack_sent();
    }
    test.expect_read(3_000);
}
