//! One connection, one direction, until the receiver has confirmed all bytes.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Sides;
use super::serve::{PIECE, SINK, send};
use crate::figures::{Figures, Usage};
use crate::peer::{Peer, Side};

/// What a transfer's rate is estimated from, in bytes; it is the warm-up too.
const WARM_UP: u64 = 64 << 20;

pub(crate) fn measure<P: Peer>(peer: &P, sides: &Sides) -> io::Result<Figures> {
    let length = sides.settings.length();
    let (client, to) = sides.start(peer)?;
    sides.run(async move {
        let mut stream = client.connect(to).await?;
        let piece = vec![0x5a; PIECE];
        stream.write_u8(SINK).await?;
        let warm_up = transfer(&mut stream, &piece, WARM_UP).await?;
        let total = bytes_for(WARM_UP, warm_up, length);
        let before = Usage::now()?;
        let took = transfer(&mut stream, &piece, total).await?;
        Ok(Usage::now()?.since(&before).transfer(total, took))
    })
}

async fn transfer<S>(stream: &mut S, piece: &[u8], total: u64) -> io::Result<Duration>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let started = Instant::now();
    stream.write_u64(total).await?;
    send(stream, piece, total).await?;
    stream.read_u8().await?;
    Ok(started.elapsed())
}

/// How many bytes take so long if `sample` bytes took `took`.
pub(crate) fn bytes_for(sample: u64, took: Duration, length: Duration) -> u64 {
    let bytes = sample as f64 * length.as_secs_f64() / took.as_secs_f64();
    (bytes as u64).max(1)
}
