//! The receiving side: [`Receiver`] joins an [`Intake`] and a stream.
//!
//! The state machine works on one batch of input in a blocking task, while the next batch is read
//! and the answers are written.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::access::{self, Denial, Greetings, Secret};
use super::disk::{Disk, PlainDisk};
use super::error::CopyError;
use super::intake::{Intake, IntakeLimits, Step};
use super::progress::{Event, Recorder, Report};
use super::protocol::{Frame, GREETING_LEN, Greeting, VERSION};
use super::store::{NamePolicy, Partials, PlaceSettings, Placer, Spawner};
use super::watch::{Wait, Watch};
use super::worker::Worker;
use super::{FAREWELL_TIMEOUT, WORKING_EVERY, check_range, discard_events, say_farewell};

/// Bytes gathered from the stream for one batch. Two batches exist: one is filled, one worked on.
const BATCH_LEN: usize = 256 * 1024;

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
/// let receiver = Receiver::builder(root.path()).verify_writes(true).build()?;
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
    partials: Arc<Partials>,
    settings: ReceiverBuilder,
}

/// Settings of a [`Receiver`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build() is called"]
pub struct ReceiverBuilder {
    root: PathBuf,
    place: PlaceSettings,
    limits: IntakeLimits,
    handshake_timeout: Duration,
    stall_timeout: Duration,
    result_limit: usize,
    secret: Option<Secret>,
    binding: Vec<u8>,
    disk: Arc<dyn Disk>,
}

impl ReceiverBuilder {
    /// Whether a sender that asks for it may replace existing files. Default: true. If false, a file
    /// that exists with other content fails with [`Refusal::Exists`](super::Refusal::Exists) whatever
    /// the sender asks for; directories are shared in either case.
    pub fn may_overwrite(mut self, may_overwrite: bool) -> Self {
        self.place.may_overwrite = may_overwrite;
        self
    }

    /// How many files, links and directories one session may bring, parts of files that it breaks off
    /// included; the others fail with [`Refusal::TooManyFiles`](super::Refusal::TooManyFiles). As many
    /// directories again may be made on the way to them. Default: no bound.
    pub fn max_files(mut self, files: u64) -> Self {
        self.limits.max_files = files;
        self
    }

    /// How many bytes of content one session may bring, what is kept of files that it breaks off
    /// included; a file that would bring more fails with
    /// [`Refusal::TooManyBytes`](super::Refusal::TooManyBytes). Default: no bound.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.limits.max_bytes = bytes;
        self
    }

    /// How many bytes stay free on the disk of the root; a file that would leave less fails with
    /// [`Refusal::KeepsFree`](super::Refusal::KeepsFree). Default: 0, until the disk is full.
    pub fn min_free_space(mut self, bytes: u64) -> Self {
        self.place.min_free = bytes;
        self
    }

    /// Whether each write is read back at once and repeated, a bounded number of times, until it reads
    /// as written: for disks that lie. Slow. Default: false; what was written is read back once in
    /// any case, before the file gets its name, and sent again if it is wrong.
    pub fn verify_writes(mut self, verify: bool) -> Self {
        self.place.verify_writes = verify;
        self
    }

    /// Reads what was written back until one value of each byte was seen `2 n + 1` times: for disks
    /// that lie. Default: 0, one reading.
    pub fn read_votes(mut self, n: u8) -> Self {
        self.place.read_votes = n;
        self
    }

    /// Whether names must be good on every common system: those that Windows reserves, and those that
    /// differ from another only in case, are refused. Default: false; they are refused where this
    /// system, or the directory, would not keep them apart.
    pub fn portable_names(mut self, portable: bool) -> Self {
        self.place.names = if portable {
            NamePolicy::Portable
        } else {
            NamePolicy::Native
        };
        self
    }

    /// How long a sender may take for its greeting and to prove the shared secret. Default: 30 s.
    /// Range: above zero.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How long nothing at all may move, neither a byte on the stream in either direction nor one on
    /// this side's disk, before the session ends with [`CopyError::Stalled`]; if it is the disk that
    /// hangs, after as long again. Default: 2 min. Range: above zero.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// How many successes, and as many failures, a [`Report`] lists one by one; bounds its memory
    /// against a sender of endless files. Default: 65,536 entries. Range: any; 0 keeps the sums only.
    pub fn result_limit(mut self, entries: usize) -> Self {
        self.result_limit = entries;
        self
    }

    /// The secret that every sender must prove to know before it may offer anything. Default: none;
    /// whoever reaches the receiver may write below its root.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Puts a disk in between that lies: it flips a bit in some of the pages of 4 KiB that are read or
    /// written, with a chance of 0.001, 0.003, 0.01, 0.03 or 0.1 by `level` from 1 to 5. The same `seed`
    /// and the same reads and writes give the same lies. To try out
    /// [`verify_writes`](Self::verify_writes) and [`read_votes`](Self::read_votes) (feature `sim`).
    #[cfg(feature = "sim")]
    pub fn nastiness(mut self, level: u8, seed: u64) -> Self {
        self.disk = Arc::new(super::nasty::NastyDisk::new(level, seed));
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
        for (name, value) in [
            ("handshake_timeout", &self.handshake_timeout),
            ("stall_timeout", &self.stall_timeout),
        ] {
            check_range(!value.is_zero(), name, value, "above zero")?;
        }
        let root = Dir::open_ambient_dir(&self.root, ambient_authority()).map_err(|source| {
            CopyError::Root {
                path: self.root.clone(),
                source: Arc::new(source),
            }
        })?;
        Ok(Receiver {
            root: Arc::new(root),
            partials: Arc::default(),
            settings: self,
        })
    }
}

impl Receiver {
    /// Starts a receiver for the directory `root`, which must exist.
    pub fn builder(root: impl Into<PathBuf>) -> ReceiverBuilder {
        ReceiverBuilder {
            root: root.into(),
            place: PlaceSettings {
                may_overwrite: true,
                ..PlaceSettings::default()
            },
            limits: IntakeLimits::default(),
            handshake_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(120),
            result_limit: 65_536,
            secret: None,
            binding: Vec::new(),
            disk: Arc::new(PlainDisk),
        }
    }

    /// Returns the same receiver for a stream over a channel that can be told from every other, such
    /// as by the exporter of its TLS session; see
    /// [`SenderBuilder::channel_binding`](super::SenderBuilder::channel_binding).
    #[must_use]
    pub fn with_channel_binding(&self, binding: impl Into<Vec<u8>>) -> Self {
        let mut bound = self.clone();
        bound.settings.binding = binding.into();
        bound
    }

    /// Takes what one sender sends over `stream`, until it says that it is done.
    ///
    /// The stream stays open and stands at the end of the session, so that the caller can shut it
    /// down (a `ReliableUdpSocket`'s `shutdown` delivers the last verdicts) or use it again.
    ///
    /// # Errors
    /// A file that was not placed is no error here: see [`Report::failures`]. An error ends the
    /// session: the stream broke or stalled, the sender did not prove the secret, or broke the
    /// protocol. What was verified before stays, and so does what can be continued of the file that
    /// was being received.
    ///
    /// # Cancel safety
    /// Not cancel safe: the stream is left at an unknown position and must be dropped. Files verified
    /// so far stay, and so does what can be continued, once the disk work under way has ended.
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
        let settings = &self.settings;
        self.in_time(greet(stream, settings, None)).await?;
        let worked = Arc::new(AtomicU64::new(0));
        let runtime = tokio::runtime::Handle::current();
        let placer = Placer::new(
            Arc::clone(&self.root),
            Arc::clone(&settings.disk),
            settings.place.clone(),
            Arc::clone(&self.partials),
            Arc::clone(&worked),
            Spawner::new(move |work| drop(runtime.spawn_blocking(work))),
        );
        let recorder = Recorder::new(settings.result_limit, Box::new(on_event));
        let mut worker = Worker::new(Intake::new(placer, recorder, settings.limits));
        let watch = Watch::new(worked);
        match converse(stream, &mut worker, settings.stall_timeout, &watch).await {
            Ok(()) => Ok(worker.into_inner().await?.take_report()),
            Err(error) => {
                // A disk that hangs does not keep the error back. What is at work there ends by itself.
                let closing = close_intake(worker, error.clone());
                let closed = timeout(settings.stall_timeout, closing).await;
                Err(closed.unwrap_or(error))
            }
        }
    }

    /// Answers a sender that is not to be served, so that it learns why: too many sessions, or an
    /// address that may not write here. Takes at most `handshake_timeout`; nothing is written to disk.
    ///
    /// # Errors
    /// [`CopyError::Denied`] with `denial` if the sender was told, otherwise what came in between.
    ///
    /// # Cancel safety
    /// Not cancel safe: the stream is left at an unknown position and must be dropped.
    pub async fn deny<S>(&self, stream: &mut S, denial: Denial) -> Result<(), CopyError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        self.in_time(greet(stream, &self.settings, Some(denial)))
            .await
    }

    async fn in_time<T>(
        &self,
        handshake: impl Future<Output = Result<T, CopyError>>,
    ) -> Result<T, CopyError> {
        let patience = self.settings.handshake_timeout;
        timeout(patience, handshake)
            .await
            .map_err(|_| CopyError::HandshakeTimeout(patience))?
    }
}

/// Ends a session that broke, on a blocking thread: a temporary file may have to be removed.
async fn close_intake(worker: Worker<Intake, Step>, error: CopyError) -> CopyError {
    let mut intake = match worker.into_inner().await {
        Ok(intake) => intake,
        Err(gone) => return gone,
    };
    let closing = tokio::task::spawn_blocking(move || {
        let error = error.name_file(intake.current_path());
        intake.interrupt();
        error
    });
    closing.await.unwrap_or(CopyError::RuntimeGone)
}

/// Reads the sender's greeting and answers it, and has the secret proven if there is one.
async fn greet<S>(
    stream: &mut S,
    settings: &ReceiverBuilder,
    denial: Option<Denial>,
) -> Result<(), CopyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut sender = [0; GREETING_LEN];
    stream
        .read_exact(&mut sender)
        .await
        .map_err(CopyError::connection)?;
    let offered = Greeting::decode(sender)?;
    let is_common = (offered.min_version..=offered.max_version).contains(&VERSION);
    let version = if is_common { VERSION } else { 0 };
    let secret = settings.secret.as_ref();
    // A sender with a secret looks for the reason behind a greeting that grants the secret, and only there.
    let granted = access::grant(secret, if is_common { offered.features } else { 0 });
    let denial = denial.or(granted.err());
    let answer = Greeting {
        min_version: version,
        max_version: version,
        features: granted.unwrap_or(0),
    };
    let receiver = answer.encode();
    let answering = async {
        stream.write_all(&receiver).await?;
        stream.flush().await
    };
    answering.await.map_err(CopyError::connection)?;
    if !is_common {
        return Err(CopyError::Version {
            ours: VERSION,
            peer_min: offered.min_version,
            peer_max: offered.max_version,
        });
    }
    if let Some(denial) = denial {
        return Err(access::deny(stream, denial).await);
    }
    if let Some(secret) = secret {
        let greetings = Greetings { sender, receiver };
        access::demand(stream, secret, greetings, &settings.binding).await?;
    }
    Ok(())
}

/// Moves bytes between the stream and the worker until the session is over.
async fn converse<S>(
    stream: &mut S,
    worker: &mut Worker<Intake, Step>,
    stall_timeout: Duration,
    watch: &Watch,
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
            let mut rest = reply.as_slice();
            while !rest.is_empty() {
                let written = writer.write(rest).await?;
                if written == 0 {
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
                watch.moved();
                rest = rest.get(written..).unwrap_or_default();
            }
            writer.flush().await?;
            is_between_frames.store(true, Ordering::Relaxed);
        }
        Ok(())
    };
    let result = {
        let feeding = feed(reader, worker, watch, replies);
        let mut writing = std::pin::pin!(writing);
        let mut feeding = std::pin::pin!(feeding);
        tokio::select! {
            result = &mut feeding => match result {
                // The queue is closed now; what it holds still has to go out.
                Ok(()) => tokio::select! {
                    written = writing => written.map_err(CopyError::connection),
                    error = watch.stalled(stall_timeout) => Err(error),
                },
                Err(error) => {
                    let _ = timeout(FAREWELL_TIMEOUT, writing).await;
                    Err(error)
                }
            },
            Err(error) = &mut writing => Err(CopyError::connection(error)),
            error = watch.stalled(stall_timeout) => Err(error),
        }
    };
    if let Err(error) = &result
        && is_between_frames.load(Ordering::Relaxed)
    {
        say_farewell(&mut writer, error).await;
    }
    result
}

/// Gathers input while the worker works on the batch before, and passes its replies on.
async fn feed(
    mut reader: impl AsyncRead + Unpin,
    worker: &mut Worker<Intake, Step>,
    watch: &Watch,
    replies: mpsc::Sender<Vec<u8>>,
) -> Result<(), CopyError> {
    // Initialized once: a stream that takes slices would clear the rest of the buffer for each read.
    let mut gathered = vec![0; BATCH_LEN];
    let mut spare = vec![0; BATCH_LEN];
    let mut len = 0;
    let mut is_ended = false;
    let mut last_worked = 0;
    let mut ticks = interval(WORKING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if !worker.is_busy() && len > 0 {
            let input = std::mem::replace(&mut gathered, std::mem::take(&mut spare));
            let gathered_len = std::mem::take(&mut len);
            worker.start(move |intake| intake.step(input, gathered_len));
        }
        if is_ended && !worker.is_busy() {
            return Err(CopyError::connection(
                std::io::ErrorKind::UnexpectedEof.into(),
            ));
        }
        watch.wait_for(if worker.is_busy() {
            Wait::Disk
        } else {
            Wait::Peer
        });
        let room = gathered.get_mut(len..).unwrap_or_default();
        tokio::select! {
            read = reader.read(room), if !room.is_empty() && !is_ended => {
                let read = read.map_err(CopyError::connection)?;
                is_ended = read == 0;
                len += read;
                watch.moved();
            }
            step = worker.finished(), if worker.is_busy() => {
                let step = step?;
                spare = step.input;
                if !step.replies.is_empty() {
                    watch.wait_for(Wait::Room);
                    // Fails only if the writer has failed, which ends the session by itself.
                    let _ = replies.send(step.replies).await;
                }
                if step.result? {
                    return Ok(());
                }
            }
            _ = ticks.tick() => {
                let worked = watch.worked();
                if worked != last_worked {
                    last_worked = worked;
                    let mut frame = Vec::new();
                    Frame::Working(worked).encode(&mut frame);
                    // With the queue full, verdicts are on their way and tell as much.
                    let _ = replies.try_send(frame);
                }
            }
        }
    }
}
