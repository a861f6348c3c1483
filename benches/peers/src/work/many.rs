//! Several connections at once through one endpoint per side: what arrives in a stretch of time once all of them run.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::Sides;
use super::serve::{COUNT, Counters, FLOOD, count, flood};
use crate::figures::{Figures, Usage};
use crate::peer::{Peer, Side};

/// The most connections at once.
pub(crate) const MOST: usize = 1_024;

/// How many are several.
const SEVERAL: usize = 4;

/// How many are active at once, of [`active`].
const ACTIVE: usize = 1_000;

/// Until windows have grown.
const WARM_UP: Duration = Duration::from_millis(500);

/// Four connections, two in each direction.
pub(crate) fn several<P: Peer>(peer: &P, sides: &Sides) -> io::Result<Figures> {
    let (client, to) = sides.start(peer)?;
    let counters = Arc::clone(&sides.counters);
    let length = sides.settings.length();
    sides.run(async move {
        let connections = (0..SEVERAL).collect();
        let ran = Flows::start(&client, to, connections, &counters, true).await?;
        Ok(ran.measure(&counters, length).await?.figures())
    })
}

/// One connection from the client to the server, and then a thousand at once.
pub(crate) fn active<P: Peer>(peer: &P, sides: &Sides) -> io::Result<Figures> {
    let (client, to) = sides.start(peer)?;
    let counters = Arc::clone(&sides.counters);
    let length = sides.settings.length();
    let connections = sides.settings.connections.unwrap_or(ACTIVE).min(MOST - 1);
    sides.run(async move {
        let flows = Flows::start(&client, to, vec![connections], &counters, false).await?;
        let alone = flows.measure(&counters, length).await?.figures();
        let all = (0..connections).collect();
        let flows = Flows::start(&client, to, all, &counters, false).await?;
        let ran = flows.measure(&counters, length).await?;
        let mut figures = ran.figures();
        if let (Some(&alone), Some(&sum)) = (alone.get("gbit"), figures.get("gbit")) {
            figures.insert("alone_gbit".to_owned(), alone);
            figures.insert("of_alone".to_owned(), sum / alone);
        }
        let least = ran.bytes.iter().copied().min().unwrap_or(0);
        let mean = ran.bytes.iter().sum::<u64>() as f64 / connections as f64;
        figures.insert("slowest_of_mean".to_owned(), least as f64 / mean);
        Ok(figures)
    })
}

/// Connections at work, which end with this.
struct Flows {
    connections: Vec<usize>,
    tasks: JoinSet<io::Result<()>>,
}

/// What each connection brought.
struct Ran {
    bytes: Vec<u64>,
    took: Duration,
    used: Usage,
}

impl Flows {
    async fn start<S: Side>(
        client: &Arc<S>,
        to: SocketAddr,
        connections: Vec<usize>,
        counters: &Counters,
        is_both_ways: bool,
    ) -> io::Result<Self> {
        // All of them first: what already runs would keep the others from connecting.
        let mut streams = Vec::with_capacity(connections.len());
        for _ in &connections {
            streams.push(client.connect(to).await?);
        }
        let mut tasks = JoinSet::new();
        for (&index, mut stream) in connections.iter().zip(streams) {
            let counters = Arc::clone(counters);
            if is_both_ways && index % 2 == 1 {
                tasks.spawn(async move {
                    stream.write_u8(FLOOD).await?;
                    stream.flush().await?;
                    count(&mut stream, &counters[index]).await
                });
            } else {
                tasks.spawn(async move {
                    stream.write_u8(COUNT).await?;
                    stream.write_u32(index as u32).await?;
                    flood(&mut stream).await
                });
            }
        }
        Ok(Self { connections, tasks })
    }

    async fn measure(mut self, counters: &Counters, length: Duration) -> io::Result<Ran> {
        let read = |connections: &[usize]| -> Vec<u64> {
            let counter = |&index: &usize| counters[index].load(Ordering::Relaxed);
            connections.iter().map(counter).collect()
        };
        tokio::time::sleep(WARM_UP).await;
        let (before, started) = (Usage::now()?, Instant::now());
        let first = read(&self.connections);
        tokio::time::sleep(length).await;
        let last = read(&self.connections);
        let (took, used) = (started.elapsed(), Usage::now()?.since(&before));
        if let Some(ended) = self.tasks.try_join_next() {
            ended.map_err(io::Error::other)??;
            return Err(io::Error::other("a connection ended"));
        }
        self.tasks.shutdown().await;
        let bytes = last.iter().zip(&first).map(|(last, first)| last - first);
        Ok(Ran {
            bytes: bytes.collect(),
            took,
            used,
        })
    }
}

impl Ran {
    fn figures(&self) -> Figures {
        self.used.transfer(self.bytes.iter().sum(), self.took)
    }
}
