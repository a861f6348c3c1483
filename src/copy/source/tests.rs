#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

mod arguments;
mod changes;
mod content;
mod sharing;
mod threads;
mod walk;

use std::collections::VecDeque;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;

use super::block::Block;
use super::*;

const MIB: usize = 1 << 20;

/// A tree to be read.
struct SourceTest {
    from: TempDir,
}

impl SourceTest {
    fn new() -> Self {
        let from = tempfile::tempdir().unwrap();
        fs::create_dir(from.path().join("tree")).unwrap();
        Self { from }
    }

    fn tree(&self) -> PathBuf {
        self.from.path().join("tree")
    }

    /// Writes a file that was last written long ago, so that any write shows.
    fn write(&self, path: impl AsRef<Path>, content: &[u8]) -> PathBuf {
        let path = self.tree().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        age(&path);
        path
    }

    fn builder(&self) -> SourceBuilder {
        Source::builder([self.tree()])
    }

    fn source(&self) -> Source {
        self.builder().open().unwrap()
    }
}

fn age(path: &Path) {
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = File::options().write(true).open(path).unwrap();
    let times = FileTimes::new().set_modified(long_ago);
    file.set_times(times).unwrap();
}

/// Bytes that a seed makes, no two blocks alike.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Reads nothing ahead.
fn alone() -> Spawn {
    Arc::new(drop)
}

/// A thread for everything that is read ahead.
fn threads() -> Spawn {
    Arc::new(|job| drop(std::thread::spawn(job)))
}

type Job = Box<dyn FnOnce() + Send>;

/// Keeps the jobs, for the test to run or drop.
#[derive(Clone, Default)]
struct Jobs(Arc<Mutex<VecDeque<Job>>>);

impl Jobs {
    fn spawn(&self) -> Spawn {
        let jobs = Arc::clone(&self.0);
        Arc::new(move |job| jobs.lock().unwrap().push_back(job))
    }

    fn take(&self) -> Option<Job> {
        self.0.lock().unwrap().pop_front()
    }
}

fn files(session: &SourceSession) -> Vec<FileSource> {
    let files = session.tree().filter_map(|found| match found {
        Found::File { source, .. } => Some(source),
        Found::Skipped { path, error } => panic!("{}: {error}", path.display()),
        Found::Directory { .. } | Found::Link { .. } | Found::Left(_) => None,
    });
    files.collect()
}

/// The file of that name in the tree.
fn find(session: &SourceSession, name: &str) -> FileSource {
    let path = format!("tree/{name}");
    let mut files = files(session).into_iter();
    files
        .find(|file| file.path().as_bytes() == path.as_bytes())
        .unwrap()
}

fn bytes_of(block: &Block) -> Vec<u8> {
    let mut bytes = Vec::new();
    for run in block.runs() {
        match run {
            Run::Data(data) => bytes.extend_from_slice(data),
            Run::Hole(len) => bytes.resize(bytes.len() + usize::try_from(*len).unwrap(), 0),
        }
    }
    assert_eq!(bytes.len() as u64, block.len());
    bytes
}

/// Reads a file block by block, and checks its hash.
fn read(session: &SourceSession, file: &FileSource) -> Result<Vec<u8>, ReadError> {
    let opened = session.open(file).unwrap();
    let mut bytes = Vec::new();
    let mut tree = crate::copy::tree_hash::TreeHash::new();
    let mut root = None;
    for index in 0..opened.blocks() {
        let block = opened.block(index)?;
        bytes.extend(bytes_of(&block));
        match block.hash() {
            BlockHash::Cv(cv) => tree.push(cv),
            BlockHash::Root(digest) => root = Some(digest),
        }
    }
    let root = root.or_else(|| tree.root()).unwrap();
    assert_eq!(root.as_bytes(), blake3::hash(&bytes).as_bytes());
    assert_eq!(bytes.len() as u64, opened.size());
    assert!(opened.is_unchanged()?);
    Ok(bytes)
}

/// Reads a file and compares it with what lies on the disk.
#[track_caller]
fn expect_read(session: &SourceSession, file: &FileSource, from: &SourceTest) {
    let expected = fs::read(from.from.path().join(file.path().to_path())).unwrap();
    assert!(read(session, file).unwrap() == expected, "{file:?}");
}
