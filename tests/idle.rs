//! What connections cost that have nothing to do: memory, counted by the allocator, and wake-ups.
//!
//! A binary of its own, because the allocator counts everything that happens in it.

#![expect(clippy::unwrap_used, reason = "test code, outside the test functions")]

mod support;

use std::alloc::System;
use std::sync::Arc;
use std::time::Duration;

use reliable_udp::{Config, Endpoint, ReliableUdpSocket};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::Memory;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A power of two: tables that grow by doubling are then at their largest for one connection more than fits.
const CONNECTIONS: usize = 2_048;
/// Connections before those.
const FIRST: usize = 512;
/// Bytes for a connection on one side, everything counted: state machine, tables, wakers, the socket itself.
const MOST_PER_SIDE: usize = 2_048;

fn bytes_in_use() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

struct Crowd {
    _pairs: Vec<(ReliableUdpSocket, ReliableUdpSocket)>,
    lines: [Arc<Memory>; 2],
    /// What all connections together hold on both sides, in bytes.
    held: usize,
}

impl Crowd {
    /// Connections that have carried `len` bytes each way and are silent since.
    async fn new(len: usize) -> Self {
        let (client_line, server_line) = Memory::line();
        let client = Endpoint::with_transport(client_line.clone(), Config::default()).unwrap();
        let server = Endpoint::with_transport(server_line.clone(), Config::default()).unwrap();
        let listener = server.listen(1).unwrap();
        let addr = server.local_addr().unwrap();
        let (mut sent, mut received) = (vec![7; len], vec![0; len]);
        // What the endpoints hold for any connections at all, receive buffers above all, is not counted.
        let (mut pairs, mut before) = (Vec::with_capacity(FIRST + CONNECTIONS), 0);
        for number in 0..FIRST + CONNECTIONS {
            if number == FIRST {
                tokio::time::sleep(Duration::from_secs(10)).await;
                before = bytes_in_use();
            }
            let (one, other) = tokio::join!(client.connect(addr), listener.accept());
            let (mut one, mut other) = (one.unwrap(), other.unwrap().0);
            for _ in 0..2 {
                let (wrote, read) =
                    tokio::join!(one.write_all(&sent), other.read_exact(&mut received));
                assert!(wrote.is_ok() && read.is_ok());
                std::mem::swap(&mut one, &mut other);
                std::mem::swap(&mut sent, &mut received);
            }
            pairs.push((one, other));
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        let held = bytes_in_use() - before;
        Self {
            _pairs: pairs,
            lines: [client_line, server_line],
            held,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_holds_little_and_wakes_nobody() {
    // Kept to the end: what they let go of must not make up for the next one's memory.
    let mut crowds = Vec::new();
    for len in [1, 20_000] {
        let crowd = Crowd::new(len).await;
        let per_side = crowd.held / CONNECTIONS / 2;
        println!("{per_side} bytes per connection and side after {len} bytes each way");
        assert!(
            per_side <= MOST_PER_SIDE,
            "{per_side} bytes after {len} bytes each way"
        );
        let turns = crowd.lines.each_ref().map(|line| line.turns());
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        for (line, before) in crowd.lines.iter().zip(turns) {
            assert_eq!(line.turns(), before, "wake-ups in an idle hour");
        }
        crowds.push(crowd);
    }
}
