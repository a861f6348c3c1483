//! What the buffers and windows do with the defaults, over the simulated network in tokio's paused time.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests may"
)]

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use reliable_udp::congestion::{
    Acked, CongestionControl, CongestionController, RecoveryEntered, TimedOut,
};
use reliable_udp::sim::{self, LinkConfig, LinkConfigBuilder};
use reliable_udp::{Config, ConfigBuilder, ConnectionStats, Endpoint, ReliableUdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

const KIB: usize = 1024;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[expect(clippy::disallowed_methods, reason = "the paused clock of tokio")]
fn now() -> Instant {
    Instant::now()
}

/// A link of `rate` bytes per second and `delay` milliseconds.
fn link(rate: u64, delay: u64) -> LinkConfigBuilder {
    LinkConfig::builder().rate(rate).delay(ms(delay))
}

/// Two endpoints with a connection between their sockets, over the same link in both directions.
struct Path {
    client: ReliableUdpSocket,
    server: ReliableUdpSocket,
    /// When the client's handshake was over.
    established: Instant,
    _endpoints: [Endpoint; 2],
}

impl Path {
    async fn new(link: LinkConfigBuilder, client: ConfigBuilder, server: ConfigBuilder) -> Self {
        let link = link.build().unwrap();
        let (a, b) = sim::pair(1, link.clone(), link);
        let near = Endpoint::with_transport(Arc::new(a), client.build().unwrap()).unwrap();
        let far = Endpoint::with_transport(Arc::new(b), server.build().unwrap()).unwrap();
        let listener = far.listen(1).unwrap();
        let client = near.connect(far.local_addr().unwrap()).await.unwrap();
        let established = now();
        let (server, _) = listener.accept().await.unwrap();
        Self {
            client,
            server,
            established,
            _endpoints: [near, far],
        }
    }

    /// Writes as fast as it can and reads as fast as it can for `warm_up`, and then for `length`. Returns how
    /// many bytes were read meanwhile, and the statistics of both sides at their worst and last.
    async fn run(mut self, warm_up: Duration, length: Duration) -> Outcome {
        let chunk = Bytes::from(vec![7; 64 * KIB]);
        let (mut most_buffered, mut most_unsent) = (0, 0);
        let (mut read, mut read_before) = (0_u64, 0_u64);
        let begin = now();
        let (mut is_warm, mut next_look) = (false, begin);
        let mut rest = chunk.clone();
        loop {
            let time = now();
            if time >= next_look {
                let stats = self.client.stats();
                most_buffered = most_buffered.max(stats.send_buffer_bytes);
                most_unsent = most_unsent.max(stats.unsent_bytes);
                next_look = time + ms(1);
            }
            if !is_warm && time >= begin + warm_up {
                (is_warm, read_before) = (true, read);
            }
            if time >= begin + warm_up + length {
                break;
            }
            tokio::select! {
                biased;
                chunk = self.server.read_chunk(usize::MAX) => {
                    read += chunk.unwrap().unwrap().len() as u64;
                }
                taken = poll_fn(|cx| self.client.poll_write_chunk(cx, &mut rest)) => {
                    taken.unwrap();
                    if rest.is_empty() {
                        rest = chunk.clone();
                    }
                }
                () = tokio::time::sleep_until(next_look) => {}
            }
        }
        Outcome {
            read: read - read_before,
            most_buffered,
            most_unsent,
            client: self.client.stats(),
            server: self.server.stats(),
        }
    }
}

#[derive(Debug)]
struct Outcome {
    read: u64,
    most_buffered: usize,
    most_unsent: usize,
    client: ConnectionStats,
    server: ConnectionStats,
}

/// 1 Gbit/s at 100 ms: 12.5 MB are under way.
fn long_fat() -> LinkConfigBuilder {
    link(125_000_000, 50)
}

#[tokio::test(start_paused = true)]
async fn a_long_fat_path_is_filled_without_a_setting() {
    let config = Config::builder;
    let path = Path::new(long_fat(), config(), config()).await;
    // Slow start: from 65,535 bytes, all that a SYN can tell, to 12.5 MB in eight round trips, and some.
    let outcome = path.run(ms(1_400), ms(800)).await;
    let rate = outcome.read * 10 / 8;
    assert!(rate >= 118_750_000, "{rate} bytes/s, {outcome:?}");
    assert!(outcome.client.flight_size > 12_500_000, "{outcome:?}");
    assert!(
        outcome.server.receive_buffer_size > 25_000_000,
        "{outcome:?}"
    );
    assert_eq!(outcome.client.segments_retransmitted, 0);
    println!("{rate} bytes/s, {outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn buffers_that_cannot_grow_leave_a_long_fat_path_empty() {
    let config = || Config::builder().datagram_size(8_952);
    let small = || config().receive_buffer(256 * KIB);
    let path = Path::new(long_fat(), config(), small()).await;
    let outcome = path.run(ms(1_000), ms(1_000)).await;
    // One window per round trip.
    assert!(outcome.read < 11 * 256 * KIB as u64, "{outcome:?}");
    let times = &outcome.client;
    // All the time but for the round trips in which two segments become 29.
    assert!(times.rwnd_limited_time > ms(1_400), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_little() {
    let mut path = Path::new(link(12_500_000, 10), Config::builder(), Config::builder()).await;
    let (mut client, begin) = (path.client, now());
    let writing = tokio::spawn(async move {
        let data = vec![7; 64 * KIB];
        while client.write_all(&data).await.is_ok() {}
    });
    // 800 kB/s of 12.5 MB/s.
    let (mut reads, mut most_memory) = (0_u32, 0);
    let mut buf = vec![0; 16 * KIB];
    while begin.elapsed() < ms(5_000) {
        sleep(ms(20)).await;
        path.server.read_exact(&mut buf).await.unwrap();
        reads += 1;
        most_memory = most_memory.max(path.server.stats().memory_bytes);
    }
    let stats = path.server.stats();
    writing.abort();
    assert!(reads >= 230, "the reader had to wait: {reads}");
    assert_eq!(stats.receive_buffer_size, 256 * KIB);
    // The window, and pinned receive buffers.
    assert!(most_memory <= 640 * KIB, "{most_memory}, {stats:?}");
    println!("{most_memory} bytes of memory, {reads} reads");
}

#[tokio::test(start_paused = true)]
async fn a_writer_to_a_slow_link_holds_little() {
    // 1 Mbit/s, 40 ms, and half a second of queue.
    let slow = link(125_000, 20).queue_bytes(64_000);
    let path = Path::new(slow, Config::builder(), Config::builder()).await;
    let outcome = path.run(ms(5_000), ms(20_000)).await;
    assert!(outcome.most_buffered <= 320 * KIB, "{outcome:?}");
    // Headers are 52 of 1,232 bytes.
    assert!(
        outcome.read >= 2_500_000 / 100 * 95 / 1_232 * 1_180,
        "{outcome:?}"
    );
    println!("{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn little_is_unsent_where_that_is_wanted() {
    // 10 Mbit/s, 40 ms, 100 ms of queue.
    let path = || link(1_250_000, 20).queue_bytes(125_000);
    let limited = Config::builder().notsent_lowat(Some(16 * KIB));
    let path_limited = Path::new(path(), limited, Config::builder()).await;
    let outcome = path_limited.run(ms(3_000), ms(10_000)).await;
    assert!(outcome.most_unsent <= 16 * KIB, "{outcome:?}");
    assert!(outcome.most_unsent > 8 * KIB, "{outcome:?}");
    assert!(
        outcome.read >= 12_500_000 / 100 * 95 / 1_232 * 1_180,
        "{outcome:?}"
    );
    println!("{outcome:?}");
    let free = Path::new(path(), Config::builder(), Config::builder()).await;
    let outcome = free.run(ms(3_000), ms(1_000)).await;
    assert!(outcome.most_unsent > 128 * KIB, "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_lets_a_waiting_writer_go_on() {
    let path = Path::new(link(1_250_000, 20), Config::builder(), Config::builder()).await;
    let Path {
        mut client, server, ..
    } = path;
    client.set_notsent_lowat(Some(4 * KIB)).unwrap();
    assert_eq!(client.notsent_lowat().unwrap(), Some(4 * KIB));
    // More than ten segments: the congestion window is full, and so is what may wait for it.
    let mut rest = Bytes::from(vec![7; 64 * KIB]);
    let filling = async {
        loop {
            poll_fn(|cx| client.poll_write_chunk(cx, &mut rest))
                .await
                .unwrap();
        }
    };
    assert!(tokio::time::timeout(ms(10), filling).await.is_err());
    let stats = client.stats();
    assert_eq!(stats.unsent_bytes, 4 * KIB);
    let left = rest.len();
    let client = Arc::new(Mutex::new(client));
    let writer = Arc::clone(&client);
    let waiting = tokio::spawn(async move {
        poll_fn(|cx| writer.lock().unwrap().poll_write_chunk(cx, &mut rest)).await
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    // Nothing has moved on the path: it is this call that wakes the writer.
    client.lock().unwrap().set_notsent_lowat(None).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), left);
    drop(server);
}

/// Sends 100 kB/s, however much is allowed.
#[derive(Debug)]
struct Paced;

impl CongestionController for Paced {
    fn on_acked(&mut self, _: &Acked) {}
    fn on_recovery_entered(&mut self, _: &RecoveryEntered) {}
    fn on_timeout(&mut self, _: &TimedOut) {}
    fn cwnd(&self) -> u64 {
        1 << 20
    }
    fn ssthresh(&self) -> u64 {
        u64::MAX
    }
    fn pacing_rate(&self) -> Option<u64> {
        Some(100_000)
    }
}

fn times(stats: &ConnectionStats) -> [Duration; 5] {
    [
        stats.cwnd_limited_time,
        stats.rwnd_limited_time,
        stats.send_buffer_limited_time,
        stats.app_limited_time,
        stats.pacing_limited_time,
    ]
}

/// Each of the five is the limit once.
#[tokio::test(start_paused = true)]
async fn the_times_of_all_limits_add_up() {
    let plain = Config::builder;
    let narrow = || link(1_250_000, 20).queue_bytes(30_000);
    let paced = CongestionControl::custom(|_| Paced);
    let cases = [
        ("cwnd", 0, narrow(), plain(), plain()),
        (
            "rwnd",
            1,
            link(1_250_000, 50),
            plain(),
            plain().receive_buffer(16 * KIB),
        ),
        (
            "sndbuf",
            2,
            link(12_500_000, 50),
            plain().send_buffer(8 * KIB),
            plain(),
        ),
        (
            "pacing",
            4,
            link(1_250_000, 20),
            plain().congestion(paced),
            plain(),
        ),
    ];
    for (name, index, link, client, server) in cases {
        let mut path = Path::new(link, client, server).await;
        let (established, mut reader) = (path.established, path.server);
        let reading = tokio::spawn(async move {
            let mut buf = vec![0; 64 * KIB];
            while reader.read(&mut buf).await.is_ok_and(|len| len > 0) {}
            reader
        });
        let data = vec![7; 16 * KIB];
        while established.elapsed() < ms(4_000) {
            path.client.write_all(&data).await.unwrap();
        }
        let stats = path.client.stats();
        let (sum, age) = (
            times(&stats).iter().sum::<Duration>(),
            established.elapsed(),
        );
        assert!(sum.abs_diff(age) <= ms(2), "{name}: {sum:?} of {age:?}");
        let most = times(&stats)[index];
        assert!(most > age * 8 / 10, "{name}: {:?}", times(&stats));
        // Once all is acknowledged, the application is the limit.
        sleep(ms(20_000)).await;
        let later = path.client.stats();
        assert_eq!(later.send_buffer_bytes, 0, "{name}");
        assert!(
            later.app_limited_time > stats.app_limited_time + ms(5_000),
            "{name}"
        );
        let (sum, age) = (
            times(&later).iter().sum::<Duration>(),
            established.elapsed(),
        );
        assert!(sum.abs_diff(age) <= ms(2), "{name}: {sum:?} of {age:?}");
        reading.abort();
    }
}
