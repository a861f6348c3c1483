//! The sending side: [`Sender`] joins an [`Outgoing`] and a stream.
//!
//! The state machine fills one output at a time in a blocking task, while the output before is
//! written to the stream and answers are read from it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::access::{self, Greetings, Secret};
use super::error::{CopyError, ProtocolError};
use super::outgoing::{Limits, Next, Outgoing, Output, Step};
use super::progress::{Event, Recorder, Report};
use super::protocol::{
    DATA, Decoder, Frame, GREETING_LEN, Greeting, Item, MAX_WINDOW, Options, VERSION,
};
use super::rate::RateLimit;
use super::source::Source;
use super::watch::{Wait, Watch};
use super::worker::Worker;
use super::{WORKING_EVERY, check_range, discard_events, say_farewell};

/// Frames from the receiver that wait for the next step. More than twice the window, so that an honest
/// receiver never has to wait while an output is being written.
const INBOUND_LEN: usize = 10_000;

/// Bytes read from the receiver at once: some three hundred verdicts.
const READ_LEN: usize = 16 * 1024;

/// How long the writer that failed waits for the receiver's own words, which are the better error.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends files and directory trees to a [`Receiver`](super::Receiver).
///
/// Each path lands in the receiver's root under its own last part, as with `cp -r`. Files follow
/// one another without waiting for verdicts; those that fail their check are sent again; what an
/// earlier session left unfinished is continued, and what is there already and equal is passed over.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use reliable_udp::copy::{Receiver, Sender};
///
/// let root = tempfile::tempdir()?;
/// let receiver = Receiver::builder(root.path()).build()?;
/// let (mut near, mut far) = tokio::io::duplex(64 * 1024); // or two ends of a connection
/// let sender = Sender::builder().attempts(3).build()?;
/// let (sent, _) = tokio::join!(sender.send(&mut near, ["src", "README.md"]), receiver.receive(&mut far));
/// assert!(sent?.is_complete());
/// assert!(root.path().join("src/copy/mod.rs").exists());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Sender {
    settings: SenderBuilder,
}

/// Settings of a [`Sender`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build() is called"]
pub struct SenderBuilder {
    limits: Limits,
    options: Options,
    verdict_timeout: Duration,
    handshake_timeout: Duration,
    stall_timeout: Duration,
    result_limit: usize,
    rate_limit: Option<RateLimit>,
    secret: Option<Secret>,
    binding: Vec<u8>,
}

impl Default for SenderBuilder {
    fn default() -> Self {
        Self {
            limits: Limits {
                attempts: 5,
                asks: 5,
                window: usize::try_from(MAX_WINDOW).unwrap_or(1),
                checksum: false,
            },
            options: Options::default(),
            verdict_timeout: Duration::from_secs(15),
            handshake_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(120),
            result_limit: 65_536,
            rate_limit: None,
            secret: None,
            binding: Vec::new(),
        }
    }
}

impl SenderBuilder {
    /// How often one file is sent, failed checks and changes while it was read included, before it is
    /// given up. Default: 5. Range: 1 to 255.
    pub fn attempts(mut self, attempts: u8) -> Self {
        self.limits.attempts = attempts;
        self
    }

    /// How often a missing verdict is asked for again before its file is given up. Default: 5.
    /// Range: any; 0 never asks again.
    pub fn asks(mut self, asks: u32) -> Self {
        self.limits.asks = asks;
        self
    }

    /// Whether files that exist at the receiver with other content are replaced. Default: false; such
    /// a file fails with [`Refusal::Exists`](super::Refusal::Exists). The receiver may forbid it.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.options.overwrite = overwrite;
        self
    }

    /// Whether modes and modification times are kept. Default: true. If false, equal files cannot be
    /// told by their modification time: use [`checksum`](Self::checksum) to pass over them.
    pub fn preserve(mut self, preserve: bool) -> Self {
        self.options.no_preserve = !preserve;
        self
    }

    /// Whether files are compared with what is there by their hash, and not by size and modification
    /// time. Every file is read once more, on both sides. Default: false.
    pub fn checksum(mut self, checksum: bool) -> Self {
        self.limits.checksum = checksum;
        self
    }

    /// Whether the receiver reads what an earlier session left of a file again before it is continued.
    /// Default: false: it was read back when it was written, and its journal is believed. Damage
    /// that was done to it between two sessions is then not found.
    pub fn recheck(mut self, recheck: bool) -> Self {
        self.options.recheck = recheck;
        self
    }

    /// Whether only to find out what would be copied: the receiver answers and writes nothing.
    /// Default: false.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.options.dry_run = dry_run;
        self
    }

    /// How long the receiver may stay without any sign of progress, with everything sent, before
    /// the missing verdicts are asked for again. A receiver that is at work gives such a sign every
    /// second. Default: 15 s. Range: above zero.
    pub fn verdict_timeout(mut self, timeout: Duration) -> Self {
        self.verdict_timeout = timeout;
        self
    }

    /// How long the receiver may take to answer the greeting and to prove the shared secret. Default:
    /// 30 s. Range: above zero.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How long nothing at all may move, neither a byte on the stream in either direction nor one on
    /// this side's disk, before the session ends with [`CopyError::Stalled`]. Default: 2 min. Range:
    /// above zero. Longer than `verdict_timeout`, or a lost verdict is never asked for again.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// How many files, links and directories may be on their way without a verdict. 1 waits for each
    /// verdict before the next. Default: 4,096. Range: 1 to 4,096.
    pub fn window(mut self, offers: u64) -> Self {
        self.limits.window = usize::try_from(offers).unwrap_or(usize::MAX);
        self
    }

    /// How many successes, and as many failures, a [`Report`] lists one by one. Default: 65,536
    /// entries. Range: any; 0 keeps the sums only.
    pub fn result_limit(mut self, entries: usize) -> Self {
        self.result_limit = entries;
        self
    }

    /// Bounds how fast this sender's sessions, and all others with a clone of the limit, send
    /// together. Default: no bound.
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.rate_limit = Some(limit);
        self
    }

    /// The secret that both sides prove to know before anything is offered; a receiver without it is
    /// refused with [`Denial`](super::Denial). Default: none.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// What tells the channel below from every other, such as the exporter of its TLS session
    /// (RFC 9266). The proof of the secret covers it, so that it cannot be carried from one channel to
    /// another. Both sides must have the same. Default: empty, for a stream without TLS.
    pub fn channel_binding(mut self, binding: impl Into<Vec<u8>>) -> Self {
        self.binding = binding.into();
        self
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`CopyError::InvalidArgument`] if one lies outside its range.
    pub fn build(self) -> Result<Sender, CopyError> {
        let attempts = &self.limits.attempts;
        check_range(*attempts > 0, "attempts", attempts, "1 to 255")?;
        for (name, value) in [
            ("verdict_timeout", &self.verdict_timeout),
            ("handshake_timeout", &self.handshake_timeout),
            ("stall_timeout", &self.stall_timeout),
        ] {
            check_range(!value.is_zero(), name, value, "above zero")?;
        }
        let window = &self.limits.window;
        let is_window = u64::try_from(*window).is_ok_and(|w| (1..=MAX_WINDOW).contains(&w));
        check_range(is_window, "window", window, "1 to 4,096")?;
        Ok(Sender { settings: self })
    }
}

impl Sender {
    /// Makes a sender with the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a sender with settings of its own.
    pub fn builder() -> SenderBuilder {
        SenderBuilder::default()
    }

    /// Sends files and directories, and returns when the receiver's verdict on each is known.
    ///
    /// The stream stays open and stands at the end of the session, so that the caller can shut it
    /// down or use it again.
    ///
    /// # Errors
    /// A file that was not copied is no error here: see [`Report::failures`]. An error ends the
    /// session: a path could not be opened, the stream broke or stalled, the receiver refused, or
    /// broke the protocol.
    ///
    /// # Cancel safety
    /// Not cancel safe: the stream is left at an unknown position and must be dropped. Files that
    /// were verified so far stay at the receiver, which keeps what it can of the one being sent; a
    /// later session continues.
    pub async fn send<S, P>(
        &self,
        stream: &mut S,
        paths: impl IntoIterator<Item = P> + Send,
    ) -> Result<Report, CopyError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        P: AsRef<Path>,
    {
        self.send_with(stream, paths, discard_events).await
    }

    /// Like [`send`](Self::send), and calls `on_event` for each [`Event`], in order, from a blocking
    /// thread. It should return soon: the copy waits for it. To get the events into async code, let
    /// it put them into a channel.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send).
    pub fn send_with<S, P, F>(
        &self,
        stream: &mut S,
        paths: impl IntoIterator<Item = P>,
        on_event: F,
    ) -> impl Future<Output = Result<Report, CopyError>> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        P: AsRef<Path>,
        F: FnMut(Event) + Send + 'static,
    {
        let source = Source::builder(paths).build();
        async move { self.send_source(stream, &source.await?, on_event).await }
    }

    /// Sends what a [`Source`] holds. Several sessions, each with a stream of its own, can share one:
    /// each file is then read and hashed once as far as the source's cache goes, and no session waits
    /// for another; [`SourceBuilder::sessions`](super::SourceBuilder::sessions) says how many are to
    /// come. A lost session can be followed by another with the same source, which continues.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use reliable_udp::copy::{Receiver, Sender, Source};
    ///
    /// let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
    /// let (mut near_a, mut far_a) = tokio::io::duplex(64 * 1024); // or connections to two servers
    /// let (mut near_b, mut far_b) = tokio::io::duplex(64 * 1024);
    /// let (a, b) = (Receiver::builder(here.path()).build()?, Receiver::builder(there.path()).build()?);
    ///
    /// let source = Source::builder(["src/copy"]).sessions(2).build().await?;
    /// let sender = Sender::new();
    /// let (to_a, to_b, _, _) = tokio::join!(
    ///     sender.send_source(&mut near_a, &source, |_| ()),
    ///     sender.send_source(&mut near_b, &source, |_| ()),
    ///     a.receive(&mut far_a),
    ///     b.receive(&mut far_b),
    /// );
    /// let (to_a, to_b) = (to_a?, to_b?);
    /// assert_eq!(to_a.totals, to_b.totals);
    /// assert_eq!(source.bytes_read(), to_a.totals.bytes_verified);
    /// # Ok(()) }
    /// ```
    pub async fn send_source<S, F>(
        &self,
        stream: &mut S,
        source: &Source,
        on_event: F,
    ) -> Result<Report, CopyError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        F: FnMut(Event) + Send + 'static,
    {
        let settings = &self.settings;
        timeout(settings.handshake_timeout, greet(stream, settings))
            .await
            .map_err(|_| CopyError::HandshakeTimeout(settings.handshake_timeout))??;
        let recorder = Recorder::new(settings.result_limit, Box::new(on_event));
        let worked = Arc::new(AtomicU64::new(0));
        let runtime = tokio::runtime::Handle::current();
        let spawn = Arc::new(move |work| drop(runtime.spawn_blocking(work)));
        let outgoing = Outgoing::new(
            source.session(spawn),
            recorder,
            settings.limits,
            settings.options,
            Arc::clone(&worked),
        );
        let stop = outgoing.stop();
        let mut worker = Worker::new(outgoing);
        let watch = Watch::new(worked);
        let result = converse(stream, &mut worker, settings, &watch).await;
        drop(stop);
        match result {
            Ok(()) => Ok(worker.into_inner().await?.take_report()),
            Err(error) => {
                // A disk that hangs does not keep the error back. What is at work there ends by itself.
                let Ok(outgoing) = timeout(settings.stall_timeout, worker.into_inner()).await
                else {
                    return Err(error);
                };
                let mut outgoing = outgoing?;
                let error = error.name_file(outgoing.oldest_path());
                outgoing.interrupt();
                Err(error)
            }
        }
    }
}

async fn greet<S>(stream: &mut S, settings: &SenderBuilder) -> Result<(), CopyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let secret = settings.secret.as_ref();
    let offer = Greeting {
        min_version: VERSION,
        max_version: VERSION,
        features: access::offered(secret),
    };
    let sender = offer.encode();
    let writing = async {
        stream.write_all(&sender).await?;
        stream.flush().await
    };
    writing.await.map_err(CopyError::connection)?;
    let mut receiver = [0; GREETING_LEN];
    stream
        .read_exact(&mut receiver)
        .await
        .map_err(CopyError::connection)?;
    let answer = Greeting::decode(receiver)?;
    let (version, features) = (answer.min_version, answer.features);
    if version == 0 {
        return Err(CopyError::Version {
            ours: VERSION,
            peer_min: 0,
            peer_max: 0,
        });
    }
    let is_offered = version == VERSION && answer.max_version == version;
    if !is_offered || features & !offer.features != 0 {
        return Err(ProtocolError::NotOffered { version, features }.into());
    }
    access::accept(secret, features)?;
    if let Some(secret) = secret {
        let greetings = Greetings { sender, receiver };
        access::prove(stream, secret, greetings, &settings.binding).await?;
    }
    Ok(())
}

/// Moves frames between the stream and the worker until the session is over.
async fn converse<S>(
    stream: &mut S,
    worker: &mut Worker<Outgoing, Step>,
    settings: &SenderBuilder,
    watch: &Watch,
) -> Result<(), CopyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (reader, mut writer) = tokio::io::split(stream);
    let (outputs, mut queue) = mpsc::channel::<Output>(1);
    let (inbound, frames) = mpsc::channel(INBOUND_LEN);
    // Only between two outputs may a farewell follow.
    let is_between_frames = AtomicBool::new(true);
    let writing = async {
        while let Some(output) = queue.recv().await {
            is_between_frames.store(false, Ordering::Relaxed);
            let written = write(&mut writer, output, settings.rate_limit.as_ref(), watch);
            if let Err(error) = written.await {
                // The receiver may have said why it left; its words are the better error.
                sleep(LAST_WORDS_TIMEOUT).await;
                return Err(CopyError::connection(error));
            }
            is_between_frames.store(true, Ordering::Relaxed);
        }
        Ok(())
    };
    let result = {
        let io = async { tokio::try_join!(listen(reader, inbound, watch), writing) };
        let channels = Channels { outputs, frames };
        tokio::select! {
            result = drive(worker, channels, settings.verdict_timeout, watch) => result,
            Err(error) = io => Err(error),
            error = watch.stalled(settings.stall_timeout) => Err(error),
        }
    };
    if let Err(error) = &result
        && is_between_frames.load(Ordering::Relaxed)
    {
        say_farewell(&mut writer, error).await;
    }
    result
}

/// Writes an output, no faster than the limit allows.
async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut output: Output,
    limit: Option<&RateLimit>,
    watch: &Watch,
) -> io::Result<()> {
    while let Some(mut piece) = output.pop() {
        while !piece.is_empty() {
            let written = match limit {
                None => writer.write(&piece).await?,
                Some(limit) => {
                    let part = piece.get(..limit.piece_len()).unwrap_or(&piece);
                    limit.take(part.len()).await;
                    writer.write_all(part).await?;
                    part.len()
                }
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            watch.moved();
            let _ = piece.split_to(written);
        }
    }
    writer.flush().await
}

/// What connects [`drive`] with the stream's two halves.
struct Channels {
    outputs: mpsc::Sender<Output>,
    frames: mpsc::Receiver<Frame>,
}

/// Reads the receiver's frames up to the last one, behind which it sends nothing.
async fn listen(
    mut reader: impl AsyncRead + Unpin,
    inbound: mpsc::Sender<Frame>,
    watch: &Watch,
) -> Result<(), CopyError> {
    let mut buf = vec![0; READ_LEN];
    let mut decoder = Decoder::default();
    loop {
        let read = reader.read(&mut buf).await.map_err(CopyError::connection)?;
        if read == 0 {
            return Err(CopyError::connection(io::ErrorKind::UnexpectedEof.into()));
        }
        watch.moved();
        let mut bytes = buf.get(..read).unwrap_or_default();
        while let Some(item) = decoder.next(&mut bytes)? {
            let Item::Frame(frame) = item else {
                let when = "from the receiver";
                return Err(ProtocolError::Unexpected { frame: DATA, when }.into());
            };
            let is_last = matches!(frame, Frame::Bye | Frame::Fatal(..));
            // Sending fails only if the other end has ended the session already.
            match frame {
                // Only says that the receiver lives; when others wait, they say it too.
                Frame::Working(_) => drop(inbound.try_send(frame)),
                frame => drop(inbound.send(frame).await),
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// Has the worker fill outputs, hands them to the writer, and minds the time.
async fn drive(
    worker: &mut Worker<Outgoing, Step>,
    mut channels: Channels,
    verdict_timeout: Duration,
    watch: &Watch,
) -> Result<(), CopyError> {
    let mut arrived = Vec::new();
    let mut is_quiet = false;
    loop {
        while let Ok(frame) = channels.frames.try_recv() {
            arrived.push(frame);
        }
        let frames = std::mem::take(&mut arrived);
        worker.start(move |outgoing| outgoing.step(frames, is_quiet));
        watch.wait_for(Wait::Disk);
        let step = finish_step(worker, &channels.outputs, watch).await?;
        is_quiet = false;
        if step.output.len() > 0 {
            watch.wait_for(Wait::Room);
            if channels.outputs.send(step.output).await.is_err() {
                // The writer has failed and is about to say so.
                std::future::pending::<()>().await;
            }
        }
        match step.result? {
            Next::More => {}
            Next::Over => return Ok(()),
            Next::Answers => {
                watch.wait_for(Wait::Peer);
                match timeout(verdict_timeout, channels.frames.recv()).await {
                    Ok(Some(frame)) => arrived.push(frame),
                    // The reader has failed and is about to say so.
                    Ok(None) => std::future::pending::<()>().await,
                    Err(_) => is_quiet = true,
                }
            }
        }
    }
}

/// Waits for the worker, and tells the receiver meanwhile that it reads on.
async fn finish_step(
    worker: &mut Worker<Outgoing, Step>,
    outputs: &mpsc::Sender<Output>,
    watch: &Watch,
) -> Result<Step, CopyError> {
    let mut ticks = interval(WORKING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let mut last = watch.worked();
    loop {
        tokio::select! {
            biased;
            step = worker.finished() => return step,
            _ = ticks.tick() => {
                let worked = watch.worked();
                if worked != last {
                    last = worked;
                    // With the queue full, content is on its way and tells as much.
                    let _ = outputs.try_send(Output::working(worked));
                }
            }
        }
    }
}
