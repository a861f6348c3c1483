mod acks;
mod stream;

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
            max_capacity: capacity,
            ack_delay: DELAY,
        });
        receiver.negotiate(5, true);
        let report = receiver.next_ack();
        receiver.advertise(&report);
        receiver.on_ack_sent();
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
        self.receiver.advertise(&report);
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
