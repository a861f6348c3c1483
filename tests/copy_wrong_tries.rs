//! What wrong secrets cost a receiver. Alone in its program, which counts every allocation.
#![allow(clippy::unwrap_used, reason = "tests, and the helpers between them")]

use std::alloc::System;
use std::fs;

use reliable_udp::copy::{CopyError, Denial, Receiver, Secret, Sender};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::io::duplex;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

async fn wrong_tries(receiver: &Receiver, tries: u32) {
    for number in 0..tries {
        let guess = Secret::new(format!("guess number {number:020}")).unwrap();
        let sender = Sender::builder().secret(guess).build().unwrap();
        let (mut near, mut far) = duplex(64 * 1024);
        let (sent, received) = tokio::join!(
            async move { sender.send(&mut near, ["Cargo.toml"]).await },
            async move { receiver.receive(&mut far).await },
        );
        let wrong = Err(CopyError::Denied(Denial::WrongSecret));
        assert_eq!(sent.map(drop), wrong);
        assert_eq!(received.map(drop), wrong);
    }
}

#[tokio::test]
async fn a_thousand_wrong_tries_cost_no_memory_that_stays() {
    let root = tempfile::tempdir().unwrap();
    let secret = Secret::new("the secret of the two sides").unwrap();
    let receiver = Receiver::builder(root.path())
        .secret(secret)
        .build()
        .unwrap();
    // What is made once: threads, the runtime's queues.
    wrong_tries(&receiver, 20).await;
    let region = Region::new(ALLOCATOR);
    wrong_tries(&receiver, 1_000).await;
    let change = region.change();
    let (made, freed) = (change.bytes_allocated, change.bytes_deallocated);
    println!("{made} bytes made and {freed} freed by 1,000 tries");
    // 20 bytes for each would be too much; threads of the blocking pool may come and go meanwhile.
    assert!(
        made.saturating_sub(freed) < 20_000,
        "{made} - {freed} bytes kept"
    );
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}
