//! A congestion controller of one's own: a window that never changes.
//!
//! Sends one mebibyte over loopback with a fixed window of 1 segment, which is stop-and-wait, and
//! again with 16 segments, and prints what each achieved. Run it with
//!
//! ```text
//! cargo run --release --example custom_congestion
//! ```
#![expect(
    clippy::print_stdout,
    reason = "the example reports on standard output"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a program, unlike the core, may read the clock"
)]

use std::io;
use std::time::{Duration, Instant};

use reliable_udp::congestion::{
    Acked, CongestionControl, CongestionController, ControllerParams, RecoveryEntered, TimedOut,
};
use reliable_udp::{Config, ReliableUdpListener, ReliableUdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BYTES: usize = 1 << 20;

/// Keeps `segments` segments in flight, whatever the network says. Fair to nobody: for links that
/// carry nothing else.
#[derive(Debug)]
pub struct FixedWindow {
    segments: u64,
    mss: u64,
}

impl FixedWindow {
    /// Makes the controller of one connection.
    pub fn new(segments: u64, params: &ControllerParams) -> Self {
        Self {
            segments,
            mss: params.mss,
        }
    }
}

impl CongestionController for FixedWindow {
    fn on_acked(&mut self, _event: &Acked) {}

    fn on_recovery_entered(&mut self, _event: &RecoveryEntered) {}

    fn on_timeout(&mut self, _event: &TimedOut) {}

    fn on_mss_changed(&mut self, mss: u64) {
        self.mss = mss;
    }

    fn cwnd(&self) -> u64 {
        self.segments.saturating_mul(self.mss)
    }

    fn ssthresh(&self) -> u64 {
        u64::MAX
    }

    // The window during recovery is this one too.
    fn uses_prr(&self) -> bool {
        false
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    for segments in [1, 16] {
        transfer(segments).await?;
    }
    Ok(())
}

/// Sends `BYTES` to a listener in the same process and prints goodput and statistics.
async fn transfer(segments: u64) -> io::Result<()> {
    // A window below two segments must not wait for a delayed ACK.
    let receiving = Config::builder().ack_delay(Duration::ZERO).build()?;
    let listener = ReliableUdpListener::bind_with("127.0.0.1:0", receiving).await?;
    let addr = listener.local_addr()?;
    let receiver = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await?;
        let mut data = Vec::new();
        socket.read_to_end(&mut data).await?;
        socket.shutdown().await?;
        io::Result::Ok(data)
    });

    let control = CongestionControl::custom(move |params| FixedWindow::new(segments, params));
    let sending = Config::builder().congestion(control).build()?;
    let mut socket = ReliableUdpSocket::connect_with(addr, sending).await?;
    let data: Vec<u8> = (0..BYTES).map(|i| i.to_le_bytes()[0]).collect();
    let start = Instant::now();
    socket.write_all(&data).await?;
    // Returns once every byte is acknowledged.
    socket.shutdown().await?;
    let elapsed = start.elapsed();

    let received = receiver.await??;
    if received != data {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the stream differs",
        ));
    }
    let stats = socket.stats();
    println!(
        "{segments:>2} segments: {:>7.1} Mbit/s, cwnd {} bytes, srtt {:?}, {} segments sent, \
         {} retransmitted",
        8.0 * f64::from(u32::try_from(BYTES).unwrap_or(u32::MAX)) / elapsed.as_secs_f64() / 1e6,
        stats.cwnd,
        stats.srtt.unwrap_or_default(),
        stats.segments_sent,
        stats.segments_retransmitted,
    );
    Ok(())
}
