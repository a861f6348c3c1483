//! One connection between two endpoints in memory, on one core: the core alone, clean and with losses, and
//! over the in-memory transport without impairment.
//!
//! The core alone is two sans-IO endpoints with a link of 50 Gbit/s and 100 µs of round trip on a virtual clock,
//! and a window that losses do not change, so that goodput is what the processor can do: its ratio to the clean
//! run's is what recovery costs.
//!
//! Run with `cargo bench --manifest-path benches/Cargo.toml --bench simulated_transfer`. Prints the goodput of
//! each repetition, the medians, and how often memory was allocated per segment while bytes flowed. One of the
//! ways to transfer reads the connection's statistics after each write, some thousand times per second: its
//! ratio to the same without is what reading them costs.
//! `LOSS=100` runs the core alone with so many of ten thousand segments lost, and nothing else.
//! `TRANSFER_MIB` sets the size of a repetition (default 2048), `REPETITIONS` their number (default 5).

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::alloc::System;
use std::env;
use std::hint::black_box;
use std::io;
use std::time::Instant;

use bytes::Bytes;
use reliable_udp::sim::{self, LinkConfig};
use reliable_udp::{Config, Endpoint, ReliableUdpSocket};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[path = "../tests/support/core_pair.rs"]
mod core_pair;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How often memory was allocated so far.
fn allocations() -> u64 {
    let stats = ALLOCATOR.stats();
    (stats.allocations + stats.reallocations) as u64
}

/// Size of one write and one read, in bytes.
const PIECE: usize = 256 * 1024;

/// Size of every datagram, in bytes: without it the search for the path's MTU would end at 65,507.
const DATAGRAM: usize = 1_232;

fn main() -> io::Result<()> {
    let mib = setting("TRANSFER_MIB", 2_048);
    let repetitions = setting("REPETITIONS", 5);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if let Ok(loss) = env::var("LOSS") {
        let loss = loss.parse().map_err(io::Error::other)?;
        core_alone((mib as u64) << 20, repetitions, &[loss]);
        return Ok(());
    }
    core_alone((mib as u64) << 20, repetitions, &[0, 10, 100]);
    println!("one connection, in memory, one thread, {mib} MiB, datagrams of {DATAGRAM} bytes");
    let mut rates = WAYS.map(|_| Vec::new());
    for _ in 0..repetitions {
        // In turns, so that what else the machine does meets all of them.
        for (way, rates) in WAYS.iter().zip(&mut rates) {
            let run = runtime.block_on(transfer(mib << 20, *way))?;
            println!(
                "  {}: {:.2} GiB/s, {:.4} allocations per segment",
                way.name, run.gib_per_second, run.allocations_per_segment
            );
            rates.push(run.gib_per_second);
        }
    }
    let medians = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    for (way, median) in WAYS.iter().zip(medians) {
        println!(
            "{}: median {median:.2} GiB/s, {:.3} of the first",
            way.name,
            median / medians[0]
        );
    }
    Ok(())
}

/// Transfers `total` bytes between two endpoints without tokio, losing so many of ten thousand segments in turns.
fn core_alone(total: u64, repetitions: usize, losses: &[u64]) {
    println!(
        "the core alone, {} MiB, datagrams of 1,452 bytes",
        total >> 20
    );
    let mut rates = vec![Vec::new(); losses.len()];
    for repetition in 0..repetitions {
        for (loss, rates) in losses.iter().zip(&mut rates) {
            let mut pair = core_pair::CorePair::new(*loss, repetition as u64 + 1, allocations);
            pair.run(total / 16);
            let before = pair.stats();
            let allocated: u64 = pair.allocated().iter().sum();
            let started = Instant::now();
            pair.run(total);
            let seconds = started.elapsed().as_secs_f64();
            let after = pair.stats();
            let segments = (after.segments_sent - before.segments_sent) as f64;
            let resent = after.segments_retransmitted - before.segments_retransmitted;
            let rate = total as f64 / seconds / f64::from(1 << 30);
            println!(
                "  {:.1} % lost: {rate:.2} GiB/s, {:.2} CPU s/GB, {:.4} sent again, {:.2} ACKs per 100 segments, \
                 {:.5} allocations per segment",
                *loss as f64 / 100.0,
                seconds / (total as f64 / 1e9),
                resent as f64 / segments,
                (after.segments_received - before.segments_received) as f64 * 100.0 / segments,
                (pair.allocated().iter().sum::<u64>() - allocated) as f64 / segments,
            );
            rates.push(rate);
        }
    }
    let mut first = None;
    for (loss, mut rates) in losses.iter().zip(rates) {
        rates.sort_by(f64::total_cmp);
        let median: f64 = rates[rates.len() / 2];
        let first = *first.get_or_insert(median);
        println!(
            "{:.1} % lost: median {median:.2} GiB/s, {:.3} of the first; CPU {:.3} of the first",
            *loss as f64 / 100.0,
            median / first,
            first / median
        );
    }
}

/// How bytes are handed over.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    by_chunk: bool,
    reads_stats: bool,
}

const WAYS: [Way; 3] = [
    Way {
        name: "AsyncRead and AsyncWrite",
        by_chunk: false,
        reads_stats: false,
    },
    Way {
        name: "the same, reading statistics",
        by_chunk: false,
        reads_stats: true,
    },
    Way {
        name: "read_chunk and write_chunk",
        by_chunk: true,
        reads_stats: false,
    },
];

fn setting(name: &str, default: usize) -> usize {
    env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

struct Run {
    gib_per_second: f64,
    allocations_per_segment: f64,
}

async fn transfer(total: usize, way: Way) -> io::Result<Run> {
    let (left, right) = sim::pair(1, LinkConfig::default(), LinkConfig::default());
    let config = Config::builder().datagram_size(DATAGRAM).build();
    let config = config.map_err(io::Error::other)?;
    let client = Endpoint::with_transport(std::sync::Arc::new(left), config.clone())?;
    let server = Endpoint::with_transport(std::sync::Arc::new(right), config)?;
    let listener = server.listen(1)?;
    let addr = server.local_addr()?;
    let accepting = tokio::spawn(async move { listener.accept().await });
    let sender = client.connect(addr).await?;
    let (receiver, _) = accepting.await.map_err(io::Error::other)??;

    let reading = tokio::spawn(receive(receiver, total, way.by_chunk));
    let before = allocations();
    let started = Instant::now();
    let segments = send(sender, total, way).await?;
    let received = reading.await.map_err(io::Error::other)??;
    let seconds = started.elapsed().as_secs_f64();
    let allocated = allocations() - before;
    assert_eq!(received, total, "every byte has to arrive");
    Ok(Run {
        gib_per_second: total as f64 / seconds / f64::from(1 << 30),
        allocations_per_segment: allocated as f64 / segments as f64,
    })
}

async fn send(mut socket: ReliableUdpSocket, total: usize, way: Way) -> io::Result<u64> {
    let data = Bytes::from(vec![0x5a; PIECE]);
    for _ in 0..total / PIECE {
        if way.by_chunk {
            socket.write_chunk(data.clone()).await?;
        } else {
            socket.write_all(&data).await?;
        }
        if way.reads_stats {
            black_box(socket.stats());
        }
    }
    socket.shutdown().await?;
    Ok(socket.stats().segments_sent)
}

async fn receive(mut socket: ReliableUdpSocket, total: usize, by_chunk: bool) -> io::Result<usize> {
    let mut received = 0;
    if by_chunk {
        while let Some(chunk) = socket.read_chunk(PIECE).await? {
            received += chunk.len();
        }
    } else {
        let mut buf = vec![0; PIECE];
        while received < total {
            match socket.read(&mut buf).await? {
                0 => break,
                taken => received += taken,
            }
        }
    }
    Ok(received)
}
