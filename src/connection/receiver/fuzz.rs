//! The receiver against a naive model: a byte map that knows nothing of ranges, pages or chunks.
//!
//! Bytes are read as a list of operations: arrivals of every overlap, reads and acknowledgments. The
//! property tests and the fuzz target both call [`fuzz_assembler`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::assembler::{MAX_RANGES, RANGE_OVERHEAD};
use super::{Receiver, ReceiverParams};
use crate::connection::offset::Offset;
use crate::timestamp::Timestamp;

/// What a receiver may hold beside twice the bytes promised: pinned buffers, three chunks, queue
/// entries, pages partly used, snapshots and the ranges' overhead.
const MEMORY_BESIDE: u64 = 1 << 20;

/// Runs the operations that `data` encodes on a receiver and on the model.
///
/// # Panics
///
/// When they disagree, or when an invariant is broken.
pub fn fuzz_assembler(data: &[u8]) {
    let mut input = Input { data };
    let capacity = match input.byte() % 4 {
        0 => 4_096,
        1 => 5_000,
        2 => 65_535,
        _ => 1 << 20,
    };
    let growth = input.byte() % 8;
    let mut pair = Pair::new(
        capacity,
        capacity << growth.min(5),
        input.byte() % 15,
        input.byte().is_multiple_of(2),
    );
    while !input.data.is_empty() {
        pair.step(&mut input);
        pair.check();
    }
    pair.read(usize::MAX, 0);
    pair.check();
}

/// The receiver and the model of it.
struct Pair {
    receiver: Receiver,
    max_capacity: u64,
    shift: u8,
    operation: u64,
    now: Timestamp,
    /// Held bytes by position, the first copy of each.
    held: BTreeMap<u64, u8>,
    /// Bytes in order and not read.
    unread: VecDeque<u8>,
    rcv_nxt: u64,
    fin: Option<u64>,
    is_finished: bool,
    is_discarded: bool,
    right_edge: u64,
    highest_ack: Offset,
    /// The right edge that the peer was told.
    highest_told: Offset,
}

impl Pair {
    fn new(capacity: usize, max_capacity: usize, shift: u8, sack: bool) -> Self {
        let ack_delay = Duration::from_millis(25);
        let mut receiver = Receiver::new(&ReceiverParams {
            capacity,
            max_capacity,
            ack_delay,
        });
        receiver.negotiate(shift, sack);
        receiver.on_rtt_sample(Duration::from_millis(20));
        Self {
            receiver,
            max_capacity: max_capacity as u64,
            shift,
            operation: 0,
            now: Timestamp::ZERO,
            held: BTreeMap::new(),
            unread: VecDeque::new(),
            rcv_nxt: 1,
            fin: None,
            is_finished: false,
            is_discarded: false,
            right_edge: 0,
            highest_ack: Offset::ZERO,
            highest_told: Offset::ZERO,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        self.operation += 1;
        self.now = self.now + Duration::from_millis(u64::from(input.byte() % 8));
        let operation = input.byte();
        // One arrival in 16 carries a FIN.
        let fin = operation >= 240;
        let small = u64::from(input.byte());
        match operation % 8 {
            0 => self.arrive(self.rcv_nxt, input.length(), fin),
            1 => self.arrive(self.rcv_nxt + small, input.length(), fin),
            2 => self.arrive(
                self.rcv_nxt + 16 * small + u64::from(input.byte()),
                small,
                fin,
            ),
            3 => {
                let edge = self.receiver.rcv_nxt().get() + self.receiver.rcv_wnd();
                self.arrive(edge.saturating_sub(small), input.length(), fin);
            }
            4 => self.arrive(
                self.rcv_nxt.saturating_sub(small).max(1),
                input.length(),
                fin,
            ),
            5 => self.read(input.length(), small),
            6 => self.acknowledge(),
            _ if small == 255 => self.discard(),
            _ => self.arrive(self.rcv_nxt + small * small, 1, fin),
        }
    }

    fn arrive<L: TryInto<usize>>(&mut self, start: u64, len: L, fin: bool) {
        let len = len.try_into().unwrap_or_default();
        // Other bytes at the same place at each arrival: only the first copy may come out.
        let byte_at = |position: u64| {
            position
                .wrapping_mul(31)
                .wrapping_add(self.operation * 17)
                .to_le_bytes()[0]
        };
        let payload: Vec<u8> = (start..start + len as u64).map(byte_at).collect();
        let datagram = Bytes::from([&[0; 20], &payload[..]].concat());
        let inside = self.operation.is_multiple_of(2);
        let payload = if inside {
            &datagram[20..]
        } else {
            &payload[..]
        };

        let receiver = &mut self.receiver;
        let window = receiver.rcv_wnd();
        let dropped = receiver.counters().segments_dropped;
        let arrival = receiver.on_segment(self.now, Offset::new(start), payload, fin, &datagram);
        let is_dropped = receiver.counters().segments_dropped > dropped;
        assert!(
            !is_dropped || self.may_drop(start, payload.len(), window),
            "dropped"
        );

        let edge = self.rcv_nxt + window;
        let fin_at = start + payload.len() as u64;
        let end = fin_at.min(edge).min(self.fin.unwrap_or(u64::MAX));
        if fin
            && !self.is_finished
            && (self.rcv_nxt..=edge).contains(&fin_at)
            && self.fin.is_none_or(|known| fin_at <= known)
        {
            self.fin = Some(fin_at);
        }
        if !is_dropped && !self.is_finished {
            for (position, &byte) in (start..end).zip(payload) {
                if position >= self.rcv_nxt {
                    self.held.entry(position).or_insert(byte);
                }
            }
        }
        let readable = self.unread.len();
        self.advance();
        assert_eq!(
            arrival.newly_readable,
            (self.unread.len() - readable) as u64,
            "newly readable"
        );
        assert!(
            !(arrival.is_duplicate && arrival.newly_readable > 0),
            "a duplicate with news"
        );
    }

    /// Moves what is in order.
    fn advance(&mut self) {
        while !self.is_finished {
            if self.fin == Some(self.rcv_nxt) {
                self.is_finished = true;
                self.held.clear();
            } else if let Some(byte) = self.held.remove(&self.rcv_nxt) {
                if !self.is_discarded {
                    self.unread.push_back(byte);
                }
            } else {
                break;
            }
            self.rcv_nxt += 1;
        }
    }

    /// Whether dropping is justified: out of order, and beyond the ranges or the window with overhead.
    fn may_drop(&self, start: u64, len: usize, window: u64) -> bool {
        let mut previous = None;
        let ranges = self
            .held
            .keys()
            .filter(|&&at| previous.replace(at) != at.checked_sub(1))
            .count();
        // A FIN held, or one in this arrival, may be a range of its own.
        let overhead = (ranges + 2) * RANGE_OVERHEAD;
        start > self.rcv_nxt
            && (ranges + 2 > MAX_RANGES || (self.held.len() + len + 2 + overhead) as u64 > window)
    }

    fn read(&mut self, max: usize, way: u64) {
        let max = max.min(self.unread.len() + 1);
        let mut peeked = vec![0; max];
        let n = self.receiver.peek(&mut peeked);
        assert_eq!(n, max.min(self.unread.len()), "peeked");
        let bytes = if way.is_multiple_of(2) {
            let mut buf = vec![0; max];
            let n = self.receiver.read(&mut buf);
            assert_eq!(n, max.min(self.unread.len()), "read");
            buf.truncate(n);
            Bytes::from(buf)
        } else {
            self.receiver.read_chunk(max).unwrap_or_default()
        };
        assert!(
            bytes.len() <= max && (bytes.is_empty() == (n == 0)),
            "chunk of {}",
            bytes.len()
        );
        assert_eq!(bytes, peeked[..bytes.len()], "peek and read differ");
        self.receiver.on_consumed(self.now, bytes.len());
        for byte in bytes {
            assert_eq!(self.unread.pop_front(), Some(byte), "byte read");
        }
    }

    fn acknowledge(&mut self) {
        let receiver = &mut self.receiver;
        let is_present = receiver.pending_acks() == 0;
        let report = receiver.next_ack();
        assert!(
            report.rcv_nxt >= self.highest_ack,
            "the acknowledgment number went back"
        );
        assert!(report.rcv_nxt <= receiver.rcv_nxt());
        self.highest_ack = report.rcv_nxt;
        for range in report
            .sack
            .as_slice()
            .iter()
            .skip(usize::from(report.has_dsack))
        {
            assert!(
                range.start > report.rcv_nxt && range.start < range.end,
                "{range:?}"
            );
            if is_present && self.fin.is_none() {
                let held = self.held.range(range.start.get()..range.end.get()).count();
                assert_eq!(
                    held as u64,
                    range.end.saturating_since(range.start),
                    "{range:?}"
                );
            }
        }
        let field = u64::from(receiver.advertise(&report));
        let told = report.rcv_nxt + (field << self.shift);
        let edge = receiver.rcv_nxt() + receiver.rcv_wnd();
        assert!(told <= edge, "told {told:?}, accepted to {edge:?}");
        // A FIN may stand right behind the right edge.
        let fin = u64::from(receiver.is_finished());
        assert!(
            edge.saturating_since(told) < (1 << self.shift) + fin,
            "told {told:?} of {edge:?}"
        );
        assert!(
            told + (1 << self.shift) > self.highest_told,
            "told {told:?} after {:?}",
            self.highest_told
        );
        self.highest_told = self.highest_told.max(told);
        assert!(
            report.is_queued || !receiver.has_window_update(),
            "an update right after an advertisement"
        );
        receiver.on_ack_sent();
    }

    fn discard(&mut self) {
        self.receiver.discard();
        self.unread.clear();
        self.is_discarded = true;
    }

    fn check(&mut self) {
        let receiver = &self.receiver;
        receiver.check_invariants();
        assert_eq!(receiver.rcv_nxt().get(), self.rcv_nxt, "rcv_nxt");
        assert_eq!(receiver.readable_bytes(), self.unread.len(), "readable");
        assert_eq!(receiver.is_finished(), self.is_finished, "finished");
        assert_eq!(
            receiver.is_eof(),
            self.is_finished && self.unread.is_empty(),
            "eof"
        );
        if self.fin.is_none() {
            assert_eq!(
                receiver.out_of_order_bytes(),
                self.held.len(),
                "out of order"
            );
        }
        let edge = self.rcv_nxt + receiver.rcv_wnd();
        assert!(edge >= self.right_edge, "the right edge moved left");
        self.right_edge = edge;
        let limit = self.max_capacity;
        let promised = limit + (limit / 4).max(1 << self.shift);
        let memory = receiver.memory() as u64;
        assert!(
            memory <= 2 * promised + MEMORY_BESIDE,
            "{memory} bytes of memory"
        );
    }
}

/// Bytes still to be interpreted; zeros once they are used up.
struct Input<'a> {
    data: &'a [u8],
}

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.data.split_first() else {
            return 0;
        };
        self.data = rest;
        first
    }

    /// Mostly short lengths, some of several segments.
    fn length(&mut self) -> usize {
        let (scale, value) = (self.byte(), usize::from(self.byte()));
        match scale % 4 {
            0 => value % 16,
            1 => value,
            2 => value * 8,
            _ => value * 64,
        }
    }
}
