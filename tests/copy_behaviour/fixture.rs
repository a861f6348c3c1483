//! Two directories, and copies from one to the other.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reliable_udp::copy::{
    CopyError, Event, Receiver, ReceiverBuilder, Report, Sender, SenderBuilder,
};
use tempfile::TempDir;
use tokio::io::duplex;

use crate::link::Link;

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) struct Trees {
    pub(crate) from: TempDir,
    pub(crate) to: TempDir,
}

pub(crate) fn temp() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Bytes that repeat nowhere within a file of a test, and differ by `seed`.
pub(crate) fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

impl Trees {
    pub(crate) fn new() -> Self {
        let trees = Self {
            from: temp(),
            to: temp(),
        };
        fs::create_dir(trees.source()).unwrap();
        trees
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.from.path().join("tree")
    }

    /// Where a path of the source arrives.
    pub(crate) fn target(&self, path: impl AsRef<Path>) -> PathBuf {
        self.to.path().join("tree").join(path)
    }

    pub(crate) fn write(&self, path: impl AsRef<Path>, content: &[u8]) -> PathBuf {
        write(&self.source().join(path), content)
    }

    /// Puts something where the copy goes.
    pub(crate) fn put(&self, path: impl AsRef<Path>, content: &[u8]) -> PathBuf {
        write(&self.target(path), content)
    }

    pub(crate) fn receiver(&self) -> ReceiverBuilder {
        Receiver::builder(self.to.path())
    }

    /// Copies with default settings.
    pub(crate) async fn copy(&self) -> (Report, Report) {
        self.copy_with(Sender::builder(), self.receiver()).await
    }

    pub(crate) async fn copy_with(
        &self,
        sender: SenderBuilder,
        receiver: ReceiverBuilder,
    ) -> (Report, Report) {
        self.copy_watched(sender, receiver, |_| ()).await
    }

    /// Copies; `on_event` sees the sender's events.
    pub(crate) async fn copy_watched(
        &self,
        sender: SenderBuilder,
        receiver: ReceiverBuilder,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> (Report, Report) {
        let (mut near, mut far) = duplex(64 * 1024);
        let (sender, receiver) = (sender.build().unwrap(), receiver.build().unwrap());
        let (sent, received) = tokio::join!(
            sender.send_with(&mut near, [self.source()], on_event),
            receiver.receive(&mut far)
        );
        (sent.unwrap(), received.unwrap())
    }

    /// A session over a line that is cut after so many bytes; both sides must notice.
    pub(crate) async fn copy_cut(&self, sender: &Sender, receiver: &Receiver, cut: u64) {
        let link = Link {
            cut: Some(cut),
            ..Link::default()
        };
        let (mut near, mut far) = link.join(64 * 1024);
        let (sent, received) = tokio::join!(
            async {
                let sent = sender.send(&mut near, [self.source()]).await;
                drop(near);
                sent
            },
            async {
                let received = receiver.receive(&mut far).await;
                drop(far);
                received
            },
        );
        for error in [sent.unwrap_err(), received.unwrap_err()] {
            assert!(matches!(error, CopyError::Connection { .. }), "{error}");
        }
    }

    #[track_caller]
    pub(crate) fn expect_equal(&self) {
        let (there, here) = (
            describe(&self.to.path().join("tree")),
            describe(&self.source()),
        );
        for (path, entry) in &here {
            assert!(there.get(path) == Some(entry), "{} differs", path.display());
        }
        assert_eq!(there.len(), here.len(), "nothing else is there");
    }
}

fn write(path: &Path, content: &[u8]) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    path.to_path_buf()
}

/// What a copy keeps of one thing: mode, time, content.
pub(crate) type Entry = (u32, Option<SystemTime>, Vec<u8>);

/// Every path below `root` with all that a copy keeps; links have no time.
pub(crate) fn describe(root: &Path) -> BTreeMap<PathBuf, Entry> {
    fn visit(root: &Path, path: &Path, all: &mut BTreeMap<PathBuf, Entry>) {
        let metadata = fs::symlink_metadata(path).unwrap();
        #[cfg(unix)]
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        #[cfg(not(unix))]
        let mode = 0;
        let mut time = metadata.modified().ok();
        let mut content = Vec::new();
        if metadata.is_file() {
            content = fs::read(path).unwrap();
        } else if metadata.is_symlink() {
            content = fs::read_link(path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes();
            time = None;
        }
        let relative = path.strip_prefix(root).unwrap().to_path_buf();
        all.insert(relative, (mode, time, content));
        if metadata.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                visit(root, &entry.unwrap().path(), all);
            }
        }
    }
    let mut all = BTreeMap::new();
    visit(root, root, &mut all);
    all
}

pub(crate) fn set_mtime(path: &Path, secs: u64) {
    let time = UNIX_EPOCH + Duration::from_secs(secs);
    File::open(path)
        .unwrap()
        .set_times(FileTimes::new().set_modified(time))
        .unwrap();
}

pub(crate) fn mtime(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// The failures by path, as they would be shown.
pub(crate) fn failures(report: &Report) -> BTreeMap<String, String> {
    report
        .failures()
        .map(|(path, error)| (path.display().to_string(), error.to_string()))
        .collect()
}

/// Names in a directory that are no final names.
pub(crate) fn leftovers(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(".reliable-udp-")
        })
        .collect();
    found.sort();
    found
}
