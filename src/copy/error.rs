//! Why a copy, or one file of it, failed.
//!
//! A [`CopyError`] ends the whole session. A [`FileError`] concerns one file or directory, stands
//! in the report, and leaves the others alone.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::access::{Denial, SecretError};

/// Why a copy session ended before everything was settled.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The stream failed or ended in the middle.
    #[error("connection lost{}", during(file.as_ref()))]
    Connection {
        /// The oldest file that was not settled, if one was under way.
        file: Option<PathBuf>,
        /// What the stream reported.
        #[source]
        source: Arc<io::Error>,
    },
    /// The peer did not finish the exchange of versions in time.
    #[error("no answer to the greeting within {0:?} (handshake_timeout)")]
    HandshakeTimeout(Duration),
    /// Both sides speak the copy protocol, but no version in common.
    #[error("no common version: the peer speaks {peer_min} to {peer_max}, this side {ours}")]
    Version {
        /// The version of this side.
        ours: u16,
        /// The oldest that the peer offers; 0 when it only said that none fits.
        peer_min: u16,
        /// The newest that the peer offers; 0 when it only said that none fits.
        peer_max: u16,
    },
    /// The peer broke the copy protocol.
    #[error("the peer broke the copy protocol{}", during(file.as_ref()))]
    Protocol {
        /// The oldest file that was not settled, if one was under way.
        file: Option<PathBuf>,
        /// What was wrong.
        #[source]
        source: ProtocolError,
    },
    /// Nothing moved for too long: no byte on the stream and none on this side's disk.
    #[error("no progress for {after:?} (stall_timeout), waiting for {waiting_for}{}", during(file.as_ref()))]
    Stalled {
        /// The oldest file that was not settled, if one was under way.
        file: Option<PathBuf>,
        /// How long.
        after: Duration,
        /// What should have happened next.
        waiting_for: &'static str,
    },
    /// The peer ended the session and said why.
    #[error("the peer ended the copy{}: {message}", during(file.as_ref()))]
    Peer {
        /// The oldest file that was not settled, if one was under way.
        file: Option<PathBuf>,
        /// The peer's words, at most 512 bytes.
        message: String,
    },
    /// The receiver's root directory cannot be opened.
    #[error("cannot open the root directory {}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What the system reported.
        #[source]
        source: Arc<io::Error>,
    },
    /// A path to be sent cannot be opened or has no name of its own.
    #[error("cannot send {}", path.display())]
    Source {
        /// The path as it was given.
        path: PathBuf,
        /// What the system reported.
        #[source]
        source: Arc<io::Error>,
    },
    /// A builder's value lies outside its range.
    #[error("{argument} is {value}, outside {range}")]
    InvalidArgument {
        /// The builder's method.
        argument: &'static str,
        /// The rejected value with its unit.
        value: String,
        /// The accepted range with its unit.
        range: &'static str,
    },
    /// The session was denied before anything was offered.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The shared secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The runtime was shut down while the copy ran.
    #[error("the runtime was shut down during the copy")]
    RuntimeGone,
}

/// The messages show every field but the source; `io::Error`s compare by their kind.
impl PartialEq for CopyError {
    fn eq(&self, other: &Self) -> bool {
        let source = |error: &Self| match error {
            Self::Connection { source, .. }
            | Self::Root { source, .. }
            | Self::Source { source, .. } => (Some(source.kind()), None),
            Self::Protocol { source, .. } => (None, Some(source.clone())),
            Self::Secret(error) => (error.io_kind(), None),
            _ => (None, None),
        };
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.to_string() == other.to_string()
            && source(self) == source(other)
    }
}

impl CopyError {
    /// The peer said goodbye before the end.
    pub(super) fn farewell(farewell: Farewell, message: String) -> Self {
        match farewell {
            Farewell::Denied(denial) => Self::Denied(denial),
            Farewell::Protocol | Farewell::Stalled | Farewell::Interrupted => Self::Peer {
                file: None,
                message,
            },
        }
    }

    /// What the peer is told about this error, if it is told anything.
    pub(super) fn as_farewell(&self) -> Option<(Farewell, String)> {
        match self {
            Self::Protocol { source, .. } => Some((Farewell::Protocol, source.to_string())),
            Self::Stalled { .. } => Some((Farewell::Stalled, self.to_string())),
            _ => None,
        }
    }

    pub(super) fn connection(source: io::Error) -> Self {
        Self::Connection {
            file: None,
            source: Arc::new(source),
        }
    }

    /// Names the file that was under way, where the error can and does not yet.
    pub(super) fn name_file(self, name: Option<PathBuf>) -> Self {
        match self {
            Self::Connection { file, source } => Self::Connection {
                file: file.or(name),
                source,
            },
            Self::Protocol { file, source } => Self::Protocol {
                file: file.or(name),
                source,
            },
            Self::Peer { file, message } => Self::Peer {
                file: file.or(name),
                message,
            },
            Self::Stalled {
                file,
                after,
                waiting_for,
            } => Self::Stalled {
                file: file.or(name),
                after,
                waiting_for,
            },
            other => other,
        }
    }
}

impl From<ProtocolError> for CopyError {
    fn from(source: ProtocolError) -> Self {
        Self::Protocol { file: None, source }
    }
}

fn during(file: Option<&PathBuf>) -> String {
    file.map(|file| format!(" during {}", file.display()))
        .unwrap_or_default()
}

/// Why a side leaves before the end, as told to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    Protocol,
    Denied(Denial),
    Stalled,
    Interrupted,
}

impl Farewell {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Protocol => 0,
            Self::Denied(denial) => denial.code().unwrap_or(0),
            Self::Stalled => 5,
            Self::Interrupted => 6,
        }
    }

    /// A reason that this side does not know is as good as none.
    pub(super) fn from_code(code: u8) -> Self {
        match (code, Denial::from_code(code)) {
            (_, Some(denial)) => Self::Denied(denial),
            (5, None) => Self::Stalled,
            (6, None) => Self::Interrupted,
            _ => Self::Protocol,
        }
    }
}

/// What a peer did that the copy protocol does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The first bytes are not those of the copy protocol.
    #[error("the first bytes are not those of the copy protocol (does only one side use TLS?)")]
    Magic,
    /// The peer chose a version or feature that was not offered.
    #[error("version {version} with features {features:#x} was not offered")]
    NotOffered {
        /// The version chosen.
        version: u16,
        /// The feature bits chosen.
        features: u32,
    },
    /// A frame of a type that this version does not have.
    #[error("unknown frame type {0:#04x}")]
    UnknownFrame(u8),
    /// A frame whose length is outside what its type allows.
    #[error("frame type {frame:#04x} with a length of {len} bytes")]
    FrameLength {
        /// The frame's type.
        frame: u8,
        /// The announced length of its body in bytes.
        len: u32,
    },
    /// A field holds a value that it cannot have.
    #[error("bad {0}")]
    BadField(&'static str),
    /// A frame of a known type where it may not stand.
    #[error("frame type {frame:#04x} {when}")]
    Unexpected {
        /// The frame's type.
        frame: u8,
        /// Where it stood.
        when: &'static str,
    },
    /// An offer with another number than the next one.
    #[error("offer {got} where {expected} comes next")]
    OfferOrder {
        /// The number due.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// More or fewer bytes than announced for a file.
    #[error("{got} bytes for a file of {announced}")]
    FileLength {
        /// The size that the offer announced, in bytes.
        announced: u64,
        /// How many came, in bytes.
        got: u64,
    },
    /// A verdict on, or a question about, an offer that was never made or is long settled.
    #[error("offer {0} is not open")]
    NoSuchOffer(u64),
    /// More offers without a verdict than may be.
    #[error("too many offers without a verdict")]
    TooManyOffers,
    /// A verdict of a kind that does not fit the offer, or "verified" with another hash.
    #[error("verdict does not fit offer {0}")]
    Verdict(u64),
}

/// Why one file or directory was not copied. The report and the events give its path beside it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The source is neither a regular file nor a directory.
    #[error("{0} is not copied")]
    Unsupported(FileKind),
    /// The sender could not read it, or it vanished.
    #[error("cannot be read")]
    Read(#[source] Arc<io::Error>),
    /// It grew, shrank or was written to each time it was read.
    #[error("changed while it was read, {attempts} times")]
    Changed {
        /// How often it was read.
        attempts: u32,
    },
    /// Its name or its place was refused.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The receiver's file system did not take it.
    #[error("cannot be stored: {message}")]
    Store {
        /// What kind of failure the receiver's system reported.
        kind: io::ErrorKind,
        /// The system's words, at most 512 bytes.
        message: String,
    },
    /// Read back from the receiver's disk it had another hash, each time.
    #[error("read back from disk with another hash, {attempts} times")]
    Mismatch {
        /// How often it was sent.
        attempts: u32,
    },
    /// The receiver gave no verdict.
    #[error("no verdict after asking again {asks} times")]
    NoVerdict {
        /// How often the verdict was asked for again.
        asks: u32,
    },
    /// The session ended before it was settled.
    #[error("the copy ended before it was settled")]
    Interrupted,
}

impl PartialEq for FileError {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unsupported(a), Self::Unsupported(b)) => a == b,
            (Self::Read(a), Self::Read(b)) => a.kind() == b.kind(),
            (Self::Changed { attempts: a }, Self::Changed { attempts: b })
            | (Self::Mismatch { attempts: a }, Self::Mismatch { attempts: b })
            | (Self::NoVerdict { asks: a }, Self::NoVerdict { asks: b }) => a == b,
            (Self::Refused(a), Self::Refused(b)) => a == b,
            (
                Self::Store {
                    kind: a,
                    message: x,
                },
                Self::Store {
                    kind: b,
                    message: y,
                },
            ) => a == b && x == y,
            (Self::Interrupted, Self::Interrupted) => true,
            _ => false,
        }
    }
}

impl From<Refusal> for FileError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What a directory entry is that is neither a regular file nor a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix domain socket.
    Socket,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// Something that this system does not name.
    Other,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symlink => "a symbolic link",
            Self::Fifo => "a named pipe",
            Self::Socket => "a socket",
            Self::BlockDevice => "a block device",
            Self::CharDevice => "a character device",
            Self::Other => "a special file",
        })
    }
}

/// Why a name or a place was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The path is empty or has an empty part.
    #[error("the path has an empty part")]
    EmptyPart,
    /// A part of the path is `.` or `..`.
    #[error("the path has a part '.' or '..'")]
    ParentDirectory,
    /// The path is absolute.
    #[error("the path is absolute")]
    Absolute,
    /// The path begins with a drive letter.
    #[error("the path begins with a drive letter")]
    DriveLetter,
    /// The path holds a NUL byte.
    #[error("the path holds a NUL byte")]
    Nul,
    /// The path has more than 32,768 bytes or a part of more than 255.
    #[error("the path or a part of it is too long")]
    TooLong,
    /// The name is a device or holds a character that the system reserves.
    #[error("the name is reserved on this system")]
    ReservedName,
    /// The system cannot spell the name, for example bytes that are not UTF-8 on Windows.
    #[error("the name cannot be spelled on this system")]
    NotRepresentable,
    /// A symbolic link on the way leads out of the receiver's root directory.
    #[error("a symbolic link on the way leads out of the root directory")]
    LeavesRoot,
    /// Something has that name already, and overwriting is off.
    #[error("it exists already and differs; overwriting is off")]
    Exists,
    /// The name is taken by something that is not a regular file.
    #[error("the name is taken by something that is not a regular file")]
    NotAFile,
    /// A part of the path, or the directory itself, is taken by something that is not a directory.
    #[error("a part of the path is taken by something that is not a directory")]
    NotADirectory,
    /// Another spelling of the name exists there, and the system, or the receiver's
    /// `portable_names`, takes both for the same.
    #[error("a name that differs only in case exists already")]
    CaseCollision,
    /// A symbolic link whose target is absolute or lies outside the tree that is copied.
    #[error("the symbolic link leads out of the tree")]
    LinkLeaves,
    /// The receiver takes no more files in this session.
    #[error("the receiver takes no more files")]
    TooManyFiles,
    /// The receiver takes no more bytes in this session.
    #[error("the receiver takes no more bytes")]
    TooManyBytes,
    /// The receiver keeps the space that is left on its disk.
    #[error("the receiver keeps the rest of its disk free")]
    KeepsFree,
    /// A later session began the same file and goes on with what was there.
    #[error("another session took the file over")]
    Superseded,
    /// The receiver's system has no symbolic links, or does not let it make one.
    #[error("the receiver cannot make symbolic links")]
    LinksUnsupported,
}

impl Refusal {
    /// All of them with their codes on the wire.
    const CODES: [(u8, Self); 19] = [
        (1, Self::EmptyPart),
        (2, Self::ParentDirectory),
        (3, Self::Absolute),
        (4, Self::DriveLetter),
        (5, Self::Nul),
        (6, Self::TooLong),
        (7, Self::ReservedName),
        (8, Self::NotRepresentable),
        (9, Self::LeavesRoot),
        (10, Self::Exists),
        (11, Self::NotAFile),
        (12, Self::NotADirectory),
        (13, Self::CaseCollision),
        (14, Self::LinkLeaves),
        (15, Self::TooManyFiles),
        (16, Self::TooManyBytes),
        (17, Self::KeepsFree),
        (18, Self::Superseded),
        (19, Self::LinksUnsupported),
    ];

    pub(super) fn code(self) -> u8 {
        Self::CODES
            .iter()
            .find(|(_, refusal)| *refusal == self)
            .map_or(0, |(code, _)| *code)
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::CODES
            .iter()
            .find(|(known, _)| *known == code)
            .map(|(_, refusal)| *refusal)
    }
}

/// Kinds of storage failure that have a code on the wire; the others travel as 0.
const STORE_KINDS: [(u8, io::ErrorKind); 7] = [
    (1, io::ErrorKind::StorageFull),
    (2, io::ErrorKind::QuotaExceeded),
    (3, io::ErrorKind::PermissionDenied),
    (4, io::ErrorKind::ReadOnlyFilesystem),
    (5, io::ErrorKind::FileTooLarge),
    (6, io::ErrorKind::NotFound),
    (7, io::ErrorKind::InvalidFilename),
];

pub(super) fn store_kind_code(kind: io::ErrorKind) -> u8 {
    STORE_KINDS
        .iter()
        .find(|(_, known)| *known == kind)
        .map_or(0, |(code, _)| *code)
}

pub(super) fn store_kind_from_code(code: u8) -> io::ErrorKind {
    let known = STORE_KINDS.iter().find(|(known, _)| *known == code);
    known.map_or(io::ErrorKind::Other, |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_survive_the_wire() {
        for (code, refusal) in Refusal::CODES {
            assert_eq!(refusal.code(), code);
            assert_eq!(Refusal::from_code(code), Some(refusal));
        }
        assert_eq!(Refusal::from_code(0), None);
    }

    #[test]
    fn messages_name_the_file() {
        let error = CopyError::connection(io::ErrorKind::ConnectionReset.into());
        assert_eq!(error.to_string(), "connection lost");
        let named = error.clone().name_file(Some("a/b".into()));
        assert_eq!(named.to_string(), "connection lost during a/b");
        assert_ne!(error, named);
        assert_eq!(
            named.clone().name_file(Some("c".into())),
            named,
            "the first name stays"
        );
    }
}
