//! An echo server and a client in one process; ends by itself.
//!
//! ```sh
//! cargo run --example echo
//! ```

use std::io;

use reliable_udp::{ReliableUdpListener, ReliableUdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sends back everything that comes in, and ends when the peer does.
async fn echo(mut socket: ReliableUdpSocket) -> io::Result<u64> {
    let (mut reader, mut writer) = socket.split();
    let bytes = tokio::io::copy(&mut reader, &mut writer).await?;
    socket.shutdown().await?;
    Ok(bytes)
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let listener = ReliableUdpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await?;
        echo(socket).await
    });

    let mut socket = ReliableUdpSocket::connect(addr).await?;
    socket.write_all(b"hello over UDP, as a stream").await?;
    // The server reads until here; `shutdown` would do the same and wait for the acknowledgment.
    socket.finish()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;

    let echoed = server.await.map_err(io::Error::other)??;
    let mut out = io::stdout().lock();
    io::Write::write_fmt(
        &mut out,
        format_args!("{answer:?}: {echoed} bytes echoed by {addr}\n"),
    )
}
