//! What the file-copy examples want of a connection: patience with a silent peer, and a close after
//! which both processes may exit.

use std::io;
use std::time::Duration;

use reliable_udp::{Config, ConfigError, ReliableUdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// How long the close may take. By then everything that matters has been said.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A configuration that gives a peer up after `patience` of silence, whichever side is waiting.
pub(crate) fn config(patience: Duration) -> Result<Config, ConfigError> {
    Config::builder()
        .connect_timeout(Some(patience))
        .user_timeout(Some(patience))
        .keepalive(Some(patience / 2))
        .keepalive_interval(patience / 8)
        .keepalive_probes(4)
        .build()
}

/// Closes the side that knows everything it wants to know: the sender, after the last verdict.
/// Stays until the peer has closed too, so that the peer need not wonder about its last segment.
pub(crate) async fn close_first(mut socket: ReliableUdpSocket) {
    let closing = async {
        socket.shutdown().await?;
        socket.read(&mut [0]).await
    };
    // Every verdict is here: how the connection ends does not change them.
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}

/// Closes the side that has said the last thing: the receiver. The sender closes only after it has
/// read all verdicts, so its end of stream is their receipt.
pub(crate) async fn close_last(mut socket: ReliableUdpSocket) -> io::Result<()> {
    timeout(CLOSE_TIMEOUT, socket.read(&mut [0]))
        .await
        .map_err(io::Error::from)??;
    let _ = timeout(CLOSE_TIMEOUT, socket.shutdown()).await;
    Ok(())
}
