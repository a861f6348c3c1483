//! How often a bulk transfer in its steady state allocates memory. A binary of its own with one test, since the
//! count is that of the whole process.
//!
//! ```text
//! cargo test --features __internals --test allocations
//! ```
#![allow(clippy::expect_used, reason = "helpers of tests may fail as tests do")]

use std::alloc::System;
use std::io;

use reliable_udp::{Config, ReliableUdpListener, ReliableUdpSocket};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[path = "support/core_pair.rs"]
mod core_pair;

use core_pair::CorePair;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MIB: u64 = 1 << 20;

/// How often memory was allocated so far, reallocations included.
fn allocations() -> u64 {
    let stats = ALLOCATOR.stats();
    (stats.allocations + stats.reallocations) as u64
}

/// What the receiver alone may allocate per million segments, sent in trains of 64 of which a few arrive at once: its
/// queue gives back the room for its entries whenever it is read to its end, and takes it again in seven steps.
const RECEIVER: u64 = 40_000;
/// The same with one segment in a hundred lost: nearly everything is held behind a gap then, in pages of 16 KiB, each
/// handed to the reader as it is.
const RECEIVER_WITH_LOSSES: u64 = 250_000;
/// What the sender may allocate with losses: sets that are empty in between, and hold memory only while they are not.
const SENDER_WITH_LOSSES: u64 = 20_000;
/// What the process may allocate with real sockets: receive buffers whose trains the reader has not copied yet.
const SOCKETS: u64 = 250_000;

/// Runs the core alone, with so many of ten thousand segments lost; returns the allocations of the sender and of the
/// receiver per million segments.
fn core(loss: u64) -> [u64; 2] {
    let mut pair = CorePair::new(loss, 1, allocations);
    pair.run(64 * MIB);
    let (before, sent) = (pair.allocated(), pair.stats().segments_sent);
    pair.run(256 * MIB);
    let segments = pair.stats().segments_sent - sent;
    assert!(segments > 180_000, "{segments} segments");
    [0, 1].map(|end| (pair.allocated()[end] - before[end]) * 1_000_000 / segments)
}

/// Sends over loopback; returns allocations per million segments.
async fn loopback() -> io::Result<u64> {
    const WARM_UP: usize = 64 << 20;
    const MEASURED: usize = 256 << 20;
    let config = Config::builder()
        .datagram_size(1_452)
        .build()
        .map_err(io::Error::other)?;
    let listener = ReliableUdpListener::bind_with("127.0.0.1:0", config.clone()).await?;
    let addr = listener.local_addr()?;
    let reading = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await?;
        let mut buf = vec![0; 256 * 1024];
        let (mut read, mut before) = (0, 0);
        while read < WARM_UP + MEASURED {
            read += socket.read(&mut buf).await?;
            if read >= WARM_UP && before == 0 {
                before = allocations();
            }
        }
        io::Result::Ok((allocations() - before, socket))
    });
    let mut socket = ReliableUdpSocket::connect_with(addr, config).await?;
    let data = vec![0x5a; 256 * 1024];
    for _ in 0..(WARM_UP + MEASURED) / data.len() {
        socket.write_all(&data).await?;
    }
    let (allocated, _) = reading.await.map_err(io::Error::other)??;
    Ok(allocated * 1_000_000 / (MEASURED as u64 / 1_400))
}

#[test]
fn a_bulk_transfer_allocates_nothing_per_segment() {
    let [sender, receiver] = core(0);
    let [lossy_sender, lossy_receiver] = core(100);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let sockets = runtime.block_on(loopback()).expect("loopback");
    println!(
        "per million segments: sender {sender}, receiver {receiver}; with losses {lossy_sender} and {lossy_receiver}; \
         sockets {sockets}"
    );
    assert_eq!(sender, 0, "the sender allocates in its steady state");
    assert!(receiver <= RECEIVER, "receiver: {receiver}");
    assert!(
        lossy_sender <= SENDER_WITH_LOSSES,
        "sender with losses: {lossy_sender}"
    );
    assert!(
        lossy_receiver <= RECEIVER_WITH_LOSSES,
        "receiver with losses: {lossy_receiver}"
    );
    assert!(sockets <= SOCKETS, "sockets: {sockets}");
}
