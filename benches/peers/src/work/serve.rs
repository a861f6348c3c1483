//! The server of all measurements, and what a client asks of it.
//!
//! A connection starts with one byte that says which of these it wants, and is served until it ends.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::peer::Side;

/// Size of one write and one read of bulk data, in bytes.
pub(crate) const PIECE: usize = 256 * 1024;

/// What one byte answers one byte with.
pub(crate) const CONFIRMATION: u8 = 0xa5;

/// One byte is answered by one.
pub(crate) const GREET: u8 = 1;
/// Rounds: eight bytes say how many follow; when the last of them has arrived, one byte confirms them.
pub(crate) const SINK: u8 = 2;
/// Rounds: eight bytes say how many are wanted; the client confirms them by one byte.
pub(crate) const SOURCE: u8 = 3;
/// Four bytes say how long a message is; each is sent back when all of it has arrived.
pub(crate) const ECHO: u8 = 4;

/// Takes and serves connections until accepting fails.
pub(crate) async fn serve<S: Side>(side: S) {
    let side = Arc::new(side);
    while let Ok(incoming) = side.accept().await {
        tokio::spawn(async move {
            if let Ok(stream) = incoming.await {
                // A client that ends in the middle is its own affair, and it says so.
                let _ = connection(stream).await;
            }
        });
    }
}

async fn connection(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    match stream.read_u8().await? {
        SINK => {
            let mut buf = vec![0; PIECE];
            loop {
                let total = stream.read_u64().await?;
                receive(&mut stream, &mut buf, total).await?;
                confirm(&mut stream).await?;
            }
        }
        SOURCE => {
            let piece = vec![0x5a; PIECE];
            loop {
                let total = stream.read_u64().await?;
                send(&mut stream, &piece, total).await?;
                stream.read_u8().await?;
            }
        }
        ECHO => {
            let length = stream.read_u32().await?;
            let mut message = vec![0; length.try_into().map_err(io::Error::other)?];
            loop {
                stream.read_exact(&mut message).await?;
                stream.write_all(&message).await?;
                stream.flush().await?;
            }
        }
        GREET => {
            confirm(&mut stream).await?;
            // Until the client has closed.
            while stream.read_u8().await.is_ok() {}
            Ok(())
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
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
