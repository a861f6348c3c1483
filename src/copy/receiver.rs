//! The receiving side: [`Receiver`] joins a stream and an [`Intake`].
//!
//! The state machine works on one batch at a time in a blocking task, while the next batch is
//! already gathered from the stream and the verdicts of the last one are written.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::BufMut;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::error::CopyError;
use super::intake::{Intake, Step};
use super::place::{Disk, Placer, PlainDisk};
use super::progress::{Event, Recorder, Report};
use super::protocol::{Frame, GREETING_LEN, Greeting, VERSION};
use super::worker::Worker;
use super::{FAREWELL_TIMEOUT, check_range, discard_events};

/// Bytes gathered from the stream for one batch. Two batches exist: one is filled, one worked on.
const BATCH_LEN: usize = 256 * 1024;

/// How often the sender is told that the disk makes progress, when it does.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Takes files and directory trees from any number of senders and puts them below one directory.
///
/// A file appears under its final name only after its content was synced, read back from disk and
/// found to have the BLAKE3 hash that the sender computed; an existing file of that name is replaced
/// in one step. Nothing outside the root directory can be reached, whatever names a sender uses.
///
/// One receiver serves many streams at once; cloning it is cheap.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use reliable_udp::copy::{Receiver, Sender};
///
/// let root = tempfile::tempdir()?;
/// let receiver = Receiver::builder(root.path()).overwrite(false).build()?;
/// let (mut near, mut far) = tokio::io::duplex(64 * 1024); // or two ends of a connection
/// let sender = Sender::new();
/// let (received, sent) =
///     tokio::join!(receiver.receive(&mut far), sender.send(&mut near, ["Cargo.toml"]));
/// assert_eq!(received?.totals.files_verified, 1);
/// assert!(sent?.is_complete() && root.path().join("Cargo.toml").exists());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Receiver {
    root: Arc<Dir>,
    settings: ReceiverBuilder,
}

/// Settings of a [`Receiver`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build() is called"]
pub struct ReceiverBuilder {
    root: PathBuf,
    overwrite: bool,
    handshake_timeout: Duration,
    result_limit: usize,
    disk: Arc<dyn Disk>,
}

impl ReceiverBuilder {
    /// Whether a file replaces an existing one of the same name, after it was verified. Default:
    /// true. If false, such a file fails with [`Refusal::Exists`](super::Refusal::Exists);
    /// directories are shared in either case.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// How long a sender may take for its greeting. Default: 30 s. Range: above zero.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How many successes, and as many failures, a [`Report`] lists one by one; bounds its memory
    /// against a sender of endless files. Default: 65,536 entries. Range: any; 0 keeps the sums only.
    pub fn result_limit(mut self, entries: usize) -> Self {
        self.result_limit = entries;
        self
    }

    #[cfg(test)]
    pub(super) fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Opens the root directory.
    ///
    /// # Errors
    /// [`CopyError::Root`] if it cannot be opened, [`CopyError::InvalidArgument`] if a value lies
    /// outside its range.
    pub fn build(self) -> Result<Receiver, CopyError> {
        check_range(
            !self.handshake_timeout.is_zero(),
            "handshake_timeout",
            &self.handshake_timeout,
            "above zero",
        )?;
        let root = Dir::open_ambient_dir(&self.root, ambient_authority()).map_err(|source| {
            CopyError::Root {
                path: self.root.clone(),
                source: Arc::new(source),
            }
        })?;
        Ok(Receiver {
            root: Arc::new(root),
            settings: self,
        })
    }
}

impl Receiver {
    /// Starts a receiver for the directory `root`, which must exist.
    pub fn builder(root: impl Into<PathBuf>) -> ReceiverBuilder {
        ReceiverBuilder {
            root: root.into(),
            overwrite: true,
            handshake_timeout: Duration::from_secs(30),
            result_limit: 65_536,
            disk: Arc::new(PlainDisk),
        }
    }

    /// Takes what one sender sends over `stream`, until it says that it is done.
    ///
    /// The stream stays open and stands at the end of the session, so that the caller can shut it
    /// down (a `ReliableUdpSocket`'s `shutdown` delivers the last verdicts) or use it again.
    ///
    /// # Errors
    /// A file that was not placed is no error here: see [`Report::failures`]. An error ends the
    /// session: the stream broke, or the sender broke the protocol. What was verified before stays;
    /// temporary files are removed.
    ///
    /// # Cancel safety
    /// Not cancel safe: the stream is left at an unknown position and must be dropped. Files verified
    /// so far stay; the temporary file is removed once the disk work under way has ended.
    pub async fn receive<S>(&self, stream: &mut S) -> Result<Report, CopyError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        self.receive_with(stream, discard_events).await
    }

    /// Like [`receive`](Self::receive), and calls `on_event` for each [`Event`], in order, from a
    /// blocking thread. It should return soon: the copy waits for it. To get the events into async
    /// code, let it put them into a channel.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive).
    ///
    /// # Cancel safety
    /// As for [`receive`](Self::receive).
    pub async fn receive_with<S, F>(&self, stream: &mut S, on_event: F) -> Result<Report, CopyError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        F: FnMut(Event) + Send + 'static,
    {
        let handshake = timeout(self.settings.handshake_timeout, greet(stream));
        handshake
            .await
            .map_err(|_| CopyError::HandshakeTimeout(self.settings.handshake_timeout))??;

        let moved = Arc::new(AtomicU64::new(0));
        let settings = &self.settings;
        let disk = Arc::clone(&settings.disk);
        let placer = Placer::new(
            Arc::clone(&self.root),
            disk,
            settings.overwrite,
            Arc::clone(&moved),
        );
        let recorder = Recorder::new(settings.result_limit, Box::new(on_event));
        let mut worker = Worker::new(Intake::new(placer, recorder));
        let result = converse(stream, &mut worker, &moved).await;
        let mut intake = worker.into_inner().await?;
        match result {
            Ok(()) => Ok(intake.take_report()),
            Err(error) => Err(close_intake(intake, error).await),
        }
    }
}

/// Ends a session that broke, on a blocking thread: a temporary file may have to be removed.
async fn close_intake(mut intake: Intake, error: CopyError) -> CopyError {
    let closing = tokio::task::spawn_blocking(move || {
        let error = error.name_file(intake.current_path());
        intake.interrupt();
        error
    });
    closing.await.unwrap_or(CopyError::RuntimeGone)
}

/// Reads the sender's greeting and answers it.
async fn greet<S>(stream: &mut S) -> Result<(), CopyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut bytes = [0; GREETING_LEN];
    stream
        .read_exact(&mut bytes)
        .await
        .map_err(CopyError::connection)?;
    let offered = Greeting::decode(bytes)?;
    let is_common = (offered.min_version..=offered.max_version).contains(&VERSION);
    let version = if is_common { VERSION } else { 0 };
    // No feature exists yet, so none is granted.
    let answer = Greeting {
        min_version: version,
        max_version: version,
        features: 0,
    };
    stream
        .write_all(&answer.encode())
        .await
        .map_err(CopyError::connection)?;
    stream.flush().await.map_err(CopyError::connection)?;
    if is_common {
        Ok(())
    } else {
        Err(CopyError::Version {
            ours: VERSION,
            peer_min: offered.min_version,
            peer_max: offered.max_version,
        })
    }
}

/// Moves bytes between the stream and the worker until the session is over.
async fn converse<S>(
    stream: &mut S,
    worker: &mut Worker<Intake, Step>,
    moved: &AtomicU64,
) -> Result<(), CopyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (reader, mut writer) = tokio::io::split(stream);
    let (replies, mut queue) = mpsc::channel::<Vec<u8>>(4);
    // Between two of its frames the writer may be followed by a farewell.
    let is_between_frames = AtomicBool::new(true);
    let writing = async {
        while let Some(reply) = queue.recv().await {
            is_between_frames.store(false, Ordering::Relaxed);
            writer.write_all(&reply).await?;
            writer.flush().await?;
            is_between_frames.store(true, Ordering::Relaxed);
        }
        Ok(())
    };
    let result = {
        let feeding = feed(reader, worker, moved, replies);
        let mut writing = std::pin::pin!(writing);
        let mut feeding = std::pin::pin!(feeding);
        tokio::select! {
            result = &mut feeding => match result {
                // The queue is closed now; what it holds still has to go out.
                Ok(()) => writing.await.map_err(CopyError::connection),
                Err(error) => {
                    let _ = timeout(FAREWELL_TIMEOUT, writing).await;
                    Err(error)
                }
            },
            Err(error) = &mut writing => Err(CopyError::connection(error)),
        }
    };
    if let Err(CopyError::Protocol { source, .. }) = &result
        && is_between_frames.load(Ordering::Relaxed)
    {
        let mut farewell = Vec::new();
        Frame::Fatal(source.to_string()).encode(&mut farewell);
        let saying = async {
            writer.write_all(&farewell).await?;
            writer.flush().await
        };
        let _ = timeout(FAREWELL_TIMEOUT, saying).await;
    }
    result
}

/// Gathers input while the worker works on the batch before, and passes its replies on.
async fn feed(
    mut reader: impl AsyncRead + Unpin,
    worker: &mut Worker<Intake, Step>,
    moved: &AtomicU64,
    replies: mpsc::Sender<Vec<u8>>,
) -> Result<(), CopyError> {
    let mut gathered = Vec::with_capacity(BATCH_LEN);
    let mut spare = Vec::with_capacity(BATCH_LEN);
    let mut is_ended = false;
    let mut last_moved = 0;
    let mut ticks = interval(PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if !worker.is_busy() && !gathered.is_empty() {
            let input = std::mem::replace(&mut gathered, std::mem::take(&mut spare));
            worker.start(move |intake| intake.step(input));
        }
        if is_ended && !worker.is_busy() {
            return Err(CopyError::connection(
                std::io::ErrorKind::UnexpectedEof.into(),
            ));
        }
        let room = BATCH_LEN - gathered.len();
        let mut limited = (&mut gathered).limit(room);
        tokio::select! {
            read = reader.read_buf(&mut limited), if room > 0 && !is_ended => {
                is_ended = read.map_err(CopyError::connection)? == 0;
            }
            step = worker.finished(), if worker.is_busy() => {
                let step = step?;
                spare = step.input;
                if !step.replies.is_empty() {
                    // Fails only if the writer has failed, which ends the session by itself.
                    let _ = replies.send(step.replies).await;
                }
                if step.result? {
                    return Ok(());
                }
            }
            _ = ticks.tick() => {
                let now_moved = moved.load(Ordering::Relaxed);
                if now_moved != last_moved {
                    last_moved = now_moved;
                    let mut frame = Vec::new();
                    Frame::Progress(now_moved).encode(&mut frame);
                    // With the queue full, verdicts are on their way and tell as much.
                    let _ = replies.try_send(frame);
                }
            }
        }
    }
}
