//! Connect, one byte each way, close by dropping: how often in a second, through one endpoint per side.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Sides;
use super::serve::GREET;
use crate::figures::{Figures, Usage};
use crate::peer::{Peer, Side};

/// How many at a time, where they are not one after another.
const AT_ONCE: usize = 64;

/// An attempt that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a failure costs its task, so that failures do not displace the others.
const REST: Duration = Duration::from_millis(1);

/// The first failure is told, and all are counted.
static TOLD: Once = Once::new();

pub(crate) fn measure<P: Peer>(peer: &P, sides: &Sides) -> io::Result<Figures> {
    let (client, to) = sides.start(peer)?;
    let length = sides.settings.length();
    sides.run(async move {
        let mut figures = Figures::new();
        for (name, at_once) in [("one", 1), ("many", AT_ONCE)] {
            let (before, started) = (Usage::now()?, Instant::now());
            let mut tasks = JoinSet::new();
            for _ in 0..at_once {
                tasks.spawn(repeat(Arc::clone(&client), to, length));
            }
            let (mut made, mut failed) = (0, 0);
            while let Some(ended) = tasks.join_next().await {
                let counted = ended.map_err(io::Error::other)?;
                made += counted.0;
                failed += counted.1;
            }
            let seconds = started.elapsed().as_secs_f64();
            let used = Usage::now()?.since(&before);
            figures.insert(format!("{name}_per_s"), f64::from(made) / seconds);
            figures.insert(format!("{name}_failed"), f64::from(failed));
            let micros = used.cpu_seconds() * 1e6;
            figures.insert(format!("{name}_cpu_us"), micros / f64::from(made.max(1)));
        }
        Ok(figures)
    })
}

/// Counts what worked and what did not.
async fn repeat<S: Side>(client: Arc<S>, to: SocketAddr, length: Duration) -> (u32, u32) {
    let (mut made, mut failed) = (0, 0);
    let started = Instant::now();
    while started.elapsed() < length {
        match timeout(PATIENCE, once(&*client, to)).await {
            Ok(Ok(())) => made += 1,
            Ok(Err(error)) => {
                TOLD.call_once(|| eprintln!("\r\x1b[Ka connection failed: {error}"));
                failed += 1;
                tokio::time::sleep(REST).await;
            }
            Err(_) => failed += 1,
        }
    }
    (made, failed)
}

async fn once<S: Side>(client: &S, to: SocketAddr) -> io::Result<()> {
    let mut stream = client.connect(to).await?;
    stream.write_u8(GREET).await?;
    stream.flush().await?;
    stream.read_u8().await?;
    Ok(())
}
