//! Copies files and directory trees over a reliable stream (feature `copy`).
//!
//! A [`Sender`] offers files; a [`Receiver`] puts them below one directory that it never leaves. Each
//! file is written under a temporary name, synced, **read back from disk** and hashed with BLAKE3;
//! only if that hash is the one that the sender computed while reading does the file get its final
//! name. Otherwise it is sent again, a bounded number of times, and then given up by name; the other
//! files are not affected. Modes, modification times, empty files and directories, holes, symbolic
//! links that stay inside the tree, and names that are not UTF-8 survive.
//!
//! A copy that broke off goes on where it was: the receiver keeps what it has verified, and the next
//! session sends the rest. What is there already and equal is passed over. Several sessions can share
//! one [`Source`], so that a tree that goes to many servers is read and hashed once.
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
//! let sender = Sender::builder().attempts(3).build()?;
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
//! Devices, sockets, named pipes and links that lead out of the tree are refused by name. Owners,
//! access control lists, extended attributes and hard links are not kept, nor are the set-user-id and
//! set-group-id bits.
//!
//! # Who may write
//! Without a [`Secret`], whoever reaches the receiver may write below its root; with one, both sides
//! prove to know it before anything is offered. Neither hides anything: use TLS below where others
//! are on the way, and bind the secret to it ([`SenderBuilder::channel_binding`]).
//!
//! # Disks that lie
//! What was written is read back once in any case. [`SourceBuilder::read_votes`],
//! [`ReceiverBuilder::read_votes`] and [`ReceiverBuilder::verify_writes`] go further, for disks that
//! answer differently each time. What the sender's disk gets wrong in a single reading cannot be
//! found without them: the hash that is compared is that of what was read.
//!
//! # Where the work runs
//! Disk work runs in tokio's blocking pool, a batch at a time, so that small files share the hop and
//! no thread is held while a session waits for its peer. A sender reads and hashes the next block
//! while one is being sent; a receiver syncs, reads back and hashes behind its writing. Memory per
//! session is bounded: a few MiB of content, at most 4,096 offers and 4 MiB of paths without a
//! verdict, and the report; a source holds 64 MiB for sessions that lag behind others.
//!
//! The protocol is specified in `docs/COPY.md`.

mod access;
mod attributes;
mod disk;
mod error;
mod intake;
mod links;
#[cfg(any(test, feature = "sim"))]
mod nasty;
mod outgoing;
mod path;
mod progress;
mod protocol;
mod rate;
mod receiver;
mod sender;
mod source;
mod store;
mod tree_hash;
mod watch;
mod worker;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use self::protocol::Frame;

pub use self::access::{Denial, Secret, SecretError};
pub use self::error::{CopyError, FileError, FileKind, ProtocolError, Refusal};
pub use self::progress::{Digest, Entry, Event, Outcome, Report, RetryCause, Totals};
pub use self::rate::RateLimit;
pub use self::receiver::{Receiver, ReceiverBuilder};
pub use self::sender::{Sender, SenderBuilder};
pub use self::source::{Source, SourceBuilder, Survey, survey};

/// How often a side says that its disk is at work, when it is and nothing else says so.
const WORKING_EVERY: Duration = Duration::from_secs(1);

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

/// Tells the peer, between two frames, why the session ends, if that is for it to know.
async fn say_farewell(mut writer: impl AsyncWrite + Unpin, error: &CopyError) {
    let Some((farewell, message)) = error.as_farewell() else {
        return;
    };
    let mut frame = Vec::new();
    Frame::Fatal(farewell, message).encode(&mut frame);
    let saying = async {
        writer.write_all(&frame).await?;
        writer.flush().await
    };
    let _ = timeout(FAREWELL_TIMEOUT, saying).await;
}
