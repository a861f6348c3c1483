//! The stream, its end, the window and what it all costs.

use super::*;

#[test]
fn a_fin_is_acknowledged_at_once() {
    let mut test = ReceiverTest::at(1_001);
    let arrival = test.fin(1_001, 10);
    assert!(arrival.fin_reached && test.receiver.is_finished() && !test.receiver.is_eof());
    test.expect_ack(1_012, &[]);
    test.expect_read(10);
    assert!(test.receiver.is_eof());
    // Its retransmission is a duplicate.
    let arrival = test.fin(1_001, 10);
    assert!(arrival.is_duplicate && !arrival.fin_reached);
    test.expect_dsack(1_012, &[(1_001, 1_012)]);
}

#[test]
fn after_the_fin_no_window_is_told() {
    let mut test = ReceiverTest::with_capacity(9_984);
    test.fin(1, 9_000);
    test.expect_ack(9_002, &[]);
    test.expect_read(9_000);
    assert!(!test.receiver.has_window_update());
}

#[test]
fn a_fin_out_of_order_waits_for_the_data_before_it() {
    let mut test = ReceiverTest::at(1_001);
    let arrival = test.fin(2_001, 0);
    assert!(arrival.is_out_of_order && !arrival.fin_reached);
    test.expect_ack(1_001, &[(2_001, 2_002)]);
    assert!(test.fin(2_001, 0).is_duplicate);
    test.expect_dsack(1_001, &[(2_001, 2_002), (2_001, 2_002)]);
    assert!(test.segment(1_001, MSS).fin_reached);
    test.expect_ack(2_002, &[]);
    test.expect_read(MSS);
    assert!(test.receiver.is_eof());
}

#[test]
fn data_behind_a_fin_is_ignored() {
    let mut test = ReceiverTest::at(1_001);
    test.fin(2_001, 0);
    test.expect_ack(1_001, &[(2_001, 2_002)]);
    test.segment(3_001, MSS);
    test.expect_ack(1_001, &[(2_001, 2_002)]);
    assert!(test.segment(1_001, 3 * MSS).fin_reached);
    test.expect_dsack(2_002, &[(2_001, 2_002)]);
    test.segment(2_002, MSS);
    test.expect_ack(2_002, &[]);
    test.expect_read(MSS);
    assert_eq!(test.receiver.counters().segments_beyond_window, 2);
}

#[test]
fn of_several_fins_the_first_in_the_stream_rules() {
    for (name, fins) in [("rising", [2_001, 3_001]), ("falling", [3_001, 2_001])] {
        let mut test = ReceiverTest::at(1_001);
        for fin in fins {
            test.fin(fin, 0);
        }
        while test.receiver.pending_acks() > 0 {
            test.receiver.next_ack();
            test.receiver.on_ack_sent();
        }
        assert!(test.segment(1_001, MSS).fin_reached, "{name}");
        test.expect_ack(2_002, &[]);
        test.expect_read(MSS);
    }
}

#[test]
fn bytes_held_behind_a_fin_are_forgotten() {
    let mut test = ReceiverTest::at(1_001);
    test.segment(1_501, MSS);
    test.expect_ack(1_001, &[(1_501, 2_501)]);
    assert!(test.fin(1_001, 600).fin_reached);
    test.expect_dsack(1_602, &[(1_501, 1_602)]);
    assert_eq!(test.receiver.out_of_order_bytes(), 0);
    test.expect_read(600);
}

#[test]
fn what_lies_beyond_the_right_edge_is_cut_off() {
    let mut test = ReceiverTest::with_capacity(9_984);
    assert_eq!(test.receiver.rcv_wnd(), 9_984);
    // The right edge is 1 + 9,984 = 9,985; neither the last bytes nor the FIN fit.
    assert!(!test.fin(9_001, MSS).fin_reached);
    test.expect_ack(1, &[(9_001, 9_985)]);
    assert_eq!(test.fin(1, 9_990).newly_readable, 9_984);
    test.expect_dsack(9_985, &[(9_001, 9_985)]);
    assert!(!test.receiver.is_finished());
    assert_eq!(test.receiver.rcv_wnd(), 0);
    // A probe of the closed window is answered. A FIN takes no room: it is taken right behind the window.
    assert_eq!(test.segment(9_985, 1), Arrival::default());
    test.expect_ack(9_985, &[]);
    assert_eq!(test.receiver.counters().segments_beyond_window, 1);
    assert!(test.fin(9_985, 0).fin_reached);
    test.expect_ack(9_986, &[]);
    assert_eq!(test.receiver.rcv_wnd(), 0);
    test.expect_read(9_984);
    assert!(test.receiver.is_eof());
}

#[test]
fn negotiation_keeps_what_the_syn_told() {
    let params = ReceiverParams {
        capacity: 1 << 20,
        max_capacity: 1 << 20,
        ack_delay: DELAY,
    };
    let mut receiver = Receiver::new(&params);
    assert_eq!(receiver.window_field_syn(), 65_535);
    assert_eq!(receiver.rcv_wnd(), 65_535);
    receiver.negotiate(5, true);
    assert_eq!(receiver.window_field_syn(), 65_535);
    assert_eq!(receiver.rcv_wnd(), 65_535);
    // 2^20 bytes are 2^15 units of 32.
    let report = receiver.next_ack();
    assert_eq!(receiver.advertise(&report), 1 << 15);
    assert_eq!(receiver.rcv_wnd(), 1 << 20);
    receiver.check_invariants();
}

#[test]
fn single_bytes_with_gaps_cost_bounded_memory() {
    let mut test = ReceiverTest::with_capacity(1 << 24);
    for n in 0..2_000 {
        test.segment(3 + 2 * n, 1);
    }
    test.receiver.discard_acks();
    assert_eq!(test.receiver.out_of_order_bytes(), 1_024);
    assert_eq!(test.receiver.counters().segments_dropped, 2_000 - 1_024);
    assert!(
        test.receiver.memory() < 200_000,
        "{} bytes",
        test.receiver.memory()
    );
    // In-order data is still taken, and connects.
    assert_eq!(test.segment(1, 2).newly_readable, 3);
    test.expect_ack(
        4,
        &[
            (2_049, 2_050),
            (2_047, 2_048),
            (2_045, 2_046),
            (2_043, 2_044),
        ],
    );
    test.expect_read(3);
}

#[test]
fn scattered_bytes_cost_no_more_than_the_window() {
    let capacity = 65_536;
    let mut test = ReceiverTest::with_capacity(capacity);
    for n in 0..15 {
        test.segment(4_000 + 4_096 * n, 1);
    }
    test.receiver.discard_acks();
    let overhead = 2 * 16_384 + 15 * 96;
    assert!(
        test.receiver.memory() <= capacity + overhead,
        "{}",
        test.receiver.memory()
    );
}

#[test]
fn an_idle_receiver_is_small() {
    let mut test = ReceiverTest::new();
    assert!(
        size_of::<Receiver>() <= 768,
        "{} bytes",
        size_of::<Receiver>()
    );
    assert_eq!(test.receiver.memory(), 0);
    // After use in every way it holds little again.
    for n in 0..200 {
        test.segment(1 + n * 2_000 + 1_000, MSS);
        test.segment(1 + n * 2_000, 1_000);
    }
    test.receiver.discard_acks();
    test.expect_read(400_000);
    assert!(
        test.receiver.memory() <= 6_000,
        "{} bytes",
        test.receiver.memory()
    );
}

#[test]
fn in_order_chunks_are_not_copied() {
    let mut test = ReceiverTest::new();
    let datagram = Bytes::from(vec![7; 1_020]);
    test.receiver
        .on_segment(test.now, Offset::FIRST, &datagram[20..], false, &datagram);
    let chunk = test.receiver.read_chunk(usize::MAX).unwrap();
    assert_eq!(chunk.as_ptr(), datagram[20..].as_ptr());
    test.expect_ack(1_001, &[]);
}

#[test]
fn after_discard_the_stream_is_still_acknowledged() {
    let mut test = ReceiverTest::at(1_001);
    test.segment(1_001, MSS);
    test.segment(3_001, MSS);
    test.receiver.discard();
    test.expect_ack(2_001, &[(3_001, 4_001)]);
    assert_eq!(test.receiver.readable_bytes(), 0);
    assert_eq!(test.segment(2_001, MSS).newly_readable, 0);
    test.expect_ack(4_001, &[]);
    assert_eq!(test.receiver.counters().bytes_received, 4_000);
    assert!(test.fin(4_001, 10).fin_reached && test.receiver.is_eof());
    test.expect_ack(4_012, &[]);
    // Only room for a few snapshots is left.
    assert!(
        test.receiver.memory() < 500,
        "{} bytes",
        test.receiver.memory()
    );
}

#[test]
fn arrivals_are_counted() {
    let mut test = ReceiverTest::at(1_001);
    test.segment(1_001, MSS);
    test.segment(3_001, MSS);
    test.segment(3_001, MSS);
    test.segment(1, MSS);
    test.segment(2_001, MSS);
    test.receiver.discard_acks();
    let expected = ReceiverCounters {
        bytes_received: 4_000,
        segments_duplicate: 2,
        segments_out_of_order: 2,
        segments_dropped: 0,
        segments_beyond_window: 0,
    };
    assert_eq!(test.receiver.counters(), expected);
    test.expect_read(3_000);
}

/// Ranges and their bytes are bounded, whatever comes; once the hole is filled all of it goes on.
#[test]
fn after_a_flood_of_ranges_the_stream_goes_on() {
    let capacity = 1 << 16;
    let mut test = ReceiverTest::with_capacity(capacity);
    let mut most = 0;
    for n in 0..30_000_u64 {
        test.segment(3 + 2 * (n % 32_000), 1);
        test.receiver.discard_acks();
        most = most.max(test.receiver.memory());
    }
    // 96 bytes are charged per range: 65,536 / 97 of them fit the window.
    assert_eq!(test.receiver.out_of_order_bytes(), 675);
    // The pages of the window, the ranges, and what the reports keep room for.
    assert!(most <= capacity + 8_192 + 675 * 96 + 8_192, "{most} bytes");
    // All that was there before comes again, now whole.
    let mut at = 1;
    while at < 200_001 {
        test.segment(at, MSS);
        at = test.receiver.rcv_nxt().get();
        test.receiver.discard_acks();
        let read = test.receiver.readable_bytes() as u64;
        test.expect_read(read);
        let report = test.receiver.next_ack();
        test.receiver.advertise(&report);
        test.receiver.on_ack_sent();
    }
    assert_eq!(test.receiver.out_of_order_bytes(), 0);
    assert!(
        test.receiver.memory() <= 16_384,
        "{}",
        test.receiver.memory()
    );
}
