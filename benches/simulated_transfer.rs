//! One connection between two endpoints over the in-memory transport, no impairment, one core.
//!
//! Run with `cargo bench --manifest-path benches/Cargo.toml --bench simulated_transfer`. Prints the goodput of
//! each repetition, the medians, and how often memory was allocated per segment while bytes flowed. One of the
//! ways to transfer reads the connection's statistics after each write, some thousand times per second: its
//! ratio to the same without is what reading them costs.
//! `TRANSFER_MIB` sets the size of a repetition (default 2048), `REPETITIONS` their number (default 5).

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::env;
use std::hint::black_box;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use reliable_udp::sim::{self, LinkConfig};
use reliable_udp::{Config, Endpoint, ReliableUdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Counts allocations; otherwise the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Size of one write and one read, in bytes.
const PIECE: usize = 256 * 1024;

fn main() -> io::Result<()> {
    let mib = setting("TRANSFER_MIB", 2_048);
    let repetitions = setting("REPETITIONS", 5);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    println!("one connection, in memory, one thread, {mib} MiB, datagrams of 1,232 bytes");
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
    let client = Endpoint::with_transport(std::sync::Arc::new(left), Config::default())?;
    let server = Endpoint::with_transport(std::sync::Arc::new(right), Config::default())?;
    let listener = server.listen(1)?;
    let addr = server.local_addr()?;
    let accepting = tokio::spawn(async move { listener.accept().await });
    let sender = client.connect(addr).await?;
    let (receiver, _) = accepting.await.map_err(io::Error::other)??;

    let reading = tokio::spawn(receive(receiver, total, way.by_chunk));
    let allocations = ALLOCATIONS.load(Ordering::Relaxed);
    let started = Instant::now();
    let segments = send(sender, total, way).await?;
    let received = reading.await.map_err(io::Error::other)??;
    let seconds = started.elapsed().as_secs_f64();
    let allocated = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
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
