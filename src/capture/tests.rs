//! Whole captures: of two endpoints on a clock of their own, and with writers that block and fail.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::*;
use crate::Config;
use crate::connection::Connection;
use crate::endpoint::{Arrival, ConnectionId, Endpoint, EndpointLocal, Secrets};
use crate::tap::{Direction, TappedSegment};
use crate::wire::{Flags, Header, Integrity, seal};

/// What a capture has written, while it goes on.
#[derive(Debug, Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// 2026-01-02, 23:59:59.5 UTC: midnight passes during the test.
fn origin() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_398_399_500)
}

fn segment(len: usize) -> Vec<u8> {
    let header = Header {
        src_port: 51_000,
        dst_port: 1,
        flags: Flags::ACK,
        ..Header::default()
    };
    let mut bytes = vec![0; header.encoded_len()];
    header.encode(&mut bytes).unwrap();
    bytes.resize(bytes.len() + len, 0x55);
    seal(&mut bytes, Integrity::Crc32c);
    bytes
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn show(tap: &mut dyn Tap, segment: &[u8]) {
    let tapped = TappedSegment {
        direction: Direction::Outgoing,
        remote: addr("10.0.0.2:4000"),
        local: addr("10.0.0.1:5000"),
        segment,
    };
    tap.on_segment(Timestamp::ZERO, &tapped);
}

/// Two endpoints, 10 ms apart; the first has the tap.
struct Pair {
    now: Timestamp,
    ends: [(SocketAddr, Endpoint); 2],
    flying: VecDeque<(Timestamp, usize, Bytes)>,
    sent: usize,
    lost: usize,
}

impl Pair {
    fn new(capture: &Capture, lost: usize) -> Self {
        let ends = [addr("10.0.0.1:5000"), addr("[::ffff:10.0.0.2]:4000")].map(|addr| {
            let secrets = Secrets {
                isn: [1; 16],
                port: [2; 16],
                cookie: [3; 16],
                hash_seed: 4,
            };
            let local = EndpointLocal { addr };
            let config = Config::builder()
                .receive_buffer(65_535)
                .datagram_size(1_232)
                .build()
                .unwrap();
            let endpoint = Endpoint::new(Timestamp::ZERO, config, secrets, local);
            (addr, endpoint)
        });
        let mut pair = Self {
            now: Timestamp::ZERO,
            ends,
            flying: VecDeque::new(),
            sent: 0,
            lost,
        };
        let [(addr, near), (_, far)] = &mut pair.ends;
        assert!(near.set_tap(Some(capture.tap(pair.now, *addr))).is_none());
        far.listen(1, None).unwrap();
        pair
    }

    /// Lets things happen for some time.
    fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        loop {
            let mut buf = vec![0; 65_536];
            for from in 0..2 {
                while let Some(departure) = self.ends[from].1.poll_transmit(self.now, 8, &mut buf) {
                    for segment in buf[..departure.len].chunks(departure.segment_size) {
                        self.sent += 1;
                        if self.sent != self.lost {
                            let due = self.now + Duration::from_millis(10);
                            let segment = Bytes::copy_from_slice(segment);
                            self.flying.push_back((due, 1 - from, segment));
                        }
                    }
                }
                while self.ends[from].1.poll_event().is_some() {}
            }
            let due = self.flying.front().map(|(due, _, _)| *due);
            let deadlines = self.ends.iter().filter_map(|(_, end)| end.poll_timeout());
            let next = deadlines.chain(due).min().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            while self.flying.front().is_some_and(|(due, _, _)| *due <= next) {
                let (_, to, bytes) = self.flying.pop_front().unwrap();
                let remote = self.ends[1 - to].0;
                let arrival = Arrival {
                    remote,
                    local_ip: None,
                    ecn: None,
                    bytes: &bytes,
                    stride: 0,
                };
                self.ends[to].1.handle_arrival(self.now, &arrival);
            }
            for (_, end) in &mut self.ends {
                end.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    fn on<R>(
        &mut self,
        end: usize,
        id: ConnectionId,
        act: impl FnOnce(&mut Connection, Timestamp) -> R,
    ) -> R {
        let now = self.now;
        let endpoint = &mut self.ends[end].1;
        endpoint
            .with_connection(now, id, |connection| act(connection, now))
            .unwrap()
    }
}

/// A short exchange in which the first data segment is lost.
fn exchange(capture: &Capture) {
    let mut pair = Pair::new(capture, 4);
    let server = pair.ends[1].0;
    let client = pair.ends[0].1.connect(pair.now, server, 1, None).unwrap();
    pair.run(100);
    let (server, _) = pair.ends[1].1.accept(1).unwrap();
    pair.on(0, client, |connection, now| {
        connection.write(now, &[7; 3_000])
    })
    .unwrap();
    pair.run(300);
    let mut buf = [0; 4_096];
    assert_eq!(
        pair.on(1, server, |connection, now| connection.read(now, &mut buf)),
        Ok(3_000)
    );
    pair.on(1, server, |connection, now| {
        connection.write(now, b"thanks")
    })
    .unwrap();
    pair.run(100);
    pair.on(0, client, Connection::finish).unwrap();
    pair.run(100);
    pair.on(1, server, Connection::finish).unwrap();
    pair.run(100);
    assert_eq!(
        pair.on(0, client, |connection, _| connection
            .stats()
            .segments_retransmitted),
        1
    );
}

const EXPECTED: &str = include_str!("tests.log");

#[test]
fn the_text_log_reads_like_tcpdump() {
    let (text, pcapng) = (Output::default(), Output::default());
    let builder = Capture::builder().text(text.clone()).pcapng(pcapng.clone());
    let capture = builder.origin(origin()).start().unwrap();
    exchange(&capture);
    let stats = capture.finish().unwrap();
    let log = String::from_utf8(text.take()).unwrap();
    assert_eq!(log, EXPECTED, "\n{log}");
    assert_eq!(stats.written, log.lines().count() as u64);
    compare_with_tcpdump(&log, &pcapng.take());
}

/// tcpdump itself, where installed, reads the same out of the pcapng file.
fn compare_with_tcpdump(log: &str, pcapng: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pcapng).unwrap();
    let output = Command::new("tcpdump")
        .args(["-n", "-r"])
        .arg(file.path())
        .env("TZ", "UTC")
        .stderr(Stdio::null())
        .output();
    let Ok(output) = output else {
        println!("SKIPPED: tcpdump is not installed");
        return;
    };
    // It knows our option by its identifier only, and with pcapng not the direction.
    let plain = |line: &str| {
        let line = line.replace(" Out ", " ").replace(" In  ", " ");
        match line.split_once(",reliable-udp") {
            Some((head, tail)) => format!("{head},exp-5255]{}", tail.split_once(']').unwrap().1),
            None => line,
        }
    };
    let theirs = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<String> = theirs.lines().map(plain).collect();
    let ours: Vec<String> = log.lines().map(plain).collect();
    assert_eq!(ours, theirs);
}

/// A file on a disk that stands still until it is told to go on, or gives up then.
#[derive(Debug)]
struct Gate {
    entered: Sender<()>,
    go_on: mpsc::Receiver<io::Result<()>>,
    is_open: bool,
    output: Output,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_open {
            let _ = self.entered.send(());
            // A closed channel: the disk is still as full as it was.
            let outcome = self.go_on.recv().map_err(|_| io::ErrorKind::StorageFull);
            outcome??;
            self.is_open = true;
        }
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_the_queue_cannot_hold_is_dropped_and_counted() {
    let (entered, has_entered) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let output = Output::default();
    let gate = Gate {
        entered,
        go_on: may_go_on,
        is_open: false,
        output: output.clone(),
    };
    let segment = segment(1_000);
    // Room for ten with their overhead, and not for eleven.
    let builder = Capture::builder().queue_bytes(11 * 1_180 - 1).pcapng(gate);
    let capture = builder.origin(origin()).start().unwrap();
    // The thread hangs in the write of the file's header.
    has_entered.recv().unwrap();
    let mut tap = capture.tap(Timestamp::ZERO, addr("10.0.0.1:5000"));
    for _ in 0..1_000 {
        show(&mut *tap, &segment);
    }
    let stats = capture.stats();
    assert_eq!((stats.written, stats.dropped), (0, 990));
    go_on.send(Ok(())).unwrap();
    let stats = capture.finish().unwrap();
    assert_eq!((stats.written, stats.dropped, stats.failed), (10, 990, 0));
    // The last block: interface statistics, whose last option is isb_ifdrop.
    let bytes = output.take();
    let drop_option = [
        &5u16.to_le_bytes()[..],
        &8u16.to_le_bytes(),
        &990u64.to_le_bytes(),
    ]
    .concat();
    let statistics = &bytes[bytes.len() - 52..];
    assert_eq!(statistics[..4], 5u32.to_le_bytes());
    assert!(statistics.windows(12).any(|window| window == drop_option));
    // What comes later is not part of it, and is not counted.
    show(&mut *tap, &segment);
    assert_eq!(capture.finish().unwrap(), stats);
}

#[test]
fn a_failed_writer_is_reported_and_does_not_stop_the_other() {
    let (entered, has_entered) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let text = Output::default();
    let full = Gate {
        entered,
        go_on: may_go_on,
        is_open: false,
        output: Output::default(),
    };
    let capture = Capture::builder()
        .pcapng(full)
        .text(text.clone())
        .start()
        .unwrap();
    has_entered.recv().unwrap();
    go_on.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
    drop(go_on);
    let mut tap = capture.tap(Timestamp::ZERO, addr("10.0.0.1:5000"));
    for _ in 0..5 {
        show(&mut *tap, &segment(10));
    }
    let error = capture.finish().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(String::from_utf8(text.take()).unwrap().lines().count(), 5);
    let stats = capture.finish().unwrap();
    assert_eq!((stats.written, stats.dropped, stats.failed), (0, 0, 5));
}

#[test]
fn a_segment_that_no_ip_packet_holds_is_counted_and_the_next_is_written() {
    let output = Output::default();
    let capture = Capture::builder().pcapng(output.clone()).start().unwrap();
    let mut tap = capture.tap(Timestamp::ZERO, addr("10.0.0.1:5000"));
    for len in [65_516, 10] {
        show(&mut *tap, &segment(len));
    }
    let stats = capture.finish().unwrap();
    assert_eq!((stats.written, stats.dropped, stats.failed), (1, 0, 1));
}

#[test]
fn a_capture_that_nobody_holds_ends_by_itself() {
    let output = Output::default();
    let capture = Capture::builder().text(output.clone()).start().unwrap();
    let mut tap = capture.tap(Timestamp::ZERO, addr("10.0.0.1:5000"));
    let thread = capture.thread.lock().unwrap().take().unwrap();
    drop(capture);
    show(&mut *tap, &segment(10));
    drop(tap);
    thread.join().unwrap().unwrap();
    assert_eq!(String::from_utf8(output.take()).unwrap().lines().count(), 1);
}

#[test]
fn a_panicking_writer_is_an_error() {
    #[derive(Debug)]
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            panic!("broken on purpose");
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let capture = Capture::builder().pcapng(Broken).start().unwrap();
    let mut tap = capture.tap(Timestamp::ZERO, addr("10.0.0.1:5000"));
    show(&mut *tap, &segment(10));
    assert!(capture.finish().is_err());
    show(&mut *tap, &segment(10));
}
