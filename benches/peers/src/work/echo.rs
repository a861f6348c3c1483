//! Request and response, one at a time.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Sides;
use super::serve::ECHO;
use crate::figures::Figures;
use crate::peer::{Peer, Side};

/// How many messages of 64 bytes, and of 64 KiB.
const ROUNDS: usize = 20_000;
const LONG_ROUNDS: usize = 4_000;

/// Of all rounds, these are the warm-up.
const WARM_UP: usize = 10;

/// A peer that needs longer than this many times what was asked for stops early.
const PATIENCE: u32 = 4;

pub(crate) fn short<P: Peer>(peer: &P, sides: &Sides) -> io::Result<Figures> {
    echo(peer, sides, 64, ROUNDS)
}

pub(crate) fn long<P: Peer>(peer: &P, sides: &Sides) -> io::Result<Figures> {
    echo(peer, sides, 64 * 1024, LONG_ROUNDS)
}

fn echo<P: Peer>(peer: &P, sides: &Sides, length: u32, rounds: usize) -> io::Result<Figures> {
    let (client, to) = sides.start(peer)?;
    let limit = sides.settings.length() * PATIENCE;
    let mut took = sides.run(async move {
        let mut stream = client.connect(to).await?;
        stream.write_u8(ECHO).await?;
        stream.write_u32(length).await?;
        let mut message = vec![0x5a; length as usize];
        let mut took = Vec::with_capacity(rounds);
        let started = Instant::now();
        for round in 0..rounds + rounds / WARM_UP {
            let sent = Instant::now();
            stream.write_all(&message).await?;
            stream.flush().await?;
            stream.read_exact(&mut message).await?;
            let is_warm = round >= rounds / WARM_UP || started.elapsed() > limit / 2;
            if is_warm {
                took.push(sent.elapsed());
            }
            if started.elapsed() > limit {
                break;
            }
        }
        Ok(took)
    })?;
    took.sort_unstable();
    let percentile = |part: f64| {
        let index = (took.len() as f64 * part) as usize;
        let at = took.get(index).map(Duration::as_secs_f64);
        at.unwrap_or(f64::NAN) * 1e6
    };
    Ok(Figures::from([
        ("p50_us".to_owned(), percentile(0.5)),
        ("p90_us".to_owned(), percentile(0.9)),
        ("p99_us".to_owned(), percentile(0.99)),
        ("p999_us".to_owned(), percentile(0.999)),
        ("rounds".to_owned(), took.len() as f64),
    ]))
}
