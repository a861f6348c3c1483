//! What only separate processes show: an exit right after `shutdown`, and peers that are killed.
//!
//! A process is this test binary again, with the test `child` alone and its part in the environment.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code, outside the test functions"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "between real processes time is real"
)]

mod support;

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::StreamExt;
use reliable_udp::{
    Config, ConnectionError, Endpoint, ReliableUdpListener, ReliableUdpSocket, TimeoutCause,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use self::support::relay::{Impairments, Relay};
use self::support::{loopback, pattern, reason, until};

/// The environment variable with a process's part.
const PART: &str = "RELIABLE_UDP_TEST_PART";
/// How often processes exit after `shutdown`.
const RUNS: &str = "RELIABLE_UDP_RUNS";
/// What a busy machine may add to a timeout.
const SLACK: Duration = Duration::from_secs(3);

/// Starts a process.
fn start(part: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(PART, part)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Starts a process that listens, on a port of its own or on a given one.
async fn start_listening(addr: &str) -> (Child, SocketAddr) {
    let mut child = start(&format!("listen {addr}"));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, addr)) = line.split_once("addr=") {
            return (child, addr.parse().unwrap());
        }
    }
    unreachable!("the process has ended");
}

#[tokio::main]
async fn play(part: &str) -> io::Result<()> {
    match part.split(' ').collect::<Vec<_>>()[..] {
        // Exits as soon as `shutdown` returns.
        ["send", addr, len] => {
            let mut socket = ReliableUdpSocket::connect(addr).await?;
            socket.write_all(&pattern(len.parse().unwrap())).await?;
            socket.shutdown().await?;
            std::process::exit(0);
        }
        // Connects and takes in everything that comes.
        ["drain", addr] => {
            let mut socket = ReliableUdpSocket::connect(addr).await?;
            tokio::io::copy(&mut socket, &mut tokio::io::sink()).await?;
        }
        // Connects with a small window and never reads.
        ["hold", addr] => {
            let config = Config::builder().receive_buffer(16 * 1024).build()?;
            let socket = ReliableUdpSocket::connect_with(addr, config).await?;
            socket.closed().await?;
        }
        // Accepts and reads nothing.
        ["listen", addr] => {
            let listener = ReliableUdpListener::bind(addr).await?;
            let mut stdout = io::stdout();
            writeln!(stdout, "addr={}", listener.local_addr()?)?;
            stdout.flush()?;
            let mut sockets = Vec::new();
            loop {
                sockets.push(listener.accept().await?);
            }
        }
        _ => unreachable!("{part}"),
    }
    Ok(())
}

#[test]
#[ignore = "a part that other tests start as a process"]
fn child() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    // It does not outlive the test that holds the other end.
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(2);
    });
    play(&part).unwrap();
}

/// One process that writes `len` bytes, shuts down and exits, across a link that loses a tenth.
async fn exit_after_shutdown(run: u64, len: usize) {
    let config = Config::builder()
        .linger(Duration::from_millis(500))
        .build()
        .unwrap();
    let listener = ReliableUdpListener::bind_with("127.0.0.1:0", config)
        .await
        .unwrap();
    let impairments = Impairments {
        loss: 100,
        ..Impairments::default()
    };
    let relay = Relay::start(listener.local_addr().unwrap(), impairments, run).await;
    let mut child = start(&format!("send {} {len}", relay.addr()));
    // Waiting for a process would close it, and the process take that as our end.
    let _stdin = child.stdin.take();
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut received = Vec::new();
    socket.read_to_end(&mut received).await.unwrap();
    assert!(received == pattern(len), "run {run}: {len} bytes");
    let status = child.wait().await.unwrap();
    assert!(status.success(), "run {run}: {status}");
    // Nobody is left who could acknowledge our FIN, and nothing was lost.
    socket.shutdown().await.unwrap();
    socket.closed().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_then_exit_loses_nothing() {
    const LENGTHS: [usize; 5] = [1, 1_000, 20_000, 60_000, 150_000];
    let runs = std::env::var(RUNS).map_or(10, |runs| runs.parse().expect("a number"));
    futures::stream::iter((0..runs).zip(LENGTHS.into_iter().cycle()))
        .for_each_concurrent(8, async |(run, len)| {
            let limit = Duration::from_secs(120);
            tokio::time::timeout(limit, exit_after_shutdown(run, len))
                .await
                .unwrap_or_else(|_| unreachable!("run {run} hangs"));
        })
        .await;
}

/// Accepts a process that plays `part` towards an endpoint with `config`.
async fn accept_from(part: &str, config: Config) -> (Child, Endpoint, ReliableUdpSocket) {
    let endpoint = Endpoint::bind("127.0.0.1:0", config).await.unwrap();
    let listener = endpoint.listen(1).unwrap();
    let child = start(&format!("{part} {}", endpoint.local_addr().unwrap()));
    let (socket, _) = listener.accept().await.unwrap();
    (child, endpoint, socket)
}

/// Writes to a process until `is_ripe`, kills it, and returns what the writer got and how soon.
async fn kill_under_a_writer(
    part: &str,
    config: Config,
    is_ripe: impl Fn(&reliable_udp::ConnectionStats) -> bool,
) -> (io::Error, Duration) {
    let (mut child, _endpoint, socket) = accept_from(part, config).await;
    let (reader, mut writer) = socket.into_split();
    let write = tokio::spawn(async move {
        loop {
            if let Err(error) = writer.write_all(&[7; 4096]).await {
                return error;
            }
        }
    });
    until(|| is_ripe(&reader.stats())).await;
    child.kill().await.unwrap();
    let killed = Instant::now();
    let error = write.await.unwrap();
    (error, killed.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_whose_peer_is_killed_times_out_within_the_user_timeout() {
    const SEND_BUFFER: usize = 64 * 1024;
    let limit = Duration::from_secs(2);
    let config = Config::builder()
        .user_timeout(Some(limit))
        .send_buffer(SEND_BUFFER)
        .build()
        .unwrap();
    let (in_flow, closed_window) = tokio::join!(
        kill_under_a_writer("drain", config.clone(), |stats| stats.bytes_acked
            > 1_000_000),
        kill_under_a_writer("hold", config, |stats| {
            stats.snd_wnd == 0 && stats.send_buffer_bytes > SEND_BUFFER / 2
        })
    );
    for (name, (error, elapsed)) in [("in full flow", in_flow), ("blocked", closed_window)] {
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{name}");
        let cause = TimeoutCause::UserTimeout(limit);
        assert_eq!(reason(&error), ConnectionError::TimedOut(cause), "{name}");
        assert!(error.to_string().contains("user_timeout"), "{error}");
        assert!(elapsed < limit + SLACK, "{name}: {elapsed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_whose_peer_is_killed_times_out_within_the_keepalive_limit() {
    let (idle, interval) = (Duration::from_millis(500), Duration::from_millis(200));
    let config = Config::builder()
        .keepalive(Some(idle))
        .keepalive_interval(interval)
        .keepalive_probes(3)
        .build()
        .unwrap();
    let (mut child, endpoint, mut socket) = accept_from("hold", config).await;
    let read = tokio::spawn(async move { socket.read(&mut [0; 8]).await.unwrap_err() });
    child.kill().await.unwrap();
    let killed = Instant::now();
    let error = read.await.unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let cause = TimeoutCause::Keepalive { probes: 3 };
    assert_eq!(reason(&error), ConnectionError::TimedOut(cause));
    assert!(error.to_string().contains("keepalive"), "{error}");
    let elapsed = killed.elapsed();
    assert!(elapsed < idle + 3 * interval + SLACK, "{elapsed:?}");
    if cfg!(target_os = "linux") {
        // The system did report the dead port, and that alone ends no connection (RFC 5927).
        assert!(endpoint.stats().icmp_errors > 0);
    }
}

#[tokio::test]
async fn a_peer_that_came_back_without_its_memory_resets() {
    let (mut child, addr) = start_listening("127.0.0.1:0").await;
    let mut socket = ReliableUdpSocket::connect(addr).await.unwrap();
    socket.write_all(b"before").await.unwrap();
    until(|| socket.stats().bytes_acked == 6).await;
    child.kill().await.unwrap();
    let (_reborn, same) = start_listening(&addr.to_string()).await;
    assert_eq!(same, addr);
    socket.write_all(b"after").await.unwrap();
    let error = socket.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(reason(&error), ConnectionError::Reset);
    ReliableUdpSocket::connect(addr).await.unwrap();
}

#[tokio::test]
async fn a_port_without_a_listener_refuses_at_once() {
    let (mut child, addr) = start_listening("127.0.0.1:0").await;
    let endpoint = loopback().await;
    let refused = async |port| {
        let sent = endpoint.stats().datagrams_sent;
        let connect = endpoint.connect_with(addr, port, Config::default());
        let error = connect.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "port {port}");
        assert_eq!(reason(&error), ConnectionError::Refused, "port {port}");
        assert_eq!(endpoint.stats().datagrams_sent, sent + 1, "one SYN");
    };
    refused(2).await;
    let alive = endpoint.connect(addr).await.unwrap();
    alive.abort();
    child.kill().await.unwrap();
    if cfg!(target_os = "linux") {
        refused(1).await;
    }
}
