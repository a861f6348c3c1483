//! What the file-copy examples want of a connection: patience with a silent peer, a controller for bad links,
//! and a close after which both processes may exit.

use std::io;
use std::time::Duration;

use clap::ValueEnum;
use reliable_udp::{Config, ConfigError, CongestionControl, DropPolicy};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long the close may take. By then everything that matters has been said.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last words of a copy that broke off may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// How fast to send.
///
/// What the controllers made of some links, and why the tolerance is what it is, is in `docs/FILE_COPY.md`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CongestionArgs {
    /// Controller that decides how fast to send.
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    congestion: Congestion,
    /// Share of losses that bbr takes for the path's own, such as 0.02: from 0.005 to 0.5. More keeps the
    /// rate up on a link that loses whatever is sent, and takes more from others where it is shared.
    #[arg(long, value_name = "P", default_value_t = LOSS_TOLERANCE)]
    loss_tolerance: f64,
}

/// Twice the loss of a bad radio link. 0.1 is no faster, and with a short queue leaves a download of the kernel's
/// cubic 4 Mbit/s of 50 where this leaves it 13.
const LOSS_TOLERANCE: f64 = 0.06;

impl Default for CongestionArgs {
    fn default() -> Self {
        Self {
            congestion: Congestion::default(),
            loss_tolerance: LOSS_TOLERANCE,
        }
    }
}

/// The controllers by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Congestion {
    /// RFC 9438: shares a path fairly, and gives way at every loss.
    Cubic,
    /// RFC 5681 with RFC 6582: gives way at every loss, and comes back slowly.
    Newreno,
    /// BBR version 3: measures the path, and keeps its rate where losses mean nothing.
    #[default]
    Bbr,
}

/// A configuration that gives a peer up after `patience` of silence, whichever side is waiting.
pub(crate) fn config(
    patience: Duration,
    congestion: &CongestionArgs,
) -> Result<Config, ConfigError> {
    Config::builder()
        .congestion(match congestion.congestion {
            Congestion::Cubic => CongestionControl::Cubic,
            Congestion::Newreno => CongestionControl::NewReno,
            Congestion::Bbr => CongestionControl::Bbr,
        })
        .bbr_loss_threshold(congestion.loss_tolerance)
        // A copy that breaks off is a reset for the other side, and never an end.
        .drop_policy(DropPolicy::Reset)
        .connect_timeout(Some(patience))
        .user_timeout(Some(patience))
        .keepalive(Some(patience / 2))
        .keepalive_interval(patience / 8)
        .keepalive_probes(4)
        .build()
}

/// Closes the side that knows everything it wants to know: the sender, after the last verdict.
/// Stays until the peer has closed too, so that the peer need not wonder about its last segment.
pub(crate) async fn close_first(mut socket: impl AsyncRead + AsyncWrite + Unpin) {
    let closing = async {
        socket.shutdown().await?;
        socket.read(&mut [0]).await
    };
    // Every verdict is here: how the connection ends does not change them.
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}

/// Closes the side that has said the last thing: the receiver. The sender closes only after it has
/// read all verdicts, so its end of stream is their receipt.
pub(crate) async fn close_last(mut socket: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    timeout(CLOSE_TIMEOUT, socket.read(&mut [0]))
        .await
        .map_err(io::Error::from)??;
    let _ = timeout(CLOSE_TIMEOUT, socket.shutdown()).await;
    Ok(())
}

/// Closes a side whose copy broke off: its last words, if it had any, still reach the peer.
pub(crate) async fn close_broken(mut socket: impl AsyncRead + AsyncWrite + Unpin) {
    let _ = timeout(FAREWELL_TIMEOUT, socket.shutdown()).await;
}
