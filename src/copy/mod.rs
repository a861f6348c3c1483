//! Copies files and directory trees over a reliable stream (feature `copy`).
//!
//! A [`Sender`] offers files; a [`Receiver`] puts them below one directory that it never leaves. Each
//! file is written under a temporary name, synced, **read back from disk** and hashed with BLAKE3;
//! only if that hash is the one that the sender computed while reading does the file get its final
//! name. Otherwise it is sent again, a bounded number of times, and then given up by name; the other
//! files are not affected. Modes, modification times, empty files and directories, and names that
//! are not UTF-8 survive.
//!
//! Both work over anything that is `AsyncRead + AsyncWrite + Unpin + Send`: a
//! [`ReliableUdpSocket`](crate::ReliableUdpSocket), TLS on top of one, or a pair in memory.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use reliable_udp::copy::{Event, Receiver, Sender};
//!
//! let root = tempfile::tempdir()?;
//! let receiver = Receiver::builder(root.path()).build()?;
//! let sender = Sender::builder().retries(3).build()?;
//!
//! let (mut near, mut far) = tokio::io::duplex(64 * 1024); // or two ends of a connection
//! let (sent, received) = tokio::join!(
//!     sender.send_with(&mut near, ["src/copy"], |event| {
//!         if let Event::Verified { path, digest, .. } = event {
//!             println!("{digest}  {}", path.display());
//!         }
//!     }),
//!     receiver.receive(&mut far),
//! );
//! let report = sent?;
//! for (path, error) in report.failures() {
//!     eprintln!("{}: {error}", path.display());
//! }
//! assert_eq!(report.totals.files_verified, received?.totals.files_verified);
//! # Ok(()) }
//! ```
//!
//! # What is not copied
//! Symbolic links, devices, sockets and named pipes are refused by name. Owners, access control
//! lists, extended attributes and hard links are not kept, nor are the set-user-id and set-group-id
//! bits. Neither side authenticates the other: whoever reaches the receiver may write below its root.
//!
//! # Where the work runs
//! Disk work runs in tokio's blocking pool, a batch at a time, so that small files share the hop and
//! no thread is held while a session waits for its peer. Memory per session is bounded: three
//! buffers of 256 KiB for the stream, at most 1,024 files without a verdict, and the report.
//!
//! The protocol is specified in `docs/COPY.md`.

mod error;
mod intake;
mod outgoing;
mod path;
mod place;
mod progress;
mod protocol;
mod reading;
mod receiver;
mod sender;
mod tree;
mod worker;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

pub use self::error::{CopyError, FileError, FileKind, ProtocolError, Refusal};
pub use self::progress::{Digest, Entry, Event, Outcome, Report, RetryCause, Totals};
pub use self::receiver::{Receiver, ReceiverBuilder};
pub use self::sender::{Sender, SenderBuilder};
pub use self::tree::{Survey, survey};

/// How long a session that ended in an error tries to tell the peer why.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

fn check_range(
    is_inside: bool,
    argument: &'static str,
    value: &impl fmt::Debug,
    range: &'static str,
) -> Result<(), CopyError> {
    if is_inside {
        return Ok(());
    }
    Err(CopyError::InvalidArgument {
        argument,
        value: format!("{value:?}"),
        range,
    })
}

fn discard_events(_: Event) {}
