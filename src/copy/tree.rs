//! Walks the source: what there is to send, in an order that needs few open directories.
//!
//! Of each directory the files come before the subdirectories, so that only the directory being
//! read is open, however deep the tree is. Symbolic links are never followed; what is neither a
//! regular file nor a directory is reported and left out. Names are sorted, so that two walks over
//! the same tree agree.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::vec;

use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, FileType, Metadata, OpenOptions};

use super::error::{CopyError, FileError, FileKind};
use super::path::{WirePath, pieces, to_path};
use super::protocol::Attributes;

/// One path that the caller asked to send: the open directory that holds it, and its name there.
#[derive(Debug)]
pub(super) struct Root {
    parent: Arc<Dir>,
    path: WirePath,
}

/// Identifies a directory of the walk.
pub(super) type DirectoryId = u64;

/// What the walk found next.
#[derive(Debug)]
pub(super) enum Found {
    /// A directory was entered.
    Directory {
        id: DirectoryId,
        parent: Option<DirectoryId>,
        path: WirePath,
        attributes: Attributes,
    },
    /// A regular file, as far as the directory listing tells.
    File {
        parent: Option<DirectoryId>,
        source: Source,
    },
    /// Something that is not sent.
    Skipped { path: PathBuf, error: FileError },
    /// Everything in the directory has been found, its subdirectories included.
    Left(DirectoryId),
}

/// Where a file is, so that it can be opened again for a retry.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) path: WirePath,
    root: Arc<Dir>,
}

/// A source file, open for reading, as it was at that moment.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) size: u64,
    pub(super) attributes: Attributes,
}

#[derive(Debug)]
pub(super) struct Tree {
    roots: vec::IntoIter<Root>,
    /// The way from a root to where the walk is.
    levels: Vec<Level>,
    next_id: DirectoryId,
}

#[derive(Debug)]
struct Level {
    id: DirectoryId,
    path: WirePath,
    root: Arc<Dir>,
    skipped: vec::IntoIter<(OsString, FileError)>,
    files: vec::IntoIter<OsString>,
    directories: vec::IntoIter<OsString>,
}

impl Root {
    /// Opens the directory that holds `path`.
    pub(super) fn open(path: &Path) -> Result<Self, CopyError> {
        let open = || -> io::Result<Self> {
            // A path that ends in `..` or is `.` has its name elsewhere.
            let resolved;
            let named = if path.file_name().is_some() {
                path
            } else {
                resolved = path.canonicalize()?;
                &resolved
            };
            let name = named.file_name().ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "it has no name of its own")
            })?;
            let parent = match named.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            named.symlink_metadata()?;
            let wire = WirePath::from_name(name)
                .map_err(|refusal| io::Error::new(io::ErrorKind::InvalidFilename, refusal))?;
            let parent = Dir::open_ambient_dir(parent, ambient_authority())?;
            Ok(Self {
                parent: Arc::new(parent),
                path: wire,
            })
        };
        open().map_err(|source| CopyError::Source {
            path: path.to_path_buf(),
            source: Arc::new(source),
        })
    }

    pub(super) fn name(&self) -> &WirePath {
        &self.path
    }
}

impl Tree {
    pub(super) fn new(roots: Vec<Root>) -> Self {
        Self {
            roots: roots.into_iter(),
            levels: Vec::new(),
            next_id: 0,
        }
    }

    fn next_in_level(&mut self) -> Option<Found> {
        let level = self.levels.last_mut()?;
        let parent = Some(level.id);
        if let Some((name, error)) = level.skipped.next() {
            return Some(Found::Skipped {
                path: level.path.to_path().join(name),
                error,
            });
        }
        if let Some(name) = level.files.next() {
            return Some(match level.path.join(&name) {
                Ok(path) => Found::File {
                    parent,
                    source: Source {
                        path,
                        root: Arc::clone(&level.root),
                    },
                },
                Err(refusal) => Found::Skipped {
                    path: level.path.to_path().join(name),
                    error: refusal.into(),
                },
            });
        }
        if let Some(name) = level.directories.next() {
            let root = Arc::clone(&level.root);
            return Some(match level.path.join(&name) {
                Ok(path) => self.enter(&root, path, parent),
                Err(refusal) => Found::Skipped {
                    path: level.path.to_path().join(name),
                    error: refusal.into(),
                },
            });
        }
        self.levels.pop().map(|level| Found::Left(level.id))
    }

    fn enter(&mut self, root: &Arc<Dir>, path: WirePath, parent: Option<DirectoryId>) -> Found {
        let id = self.next_id;
        match Level::list(id, root, &path) {
            Ok((level, attributes)) => {
                self.next_id += 1;
                self.levels.push(level);
                Found::Directory {
                    id,
                    parent,
                    path,
                    attributes,
                }
            }
            Err(error) => Found::Skipped {
                path: path.to_path(),
                error: FileError::Read(Arc::new(error)),
            },
        }
    }

    fn start_root(&mut self, root: Root) -> Found {
        let Root { parent: dir, path } = root;
        let kind = dir
            .symlink_metadata(path.to_path())
            .map(|metadata| metadata.file_type());
        match kind {
            Ok(kind) if kind.is_dir() => self.enter(&dir, path, None),
            Ok(kind) if kind.is_file() => Found::File {
                parent: None,
                source: Source { path, root: dir },
            },
            Ok(kind) => Found::Skipped {
                path: path.to_path(),
                error: FileError::Unsupported(special_kind(kind)),
            },
            Err(error) => Found::Skipped {
                path: path.to_path(),
                error: FileError::Read(Arc::new(error)),
            },
        }
    }
}

impl Iterator for Tree {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        if !self.levels.is_empty() {
            return self.next_in_level();
        }
        let root = self.roots.next()?;
        Some(self.start_root(root))
    }
}

impl Level {
    fn list(id: DirectoryId, root: &Arc<Dir>, path: &WirePath) -> io::Result<(Self, Attributes)> {
        let dir = open_directory(root, path.as_bytes())?;
        let attributes = attributes_of(&dir.dir_metadata()?);
        let (mut skipped, mut files, mut directories) = (Vec::new(), Vec::new(), Vec::new());
        for entry in dir.entries()? {
            let entry = entry?;
            let name = entry.file_name();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(name),
                Ok(kind) if kind.is_file() => files.push(name),
                Ok(kind) => skipped.push((name, FileError::Unsupported(special_kind(kind)))),
                Err(error) => skipped.push((name, FileError::Read(Arc::new(error)))),
            }
        }
        skipped.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        files.sort_unstable();
        directories.sort_unstable();
        let level = Self {
            id,
            path: path.clone(),
            root: Arc::clone(root),
            skipped: skipped.into_iter(),
            files: files.into_iter(),
            directories: directories.into_iter(),
        };
        Ok((level, attributes))
    }
}

impl Source {
    /// Opens the file for reading.
    pub(super) fn open(&self) -> Result<Opened, FileError> {
        let open = || -> io::Result<_> {
            let (directory, name) = self.path.split();
            let name = to_path(name);
            let mut options = OpenOptions::new();
            options.read(true).follow(FollowSymlinks::No);
            // A FIFO that took the file's name after the listing must not block the open.
            #[cfg(unix)]
            cap_fs_ext::OpenOptionsSyncExt::nonblock(&mut options, true);
            let file = match directory {
                Some(directory) => open_directory(&self.root, directory)?.open_with(name, &options),
                None => self.root.open_with(name, &options),
            }?;
            let metadata = file.metadata()?;
            Ok((file, metadata))
        };
        let (file, metadata) = open().map_err(|error| FileError::Read(Arc::new(error)))?;
        if !metadata.is_file() {
            return Err(FileError::Unsupported(special_kind(metadata.file_type())));
        }
        let (size, attributes) = (metadata.len(), attributes_of(&metadata));
        Ok(Opened {
            file: file.into_std(),
            size,
            attributes,
        })
    }
}

/// Opens a directory below `root` in as many steps as the length of its path needs.
pub(super) fn open_directory(root: &Arc<Dir>, path: &[u8]) -> io::Result<Arc<Dir>> {
    let mut dir = Arc::clone(root);
    for piece in pieces(path) {
        dir = Arc::new(dir.open_dir(piece)?);
    }
    Ok(dir)
}

pub(super) fn attributes_of(metadata: &Metadata) -> Attributes {
    let (mtime_secs, mtime_nanos) = metadata
        .modified()
        .map_or((0, 0), |time| split_time(time.into_std()));
    #[cfg(unix)]
    let mode = cap_std::fs::MetadataExt::mode(metadata) & 0o7777;
    #[cfg(not(unix))]
    let mode = match (metadata.is_dir(), metadata.permissions().readonly()) {
        (true, _) => 0o755,
        (false, true) => 0o444,
        (false, false) => 0o644,
    };
    Attributes {
        mode,
        mtime_secs,
        mtime_nanos,
    }
}

/// Size and attributes of an open file, as they are now.
pub(super) fn attributes_of_file(file: &File) -> io::Result<(u64, Attributes)> {
    let metadata = Metadata::from_file(file)?;
    Ok((metadata.len(), attributes_of(&metadata)))
}

/// Splits a time into whole seconds since 1970, rounded down, and the rest in nanoseconds.
pub(super) fn split_time(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            since.subsec_nanos(),
        ),
        Err(before) => {
            let before = before.duration();
            let secs = i64::try_from(before.as_secs())
                .unwrap_or(i64::MAX)
                .saturating_neg();
            match before.subsec_nanos() {
                0 => (secs, 0),
                nanos => (secs.saturating_sub(1), 1_000_000_000 - nanos),
            }
        }
    }
}

/// The inverse of [`split_time`]; `None` where this system cannot express the time.
pub(super) fn join_time(secs: i64, nanos: u32) -> Option<SystemTime> {
    let whole = Duration::from_secs(secs.unsigned_abs());
    let base = if secs < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    base?.checked_add(Duration::from_nanos(nanos.into()))
}

/// Says what a file is that is neither a regular file nor a directory.
pub(super) fn special_kind(kind: FileType) -> FileKind {
    if kind.is_symlink() {
        return FileKind::Symlink;
    }
    #[cfg(unix)]
    {
        use cap_std::fs::FileTypeExt;
        if kind.is_fifo() {
            return FileKind::Fifo;
        }
        if kind.is_socket() {
            return FileKind::Socket;
        }
        if kind.is_block_device() {
            return FileKind::BlockDevice;
        }
        if kind.is_char_device() {
            return FileKind::CharDevice;
        }
    }
    FileKind::Other
}

/// How much there is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Survey {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Content of the files, in bytes, at the time of the survey.
    pub bytes: u64,
}

/// Counts what [`Sender::send`](super::Sender::send) would send for these paths, for a progress bar.
///
/// Blocks on the file system; call it from `spawn_blocking`. What cannot be read is not counted:
/// the copy itself will name it.
///
/// # Errors
/// [`CopyError::Source`] if one of the paths does not exist or its parent cannot be opened.
///
/// ```
/// let survey = reliable_udp::copy::survey(&["src/copy"])?;
/// assert!(survey.files >= 9 && survey.bytes > 10_000);
/// # Ok::<(), reliable_udp::copy::CopyError>(())
/// ```
pub fn survey<P: AsRef<Path>>(paths: &[P]) -> Result<Survey, CopyError> {
    let roots: Result<_, _> = paths.iter().map(|path| Root::open(path.as_ref())).collect();
    let mut survey = Survey::default();
    for found in Tree::new(roots?) {
        match found {
            Found::Directory { .. } => survey.directories += 1,
            Found::File { source, .. } => {
                if let Ok(metadata) = source.metadata() {
                    survey.files += 1;
                    survey.bytes += metadata.len();
                }
            }
            Found::Skipped { .. } | Found::Left(_) => {}
        }
    }
    Ok(survey)
}

impl Source {
    fn metadata(&self) -> io::Result<Metadata> {
        let (directory, name) = self.path.split();
        match directory {
            Some(directory) => {
                open_directory(&self.root, directory)?.symlink_metadata(to_path(name))
            }
            None => self.root.symlink_metadata(to_path(name)),
        }
    }
}
