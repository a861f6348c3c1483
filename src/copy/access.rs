//! Who may write here: a shared secret that both sides prove to know.
//!
//! The exchange follows the greeting if both sides have a secret. Each side draws a nonce and sends
//! a BLAKE3 keyed hash over its role, both greetings, both nonces and the binding of the TLS channel
//! below, if there is one. So a recorded exchange is worth nothing against a fresh nonce, one side's
//! proof is not the other's, a greeting changed on the way is found, and proofs cannot be carried
//! from one TLS channel to another. The sender proves first; it offers nothing before the receiver
//! has proved itself too.
//!
//! Left out on purpose: a slow hash of the secret, since a random secret needs none and a peer must
//! not be able to cost time or memory; keys for what follows, since that is what TLS is for.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::{CopyError, ProtocolError};
use super::protocol::{FRAME_HEADER_LEN, GREETING_LEN, MAX_MESSAGE_LEN, shorten};

/// Feature bit of the greeting: the shared secret is proven before the first offer.
pub(super) const SECRET: u32 = 1;

const PROOF: u8 = 0x0e;
const CHALLENGE: u8 = 0x85;
const WELCOME: u8 = 0x86;
const FATAL: u8 = 0xff;

const NONCE_LEN: usize = 32;
const MAC_LEN: usize = blake3::OUT_LEN;

/// Says what the key is for: the same secret used elsewhere gives another key.
const KEY_CONTEXT: &str = "reliable-udp copy 2026-11 shared secret";

const MIN_SECRET_LEN: usize = 16;
const MAX_SECRET_LEN: usize = 4096;

/// A secret that a [`Sender`](super::Sender) and a [`Receiver`](super::Receiver) share. A side that
/// has one takes part in no session in which the other does not prove to know it too.
///
/// It should be random, for example 32 bytes from `openssl rand -hex 32`: whoever plays the receiver,
/// or sees an exchange without TLS, can try guesses at home as fast as BLAKE3 runs. It says who takes
/// part, and hides nothing: against somebody who can change what is on the way, the session needs TLS
/// below (feature `tls`), whose channel the proof is then bound to.
///
/// ```
/// use reliable_udp::copy::Secret;
///
/// let secret = Secret::new("f2b5e1c09a7d4e3318d6a0c47be95f21")?;
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// assert!(Secret::new("password").is_err(), "too short");
/// # Ok::<(), reliable_udp::copy::CopyError>(())
/// ```
#[derive(Clone)]
pub struct Secret {
    key: [u8; blake3::KEY_LEN],
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Makes a secret of 16 to 4,096 bytes. One line end (`\n` or `\r\n`) at the end is cut off first, so
    /// that a file written by an editor or by `openssl rand -hex 32` is the same secret as its line.
    ///
    /// # Errors
    /// [`CopyError::Secret`] if it is shorter or longer.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, CopyError> {
        let bytes = cut_line_end(bytes.as_ref());
        if !(MIN_SECRET_LEN..=MAX_SECRET_LEN).contains(&bytes.len()) {
            let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            return Err(SecretError::Length { path: None, len }.into());
        }
        Ok(Self {
            key: blake3::derive_key(KEY_CONTEXT, bytes),
        })
    }

    /// Reads a secret from a regular file, whose content is as for [`new`](Self::new).
    ///
    /// On Unix a file that belongs to this process's user must be closed to group and others, as `ssh`
    /// asks of its keys: `chmod 600` does it. As there, who may read somebody else's file is not this
    /// user's choice, and is not looked at: files that a service manager or a container runtime hands
    /// in are taken as they are. Blocks for the time of reading a small file.
    ///
    /// # Errors
    /// [`CopyError::Secret`] if it cannot be read, is no regular file, is open to others, or has a
    /// wrong length.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, CopyError> {
        let path = path.as_ref();
        let bytes = read_secret(path)?;
        Self::new(&bytes).map_err(|error| match error {
            CopyError::Secret(SecretError::Length { len, .. }) => {
                let path = Some(path.to_path_buf());
                SecretError::Length { path, len }.into()
            }
            other => other,
        })
    }
}

fn cut_line_end(bytes: &[u8]) -> &[u8] {
    let Some(line) = bytes.strip_suffix(b"\n") else {
        return bytes;
    };
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn read_secret(path: &Path) -> Result<Vec<u8>, SecretError> {
    let failed = |source| SecretError::Read {
        path: path.to_path_buf(),
        source: Arc::new(source),
    };
    let not_a_file = || SecretError::NotAFile(path.to_path_buf());
    // Before it is opened: opening a named pipe would wait for somebody who writes.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(not_a_file());
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(not_a_file());
    }
    check_mode(path, &metadata)?;
    let longest = MAX_SECRET_LEN + b"\r\n".len();
    let len = metadata.len();
    if usize::try_from(len).map_or(true, |len| len > longest) {
        let path = Some(path.to_path_buf());
        return Err(SecretError::Length { path, len });
    }
    let mut bytes = Vec::with_capacity(longest);
    // One byte more than fits tells a file that has grown.
    file.take(u64::try_from(longest).unwrap_or(u64::MAX) + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), SecretError> {
    use std::os::unix::fs::MetadataExt;

    let mode = metadata.mode() & 0o7777;
    if metadata.uid() == rustix::process::geteuid().as_raw() && mode & 0o077 != 0 {
        let path = path.to_path_buf();
        return Err(SecretError::Exposed { path, mode });
    }
    Ok(())
}

/// Who may read a file elsewhere is in access control lists, which std does not show.
#[cfg(not(unix))]
fn check_mode(_: &Path, _: &fs::Metadata) -> Result<(), SecretError> {
    Ok(())
}

/// Why a shared secret cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// It is shorter than 16 bytes or longer than 4,096.
    #[error("the shared secret{} has {len} bytes, not 16 to 4,096 (`openssl rand -hex 32` makes a good one)", stands_in(path.as_ref()))]
    Length {
        /// The file that holds it, if it came from one.
        path: Option<PathBuf>,
        /// Its length in bytes, a line end at its end left out.
        len: u64,
    },
    /// The file belongs to this user, who lets group or others use it.
    #[error("the secret file {} is open to group or others (mode {mode:04o}): close it with `chmod 600`", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The path leads to something that is not a regular file.
    #[error("the secret file {} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The file cannot be read.
    #[error("cannot read the secret file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        #[source]
        source: Arc<io::Error>,
    },
    /// The system gave no random bytes for a nonce.
    #[error("the system gives no random bytes")]
    Random(#[source] Arc<io::Error>),
}

impl SecretError {
    pub(super) fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Read { source, .. } | Self::Random(source) => Some(source.kind()),
            Self::Length { .. } | Self::Exposed { .. } | Self::NotAFile(_) => None,
        }
    }
}

/// The messages show every field but the source; `io::Error`s compare by their kind.
impl PartialEq for SecretError {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.to_string() == other.to_string()
            && self.io_kind() == other.io_kind()
    }
}

fn stands_in(path: Option<&PathBuf>) -> String {
    path.map(|path| format!(" in {}", path.display()))
        .unwrap_or_default()
}

/// Why a session was denied before anything was offered. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    /// The receiver asks for a shared secret, and the sender has none.
    #[error("the receiver asks for a shared secret, and the sender has none")]
    SecretNeeded,
    /// The sender did not prove to know the receiver's secret: theirs differ, or somebody stands
    /// between the two and has changed the greeting or ended the TLS.
    #[error("wrong shared secret: the sender did not prove to know the receiver's")]
    WrongSecret,
    /// The sender has a secret, and the receiver does not ask for it.
    #[error("the sender has a shared secret, and the receiver does not ask for one")]
    PeerWithoutSecret,
    /// The receiver took the sender's proof, or said so, and did not prove to know the secret itself.
    #[error("the receiver did not prove to know the shared secret")]
    PeerUnproven,
    /// The receiver serves as many sessions as it may.
    #[error("the receiver is busy with as many sessions as it may serve")]
    Busy,
    /// The receiver takes nothing from this sender's address.
    #[error("the receiver takes nothing from this address")]
    NotAllowed,
}

impl Denial {
    /// What a FATAL frame calls it; `None` for what only the sender finds.
    pub(super) fn code(self) -> Option<u8> {
        match self {
            Self::SecretNeeded => Some(1),
            Self::WrongSecret => Some(2),
            Self::Busy => Some(3),
            Self::NotAllowed => Some(4),
            Self::PeerWithoutSecret | Self::PeerUnproven => None,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        [
            Self::SecretNeeded,
            Self::WrongSecret,
            Self::Busy,
            Self::NotAllowed,
        ]
        .into_iter()
        .find(|denial| denial.code() == Some(code))
    }
}

/// The feature bits that a sender offers on account of its secret.
pub(super) fn offered(secret: Option<&Secret>) -> u32 {
    if secret.is_some() { SECRET } else { 0 }
}

/// The feature bits that a receiver grants on account of its secret. A denial is told by a greeting
/// that grants nothing and a FATAL behind it.
pub(super) fn grant(secret: Option<&Secret>, offered: u32) -> Result<u32, Denial> {
    match secret {
        None => Ok(0),
        Some(_) if offered & SECRET == 0 => Err(Denial::SecretNeeded),
        Some(_) => Ok(SECRET),
    }
}

/// Whether a sender may go on with the features that the receiver granted, none of which it did not
/// offer.
pub(super) fn accept(secret: Option<&Secret>, granted: u32) -> Result<(), Denial> {
    if secret.is_some() && granted & SECRET == 0 {
        return Err(Denial::PeerWithoutSecret);
    }
    Ok(())
}

/// Both greetings, as they were on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Greetings {
    pub(super) sender: [u8; GREETING_LEN],
    pub(super) receiver: [u8; GREETING_LEN],
}

#[derive(Debug, Clone, Copy)]
enum Role {
    Sender,
    Receiver,
}

/// All that a proof is about. The two sides' differ if anything was changed on the way.
#[derive(Debug, Clone, Copy)]
struct Transcript<'a> {
    greetings: Greetings,
    nonce_r: [u8; NONCE_LEN],
    nonce_s: [u8; NONCE_LEN],
    /// The TLS channel's exporter; empty without TLS.
    binding: &'a [u8],
}

impl Transcript<'_> {
    /// The proof of `role`. How far a guess was right does not show: `blake3::Hash` has "constant-time
    /// equality checking" (its documentation), other than the bytes in it.
    fn mac(&self, secret: &Secret, role: Role) -> blake3::Hash {
        let role = match role {
            Role::Sender => b'S',
            Role::Receiver => b'R',
        };
        let binding_len = u32::try_from(self.binding.len()).unwrap_or(u32::MAX);
        let mut hasher = blake3::Hasher::new_keyed(&secret.key);
        hasher
            .update(&[role])
            .update(&self.greetings.sender)
            .update(&self.greetings.receiver)
            .update(&self.nonce_r)
            .update(&self.nonce_s)
            .update(&binding_len.to_be_bytes())
            .update(self.binding);
        hasher.finalize()
    }
}

/// The sender's part, behind the greetings: proves the secret, then asks for the receiver's proof.
/// Reads exactly the receiver's two frames.
///
/// # Cancel safety
/// Not cancel safe: the stream is left at an unknown position.
pub(super) async fn prove<S>(
    stream: &mut S,
    secret: &Secret,
    greetings: Greetings,
    binding: &[u8],
) -> Result<(), CopyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    prove_with(stream, secret, greetings, binding, fresh_nonce()?).await
}

async fn prove_with<S>(
    stream: &mut S,
    secret: &Secret,
    greetings: Greetings,
    binding: &[u8],
    nonce_s: [u8; NONCE_LEN],
) -> Result<(), CopyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let [nonce_r] = read_frame(stream, CHALLENGE).await?;
    let transcript = Transcript {
        greetings,
        nonce_r,
        nonce_s,
        binding,
    };
    let proof = transcript.mac(secret, Role::Sender);
    write_frame(stream, PROOF, &[&nonce_s, proof.as_bytes()]).await?;
    let [theirs] = read_frame(stream, WELCOME).await?;
    if transcript.mac(secret, Role::Receiver) == blake3::Hash::from_bytes(theirs) {
        Ok(())
    } else {
        Err(Denial::PeerUnproven.into())
    }
}

/// The receiver's part, behind the greetings: asks for the sender's proof, then proves the secret, or
/// says that it was wrong. Reads exactly the sender's one frame, and keeps nothing of a wrong try.
///
/// # Cancel safety
/// Not cancel safe: the stream is left at an unknown position.
pub(super) async fn demand<S>(
    stream: &mut S,
    secret: &Secret,
    greetings: Greetings,
    binding: &[u8],
) -> Result<(), CopyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    demand_with(stream, secret, greetings, binding, fresh_nonce()?).await
}

async fn demand_with<S>(
    stream: &mut S,
    secret: &Secret,
    greetings: Greetings,
    binding: &[u8],
    nonce_r: [u8; NONCE_LEN],
) -> Result<(), CopyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    write_frame(stream, CHALLENGE, &[&nonce_r]).await?;
    let [nonce_s, theirs] = read_frame(stream, PROOF).await?;
    let transcript = Transcript {
        greetings,
        nonce_r,
        nonce_s,
        binding,
    };
    if transcript.mac(secret, Role::Sender) != blake3::Hash::from_bytes(theirs) {
        return Err(deny(stream, Denial::WrongSecret).await);
    }
    let proof = transcript.mac(secret, Role::Receiver);
    write_frame(stream, WELCOME, &[proof.as_bytes()]).await
}

/// Tells the peer by a FATAL frame, between two frames, why it is denied, and returns the error for
/// this side. A stream that takes nothing any more does not change that.
pub(super) async fn deny<S>(stream: &mut S, denial: Denial) -> CopyError
where
    S: AsyncWrite + Unpin,
{
    tracing::warn!(%denial, "session denied");
    if let Some(code) = denial.code() {
        let text = denial.to_string();
        let _ = write_frame(stream, FATAL, &[&[code], shorten(&text).as_bytes()]).await;
    }
    denial.into()
}

fn fresh_nonce() -> Result<[u8; NONCE_LEN], SecretError> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce)
        .map_err(|error| SecretError::Random(Arc::new(io::Error::other(error))))?;
    Ok(nonce)
}

async fn write_frame<S>(stream: &mut S, kind: u8, body: &[&[u8]]) -> Result<(), CopyError>
where
    S: AsyncWrite + Unpin,
{
    let body = body.concat();
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let frame = [&[kind][..], &len.to_be_bytes(), &body].concat();
    let writing = async {
        stream.write_all(&frame).await?;
        stream.flush().await
    };
    writing.await.map_err(CopyError::connection)
}

/// Reads one frame of type `kind` and of `N` fields of 32 bytes, and nothing behind it. A FATAL in its
/// place is the peer's reason to leave.
async fn read_frame<const N: usize, S>(stream: &mut S, kind: u8) -> Result<[[u8; 32]; N], CopyError>
where
    S: AsyncRead + Unpin,
{
    const { assert!(NONCE_LEN == 32 && MAC_LEN == 32) };
    let mut header = [0; FRAME_HEADER_LEN];
    read_exact(stream, &mut header).await?;
    let [frame, len @ ..] = header;
    let len = u32::from_be_bytes(len);
    let body_len = usize::try_from(len).unwrap_or(usize::MAX);
    if frame == FATAL {
        return Err(read_fatal(stream, body_len).await?);
    }
    if frame != kind {
        let when = "before the shared secret was proven";
        return Err(ProtocolError::Unexpected { frame, when }.into());
    }
    let mut fields = [[0; 32]; N];
    if body_len != fields.as_flattened().len() {
        return Err(ProtocolError::FrameLength { frame, len }.into());
    }
    read_exact(stream, fields.as_flattened_mut()).await?;
    Ok(fields)
}

/// Reads a FATAL's body: one byte of code, and a text that is shown to people.
async fn read_fatal<S>(stream: &mut S, body_len: usize) -> Result<CopyError, CopyError>
where
    S: AsyncRead + Unpin,
{
    let mut body = [0; 1 + MAX_MESSAGE_LEN];
    let Some(body) = body.get_mut(..body_len) else {
        let len = u32::try_from(body_len).unwrap_or(u32::MAX);
        return Err(ProtocolError::FrameLength { frame: FATAL, len }.into());
    };
    read_exact(stream, body).await?;
    let Some((code, text)) = body.split_first() else {
        return Err(ProtocolError::FrameLength {
            frame: FATAL,
            len: 0,
        }
        .into());
    };
    if let Some(denial) = Denial::from_code(*code) {
        return Ok(denial.into());
    }
    let clean = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    let text: String = String::from_utf8_lossy(text).chars().map(clean).collect();
    Ok(CopyError::Peer {
        file: None,
        message: shorten(&text).to_owned(),
    })
}

async fn read_exact<S>(stream: &mut S, buf: &mut [u8]) -> Result<(), CopyError>
where
    S: AsyncRead + Unpin,
{
    let read = stream.read_exact(buf).await;
    read.map(|_| ()).map_err(CopyError::connection)
}

#[cfg(test)]
mod tests;
