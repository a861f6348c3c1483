//! Two ends of a stream in memory with a link between them that takes time: delay, rate, and a cut.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its part")]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// What is read off a side at once, in bytes.
const PIECE: usize = 16 * 1024;

/// What a link does to the bytes, the same in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    /// One way.
    pub delay: Duration,
    /// In bytes per second; `None`: no bound.
    pub rate: Option<u64>,
    /// Both sides see the end of the stream after so many bytes of the first side.
    pub cut: Option<u64>,
}

impl Link {
    /// Makes the two ends. What is on its way is bounded at some 4 MiB, and by what `room` bytes hold
    /// on each side.
    pub fn join(self, room: usize) -> (DuplexStream, DuplexStream) {
        let (near, first) = duplex(room);
        let (far, second) = duplex(room);
        tokio::spawn(async move {
            let (from_first, to_first) = split(first);
            let (from_second, to_second) = split(second);
            let there = self.carry(from_first, to_second, self.cut);
            let back = self.carry(from_second, to_first, None);
            // The end of one direction takes the other with it only when the line is cut.
            tokio::pin!(there, back);
            tokio::select! {
                is_cut = &mut there => if !is_cut { back.await; },
                _ = &mut back => { there.await; }
            }
        });
        (near, far)
    }

    /// Carries one direction; `true`: it was cut.
    async fn carry(
        self,
        mut from: ReadHalf<DuplexStream>,
        mut to: WriteHalf<DuplexStream>,
        mut left: Option<u64>,
    ) -> bool {
        let (pieces, mut queue) = mpsc::channel::<(Instant, Vec<u8>)>(256);
        let reading = async move {
            let mut free = now();
            loop {
                let most = left.map_or(PIECE, |left| {
                    PIECE.min(usize::try_from(left).unwrap_or(PIECE))
                });
                if most == 0 {
                    return true;
                }
                let mut piece = vec![0; most];
                let Ok(read @ 1..) = from.read(&mut piece).await else {
                    return false;
                };
                piece.truncate(read);
                if let Some(left) = &mut left {
                    *left -= read as u64;
                }
                free = free.max(now()) + self.time_of(read as u64);
                if pieces.send((free + self.delay, piece)).await.is_err() {
                    return false;
                }
            }
        };
        let writing = async {
            while let Some((at, piece)) = queue.recv().await {
                if at > now() {
                    sleep_until(at).await;
                }
                if to.write_all(&piece).await.is_err() {
                    return;
                }
            }
            let _ = to.shutdown().await;
        };
        tokio::join!(reading, writing).0
    }

    fn time_of(self, bytes: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos(bytes * 1_000_000_000 / rate)
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clock of the test, which may be paused"
)]
fn now() -> Instant {
    Instant::now()
}
