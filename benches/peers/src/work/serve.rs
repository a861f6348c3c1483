//! The server of all measurements, and what a client asks of it.
//!
//! A connection starts with one byte that says which of these it wants, and is served until it ends.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::peer::Side;

/// Size of one write and one read of bulk data, in bytes.
pub(crate) const PIECE: usize = 256 * 1024;

/// The same where connections may be many.
pub(crate) const SMALL_PIECE: usize = 64 * 1024;

/// What one byte answers one byte with.
pub(crate) const CONFIRMATION: u8 = 0xa5;

/// One byte is answered by one; the server waits for the end.
pub(crate) const GREET: u8 = 1;
/// Rounds: eight bytes say how many follow; when the last of them has arrived, one byte confirms them.
pub(crate) const SINK: u8 = 2;
/// Four bytes say in which counter the server counts what arrives from then on.
pub(crate) const COUNT: u8 = 3;
/// The server sends for as long as the connection lasts.
pub(crate) const FLOOD: u8 = 4;
/// Four bytes say how long a message is; each is sent back when all of it has arrived.
pub(crate) const ECHO: u8 = 5;
/// One byte is answered by one; the server keeps the connection, without a task of its own.
pub(crate) const HOLD: u8 = 6;

/// What arrived on each of the connections that count.
pub(crate) type Counters = Arc<Vec<AtomicU64>>;

/// Takes and serves connections until accepting fails.
pub(crate) async fn serve<S: Side>(side: S, counters: Counters) {
    let held = Arc::new(Mutex::new(Vec::new()));
    let side = Arc::new(side);
    while let Ok(incoming) = side.accept().await {
        let (counters, held) = (Arc::clone(&counters), Arc::clone(&held));
        tokio::spawn(async move {
            if let Ok(stream) = incoming.await {
                // A client that ends in the middle is its own affair, and it says so.
                if let Ok(Some(stream)) = connection(stream, &counters).await
                    && let Ok(mut held) = held.lock()
                {
                    held.push(stream);
                }
            }
        });
    }
}

/// Serves one connection to its end, or gives it back to be kept.
async fn connection<S>(mut stream: S, counters: &Counters) -> io::Result<Option<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match stream.read_u8().await? {
        GREET => {
            confirm(&mut stream).await?;
            // Until the client has closed.
            while stream.read_u8().await.is_ok() {}
            Ok(None)
        }
        HOLD => {
            confirm(&mut stream).await?;
            Ok(Some(stream))
        }
        SINK => {
            let mut buf = vec![0; PIECE];
            loop {
                let total = stream.read_u64().await?;
                receive(&mut stream, &mut buf, total).await?;
                confirm(&mut stream).await?;
            }
        }
        COUNT => {
            let index = usize::try_from(stream.read_u32().await?).map_err(io::Error::other)?;
            let counter = counters.get(index).ok_or(io::ErrorKind::InvalidData)?;
            count(&mut stream, counter).await?;
            Ok(None)
        }
        FLOOD => flood(&mut stream).await,
        ECHO => {
            let length = stream.read_u32().await?;
            let mut message = vec![0; length.try_into().map_err(io::Error::other)?];
            loop {
                stream.read_exact(&mut message).await?;
                stream.write_all(&message).await?;
                stream.flush().await?;
            }
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Counts what arrives, to the end.
pub(crate) async fn count(
    stream: &mut (impl AsyncRead + Unpin),
    counter: &AtomicU64,
) -> io::Result<()> {
    let mut buf = vec![0; SMALL_PIECE];
    loop {
        match stream.read(&mut buf).await? {
            0 => return Ok(()),
            taken => counter.fetch_add(taken as u64, Ordering::Relaxed),
        };
    }
}

/// Sends until the connection ends.
pub(crate) async fn flood<T>(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<T> {
    let piece = vec![0x5a; SMALL_PIECE];
    loop {
        stream.write_all(&piece).await?;
    }
}

async fn confirm(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_u8(CONFIRMATION).await?;
    stream.flush().await
}

/// Sends so many bytes.
pub(crate) async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    piece: &[u8],
    total: u64,
) -> io::Result<()> {
    let mut left = usize::try_from(total).map_err(io::Error::other)?;
    while left > 0 {
        let taken = left.min(piece.len());
        stream.write_all(&piece[..taken]).await?;
        left -= taken;
    }
    stream.flush().await
}

/// Reads so many bytes.
pub(crate) async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    buf: &mut [u8],
    total: u64,
) -> io::Result<()> {
    let mut left = usize::try_from(total).map_err(io::Error::other)?;
    while left > 0 {
        let room = left.min(buf.len());
        match stream.read(&mut buf[..room]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            taken => left -= taken,
        }
    }
    Ok(())
}
