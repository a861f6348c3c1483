//! Captures as others read them: tshark where it is installed, and pcap-file with checks of our own
//! always.
#![cfg(all(feature = "capture", feature = "sim"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail the test, and say what they skip"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
#[cfg(all(feature = "copy", target_os = "linux"))]
use std::process::Stdio;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use pcap_file::pcapng::{Block, PcapNgReader};
use reliable_udp::capture::{Capture, PcapngWriter, SegmentRecord};
use reliable_udp::congestion::{
    Acked, CongestionControl, CongestionController, RecoveryEntered, TimedOut,
};
use reliable_udp::sim::{self, LinkConfig, Rng, SimNetwork};
use reliable_udp::tap::{Direction, Tap, TapFactory, TappedSegment};
use reliable_udp::{Config, Endpoint, ReliableUdpListener, ReliableUdpSocket, Timestamp};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn origin() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_398_399)
}

/// Bytes that repeat with no power of two.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

fn capture_to(path: &Path) -> Capture {
    let file = File::create(path).unwrap();
    let builder = Capture::builder().pcapng(file).origin(origin());
    builder.start().unwrap()
}

// ---- what the readers see ----

/// One frame of a capture, checked.
#[derive(Debug, Clone)]
struct Frame {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    seq: u32,
    flags: u8,
    payload: Vec<u8>,
}

/// RFC 1071; 0 if the checksum in `bytes` is right.
fn rest_of_sum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

impl Frame {
    fn parse(bytes: &[u8]) -> Self {
        let (from, to, pseudo, tcp): (IpAddr, IpAddr, Vec<u8>, &[u8]) = match bytes[0] >> 4 {
            4 => {
                let (ip, tcp) = bytes.split_at(20);
                assert_eq!(ip[0], 0x45);
                assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), bytes.len());
                assert_eq!((ip[6] & 0x3f, ip[7], ip[9]), (0, 0, 6), "no fragment, TCP");
                assert_eq!(rest_of_sum(ip), 0, "IP checksum");
                let from: [u8; 4] = ip[12..16].try_into().unwrap();
                let to: [u8; 4] = ip[16..20].try_into().unwrap();
                (from.into(), to.into(), ip[12..20].to_vec(), tcp)
            }
            6 => {
                let (ip, tcp) = bytes.split_at(40);
                assert_eq!(usize::from(u16::from_be_bytes([ip[4], ip[5]])), tcp.len());
                assert_eq!(ip[6], 6, "TCP");
                let from: [u8; 16] = ip[8..24].try_into().unwrap();
                let to: [u8; 16] = ip[24..40].try_into().unwrap();
                (from.into(), to.into(), ip[8..40].to_vec(), tcp)
            }
            other => panic!("IP version {other}"),
        };
        let len = u32::try_from(tcp.len()).unwrap().to_be_bytes();
        let covered = [&pseudo[..], &len, &[0, 0, 0, 6], tcp].concat();
        assert_eq!(rest_of_sum(&covered), 0, "TCP checksum");
        assert_eq!(tcp[18..20], [0, 0], "urgent pointer");
        assert_eq!(tcp[13] & 0x20, 0, "URG");
        let header = usize::from(tcp[12] >> 4) * 4;
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        Self {
            from: (from, port(0)),
            to: (to, port(2)),
            seq: u32::from_be_bytes(tcp[4..8].try_into().unwrap()),
            flags: tcp[13],
            payload: tcp[header..].to_vec(),
        }
    }

    fn is_syn(&self) -> bool {
        self.flags & 2 != 0
    }
}

/// Reads a whole capture with a reader that has nothing in common with the writer.
fn read(path: &Path) -> Vec<Frame> {
    let mut reader = PcapNgReader::new(File::open(path).unwrap()).unwrap();
    let mut frames = Vec::new();
    let mut statistics = 0;
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(interface) => {
                assert_eq!(interface.linktype, pcap_file::DataLink::RAW);
            }
            Block::EnhancedPacket(packet) => {
                assert_eq!(packet.original_len as usize, packet.data.len());
                frames.push(Frame::parse(&packet.data));
            }
            Block::InterfaceStatistics(_) => statistics += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(statistics, 1, "the file is complete");
    frames
}

/// Puts together what one side sent.
fn reassemble(frames: &[Frame], from: (IpAddr, u16)) -> Vec<u8> {
    let sent = || frames.iter().filter(move |frame| frame.from == from);
    let start = sent().find(|frame| frame.is_syn()).unwrap().seq;
    let mut stream = Vec::new();
    for frame in sent() {
        let at = frame.seq.wrapping_sub(start).wrapping_sub(1) as usize;
        if frame.payload.is_empty() {
            continue;
        }
        let end = at + frame.payload.len();
        assert!(at <= stream.len(), "a hole at {}", stream.len());
        let known = end.min(stream.len());
        assert!(
            stream[at..known] == frame.payload[..known - at],
            "bytes changed"
        );
        stream.extend_from_slice(&frame.payload[known - at..]);
    }
    stream
}

/// Runs tshark with checksums on; the lines of `field` of the frames that `filter` takes. `None` if tshark
/// is not installed.
fn tshark(path: &Path, filter: &str, field: &str) -> Option<Vec<String>> {
    let output = Command::new("tshark")
        .arg("-r")
        .arg(path)
        .args([
            "-o",
            "tcp.check_checksum:TRUE",
            "-o",
            "ip.check_checksum:TRUE",
        ])
        // The payload is ours; no dissector may guess by the other port what it is.
        .args(["-d", "tcp.port==1,data", "-d", "tcp.port==5,data"])
        .args(["-Y", filter, "-T", "fields", "-e", field])
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("SKIPPED: tshark is not installed");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    Some(lines.lines().map(str::to_owned).collect())
}

/// What tshark must find nowhere.
const MALFORMED: &str = "_ws.malformed || _ws.expert.severity == error || tcp.checksum.status == Bad \
     || ip.checksum.status == Bad || tcp.urgent_pointer != 0 || !tcp";

fn expect_sound(path: &Path) {
    if let Some(frames) = tshark(path, MALFORMED, "frame.number") {
        assert_eq!(frames, [] as [&str; 0], "malformed frames");
        let good = "tcp.checksum.status == Good".to_string();
        let checked = tshark(path, &good, "frame.number").unwrap();
        assert_eq!(
            checked.len(),
            read(path).len(),
            "frames with a checksum that was checked"
        );
    }
}

// ---- live captures ----

/// How a transfer writes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    /// As fast as it goes.
    Bulk,
    /// The next message when the one before has been answered.
    Messages,
}

const MESSAGE: usize = 24_000;

/// Lets a whole message go out at once, always.
#[derive(Debug)]
struct FixedWindow(u64);

impl CongestionController for FixedWindow {
    fn on_acked(&mut self, _: &Acked) {}
    fn on_recovery_entered(&mut self, _: &RecoveryEntered) {}
    fn on_timeout(&mut self, _: &TimedOut) {}

    fn on_mss_changed(&mut self, mss: u64) {
        self.0 = mss;
    }

    fn cwnd(&self) -> u64 {
        self.0 * 64
    }

    fn ssthresh(&self) -> u64 {
        u64::MAX
    }

    fn uses_prr(&self) -> bool {
        false
    }
}

/// A transfer under a capture of the sender, after a handshake on a good link; returns how many segments
/// were sent again.
async fn transfer(
    path: &Path,
    seed: u64,
    (manner, link): (Manner, &LinkConfig),
    data: &[u8],
) -> io::Result<u64> {
    let capture = capture_to(path);
    let good = LinkConfig::builder().delay(ms(20)).build()?;
    let (near, far) = sim::pair(seed, good.clone(), good);
    let near = Arc::new(near);
    let mut config = Config::builder().tap(capture.clone()).datagram_size(1_232);
    if manner == Manner::Messages {
        config = config.congestion(CongestionControl::custom(|params| FixedWindow(params.mss)));
    }
    let client = Endpoint::with_transport(near.clone(), config.build()?)?;
    let server = Endpoint::with_transport(Arc::new(far), Config::default())?;
    let listener = server.listen(1)?;
    let addr = server.local_addr()?;
    let (socket, accepted) = tokio::join!(client.connect(addr), listener.accept());
    let (mut socket, mut peer) = (socket?, accepted?.0);
    near.set_links(link.clone(), link.clone());
    let receiving = async {
        let mut received = vec![0; data.len()];
        for message in received.chunks_mut(MESSAGE) {
            peer.read_exact(message).await?;
            peer.write_all(b"!").await?;
        }
        assert_eq!(peer.read(&mut [0]).await?, 0);
        peer.shutdown().await?;
        io::Result::Ok(received)
    };
    let sending = async {
        for message in data.chunks(MESSAGE) {
            socket.write_all(message).await?;
            if manner == Manner::Messages {
                socket.read_exact(&mut [0]).await?;
            }
        }
        socket.finish()?;
        socket.read_to_end(&mut Vec::new()).await?;
        socket.shutdown().await
    };
    let (received, ()) = tokio::try_join!(receiving, sending)?;
    assert!(received == data, "the stream differs");
    // Everything is acknowledged: nothing is sent again from here on.
    let retransmitted = socket.stats().segments_retransmitted;
    let segments = capture.finish()?.written;
    assert_eq!(segments, read(path).len() as u64);
    Ok(retransmitted)
}

/// What tshark calls a retransmission: where the sender is captured, a segment with payload, SYN or FIN
/// whose numbers it has seen before. It divides them into fast ones (after duplicate ACKs), spurious ones
/// (already acknowledged) and others.
const RETRANSMISSIONS: &str = "tcp.analysis.retransmission || tcp.analysis.fast_retransmission \
     || tcp.analysis.spurious_retransmission";

/// Captures transfers over bad links and compares tshark's count with ours.
async fn compare(manner: Manner, link: &LinkConfig, retransmissions: &str) -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = pattern(40 * MESSAGE);
    let mut total = 0;
    for seed in 1..=4 {
        let path = directory.path().join(format!("{seed}.pcapng"));
        let retransmitted = transfer(&path, seed, (manner, link), &data).await?;
        total += retransmitted;
        let frames = read(&path);
        let client = frames[0].from;
        assert!(frames[0].is_syn());
        assert!(reassemble(&frames, client) == data, "seed {seed}");
        expect_sound(&path);
        let filter = format!("ip.src == {} && ({retransmissions})", client.0);
        if let Some(seen) = tshark(&path, &filter, "frame.number") {
            assert_eq!(seen.len() as u64, retransmitted, "seed {seed}");
            assert_eq!(streams(&path), 1);
        }
    }
    assert!(total > 100, "only {total} retransmissions");
    Ok(())
}

/// Segments are sent again one round trip after the newest data at the earliest, since all of a message
/// leaves at once; then tshark calls each of them a retransmission. (A retransmission of one byte would be a
/// keepalive to it; no segment is that short.)
#[tokio::test(start_paused = true)]
async fn tshark_counts_the_retransmissions_that_we_count() -> io::Result<()> {
    let link = LinkConfig::builder()
        .delay(ms(20))
        .loss(0.06)
        .duplicate(0.02)
        .corrupt(0.01);
    compare(Manner::Messages, &link.build()?, RETRANSMISSIONS).await
}

/// Among new data that is less than a round trip old, tshark cannot tell a retransmission from a segment
/// that came late, and calls those out of order that do not follow duplicate ACKs. At the sender nothing
/// comes late: new data leaves in order. So they are retransmissions too.
#[tokio::test(start_paused = true)]
async fn tshark_sees_every_retransmission_of_a_bulk_transfer() -> io::Result<()> {
    let link = LinkConfig::builder()
        .delay(ms(20))
        .jitter(ms(3))
        .rate(4_000_000)
        .queue_bytes(60_000)
        .loss(0.03)
        .duplicate(0.01)
        .reorder(0.02, ms(10))
        .corrupt(0.01);
    let marks = format!("{RETRANSMISSIONS} || tcp.analysis.out_of_order");
    compare(Manner::Bulk, &link.build()?, &marks).await
}

fn streams(path: &Path) -> usize {
    let streams = tshark(path, "tcp", "tcp.stream").unwrap();
    streams.into_iter().collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn a_socket_of_its_own_is_captured_from_its_first_syn_on() -> io::Result<()> {
    for (bind, host) in [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1")] {
        let directory = tempfile::tempdir()?;
        let paths = ["near", "far"].map(|name| directory.path().join(name));
        let [near, far] = [capture_to(&paths[0]), capture_to(&paths[1])];
        let config = |capture: &Capture| Config::builder().tap(capture.clone()).build();
        let listener = ReliableUdpListener::bind_with(bind, config(&far)?).await?;
        let port = listener.local_addr()?.port();
        let connecting = async {
            let addr = SocketAddr::new(host.parse().unwrap(), port);
            let mut socket = ReliableUdpSocket::connect_with(addr, config(&near)?).await?;
            socket.write_all(&pattern(100_000)).await?;
            socket.shutdown().await?;
            io::Result::Ok(())
        };
        let accepting = async {
            let (mut socket, _) = listener.accept().await?;
            let mut received = Vec::new();
            socket.read_to_end(&mut received).await?;
            socket.shutdown().await?;
            io::Result::Ok(received)
        };
        let ((), received) = tokio::try_join!(connecting, accepting)?;
        for (capture, path) in [near, far].into_iter().zip(&paths) {
            let stats = tokio::task::spawn_blocking(move || capture.finish()).await??;
            assert_eq!((stats.dropped, stats.failed), (0, 0));
            let frames = read(path);
            assert!(frames[0].is_syn() && frames[1].is_syn(), "{bind}");
            // The socket was bound to no address before it connected: it is shown under the one it uses.
            let host: IpAddr = host.parse().unwrap();
            let ends = |frame: &Frame| (frame.from.0, frame.to.0);
            assert!(frames.iter().all(|frame| ends(frame) == (host, host)));
            assert!(reassemble(&frames, frames[0].from) == received);
            expect_sound(path);
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_can_be_watched_for_a_while() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("middle.pcapng");
    let (near, far) = sim::pair(1, LinkConfig::default(), LinkConfig::default());
    let client = Endpoint::with_transport(Arc::new(near), Config::default())?;
    let server = Endpoint::with_transport(Arc::new(far), Config::default())?;
    let listener = server.listen(1)?;
    let (mut socket, accepted) =
        tokio::join!(client.connect(server.local_addr()?), listener.accept());
    let (socket, mut peer) = (socket.as_mut().unwrap(), accepted?.0);
    let capture = capture_to(&path);
    let mut buffer = [0; 4];
    for watched in [false, true, false] {
        client.set_tap(watched.then_some(&capture as &dyn TapFactory))?;
        socket
            .write_all(if watched { b"seen" } else { b"dark" })
            .await?;
        socket.flush().await?;
        peer.read_exact(&mut buffer).await?;
        tokio::time::sleep(ms(1_000)).await;
    }
    capture.finish()?;
    let payloads: Vec<_> = read(&path)
        .into_iter()
        .map(|frame| frame.payload)
        .filter(|payload| !payload.is_empty())
        .collect();
    assert_eq!(payloads, [b"seen"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn connections_that_differ_in_a_udp_port_only_are_two_streams() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("twins.pcapng");
    let capture = capture_to(&path);
    let network = SimNetwork::new(5);
    let attach = |addr| network.attach(addr, LinkConfig::default(), LinkConfig::default());
    let home = SocketAddr::from(([10, 0, 0, 1], 9));
    let config = Config::builder().tap(capture.clone()).build()?;
    let server = Endpoint::with_transport(Arc::new(attach(home)), config)?;
    let twins = [7, 8].map(|port| SocketAddr::from(([10, 0, 0, 2], port)));
    for twin in twins {
        let client = Endpoint::with_transport(Arc::new(attach(twin)), Config::default())?;
        // Both use virtual port 5 on both sides.
        let (near, far) = tokio::join!(server.rendezvous(twin, 5), client.rendezvous(home, 5));
        let (mut near, mut far) = (near?, far?);
        near.write_all(&pattern(10_000)).await?;
        near.finish()?;
        far.read_to_end(&mut Vec::new()).await?;
        far.shutdown().await?;
        near.shutdown().await?;
    }
    capture.finish()?;
    let mut bytes: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for frame in read(&path) {
        *bytes.entry(frame.to.0).or_default() += frame.payload.len();
    }
    let shown = |text: &str| bytes.get(&text.parse::<IpAddr>().unwrap()).copied();
    assert_eq!(shown("10.0.0.2"), Some(10_000), "{bytes:?}");
    assert_eq!(shown("fd72:7564:7000::8:a00:2"), Some(10_000), "{bytes:?}");
    expect_sound(&path);
    if tshark(&path, "tcp", "tcp.stream").is_some() {
        assert_eq!(streams(&path), 2);
        // In a simultaneous open the SYN-ACK repeats the SYN's number.
        let again = "!tcp.flags.syn && (tcp.analysis.retransmission \
             || tcp.analysis.out_of_order || tcp.analysis.lost_segment)";
        assert_eq!(tshark(&path, again, "frame.number"), Some(Vec::new()));
        let comments = tshark(&path, "frame.comment", "frame.comment").unwrap();
        assert_eq!(comments.len(), 2);
        assert!(comments[1].contains("10.0.0.2:8"), "{comments:?}");
    }
    Ok(())
}

#[test]
fn segments_of_every_length_are_sound() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lengths.pcapng");
    let mut writer = PcapngWriter::new(File::create(&path).unwrap()).unwrap();
    let addrs = [
        ("127.0.0.1:4000", "127.0.0.1:5000", 65_507),
        ("[::1]:4000", "[::1]:5000", 65_527),
        ("[::ffff:10.0.0.1]:4000", "10.0.0.2:5000", 65_507),
    ];
    let mut written = 0;
    for (from, to, most) in addrs {
        for len in [20, 21, 22, 23, 1_231, 1_232, most - 1, most] {
            // Five words of header, ACK; the rest is as it may be.
            let mut segment = pattern(len);
            segment[12..14].copy_from_slice(&[0x50, 0x10]);
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let record = SegmentRecord::new(origin(), from, to, &segment);
            writer.write(&record).unwrap();
            written += 1;
        }
    }
    writer.finish(7).unwrap();
    assert_eq!(read(&path).len(), written);
    expect_sound(&path);
}

#[cfg(feature = "copy")]
#[test]
fn a_file_copy_is_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let [log, capture] = ["log", "capture"].map(|name| directory.path().join(name));
    let output = example("file_copy_demo")
        .args(["--size-mib", "1", "--files", "5", "--loss", "3%"])
        .arg("--log")
        .arg(&log)
        .arg("--capture")
        .arg(&capture)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let frames = read(&capture);
    assert!(frames[0].is_syn());
    assert!(reassemble(&frames, frames[0].from).len() > 1 << 20);
    let log = fs::read_to_string(log).unwrap();
    assert_eq!(log.lines().count(), frames.len());
    expect_sound(&capture);
}

/// Ctrl-C in the middle of a copy ends the program, and the capture too, which is whole.
#[cfg(all(feature = "copy", target_os = "linux"))]
#[test]
fn an_interrupted_copy_leaves_a_whole_capture() {
    use nix::sys::signal::{Signal, kill};

    let directory = tempfile::tempdir().unwrap();
    let capture = directory.path().join("capture");
    let mut demo = example("file_copy_demo");
    // Minutes, if nobody stopped it.
    demo.args(["--size-mib", "64", "--files", "5", "--delay-ms", "500"])
        .arg("--capture")
        .arg(&capture)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut demo = demo.spawn().unwrap();
    let is_under_way = || fs::metadata(&capture).is_ok_and(|file| file.len() > 500_000);
    while !is_under_way() {
        assert_eq!(demo.try_wait().unwrap(), None, "it ended by itself");
        std::thread::sleep(ms(10));
    }
    let id = nix::unistd::Pid::from_raw(demo.id().try_into().unwrap());
    kill(id, Signal::SIGINT).unwrap();
    let output = demo.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.ends_with("error: interrupted\n"), "{said}");
    // That it ends with its statistics is checked there.
    assert!(read(&capture)[0].is_syn());
    expect_sound(&capture);
}

/// A server that is to end after one client hears Ctrl-C also while it serves that one.
#[cfg(all(feature = "copy", target_os = "linux"))]
#[tokio::test]
async fn a_server_can_be_interrupted_while_it_serves() -> io::Result<()> {
    use nix::sys::signal::{Signal, kill};
    use std::io::{BufRead, BufReader};

    let directory = tempfile::tempdir()?;
    let mut server = example("file_copy_server");
    server.args(["--listen", "127.0.0.1:0", "--once", "--root"]);
    server.arg(directory.path()).stdout(Stdio::piped());
    let mut server = server.spawn()?;
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line)?;
    let addr = line.split([' ', ';']).nth(2).unwrap().to_owned();
    // A client that says nothing, of which the server would tire after 30 s.
    let _client = ReliableUdpSocket::connect(addr).await?;
    tokio::time::sleep(ms(300)).await;
    let id = nix::unistd::Pid::from_raw(server.id().try_into().unwrap());
    kill(id, Signal::SIGINT)?;
    let ending = tokio::time::timeout(ms(15_000), async {
        while server.try_wait().unwrap().is_none() {
            tokio::time::sleep(ms(10)).await;
        }
    });
    let ending = ending.await;
    server.kill()?;
    assert!(ending.is_ok(), "it goes on");
    Ok(())
}

#[cfg(all(feature = "copy", target_os = "linux"))]
#[test]
fn a_recording_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let both = directory.path().join("both").display().to_string();
    let cases = [
        (
            vec!["--capture", "/dev/full"],
            "error: cannot write /dev/full: ",
        ),
        (
            vec!["--log", &both, "--capture", &both],
            "error: --log and --capture both name ",
        ),
        (
            vec!["--log", "/nowhere/log"],
            "error: cannot write /nowhere/log: ",
        ),
    ];
    for (args, error) in cases {
        let mut demo = example("file_copy_demo");
        let demo = demo.args(["--size-mib", "1", "--files", "2"]).args(args);
        let output = demo.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.lines().last().unwrap().starts_with(error), "{said}");
    }
}

// ---- the converter ----

/// From where, to where, and what.
type Kept = (SocketAddr, SocketAddr, Vec<u8>);

/// Keeps what an endpoint sent and received.
#[derive(Debug, Clone, Default)]
struct Keep(Arc<Mutex<Vec<Kept>>>);

impl Tap for Keep {
    fn on_segment(&mut self, _: Timestamp, tapped: &TappedSegment<'_>) {
        let (from, to) = match tapped.direction {
            Direction::Incoming => (tapped.remote, tapped.local),
            _ => (tapped.local, tapped.remote),
        };
        self.0
            .lock()
            .unwrap()
            .push((from, to, tapped.segment.to_vec()));
    }
}

impl TapFactory for Keep {
    fn tap(&self, _: Timestamp, _: SocketAddr) -> Box<dyn Tap> {
        Box::new(self.clone())
    }
}

/// The segments of a short conversation.
async fn conversation() -> io::Result<Vec<Kept>> {
    let keep = Keep::default();
    let (near, far) = sim::pair(1, LinkConfig::default(), LinkConfig::default());
    let config = Config::builder().tap(keep.clone()).build()?;
    let client = Endpoint::with_transport(Arc::new(near), config)?;
    let server = Endpoint::with_transport(Arc::new(far), Config::default())?;
    let listener = server.listen(1)?;
    let (socket, accepted) = tokio::join!(client.connect(server.local_addr()?), listener.accept());
    let (mut socket, mut peer) = (socket?, accepted?.0);
    socket.write_all(&pattern(20_000)).await?;
    socket.finish()?;
    peer.read_to_end(&mut Vec::new()).await?;
    peer.shutdown().await?;
    socket.shutdown().await?;
    let kept = keep.0.lock().unwrap().clone();
    Ok(kept)
}

fn ipv4(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(from_ip), IpAddr::V4(to_ip)) = (from.ip(), to.ip()) else {
        panic!("{from}");
    };
    let builder = etherparse::PacketBuilder::ipv4(from_ip.octets(), to_ip.octets(), 64);
    udp(builder.udp(from.port(), to.port()), payload)
}

fn udp(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).unwrap();
    packet
}

/// A pcap file.
fn pcap(link_type: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 0x0004_0000, link_type] {
        file.extend_from_slice(&u32::to_le_bytes(word));
    }
    for (second, frame) in (1_767_398_399..).zip(frames) {
        let len = u32::try_from(frame.len()).unwrap();
        for word in [second, 5, len, len] {
            file.extend_from_slice(&u32::to_le_bytes(word));
        }
        file.extend_from_slice(frame);
    }
    file
}

/// An example's program, built from what stands in its sources now.
fn example(name: &str) -> Command {
    static BUILT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let this = std::env::current_exe().unwrap();
    let profile = this.ancestors().nth(2).unwrap();
    let mut built = BUILT.lock().unwrap();
    if built.insert(name.to_owned()) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--all-features", "--example", name]);
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "{name} is built");
    }
    let program = profile.join("examples").join(name);
    Command::new(program.with_extension(std::env::consts::EXE_EXTENSION))
}

fn converter() -> Command {
    example("capture_convert")
}

struct Conversion {
    directory: TempDir,
}

impl Conversion {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, input: &[u8], args: &[&str]) -> Output {
        fs::write(self.path("in"), input).unwrap();
        converter()
            .arg(self.path("in"))
            .arg(self.path("out"))
            .args(args)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn expect(&self, input: &[u8], args: &[&str], said: &[&str]) -> Vec<Frame> {
        let output = self.run(input, args);
        let text = String::from_utf8(output.stdout).unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}{complaint}");
        assert_eq!(text.lines().collect::<Vec<_>>(), said);
        read(&self.path("out"))
    }
}

#[tokio::test(start_paused = true)]
async fn ordinary_captures_of_every_link_type_are_converted() -> io::Result<()> {
    let segments = conversation().await?;
    let (client, server, _) = segments[0].clone();
    let packets: Vec<Vec<u8>> = segments
        .iter()
        .map(|(from, to, segment)| ipv4(*from, *to, segment))
        .collect();
    let under = |header: &'static [u8]| {
        let frames: Vec<_> = packets
            .iter()
            .map(|packet| [header, packet].concat())
            .collect();
        frames
    };
    let cases: [(&str, u32, Vec<Vec<u8>>); 8] = [
        ("null", 0, under(&[2, 0, 0, 0])),
        ("loop", 108, under(&[0, 0, 0, 2])),
        (
            "ethernet",
            1,
            under(&[1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 7, 8, 0]),
        ),
        (
            "vlan",
            1,
            under(&[1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 7, 0x81, 0, 0, 5, 8, 0]),
        ),
        ("raw", 101, under(&[])),
        ("raw under an old number", 12, under(&[])),
        (
            "cooked",
            113,
            under(&[0, 4, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0]),
        ),
        (
            "cooked 2",
            276,
            under(&[8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0]),
        ),
    ];
    let said = format!("{0} segments of {0} datagrams converted", segments.len());
    for (name, link_type, frames) in cases {
        let conversion = Conversion::new();
        let log = conversion.path("log").display().to_string();
        let input = pcap(link_type, &frames);
        let frames = conversion.expect(&input, &["--log", &log], &[&said]);
        assert!(
            reassemble(&frames, frames[0].from) == pattern(20_000),
            "{name}"
        );
        assert_eq!(
            (frames[0].from.0, frames[0].to.0),
            (client.ip(), server.ip())
        );
        assert_eq!(fs::read_to_string(&log)?.lines().count(), segments.len());
        expect_sound(&conversion.path("out"));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ours_is_left_out_and_counted() -> io::Result<()> {
    let segments = conversation().await?;
    let (client, server, first) = segments[0].clone();
    let strangers = [1_000, 53].map(|port| SocketAddr::new(server.ip(), port));
    let mut frames: Vec<Vec<u8>> = segments
        .iter()
        .map(|(from, to, segment)| ipv4(*from, *to, segment))
        .collect();
    frames.push(ipv4(
        strangers[0],
        strangers[1],
        b"what is the address of example.org?",
    ));
    let mut damaged = first.clone();
    damaged[5] ^= 1;
    frames.push(ipv4(client, server, &damaged));
    let mut fragment = ipv4(client, server, &first);
    fragment[6..8].copy_from_slice(&[0x20, 0]);
    frames.push(fragment);
    frames.push(ipv4(client, server, &first)[..60].to_vec());
    let mut tcp = Vec::new();
    etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(1, 2, 3, 4)
        .write(&mut tcp, b"kernel")
        .unwrap();
    frames.push(tcp);
    let converted = format!("{0} segments of {0} datagrams converted", segments.len());
    let said = [
        &converted,
        "1 frames skipped: cut short or malformed",
        "1 frames skipped: fragment of an IP packet",
        "1 frames skipped: not UDP",
        "2 frames skipped: UDP, but no intact segments",
    ];
    let conversion = Conversion::new();
    let frames_found = conversion.expect(&pcap(101, &frames), &[], &said);
    assert_eq!(frames_found.len(), segments.len());
    let said = [
        &converted,
        "1 frames skipped: cut short or malformed",
        "1 frames skipped: fragment of an IP packet",
        "1 frames skipped: not UDP",
        "1 frames skipped: other UDP port",
        "1 frames skipped: UDP, but no intact segments",
    ];
    let port = server.port().to_string();
    conversion.expect(&pcap(101, &frames), &["--port", &port], &said);
    conversion.expect(
        &pcap(147, &frames[..1]),
        &[],
        &[
            "0 segments of 0 datagrams converted",
            "1 frames skipped: unknown link type",
        ],
    );
    Ok(())
}

/// Linux shows runs of segments as one datagram where it captures before it cuts them, and loopback has each
/// datagram leave and arrive.
#[tokio::test(start_paused = true)]
async fn runs_are_cut_and_loopback_is_seen_once() -> io::Result<()> {
    let segments = conversation().await?;
    let (client, server, _) = segments[0].clone();
    let mut run: Vec<&[u8]> = Vec::new();
    for (from, _, segment) in &segments {
        if *from == client && segment.len() > 1_000 && run.len() < 5 {
            run.push(segment);
        }
    }
    assert_eq!(run.len(), 5);
    let mut train = run.concat();
    let short = segments
        .iter()
        .find(|(from, _, segment)| *from == client && (100..1_000).contains(&segment.len()));
    train.extend_from_slice(&short.unwrap().2);
    let packet = ipv4(client, server, &train);
    let cooked = |kind| {
        [
            &[8, 0, 0, 0, 0, 0, 0, 1, 3, 4, kind, 6][..],
            &[0; 8],
            &packet,
        ]
        .concat()
    };
    let conversion = Conversion::new();
    let said = [
        "6 segments of 1 datagrams converted",
        "1 frames skipped: sent over loopback, where its arrival counts",
    ];
    conversion.expect(&pcap(276, &[cooked(4), cooked(0)]), &[], &said);
    expect_sound(&conversion.path("out"));
    Ok(())
}

/// What we wrote holds no UDP, but is pcapng: it is read to its end.
#[tokio::test(start_paused = true)]
async fn pcapng_is_read_too() -> io::Result<()> {
    let segments = conversation().await?;
    let conversion = Conversion::new();
    let mut writer = PcapngWriter::new(Vec::new())?;
    for (from, to, segment) in &segments {
        writer.write(&SegmentRecord::new(origin(), *from, *to, segment))?;
    }
    let said = [
        "0 segments of 0 datagrams converted",
        &format!("{} frames skipped: not UDP", segments.len()),
    ];
    conversion.expect(&writer.finish(0)?, &[], &said);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn hostile_captures_are_survived() -> io::Result<()> {
    let segments = conversation().await?;
    let packets: Vec<Vec<u8>> = segments
        .iter()
        .take(8)
        .map(|(from, to, segment)| ipv4(*from, *to, segment))
        .collect();
    let mut writer = PcapngWriter::new(Vec::new())?;
    for (from, to, segment) in segments.iter().take(8) {
        writer.write(&SegmentRecord::new(origin(), *from, *to, segment))?;
    }
    let files = [pcap(101, &packets), pcap(276, &packets), writer.finish(0)?];
    let conversion = Conversion::new();
    let mut rng = Rng::new(1);
    let mut draw = |below: usize| usize::try_from(rng.next_u64() % below as u64).unwrap();
    for round in 0..120 {
        let mut file = files[round % files.len()].clone();
        for _ in 0..=draw(6) {
            // Mostly headers: the first bytes, and those around the first frames.
            let at = draw(if round % 2 == 0 { 200 } else { file.len() });
            file[at] = [0, 1, 0x7f, 0x80, 0xff][draw(5)];
        }
        if round % 5 == 0 {
            file.truncate(draw(file.len()));
        }
        let output = conversion.run(&file, &[]);
        // An error at most: no panic, which would be 101, and no signal.
        let code = output.status.code();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            matches!(code, Some(0 | 1)),
            "round {round}: {code:?} {said}"
        );
    }
    Ok(())
}

#[test]
fn no_file_is_overwritten_by_another() {
    let conversion = Conversion::new();
    fs::write(conversion.path("in"), pcap(101, &[])).unwrap();
    let output = converter()
        .args([conversion.path("in"), conversion.path("in")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(conversion.path("in")).unwrap(), pcap(101, &[]));
    let log = conversion.path("out").display().to_string();
    let output = conversion.run(&pcap(101, &[]), &["--log", &log]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said, "error: the log would replace the output\n");
}
