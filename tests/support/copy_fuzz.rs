//! Both ends of the file copy against a peer that says anything, through the public API. For the fuzz
//! target `copy`, and for its corpus on the stable toolchain.

#![allow(dead_code, unreachable_pub, reason = "the fuzzer has one entry")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "what it finds, it panics with"
)]

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use reliable_udp::copy::{CopyError, Event, Receiver, Report, Secret, Sender};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// In the first byte: the other end is a sender, else a receiver.
pub const SENDER: u8 = 1;
/// A valid greeting, and to a receiver also OPTIONS, go in front.
pub const GREETED: u8 = 2;
/// The end has a secret, and with a greeting in front the peer proves that it knows it.
pub const SECRET: u8 = 4;
/// To a receiver: the flags of OPTIONS, from here on. To a sender: likewise, its own.
pub const OPTIONS: u8 = 3;
/// To a receiver: the same again in a second session. To a sender: it compares hashes.
pub const AGAIN: u8 = 128;

/// In the second byte, to a receiver: names must be portable.
pub const PORTABLE: u8 = 1;
/// Writes are verified.
pub const VERIFY: u8 = 2;
/// Nothing may be overwritten.
pub const KEEP: u8 = 4;
/// A session may bring little.
pub const LITTLE: u8 = 8;
/// The peer falls silent in place of closing the stream.
pub const SILENT: u8 = 16;

/// Between two pieces of the peer's bytes: time passes. To a receiver with [`AGAIN`]: the second
/// session begins.
pub const PAUSE: &[u8] = b"\xfe\xfe\xfe\xfe";

const SHARED: &[u8] = b"a secret of more than sixteen bytes";

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap(),
    );
}

/// Runs one session, or two, with the peer's bytes behind two bytes of parameters.
pub fn copy(data: &[u8]) {
    outcomes(data);
}

/// The same, and tells how each session ended.
pub fn outcomes(data: &[u8]) -> Vec<Result<Report, CopyError>> {
    let [first, second, bytes @ ..] = data else {
        return Vec::new();
    };
    let case = Case {
        first: *first,
        second: *second,
        bytes,
    };
    RUNTIME.with_borrow_mut(|runtime| {
        runtime.block_on(async {
            let session = async {
                if case.has(SENDER) {
                    case.drive_sender().await
                } else {
                    case.drive_receiver().await
                }
            };
            let ended = timeout(Duration::from_secs(3600), session).await;
            ended.unwrap_or_else(|_| panic!("a session without an end"))
        })
    })
}

struct Case<'a> {
    first: u8,
    second: u8,
    bytes: &'a [u8],
}

impl Case<'_> {
    fn has(&self, flag: u8) -> bool {
        self.first & flag != 0
    }

    fn is(&self, flag: u8) -> bool {
        self.second & flag != 0
    }

    fn options(&self) -> u8 {
        (self.first >> OPTIONS) & 15
    }

    async fn drive_receiver(&self) -> Vec<Result<Report, CopyError>> {
        let mut outcomes = Vec::new();
        let place = Place::new();
        let mut allowed: HashSet<blake3::Hash> = HashSet::from([blake3::hash(b"was there")]);
        let sessions = self.sessions();
        for pieces in sessions {
            let mut builder = Receiver::builder(place.root())
                .portable_names(self.is(PORTABLE))
                .verify_writes(self.is(VERIFY))
                .may_overwrite(!self.is(KEEP))
                .stall_timeout(Duration::from_secs(20));
            if self.is(LITTLE) {
                builder = builder.max_files(3).max_bytes(3 << 20);
            }
            if self.has(SECRET) {
                builder = builder.secret(Secret::new(SHARED).unwrap());
            }
            let receiver = builder.build().unwrap();
            let before = self.has_option(2).then(|| place.listing());
            let verified = Arc::new(Mutex::new(Vec::new()));
            let events = Arc::clone(&verified);
            let (mut near, far) = duplex(64 * 1024);
            let receiving = async {
                let result = receiver.receive_with(&mut near, move |event| {
                    if let Event::Verified { digest, .. } = event {
                        events.lock().unwrap().push(digest);
                    }
                });
                let result = result.await;
                drop(near);
                result
            };
            let (result, ()) = tokio::join!(receiving, self.peer(far, &pieces));
            check_ended(&result);
            let verified = verified.lock().unwrap();
            allowed.extend(
                verified
                    .iter()
                    .map(|digest| blake3::Hash::from(*digest.as_bytes())),
            );
            if let Some(before) = before.filter(|_| self.has(GREETED)) {
                assert!(before == place.listing(), "a dry run changed something");
            }
            place.check(&allowed);
            outcomes.push(result);
        }
        outcomes
    }

    fn pieces(&self) -> Vec<&[u8]> {
        let mut pieces = Vec::new();
        let mut rest = self.bytes;
        while let Some(at) = rest.windows(PAUSE.len()).position(|piece| piece == PAUSE) {
            pieces.push(&rest[..at]);
            rest = &rest[at + PAUSE.len()..];
            if pieces.len() == 16 {
                break;
            }
        }
        pieces.push(rest);
        pieces
    }

    /// What the peer says in each session with a receiver.
    fn sessions(&self) -> Vec<Vec<&[u8]>> {
        let pieces = self.pieces();
        if !self.has(AGAIN) {
            return vec![pieces];
        }
        match pieces.split_first() {
            Some((first, rest @ [_, ..])) => vec![vec![*first], rest.to_vec()],
            _ => vec![pieces.clone(), pieces],
        }
    }

    fn has_option(&self, option: u8) -> bool {
        self.options() & option != 0
    }

    async fn drive_sender(&self) -> Vec<Result<Report, CopyError>> {
        let tree = source();
        let mut builder = Sender::builder()
            .overwrite(self.has_option(1))
            .dry_run(self.has_option(2))
            .preserve(!self.has_option(4))
            .recheck(self.has_option(8))
            .checksum(self.has(AGAIN))
            .attempts(3)
            .asks(2)
            .verdict_timeout(Duration::from_secs(2))
            .stall_timeout(Duration::from_secs(20));
        if self.has(SECRET) {
            builder = builder.secret(Secret::new(SHARED).unwrap());
        }
        let sender = builder.build().unwrap();
        let (mut near, far) = duplex(64 * 1024);
        let root = tree.path().to_path_buf();
        let paths = SOURCES.map(|name| root.join(name));
        let sending = async {
            let result = sender.send_with(&mut near, paths, move |event| {
                if let Event::Verified { path, digest, .. } = event {
                    let content = fs::read(root.join(path)).unwrap();
                    assert_eq!(digest.as_bytes(), blake3::hash(&content).as_bytes());
                }
            });
            let result = result.await;
            drop(near);
            result
        };
        let pieces = self.pieces();
        let (result, ()) = tokio::join!(sending, self.peer(far, &pieces));
        check_ended(&result);
        vec![result]
    }

    /// Says what the fuzzer says, and listens until the stream ends.
    async fn peer(&self, mut stream: DuplexStream, pieces: &[&[u8]]) {
        if self.has(GREETED) && self.greet(&mut stream).await.is_err() {
            return;
        }
        let (mut reader, mut writer) = tokio::io::split(stream);
        let talking = async {
            for (index, piece) in pieces.iter().enumerate() {
                if index > 0 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                let _ = writer.write_all(piece).await;
            }
            if !self.is(SILENT) {
                let _ = writer.shutdown().await;
            }
        };
        let listening = async {
            let mut buf = vec![0; 64 * 1024];
            while reader.read(&mut buf).await.is_ok_and(|read| read > 0) {}
        };
        tokio::join!(talking, listening);
    }

    async fn greet(&self, stream: &mut DuplexStream) -> std::io::Result<()> {
        let features = u8::from(self.has(SECRET));
        let mine = [&b"rudpcopy\0\x02\0\x02\0\0\0"[..], &[features]].concat();
        let mut theirs = [0; 16];
        if self.has(SENDER) {
            stream.read_exact(&mut theirs).await?;
            stream.write_all(&mine).await?;
        } else {
            stream.write_all(&mine).await?;
            stream.read_exact(&mut theirs).await?;
        }
        let key = blake3::derive_key("reliable-udp copy 2026-11 shared secret", SHARED);
        let proof = |role: u8, greetings: [&[u8]; 2], nonces: [&[u8]; 2]| {
            let text = [
                &[role],
                greetings[0],
                greetings[1],
                nonces[0],
                nonces[1],
                &[0; 4],
            ]
            .concat();
            *blake3::keyed_hash(&key, &text).as_bytes()
        };
        if self.has(SECRET) && self.has(SENDER) {
            stream.write_all(&frame(0x85, &[1; 32])).await?;
            let mut proven = [0; 5 + 64];
            stream.read_exact(&mut proven).await?;
            let mac = proof(b'R', [&theirs, &mine], [&[1; 32], &proven[5..37]]);
            stream.write_all(&frame(0x86, &mac)).await?;
        } else if self.has(SECRET) {
            let mut challenge = [0; 5 + 32];
            stream.read_exact(&mut challenge).await?;
            let mac = proof(b'S', [&mine, &theirs], [&challenge[5..], &[2; 32]]);
            stream
                .write_all(&frame(0x0e, &[[2; 32], mac].concat()))
                .await?;
            stream.read_exact(&mut challenge).await?;
        }
        if !self.has(SENDER) {
            stream
                .write_all(&frame(1, &[0, 0, 0, self.options()]))
                .await?;
        }
        Ok(())
    }
}

/// A frame of the protocol.
pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &len[..], body].concat()
}

fn check_ended(result: &Result<Report, CopyError>) {
    if let Err(CopyError::RuntimeGone) = result {
        panic!("the worker was lost");
    }
}

fn temp() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// What senders send, offered in this order: files 0 and 1, `directory/small` as 2, a link as 3, and
/// the two directories.
const SOURCES: [&str; 4] = ["large", "empty", "directory", "links"];

/// The content of the first.
pub fn large() -> Vec<u8> {
    (0..2_500_000_u32).map(|i| i.to_le_bytes()[1]).collect()
}

/// What senders send, made once.
fn source() -> &'static TempDir {
    static SOURCE: OnceLock<TempDir> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let temp = temp();
        let root = temp.path();
        fs::create_dir(root.join("directory")).unwrap();
        fs::create_dir(root.join("links")).unwrap();
        fs::write(root.join("large"), large()).unwrap();
        fs::write(root.join("empty"), b"").unwrap();
        fs::write(root.join("directory/small"), b"small").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("nothing", root.join("links/link")).unwrap();
        temp
    })
}

/// A root with something beside it that must stay as it is.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(temp());
        let root = place.root();
        fs::create_dir_all(root.join("directory")).unwrap();
        fs::write(root.join("there"), b"was there").unwrap();
        fs::create_dir(place.0.path().join("canary")).unwrap();
        fs::write(place.0.path().join("canary/file"), b"sings").unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            symlink("../canary", root.join("out")).unwrap();
            symlink("directory", root.join("in")).unwrap();
        }
        place
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn listing(&self) -> Vec<(PathBuf, Option<std::time::SystemTime>)> {
        let mut all = Vec::new();
        visit(&self.root(), &mut |path, metadata| {
            all.push((path.to_path_buf(), metadata.modified().ok()));
        });
        all.sort();
        all
    }

    /// Nothing is outside, and nothing under a final name that was not verified.
    fn check(&self, allowed: &HashSet<blake3::Hash>) {
        let names = |path: &Path| -> Vec<_> {
            let mut names: Vec<_> = fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        let canary = self.0.path().join("canary");
        assert_eq!(names(self.0.path()), ["canary", "root"]);
        assert_eq!(names(&canary), ["file"]);
        assert_eq!(fs::read(canary.join("file")).unwrap(), b"sings");
        let root = self.root();
        visit(&root, &mut |path, metadata| {
            let inside = path.strip_prefix(&root).unwrap();
            if metadata.is_symlink() {
                let is_out = inside == Path::new("out");
                assert!(
                    is_out || stays(inside, &fs::read_link(path).unwrap()),
                    "{}",
                    inside.display()
                );
            } else if metadata.is_file() {
                check_file(path, inside, allowed);
            }
        });
    }
}

fn check_file(path: &Path, inside: &Path, allowed: &HashSet<blake3::Hash>) {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    if let Some(mark) = name.strip_prefix(".reliable-udp-") {
        if let Some(mark) = mark.strip_suffix(".part") {
            let journal = path.with_file_name(format!(".reliable-udp-{mark}.journal"));
            assert!(
                journal.exists(),
                "a partial without a journal: {}",
                inside.display()
            );
        }
        return;
    }
    let content = fs::read(path).unwrap();
    assert!(
        allowed.contains(&blake3::hash(&content)),
        "{} was never verified",
        inside.display()
    );
}

/// Whether a link at `path` leads to something below the root.
fn stays(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count() - 1;
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

fn visit(path: &Path, on_entry: &mut impl FnMut(&Path, &fs::Metadata)) {
    let metadata = fs::symlink_metadata(path).unwrap();
    on_entry(path, &metadata);
    if !metadata.is_dir() {
        return;
    }
    for entry in fs::read_dir(path).unwrap() {
        visit(&entry.unwrap().path(), on_entry);
    }
}
