//! One connection over loopback UDP beside kernel TCP, in turns within one run.
//!
//! Run with `cargo bench --manifest-path benches/Cargo.toml --bench loopback`. Prints goodput and CPU seconds per GB
//! (user and system, both sides together) of each repetition, the medians and their ratio.
//! `TRANSFER_MIB` sets the size of a repetition (default 1024), `REPETITIONS` their number (default 5).

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::env;
use std::io;
use std::time::{Duration, Instant};

use reliable_udp::{ReliableUdpListener, ReliableUdpSocket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Size of one write and one read, in bytes.
const PIECE: usize = 256 * 1024;

fn main() -> io::Result<()> {
    let total = setting("TRANSFER_MIB", 1_024) << 20;
    let repetitions = setting("REPETITIONS", 5);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (mut ours, mut kernel) = (Vec::new(), Vec::new());
    for _ in 0..repetitions {
        ours.push(measure(total, || runtime.block_on(over_udp(total)))?);
        kernel.push(measure(total, || runtime.block_on(over_tcp(total)))?);
    }
    let (ours, kernel) = (median(&mut ours), median(&mut kernel));
    println!(
        "reliable-udp: {:.2} Gbit/s, {:.2} CPU s/GB",
        ours.gbit, ours.cpu_per_gb
    );
    println!(
        "kernel TCP:   {:.2} Gbit/s, {:.2} CPU s/GB",
        kernel.gbit, kernel.cpu_per_gb
    );
    println!(
        "ratio:        {:.2} goodput, {:.2} CPU",
        ours.gbit / kernel.gbit,
        ours.cpu_per_gb / kernel.cpu_per_gb
    );
    Ok(())
}

fn setting(name: &str, default: usize) -> usize {
    env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

#[derive(Clone, Copy)]
struct Run {
    gbit: f64,
    cpu_per_gb: f64,
}

fn measure(total: usize, run: impl FnOnce() -> io::Result<()>) -> io::Result<Run> {
    let (cpu, started) = (cpu_time()?, Instant::now());
    run()?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = (cpu_time()? - cpu).as_secs_f64();
    Ok(Run {
        gbit: total as f64 * 8.0 / seconds / 1e9,
        cpu_per_gb: cpu / (total as f64 / 1e9),
    })
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

fn median(runs: &mut [Run]) -> Run {
    runs.sort_by(|a, b| a.gbit.total_cmp(&b.gbit));
    runs[runs.len() / 2]
}

async fn over_udp(total: usize) -> io::Result<()> {
    let listener = ReliableUdpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let reading = tokio::spawn(async move { receive(listener.accept().await?.0).await });
    send(ReliableUdpSocket::connect(addr).await?, total).await?;
    check(reading.await.map_err(io::Error::other)??, total)
}

async fn over_tcp(total: usize) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let reading = tokio::spawn(async move { receive(listener.accept().await?.0).await });
    send(TcpStream::connect(addr).await?, total).await?;
    check(reading.await.map_err(io::Error::other)??, total)
}

fn check(received: usize, total: usize) -> io::Result<()> {
    if received == total {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

async fn send(mut stream: impl AsyncWrite + Unpin, total: usize) -> io::Result<()> {
    let data = vec![0x5a; PIECE];
    for _ in 0..total / PIECE {
        stream.write_all(&data).await?;
    }
    stream.shutdown().await
}

async fn receive(mut stream: impl AsyncRead + Unpin) -> io::Result<usize> {
    let mut buf = vec![0; PIECE];
    let mut received = 0;
    loop {
        match stream.read(&mut buf).await? {
            0 => return Ok(received),
            taken => received += taken,
        }
    }
}
