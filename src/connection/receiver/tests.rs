use proptest::prelude::*;

use super::fuzz::fuzz_assembler;
use super::*;

/// A full-sized segment.
const MSS: u64 = 1_000;
const DELAY: Duration = Duration::from_millis(25);

/// A receiver with its peer and its reader. ACKs and bytes that no `expect_*` consumed fail the test.
struct ReceiverTest {
    receiver: Receiver,
    now: Timestamp,
    /// Everything below was read and compared.
    read: u64,
}

impl ReceiverTest {
    /// With SACK and a window of 1 MB; the first byte is offset 1.
    fn new() -> Self {
        Self::with_capacity(1_000_000)
    }

    fn with_capacity(capacity: usize) -> Self {
        let mut receiver = Receiver::new(&ReceiverParams {
            capacity,
            ack_delay: DELAY,
        });
        receiver.negotiate(5, true);
        receiver.advertise();
        Self {
            receiver,
            now: Timestamp::ZERO,
            read: 1,
        }
    }

    /// As `new`, past the quick ACKs, with `rcv_nxt` at `start`.
    fn at(start: u64) -> Self {
        let mut test = Self::new();
        test.segment(1, start - 1);
        test.expect_ack(start, &[]);
        test.end_quick_acks();
        test.expect_read(start - 1);
        test
    }

    fn end_quick_acks(&mut self) {
        self.receiver.acks.end_quick_acks();
    }

    #[track_caller]
    fn arrive(&mut self, start: u64, len: u64, fin: bool) -> Arrival {
        let payload: Vec<u8> = (start..start + len).map(byte_at).collect();
        let datagram = Bytes::from(payload);
        let arrival =
            self.receiver
                .on_segment(self.now, Offset::new(start), &datagram, fin, &datagram);
        self.receiver.check_invariants();
        arrival
    }

    #[track_caller]
    fn segment(&mut self, start: u64, len: u64) -> Arrival {
        self.arrive(start, len, false)
    }

    #[track_caller]
    fn fin(&mut self, start: u64, len: u64) -> Arrival {
        self.arrive(start, len, true)
    }

    fn advance(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    /// Sends the next ACK, which is owed now and reports `sack`, newest first.
    #[track_caller]
    fn expect_ack(&mut self, ack: u64, sack: &[(u64, u64)]) {
        self.expect_report(ack, sack, false);
    }

    /// As `expect_ack`; the first range reports a duplicate.
    #[track_caller]
    fn expect_dsack(&mut self, ack: u64, sack: &[(u64, u64)]) {
        self.expect_report(ack, sack, true);
    }

    #[track_caller]
    fn expect_report(&mut self, ack: u64, sack: &[(u64, u64)], has_dsack: bool) {
        assert!(self.receiver.ack_due(self.now), "no ACK is due");
        let report = self.receiver.next_ack();
        let ranges: Vec<_> = report
            .sack
            .as_slice()
            .iter()
            .map(|r| (r.start.get(), r.end.get()))
            .collect();
        assert_eq!((report.rcv_nxt.get(), &ranges[..]), (ack, sack));
        assert_eq!(report.has_dsack, has_dsack, "has_dsack");
        self.receiver.advertise();
        self.receiver.on_ack_sent();
        self.receiver.check_invariants();
    }

    #[track_caller]
    fn expect_no_ack(&self) {
        assert!(
            !self.receiver.ack_due(self.now),
            "{} ACKs are due",
            self.receiver.pending_acks()
        );
    }

    /// Reads exactly `len` bytes, which are all that is readable, and compares them.
    #[track_caller]
    fn expect_read(&mut self, len: u64) {
        let mut buf = vec![0; usize::try_from(len).unwrap() + 1];
        let n = self.receiver.read(&mut buf);
        assert_eq!(n as u64, len, "bytes readable");
        assert!(
            buf[..n]
                .iter()
                .copied()
                .eq((self.read..self.read + len).map(byte_at))
        );
        self.read += len;
        self.receiver.check_invariants();
    }
}

impl Drop for ReceiverTest {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.receiver.pending_acks(), 0, "ACKs left");
            assert_eq!(self.receiver.ack_deadline(), None, "delayed ACK left");
            assert_eq!(self.receiver.readable_bytes(), 0, "bytes left unread");
        }
    }
}

/// The stream's byte at `position`.
fn byte_at(position: u64) -> u8 {
    u8::try_from(position % 251).unwrap()
}

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
        assert!(receiver.ack_due(Timestamp::ZERO), "{n}");
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
fn a_full_queue_drops_the_oldest_acks() {
    let mut test = ReceiverTest::at(1_001);
    for n in 0..300 {
        test.segment(2_001 + n * 10, 10);
    }
    assert_eq!(test.receiver.pending_acks(), 256);
    // The first 44 are gone.
    for n in 44..300 {
        test.expect_ack(1_001, &[(2_001, 2_011 + n * 10)]);
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
    // A probe of the closed window is answered, and so is a FIN.
    assert_eq!(test.segment(9_985, 1), Arrival::default());
    test.expect_ack(9_985, &[]);
    assert_eq!(test.fin(9_985, 0), Arrival::default());
    test.expect_ack(9_985, &[]);
    assert_eq!(test.receiver.counters().segments_beyond_window, 2);
    test.expect_read(9_984);
    assert!(test.receiver.has_window_update());
    test.receiver.advertise();
    assert_eq!(test.receiver.rcv_wnd(), 9_984);
    assert!(test.fin(9_985, 0).fin_reached);
    test.expect_ack(9_986, &[]);
}

#[test]
fn negotiation_keeps_what_the_syn_told() {
    let params = ReceiverParams {
        capacity: 1 << 20,
        ack_delay: DELAY,
    };
    let mut receiver = Receiver::new(&params);
    assert_eq!(receiver.window_field_syn(), 65_535);
    assert_eq!(receiver.rcv_wnd(), 65_535);
    receiver.negotiate(5, true);
    assert_eq!(receiver.window_field_syn(), 65_535);
    assert_eq!(receiver.rcv_wnd(), 65_535);
    // 2^20 bytes are 2^15 units of 32.
    assert_eq!(receiver.advertise(), 1 << 15);
    assert_eq!(receiver.rcv_wnd(), 1 << 20);
    receiver.check_invariants();
}

#[test]
fn single_bytes_with_gaps_cost_bounded_memory() {
    let mut test = ReceiverTest::with_capacity(1 << 24);
    for n in 0..5_000 {
        test.segment(3 + 2 * n, 1);
    }
    test.receiver.discard_acks();
    assert_eq!(test.receiver.out_of_order_bytes(), 1_024);
    assert_eq!(test.receiver.counters().segments_dropped, 5_000 - 1_024);
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
    let overhead = 2 * 4_096 + 15 * 96;
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
    assert_eq!(*test.receiver.counters(), expected);
    test.expect_read(3_000);
}

impl Receiver {
    /// Sends every ACK that waits.
    fn discard_acks(&mut self) {
        while self.pending_acks() > 0 {
            self.next_ack();
            self.on_ack_sent();
        }
    }
}

proptest! {
    #[test]
    fn a_receiver_equals_a_naive_byte_map(data in proptest::collection::vec(any::<u8>(), 0..1_000)) {
        fuzz_assembler(&data);
    }
}
