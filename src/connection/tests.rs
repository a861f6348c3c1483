//! One connection against a scripted peer: segment in, segments out, at what time.
//!
//! Unless a test says otherwise: our ISS is 1000, the peer's 5000, MSS 1000, no timestamps, SACK, window
//! scaling or extension, the peer's window is 10,000 bytes, ACKs are delayed by 25 ms.

mod close;
mod data;
mod defence;
mod ecn;
mod open;
mod pacing;
mod pair;
mod path_mtu;
mod recovery;
mod statistics;
mod timeouts;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::TimeoutCause;
use crate::config::ConfigBuilder;
use crate::congestion::CongestionControl;
use crate::wire::{Header, Options, seal};

const S: Flags = Flags::SYN;
const A: Flags = Flags::ACK;
const F: Flags = Flags::FIN;
const R: Flags = Flags::RST;
const P: Flags = Flags::PSH;

/// What a plain peer offers.
fn plain() -> ConfigBuilder {
    Config::builder()
        .timestamps(false)
        .sack(false)
        .window_scaling(false)
        .extension(false)
        // Tests that count segments want round numbers, and each segment as soon as the window lets it go.
        .congestion(CongestionControl::NewReno)
        .pacing(false)
        .mss(1_000)
        .receive_buffer(10_000)
}

/// A segment as the tests write it: flags, sequence number, acknowledgment, payload length.
type Brief = (Flags, u32, u32, usize);

struct ConnectionTest {
    now: Timestamp,
    connection: Connection,
    sent: VecDeque<(Header, Vec<u8>)>,
    peer_window: u16,
    peer_integrity: Integrity,
}

const PARAMS: OpenParams = OpenParams {
    local_port: 40_000,
    remote_port: 1,
    iss: SeqNumber::new(1_000),
    timestamp_offset: 0,
};

fn segment(flags: Flags, seq: u32, ack: u32, window: u16, options: Options) -> Header {
    Header {
        src_port: 1,
        dst_port: 40_000,
        seq: SeqNumber::new(seq),
        ack: SeqNumber::new(ack),
        flags,
        window,
        options,
    }
}

fn encode(header: &Header, payload: &[u8], integrity: Integrity) -> Bytes {
    let mut bytes = vec![0; header.encoded_len() + payload.len()];
    let at = header.encode(&mut bytes).unwrap();
    bytes[at..].copy_from_slice(payload);
    seal(&mut bytes, integrity);
    Bytes::from(bytes)
}

/// Payload that says where it stands: the byte at sequence number `n` is `n mod 251`.
fn pattern(seq: u32, len: usize) -> Vec<u8> {
    (seq as usize..)
        .take(len)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect()
}

impl ConnectionTest {
    fn new(connection: Connection) -> Self {
        let mut test = Self {
            now: Timestamp::from_millis(1),
            connection,
            sent: VecDeque::new(),
            peer_window: 10_000,
            peer_integrity: Integrity::Sum,
        };
        test.drain();
        test
    }

    fn connect(config: ConfigBuilder) -> Self {
        let config = Arc::new(config.build().unwrap());
        Self::new(Connection::connect(
            Timestamp::from_millis(1),
            config,
            &PARAMS,
        ))
    }

    fn accept(config: ConfigBuilder) -> Self {
        let config = Arc::new(config.build().unwrap());
        let options = Options {
            mss: Some(1_000),
            ..Options::default()
        };
        let syn = encode(&segment(S, 5_000, 0, 10_000, options), &[], Integrity::Sum);
        let syn = Segment::decode(&syn).unwrap();
        Self::new(Connection::accept(
            Timestamp::from_millis(1),
            config,
            &PARAMS,
            &syn,
        ))
    }

    /// Connected, with the handshake's RTT of 100 ms; 1001 and 5001 come next.
    #[track_caller]
    fn established(config: ConfigBuilder) -> Self {
        let mut test = Self::connect(config);
        test.expect((S, 1_000, 0, 0));
        test.advance(100);
        test.inject_with(
            (S | A, 5_000, 1_001, 0),
            Options {
                mss: Some(1_000),
                ..Options::default()
            },
        );
        test.expect((A, 1_001, 5_001, 0));
        test.expect_event(Event::Connected);
        assert_eq!(test.connection.state(), State::Established);
        test
    }

    fn inject(&mut self, brief: Brief) {
        self.inject_with(brief, Options::default());
    }

    fn inject_with(&mut self, (flags, seq, ack, len): Brief, options: Options) {
        let header = segment(flags, seq, ack, self.peer_window, options);
        let integrity = if flags.contains(S) {
            Integrity::Sum
        } else {
            self.peer_integrity
        };
        let bytes = encode(&header, &pattern(seq, len), integrity);
        let segment = Segment::decode(&bytes).unwrap();
        self.connection.handle_segment(self.now, &segment, &bytes);
        let before = self.sent.len();
        let wants_turn = self.connection.wants_turn(self.now);
        self.drain();
        assert!(
            wants_turn || self.sent.len() == before,
            "without a turn something would not have left"
        );
    }

    /// Lets time pass, firing each timer at its own moment.
    fn advance(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        while let Some(deadline) = self.connection.poll_timeout().filter(|d| *d <= until) {
            self.now = self.now.max(deadline);
            self.connection.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
        self.connection.handle_timeout(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        let mut buf = vec![0; 65_536];
        while let Some(transmit) = self.connection.poll_transmit(self.now, 64, &mut buf) {
            let mut count = 0;
            for bytes in buf[..transmit.len].chunks(transmit.segment_size) {
                let segment = Segment::decode(bytes).unwrap();
                assert!(segment.integrity().is_some(), "sealed");
                self.sent
                    .push_back((segment.header, segment.payload.to_vec()));
                count += 1;
            }
            assert_eq!(count, transmit.segments);
        }
        self.connection.check_invariants();
    }

    #[track_caller]
    fn expect(&mut self, (flags, seq, ack, len): Brief) -> Header {
        let (header, payload) = self.sent.pop_front().expect("a segment was expected");
        let ack = if flags.contains(A) { ack } else { 0 };
        // The peer of these tests knows nothing of ECN; `ecn` has those that do.
        let offer = if header.flags == S | Flags::ECE | Flags::CWR {
            S
        } else {
            header.flags
        };
        let got = (offer, header.seq.get(), header.ack.get(), payload.len());
        assert_eq!(got, (flags, seq, ack, len), "flags, seq, ack, len");
        header
    }

    #[track_caller]
    fn expect_nothing(&self) {
        assert!(self.sent.is_empty(), "unexpected: {:?}", self.sent.front());
    }

    #[track_caller]
    fn expect_event(&mut self, event: Event) {
        assert_eq!(self.connection.poll_event(), Some(event));
    }

    #[track_caller]
    fn expect_timed_out(&self, cause: TimeoutCause) {
        assert_eq!(self.connection.state(), State::Closed);
        assert_eq!(
            self.connection.error(),
            Some(&ConnectionError::TimedOut(cause))
        );
    }

    #[track_caller]
    fn write(&mut self, len: usize) {
        let seq = 1_001 + self.connection.sender.data_end().get() - 1;
        let data = pattern(u32::try_from(seq).unwrap(), len);
        assert_eq!(self.connection.write(self.now, &data), Ok(len));
        self.drain();
    }

    fn finish(&mut self) {
        self.connection.finish(self.now).unwrap();
        self.drain();
    }

    fn release(&mut self) {
        self.connection.release(self.now);
        self.drain();
    }

    #[track_caller]
    fn read(&mut self, seq: u32, len: usize) {
        let mut buf = vec![0; len + 1];
        let taken = self
            .connection
            .read(self.now, &mut buf)
            .expect("something to read");
        assert_eq!(&buf[..taken], pattern(seq, len), "bytes read");
        self.drain();
    }
}

impl Drop for ConnectionTest {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.expect_nothing();
        }
    }
}
