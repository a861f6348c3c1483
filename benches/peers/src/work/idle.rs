//! What connections cost that do nothing, after one byte each way.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use stats_alloc::INSTRUMENTED_SYSTEM;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Sides;
use super::serve::HOLD;
use crate::figures::{Figures, Usage, resident};
use crate::peer::{Peer, Side};

/// At how many connections the cost is taken.
const COUNTS: [usize; 2] = [1_000, 10_000];

/// Enough for a socket per connection and side, which only root may ask for where the limit is lower.
const SOCKETS: u64 = 32_768;

/// How many are made at a time.
const AT_ONCE: usize = 64;

/// Until timers of the handshakes have run out.
const SETTLE: Duration = Duration::from_secs(2);

/// How many connections may fail.
const FAILURES: usize = 200;

/// A connection that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn measure<P: Peer>(peer: &P, sides: &Sides) -> io::Result<Figures> {
    allow_sockets()?;
    let (client, to) = sides.start(peer)?;
    let length = sides.settings.length();
    let counts = sides
        .settings
        .connections
        .map_or(COUNTS.to_vec(), |count| vec![count]);
    sides.run(async move {
        let mut figures = Figures::new();
        let most = counts.iter().copied().max().unwrap_or(0);
        let mut streams = Vec::with_capacity(most);
        // What the first connections bring along is not theirs.
        open(&client, to, &mut streams, AT_ONCE).await?;
        tokio::time::sleep(SETTLE).await;
        let (first, base) = (streams.len(), Memory::now()?);
        for count in counts {
            if let Err(error) = open(&client, to, &mut streams, count).await {
                eprintln!("\r\x1b[K{} of {count} connections: {error}", streams.len());
                if streams.len() < count / 10 * 9 {
                    break;
                }
            }
            tokio::time::sleep(SETTLE).await;
            let more = (streams.len() - first) as f64;
            for (name, bytes) in Memory::now()?.since(&base) {
                // There are two sides.
                figures.insert(format!("{name}_{count}"), bytes / more / 2.0);
            }
            let (before, started) = (Usage::now()?, Instant::now());
            tokio::time::sleep(length).await;
            let used = Usage::now()?.since(&before).cpu_seconds();
            let percent = used / started.elapsed().as_secs_f64() * 100.0;
            figures.insert(format!("cpu_percent_{count}"), percent);
        }
        Ok(figures)
    })
}

/// As many sockets as may be: a peer may need one per connection and side.
fn allow_sockets() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if most >= SOCKETS || setrlimit(Resource::RLIMIT_NOFILE, SOCKETS, SOCKETS).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    }
    Ok(())
}

/// Connects until there are so many.
async fn open<S: Side>(
    client: &Arc<S>,
    to: SocketAddr,
    streams: &mut Vec<S::Stream>,
    count: usize,
) -> io::Result<()> {
    let mut tasks = JoinSet::new();
    let mut failures = FAILURES;
    while streams.len() < count {
        while tasks.len() < AT_ONCE && streams.len() + tasks.len() < count {
            let client = Arc::clone(client);
            tasks.spawn(timeout(PATIENCE, async move {
                let mut stream = client.connect(to).await?;
                stream.write_u8(HOLD).await?;
                stream.flush().await?;
                stream.read_u8().await?;
                Ok::<_, io::Error>(stream)
            }));
        }
        if let Some(opened) = tasks.join_next().await {
            match opened
                .map_err(io::Error::other)?
                .unwrap_or_else(|late| Err(late.into()))
            {
                Ok(stream) => streams.push(stream),
                Err(error) if failures == 0 => return Err(error),
                // Somebody who is overwhelmed is asked again.
                Err(_) => failures -= 1,
            }
        }
    }
    Ok(())
}

/// What is in use, in bytes.
struct Memory {
    heap: usize,
    resident: f64,
    slab: f64,
}

impl Memory {
    fn now() -> io::Result<Self> {
        let stats = INSTRUMENTED_SYSTEM.stats();
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let slab = meminfo.lines().find_map(|line| line.strip_prefix("Slab:"));
        let kib = slab.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(Self {
            heap: stats.bytes_allocated - stats.bytes_deallocated,
            resident: resident()?.1,
            slab: kib.unwrap_or(0.0) * 1024.0,
        })
    }

    /// By name; the heap only where it is counted.
    fn since(&self, base: &Self) -> Vec<(&'static str, f64)> {
        let mut all = vec![
            ("resident", self.resident - base.resident),
            ("slab", self.slab - base.slab),
        ];
        if base.heap > 0 {
            all.push(("heap", self.heap as f64 - base.heap as f64));
        }
        all
    }
}
