//! Many connections through one endpoint per side: how fast they come and go, what an idle one holds, and how a
//! thousand busy ones share.
//!
//! Run with `cargo bench --manifest-path benches/Cargo.toml --bench connections [-- rate|idle|scale|active|soak]...`; without a
//! name, all but `soak`. Both sides are in one process, on a runtime of two workers.
//!
//! - `rate`: connect, one byte each way, drop; one after another and 64 at a time, beside kernel TCP in turns.
//!   `SECONDS` per repetition (default 2), `REPETITIONS` (default 5).
//! - `soak`: the same, 64 at a time, over UDP alone, `SECONDS` long (default 60): do the ports suffice?
//! - `idle`: bytes in the allocator per connection and side after a byte each way, and the CPU time of five idle
//!   seconds. `CONNECTIONS` (default 10,000).
//! - `scale`: what a byte there and back costs between two endpoints in memory, without sockets, beside 100, 10,000 and
//!   100,000 connections that are open.
//! - `active`: goodput of one connection, and of `CONNECTIONS` at once (default 1,000) with the slowest beside the mean.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::alloc::System;
use std::env;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reliable_udp::internals;
use reliable_udp::{
    Config, ConnectionStats, Endpoint, ReliableUdpListener, ReliableUdpSocket, Timestamp,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let names: Vec<String> = env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'))
        .collect();
    let is_wanted = |name: &str| names.iter().any(|wanted| wanted == name);
    if names.is_empty() || is_wanted("rate") {
        rate(&runtime)?;
    }
    if names.is_empty() || is_wanted("idle") {
        runtime.block_on(idle())?;
    }
    if names.is_empty() || is_wanted("scale") {
        scale();
    }
    if names.is_empty() || is_wanted("active") {
        runtime.block_on(active())?;
    }
    if is_wanted("soak") {
        let length = Duration::from_secs(setting("SECONDS", 60));
        let at_a_time = usize::try_from(setting("AT_A_TIME", 64)).unwrap_or(64);
        let run = runtime.block_on(churn_udp(at_a_time, length))?;
        println!("soak: {:.0} connections/s for {length:?}", run);
    }
    Ok(())
}

fn setting(name: &str, default: u64) -> u64 {
    env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

fn rate(runtime: &Runtime) -> io::Result<()> {
    let length = Duration::from_secs(setting("SECONDS", 2));
    for at_a_time in [1, 64] {
        let (mut ours, mut kernel) = (Vec::new(), Vec::new());
        for _ in 0..setting("REPETITIONS", 5) {
            ours.push(runtime.block_on(churn_udp(at_a_time, length))?);
            kernel.push(runtime.block_on(churn_tcp(at_a_time, length))?);
        }
        let (ours, kernel) = (median(&mut ours), median(&mut kernel));
        println!(
            "{at_a_time} at a time: reliable-udp {ours:.0}/s, kernel TCP {kernel:.0}/s, ratio {:.2}",
            ours / kernel
        );
    }
    Ok(())
}

fn median(runs: &mut [f64]) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

/// Two endpoints on loopback, the second of which listens.
async fn endpoints(config: &Config) -> io::Result<(Endpoint, Endpoint, ReliableUdpListener)> {
    let client = Endpoint::from_socket(socket()?, config.clone())?;
    let server = Endpoint::from_socket(socket()?, config.clone())?;
    let listener = server.listen(1)?;
    Ok((client, server, listener))
}

/// A socket whose buffers are as large as a server would set them.
fn socket() -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let buffers = socket2::SockRef::from(&socket);
    buffers.set_recv_buffer_size(4 << 20)?;
    buffers.set_send_buffer_size(4 << 20)?;
    Ok(socket)
}

/// One byte there and one back; the caller is the one who connected, and closes first.
async fn visit(mut socket: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut byte = [7];
    socket.write_all(&byte).await?;
    socket.read_exact(&mut byte).await?;
    Ok(())
}

async fn host(mut socket: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut byte = [0];
    socket.read_exact(&mut byte).await?;
    socket.write_all(&byte).await?;
    // The end of the stream, so that the other side is the one that closes first.
    let end = socket.read(&mut byte).await?;
    debug_assert_eq!(end, 0);
    Ok(())
}

async fn churn_udp(at_a_time: usize, length: Duration) -> io::Result<f64> {
    let (client, server, listener) = endpoints(&Config::default()).await?;
    let addr = server.local_addr()?;
    let hosting = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(host(socket));
        }
    });
    let connect = move || {
        let client = client.clone();
        async move { client.connect(addr).await }
    };
    let rate = churn(at_a_time, length, connect).await;
    if env::var_os("VERBOSE").is_some() {
        println!("{:?}", server.stats());
    }
    hosting.abort();
    rate
}

async fn churn_tcp(at_a_time: usize, length: Duration) -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let hosting = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = socket.set_nodelay(true);
            tokio::spawn(host(socket));
        }
    });
    let rate = churn(at_a_time, length, move || connect_tcp(addr)).await;
    hosting.abort();
    rate
}

async fn connect_tcp(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Makes connections for `length`; returns how many a second.
async fn churn<S, F>(
    at_a_time: usize,
    length: Duration,
    connect: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> io::Result<f64>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Future<Output = io::Result<S>> + Send,
{
    let visits = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut visitors = JoinSet::new();
    for _ in 0..at_a_time {
        let (visits, connect) = (Arc::clone(&visits), connect.clone());
        visitors.spawn(async move {
            while started.elapsed() < length {
                visit(connect().await?).await?;
                visits.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, io::Error>(())
        });
    }
    while let Some(visitor) = visitors.join_next().await {
        visitor??;
    }
    Ok(visits.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64())
}

/// Makes `count` connections; the accepted sides stand in the same order.
async fn connections(
    client: &Endpoint,
    listener: &ReliableUdpListener,
    addr: SocketAddr,
    count: usize,
) -> io::Result<Vec<(ReliableUdpSocket, ReliableUdpSocket)>> {
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let (one, other) = tokio::join!(client.connect(addr), listener.accept());
        pairs.push((one?, other?.0));
    }
    Ok(pairs)
}

async fn idle() -> io::Result<()> {
    let count = usize::try_from(setting("CONNECTIONS", 10_000)).unwrap_or(usize::MAX);
    let config = Config::builder().max_connections(count + 1).build()?;
    let (client, server, listener) = endpoints(&config).await?;
    let addr = server.local_addr()?;
    // What both endpoints hold for any connection at all is not counted.
    let first = connections(&client, &listener, addr, 1).await?;
    let before = in_use();
    let mut pairs = connections(&client, &listener, addr, count - 1).await?;
    for (one, other) in &mut pairs {
        let mut byte = [1];
        one.write_all(&byte).await?;
        other.read_exact(&mut byte).await?;
        other.write_all(&byte).await?;
        one.read_exact(&mut byte).await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = in_use().saturating_sub(before);
    println!(
        "idle: {} bytes per connection and side, {} connections",
        held / 2 / (count - 1),
        count
    );
    let (cpu, started) = (cpu_time()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let share = (cpu_time()? - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
    println!("idle: {:.3} % CPU", 100.0 * share);
    drop((first, pairs));
    Ok(())
}

/// Bytes in the allocator.
fn in_use() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Two endpoints that hand each other their datagrams.
struct Couple {
    now: Timestamp,
    sides: [(SocketAddr, internals::Endpoint); 2],
    ids: Vec<[internals::ConnectionId; 2]>,
}

impl Couple {
    fn new(connections: usize) -> Self {
        let now = Timestamp::from_millis(1_000);
        let side = |number: u8| {
            let addr = SocketAddr::from(([10, 0, 0, number], 9_000));
            let secrets = internals::Secrets {
                isn: [number; 16],
                port: [number + 2; 16],
                cookie: [number + 4; 16],
                hash_seed: u64::from(number),
            };
            let local = internals::EndpointLocal { addr };
            (
                addr,
                internals::Endpoint::new(now, Config::default(), secrets, local),
            )
        };
        let mut couple = Self {
            now,
            sides: [side(1), side(2)],
            ids: Vec::new(),
        };
        let (addr, server) = &mut couple.sides[1];
        // A pair of addresses and a port carry 32,768 connections.
        let ports: Vec<u16> = (1..=8).collect();
        for &port in &ports {
            server.listen(port, None).expect("the port is free");
        }
        let addr = *addr;
        for number in 0..connections {
            let port = ports[number % ports.len()];
            let id = couple.sides[0]
                .1
                .connect(now, addr, port, None)
                .expect("there is room");
            couple.exchange();
            let (server, _) = couple.sides[1].1.accept(port).expect("connected");
            couple.ids.push([id, server]);
        }
        couple
    }

    /// Delivers until nobody has anything to say.
    fn exchange(&mut self) {
        let mut buf = vec![0; 65_536];
        let mut is_silent = false;
        while !is_silent {
            is_silent = true;
            for from in 0..2 {
                let (remote, sender) = &mut self.sides[from];
                let remote = *remote;
                let mut arrivals = Vec::new();
                while let Some(departure) = sender.poll_transmit(self.now, 64, &mut buf) {
                    let bytes = Bytes::copy_from_slice(&buf[..departure.len]);
                    arrivals.push((bytes, departure.segment_size));
                }
                while sender.poll_event().is_some() {}
                is_silent &= arrivals.is_empty();
                for (bytes, stride) in &arrivals {
                    let arrival = internals::Arrival {
                        remote,
                        local_ip: None,
                        ecn: None,
                        bytes,
                        stride: *stride,
                    };
                    self.sides[1 - from].1.handle_arrival(self.now, &arrival);
                }
            }
        }
    }

    /// A byte from one side to the other, read there.
    fn carry(&mut self, number: usize, from: usize) {
        let (now, ids) = (self.now, self.ids[number]);
        let sender = &mut self.sides[from].1;
        let written = sender.with_connection(now, ids[from], |c| c.write(now, b"?"));
        assert_eq!(written, Some(Ok(1)));
        self.exchange();
        let (receiver, mut byte) = (&mut self.sides[1 - from].1, [0]);
        let read = receiver.with_connection(now, ids[1 - from], |c| c.read(now, &mut byte));
        assert_eq!(read, Some(Ok(1)));
    }

    /// Time passes, and whatever timers there are act.
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for (_, endpoint) in &mut self.sides {
            if endpoint.poll_timeout().is_some_and(|at| at <= self.now) {
                endpoint.handle_timeout(self.now);
            }
        }
        self.exchange();
    }
}

fn scale() {
    const VISITS: usize = 100_000;
    for connections in [100, 10_000, 100_000] {
        let mut couple = Couple::new(connections);
        let mut number = 0;
        let started = Instant::now();
        for _ in 0..VISITS {
            // One after another by a stride that has no divisor in common with their number.
            number = (number + 7_919) % connections;
            couple.carry(number, 0);
            couple.carry(number, 1);
            couple.pass(Duration::from_millis(1));
        }
        let each = started.elapsed().as_secs_f64() / VISITS as f64;
        println!(
            "scale: {:.2} µs for a byte there and back beside {connections} connections",
            each * 1e6
        );
    }
}

async fn active() -> io::Result<()> {
    let count = usize::try_from(setting("CONNECTIONS", 1_000)).unwrap_or(usize::MAX);
    let length = Duration::from_secs(setting("SECONDS", 5));
    let alone = transfer(1, length).await?;
    let mut all = transfer(count, length).await?;
    let (one, sum) = (alone.iter().sum::<f64>(), all.iter().sum::<f64>());
    let mean = sum / count as f64;
    all.sort_by(f64::total_cmp);
    println!(
        "active: 1 connection {one:.2} Gbit/s, {count} connections {sum:.2} Gbit/s (ratio {:.2}), slowest {:.2} of the mean, \
         median {:.2}, fastest {:.2}",
        sum / one,
        all[0] / mean,
        all[count / 2] / mean,
        all[count - 1] / mean,
    );
    Ok(())
}

/// Goodput of each of `count` connections, in Gbit/s, all sending for `length` to the side that accepted them.
async fn transfer(count: usize, length: Duration) -> io::Result<Vec<f64>> {
    let (client, server, listener) = endpoints(&Config::default()).await?;
    let pairs = connections(&client, &listener, server.local_addr()?, count).await?;
    let (mut writers, mut readers) = (JoinSet::new(), JoinSet::new());
    let (cpu, started) = (cpu_time()?, Instant::now());
    for (mut one, mut other) in pairs {
        writers.spawn(async move {
            let piece = vec![7; 64 * 1024];
            let until = tokio::time::Instant::now() + length;
            while let Ok(written) = tokio::time::timeout_at(until, one.write_all(&piece)).await {
                written?;
            }
            Ok::<_, io::Error>(one)
        });
        readers.spawn(async move {
            let mut piece = vec![0; 64 * 1024];
            let mut received = 0_u64;
            let until = tokio::time::Instant::now() + length;
            while let Ok(read) = tokio::time::timeout_at(until, other.read(&mut piece)).await {
                match read? {
                    0 => break,
                    len => received += len as u64,
                }
            }
            Ok::<_, io::Error>((received, other))
        });
    }
    let watched = server.clone();
    let watching = env::var_os("VERBOSE").map(|_| tokio::spawn(watch(watched)));
    let mut goodputs = Vec::new();
    let mut open = Vec::new();
    while let Some(reader) = readers.join_next().await {
        let (received, other) = reader??;
        goodputs.push(received as f64 * 8.0 / started.elapsed().as_secs_f64() / 1e9);
        open.push(other);
    }
    if let Some(watching) = watching {
        watching.abort();
    }
    let mut seen = Vec::new();
    let mut held = Vec::new();
    while let Some(writer) = writers.join_next().await {
        let one = writer??;
        seen.push(one.stats());
        held.push(one);
    }
    if env::var_os("VERBOSE").is_some() {
        let cpu = (cpu_time()? - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
        println!("{count} connections: {cpu:.2} processors busy");
        println!("client: {:?}", client.stats());
        println!("server: {:?}", server.stats());
        show(&seen);
    }
    Ok(goodputs)
}

/// Prints what arrives at an endpoint, and what its socket drops.
async fn watch(endpoint: Endpoint) {
    let (mut latest, mut at) = (endpoint.stats(), Instant::now());
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let stats = endpoint.stats();
        println!(
            "{:.2} Gbit/s arrive, {} datagrams, {} dropped",
            (stats.bytes_received - latest.bytes_received) as f64 * 8.0
                / at.elapsed().as_secs_f64()
                / 1e9,
            stats.datagrams_received - latest.datagrams_received,
            stats.transport.kernel_drops - latest.transport.kernel_drops,
        );
        (latest, at) = (stats, Instant::now());
    }
}

/// What the sending sides have counted.
fn show(seen: &[ConnectionStats]) {
    let sum = |count: fn(&ConnectionStats) -> u64| seen.iter().map(count).sum::<u64>();
    let middle = |value: fn(&ConnectionStats) -> u64| {
        let mut values: Vec<u64> = seen.iter().map(value).collect();
        values.sort_unstable();
        [0, values.len() / 2, values.len() - 1].map(|index| values[index])
    };
    println!(
        "segments {}, retransmitted {}, lost {}, timeouts {}, tail probes {}, window probes {}",
        sum(|stats| stats.segments_sent),
        sum(|stats| stats.segments_retransmitted),
        sum(|stats| stats.segments_lost),
        sum(|stats| stats.rto_count),
        sum(|stats| stats.tlp_count),
        sum(|stats| stats.zero_window_probes),
    );
    println!(
        "least, median and most: cwnd {:?}, peer's window {:?}, datagram {:?}, srtt in µs {:?}",
        middle(|stats| stats.cwnd),
        middle(|stats| stats.snd_wnd),
        middle(|stats| stats.datagram_size as u64),
        middle(|stats| stats.srtt.map_or(0, |srtt| srtt.as_micros() as u64)),
    );
    println!(
        "ms limited by: cwnd {:?}, peer's window {:?}, send buffer {:?}, application {:?}, pacing {:?}",
        middle(|stats| stats.cwnd_limited_time.as_millis() as u64),
        middle(|stats| stats.rwnd_limited_time.as_millis() as u64),
        middle(|stats| stats.send_buffer_limited_time.as_millis() as u64),
        middle(|stats| stats.app_limited_time.as_millis() as u64),
        middle(|stats| stats.pacing_limited_time.as_millis() as u64),
    );
}

/// User and system time of this process so far.
fn cpu_time() -> io::Result<Duration> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let micros = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), 0)
            + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    Ok(micros(usage.user_time()) + micros(usage.system_time()))
}
