//! The sending side: [`Sender`] joins an [`Outgoing`] and a stream.
//!
//! The state machine fills one buffer at a time in a blocking task, while the buffer before is
//! written to the stream and verdicts are read from it.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::error::{CopyError, ProtocolError};
use super::outgoing::{Limits, Next, Outgoing, Step};
use super::progress::{Event, Recorder, Report};
use super::protocol::{DATA, Decoder, Frame, GREETING_LEN, Greeting, Item, MAX_WINDOW, VERSION};
use super::tree::{Root, Tree};
use super::worker::Worker;
use super::{FAREWELL_TIMEOUT, check_range, discard_events};

/// Frames from the receiver that wait for the next batch. More than the window, so that an honest
/// receiver never has to wait while a buffer is being written.
const INBOUND_LEN: usize = 2048;

/// Bytes read from the receiver at once: some three hundred verdicts.
const READ_LEN: usize = 16 * 1024;

/// Sends files and directory trees to a [`Receiver`](super::Receiver).
///
/// Each path lands in the receiver's root under its own last part, as with `cp -r`. Files follow
/// one another without waiting for verdicts; those that fail their check are sent again.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use reliable_udp::copy::{Receiver, Sender};
///
/// let root = tempfile::tempdir()?;
/// let receiver = Receiver::builder(root.path()).build()?;
/// let (mut near, mut far) = tokio::io::duplex(64 * 1024); // or two ends of a connection
/// let sender = Sender::builder().retries(2).build()?;
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
    retries: u8,
    asks: u32,
    verdict_timeout: Duration,
    handshake_timeout: Duration,
    window: u64,
    result_limit: usize,
}

impl Default for SenderBuilder {
    fn default() -> Self {
        Self {
            retries: 5,
            asks: 5,
            verdict_timeout: Duration::from_secs(15),
            handshake_timeout: Duration::from_secs(30),
            window: MAX_WINDOW,
            result_limit: 65_536,
        }
    }
}

impl SenderBuilder {
    /// How often one file is sent again, after a failed check or because it changed while it was
    /// read, before it is given up. Default: 5. Range: 0 to 254.
    pub fn retries(mut self, retries: u8) -> Self {
        self.retries = retries;
        self
    }

    /// How often a missing verdict is asked for again before its file is given up. Default: 5.
    /// Range: any; 0 never asks again.
    pub fn asks(mut self, asks: u32) -> Self {
        self.asks = asks;
        self
    }

    /// How long the receiver may stay without any sign of progress, with everything sent, before
    /// the missing verdicts are asked for again. A receiver that is at work gives such a sign every
    /// second. Default: 15 s. Range: above zero.
    pub fn verdict_timeout(mut self, timeout: Duration) -> Self {
        self.verdict_timeout = timeout;
        self
    }

    /// How long the receiver may take to answer the greeting. Default: 30 s. Range: above zero.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How many files and directories may be on their way without a verdict. 1 waits for each
    /// verdict before the next file. Default: 1,024. Range: 1 to 1,024.
    pub fn window(mut self, files: u64) -> Self {
        self.window = files;
        self
    }

    /// How many successes, and as many failures, a [`Report`] lists one by one. Default: 65,536
    /// entries. Range: any; 0 keeps the sums only.
    pub fn result_limit(mut self, entries: usize) -> Self {
        self.result_limit = entries;
        self
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`CopyError::InvalidArgument`] if one lies outside its range.
    pub fn build(self) -> Result<Sender, CopyError> {
        check_range(self.retries < u8::MAX, "retries", &self.retries, "0 to 254")?;
        let (verdict, handshake) = (&self.verdict_timeout, &self.handshake_timeout);
        check_range(!verdict.is_zero(), "verdict_timeout", verdict, "above zero")?;
        check_range(
            !handshake.is_zero(),
            "handshake_timeout",
            handshake,
            "above zero",
        )?;
        let is_window = (1..=MAX_WINDOW).contains(&self.window);
        check_range(is_window, "window", &self.window, "1 to 1,024 files")?;
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
    /// session: a path could not be opened, the stream broke, or the receiver broke the protocol.
    ///
    /// # Cancel safety
    /// Not cancel safe: the stream is left at an unknown position and must be dropped. Files that
    /// were verified so far stay at the receiver, and nothing else appears there.
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
        let paths: Vec<PathBuf> = paths
            .into_iter()
            .map(|path| path.as_ref().to_path_buf())
            .collect();
        let recorder = Recorder::new(self.settings.result_limit, Box::new(on_event));
        let settings = self.settings.clone();
        async move { run(stream, paths, recorder, settings).await }
    }
}

async fn run<S>(
    stream: &mut S,
    paths: Vec<PathBuf>,
    recorder: Recorder,
    settings: SenderBuilder,
) -> Result<Report, CopyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let opening = tokio::task::spawn_blocking(move || open_roots(&paths));
    let roots = opening.await.map_err(|_| CopyError::RuntimeGone)??;
    timeout(settings.handshake_timeout, greet(stream))
        .await
        .map_err(|_| CopyError::HandshakeTimeout(settings.handshake_timeout))??;
    let limits = Limits {
        attempts: settings.retries.saturating_add(1),
        asks: settings.asks,
        window: usize::try_from(settings.window).unwrap_or(1),
    };
    let outgoing = Outgoing::new(Tree::new(roots), recorder, &limits);
    let mut worker = Worker::new(outgoing);
    let result = converse(stream, &mut worker, settings.verdict_timeout).await;
    let mut outgoing = worker.into_inner().await?;
    match result {
        Ok(()) => Ok(outgoing.take_report()),
        Err(error) => {
            let error = error.name_file(outgoing.oldest_path());
            outgoing.interrupt();
            Err(error)
        }
    }
}

/// Opens what holds the paths; two of the same name would overwrite each other.
fn open_roots(paths: &[PathBuf]) -> Result<Vec<Root>, CopyError> {
    let mut names = HashSet::new();
    let mut roots = Vec::with_capacity(paths.len());
    for path in paths {
        let root = Root::open(path)?;
        if !names.insert(root.name().clone()) {
            let message = "another path to be sent has the same last part";
            let source = Arc::new(io::Error::new(io::ErrorKind::AlreadyExists, message));
            return Err(CopyError::Source {
                path: path.clone(),
                source,
            });
        }
        roots.push(root);
    }
    Ok(roots)
}

async fn greet<S>(stream: &mut S) -> Result<(), CopyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let offer = Greeting {
        min_version: VERSION,
        max_version: VERSION,
        features: 0,
    };
    stream
        .write_all(&offer.encode())
        .await
        .map_err(CopyError::connection)?;
    stream.flush().await.map_err(CopyError::connection)?;
    let mut bytes = [0; GREETING_LEN];
    stream
        .read_exact(&mut bytes)
        .await
        .map_err(CopyError::connection)?;
    let answer = Greeting::decode(bytes)?;
    let (version, features) = (answer.min_version, answer.features);
    if version == 0 {
        return Err(CopyError::Version {
            ours: VERSION,
            peer_min: 0,
            peer_max: 0,
        });
    }
    if version != VERSION || answer.max_version != version || features != 0 {
        return Err(ProtocolError::NotOffered { version, features }.into());
    }
    Ok(())
}

/// Moves frames between the stream and the worker until the session is over.
async fn converse<S>(
    stream: &mut S,
    worker: &mut Worker<Outgoing, Step>,
    verdict_timeout: Duration,
) -> Result<(), CopyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (reader, mut writer) = tokio::io::split(stream);
    let (buffers, mut queue) = mpsc::channel::<Vec<u8>>(1);
    let (spares, spare) = mpsc::channel(3);
    let (inbound, frames) = mpsc::channel(INBOUND_LEN);
    // Only between two buffers may a farewell follow.
    let is_between_frames = AtomicBool::new(true);
    let writing = async {
        while let Some(mut buffer) = queue.recv().await {
            is_between_frames.store(false, Ordering::Relaxed);
            let written = async {
                writer.write_all(&buffer).await?;
                writer.flush().await
            };
            if let Err(error) = written.await {
                // The receiver may have said why it left; its words are the better error.
                sleep(FAREWELL_TIMEOUT).await;
                return Err(CopyError::connection(error));
            }
            is_between_frames.store(true, Ordering::Relaxed);
            buffer.clear();
            let _ = spares.try_send(buffer);
        }
        Ok(())
    };
    let result = {
        let io = async { tokio::try_join!(listen(reader, inbound), writing) };
        let channels = Channels {
            buffers,
            spare,
            frames,
        };
        tokio::select! {
            result = drive(worker, channels, verdict_timeout) => result,
            Err(error) = io => Err(error),
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

/// What connects [`drive`] with the stream's two halves.
struct Channels {
    buffers: mpsc::Sender<Vec<u8>>,
    spare: mpsc::Receiver<Vec<u8>>,
    frames: mpsc::Receiver<Frame>,
}

/// Reads the receiver's frames up to the last one, behind which it sends nothing.
async fn listen(
    mut reader: impl AsyncRead + Unpin,
    inbound: mpsc::Sender<Frame>,
) -> Result<(), CopyError> {
    let mut buf = vec![0; READ_LEN];
    let mut decoder = Decoder::default();
    loop {
        let read = reader.read(&mut buf).await.map_err(CopyError::connection)?;
        if read == 0 {
            return Err(CopyError::connection(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut bytes = buf.get(..read).unwrap_or_default();
        while let Some(item) = decoder.next(&mut bytes)? {
            let Item::Frame(frame) = item else {
                let when = "from the receiver";
                return Err(ProtocolError::Unexpected { frame: DATA, when }.into());
            };
            let is_last = matches!(frame, Frame::Bye | Frame::Fatal(_));
            // Sending fails only if the other end has ended the session already.
            match frame {
                // Only says that the receiver lives; when others wait, they say it too.
                Frame::Progress(_) => drop(inbound.try_send(frame)),
                frame => drop(inbound.send(frame).await),
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// Has the worker fill buffers, hands them to the writer, and minds the time.
async fn drive(
    worker: &mut Worker<Outgoing, Step>,
    mut channels: Channels,
    verdict_timeout: Duration,
) -> Result<(), CopyError> {
    let mut arrived = Vec::new();
    let mut is_quiet = false;
    loop {
        while let Ok(frame) = channels.frames.try_recv() {
            arrived.push(frame);
        }
        let frames = std::mem::take(&mut arrived);
        let buffer = channels.spare.try_recv().unwrap_or_default();
        worker.start(move |outgoing| outgoing.step(frames, is_quiet, buffer));
        let step = worker.finished().await?;
        is_quiet = false;
        if !step.output.is_empty() && channels.buffers.send(step.output).await.is_err() {
            // The writer has failed and is about to say so.
            std::future::pending::<()>().await;
        }
        match step.result? {
            Next::More => {}
            Next::Over => return Ok(()),
            Next::Verdicts => match timeout(verdict_timeout, channels.frames.recv()).await {
                Ok(Some(frame)) => arrived.push(frame),
                // The reader has failed and is about to say so.
                Ok(None) => std::future::pending::<()>().await,
                Err(_) => is_quiet = true,
            },
        }
    }
}
