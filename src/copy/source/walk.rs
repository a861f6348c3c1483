//! Walks the source: what there is to send, in an order that needs few open directories.
//!
//! Of each directory the files and links come before the subdirectories, so that only the directory
//! being read is open, however deep the tree is. Symbolic links are never followed. What is neither
//! a regular file, a directory, nor a link that stays inside is reported and left out. Names are
//! sorted, so that two walks over the same tree agree.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, FileType, Metadata, OpenOptions};

use crate::copy::attributes::attributes_of;
use crate::copy::error::{CopyError, FileError, FileKind, Refusal};
use crate::copy::links::check_target;
use crate::copy::path::{WirePath, pieces, to_path};
use crate::copy::protocol::Attributes;

/// One path that the caller asked to send: the open directory that holds it, and its name there.
#[derive(Debug)]
pub(super) struct Root {
    parent: Arc<Dir>,
    path: WirePath,
}

/// Identifies a directory of the walk.
pub(in crate::copy) type DirectoryId = u64;

/// What the walk found next.
#[derive(Debug)]
pub(in crate::copy) enum Found {
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
        source: FileSource,
    },
    /// A symbolic link that stays inside the tree.
    Link {
        parent: Option<DirectoryId>,
        path: WirePath,
        /// As it travels: with `/` between its parts.
        target: Vec<u8>,
        attributes: Attributes,
    },
    /// Something that is not sent.
    Skipped { path: PathBuf, error: FileError },
    /// Everything in the directory has been found, its subdirectories included.
    Left(DirectoryId),
}

/// Where a file is, so that it can be opened again for a retry.
#[derive(Debug, Clone)]
pub(in crate::copy) struct FileSource {
    path: WirePath,
    root: Arc<Dir>,
    order: u64,
}

/// A walk over all that there is to send.
#[derive(Debug)]
pub(in crate::copy) struct Tree {
    roots: Arc<[Root]>,
    next_root: usize,
    /// The way from a root to where the walk is.
    levels: Vec<Level>,
    next_id: DirectoryId,
    next_order: u64,
}

/// A directory of which the walk has not found everything.
#[derive(Debug)]
struct Level {
    id: DirectoryId,
    path: WirePath,
    root: Arc<Dir>,
    skipped: vec::IntoIter<(PathBuf, FileError)>,
    files: vec::IntoIter<OsString>,
    links: vec::IntoIter<OsString>,
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
    pub(super) fn new(roots: Arc<[Root]>) -> Self {
        Self {
            roots,
            next_root: 0,
            levels: Vec::new(),
            next_id: 0,
            next_order: 0,
        }
    }

    fn next_in_level(&mut self) -> Option<Found> {
        let level = self.levels.last_mut()?;
        let parent = Some(level.id);
        if let Some((path, error)) = level.skipped.next() {
            return Some(Found::Skipped { path, error });
        }
        if let Some(name) = level.files.next() {
            let root = Arc::clone(&level.root);
            return Some(match level.join(&name) {
                Ok(path) => self.file(parent, root, path),
                Err(found) => found,
            });
        }
        if let Some(name) = level.links.next() {
            return Some(match level.join(&name) {
                Ok(path) => link(parent, &level.root, path),
                Err(found) => found,
            });
        }
        if let Some(name) = level.directories.next() {
            let root = Arc::clone(&level.root);
            return Some(match level.join(&name) {
                Ok(path) => self.enter(&root, path, parent),
                Err(found) => found,
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
            Err(error) => skipped(&path, unreadable(error)),
        }
    }

    fn file(&mut self, parent: Option<DirectoryId>, root: Arc<Dir>, path: WirePath) -> Found {
        let order = self.next_order;
        self.next_order += 1;
        let source = FileSource { path, root, order };
        Found::File { parent, source }
    }

    fn start_root(&mut self, dir: Arc<Dir>, path: WirePath) -> Found {
        let kind = dir
            .symlink_metadata(path.to_path())
            .map(|metadata| metadata.file_type());
        match kind {
            Ok(kind) if kind.is_dir() => self.enter(&dir, path, None),
            Ok(kind) if kind.is_file() => self.file(None, dir, path),
            // A link too: whatever it points to, it lies outside of what was asked for.
            Ok(kind) => skipped(&path, FileError::Unsupported(special_kind(kind))),
            Err(error) => skipped(&path, unreadable(error)),
        }
    }
}

impl Iterator for Tree {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        if !self.levels.is_empty() {
            return self.next_in_level();
        }
        let root = self.roots.get(self.next_root)?;
        self.next_root += 1;
        let (dir, path) = (Arc::clone(&root.parent), root.path.clone());
        Some(self.start_root(dir, path))
    }
}

impl Level {
    fn list(id: DirectoryId, root: &Arc<Dir>, path: &WirePath) -> io::Result<(Self, Attributes)> {
        let dir = open_directory(root, path.as_bytes())?;
        let attributes = attributes_of(&dir.dir_metadata()?);
        let mut skipped = Vec::new();
        let (mut files, mut links, mut directories) = (Vec::new(), Vec::new(), Vec::new());
        for entry in dir.entries()? {
            let entry = match entry {
                Ok(entry) => entry,
                // What was listed goes on; the directory stands for what was not.
                Err(error) => {
                    skipped.push((path.to_path(), unreadable(error)));
                    break;
                }
            };
            let name = entry.file_name();
            let unsent = match entry.file_type() {
                Ok(kind) if kind.is_dir() => {
                    directories.push(name);
                    continue;
                }
                Ok(kind) if kind.is_file() => {
                    files.push(name);
                    continue;
                }
                Ok(kind) if kind.is_symlink() => {
                    links.push(name);
                    continue;
                }
                Ok(kind) => FileError::Unsupported(special_kind(kind)),
                Err(error) => unreadable(error),
            };
            skipped.push((path.to_path().join(name), unsent));
        }
        skipped.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        files.sort_unstable();
        links.sort_unstable();
        directories.sort_unstable();
        let level = Self {
            id,
            path: path.clone(),
            root: Arc::clone(root),
            skipped: skipped.into_iter(),
            files: files.into_iter(),
            links: links.into_iter(),
            directories: directories.into_iter(),
        };
        Ok((level, attributes))
    }

    /// The path of something in the directory, or how to report that it cannot travel.
    fn join(&self, name: &OsStr) -> Result<WirePath, Found> {
        self.path.join(name).map_err(|refusal| Found::Skipped {
            path: self.path.to_path().join(name),
            error: refusal.into(),
        })
    }
}

impl FileSource {
    pub(in crate::copy) fn path(&self) -> &WirePath {
        &self.path
    }

    /// How many files the walk found before this one.
    pub(super) fn order(&self) -> u64 {
        self.order
    }

    /// Opens the file for reading, whatever it is by now.
    pub(super) fn open(&self) -> io::Result<(File, Metadata)> {
        let (directory, name) = self.directory()?;
        let mut options = OpenOptions::new();
        options.read(true).follow(FollowSymlinks::No);
        // A FIFO that took the file's name after the listing must not block the open.
        #[cfg(unix)]
        cap_fs_ext::OpenOptionsSyncExt::nonblock(&mut options, true);
        let file = directory.open_with(name, &options)?;
        let metadata = file.metadata()?;
        Ok((file.into_std(), metadata))
    }

    /// What is there under the file's name now.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        let (directory, name) = self.directory()?;
        directory.symlink_metadata(name)
    }

    fn directory(&self) -> io::Result<(Arc<Dir>, PathBuf)> {
        directory_of(&self.root, &self.path)
    }
}

/// Reads a link, and sees where it leads.
fn link(parent: Option<DirectoryId>, root: &Arc<Dir>, path: WirePath) -> Found {
    let read = || -> io::Result<_> {
        let (directory, name) = directory_of(root, &path)?;
        let attributes = attributes_of(&directory.symlink_metadata(&name)?);
        Ok((directory.read_link_contents(&name)?, attributes))
    };
    let (target, attributes) = match read() {
        Ok(read) => read,
        Err(error) => return skipped(&path, unreadable(error)),
    };
    let checked = target_bytes(target).and_then(|target| {
        check_target(&path, &target)?;
        Ok(target)
    });
    match checked {
        Ok(target) => Found::Link {
            parent,
            path,
            target,
            attributes,
        },
        Err(refusal) => skipped(&path, refusal.into()),
    }
}

/// A link's target as it travels.
#[cfg_attr(
    unix,
    expect(clippy::unnecessary_wraps, reason = "fails on other systems")
)]
fn target_bytes(target: PathBuf) -> Result<Vec<u8>, Refusal> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        Ok(target.into_os_string().into_vec())
    }
    #[cfg(not(unix))]
    {
        let text = target.to_str().ok_or(Refusal::NotRepresentable)?;
        Ok(text.replace('\\', "/").into_bytes())
    }
}

fn skipped(path: &WirePath, error: FileError) -> Found {
    Found::Skipped {
        path: path.to_path(),
        error,
    }
}

fn unreadable(error: io::Error) -> FileError {
    FileError::Read(Arc::new(error))
}

/// Opens what holds a file or link, and tells its name there.
fn directory_of(root: &Arc<Dir>, path: &WirePath) -> io::Result<(Arc<Dir>, PathBuf)> {
    let (directory, name) = path.split();
    let directory = open_directory(root, directory.unwrap_or_default())?;
    Ok((directory, to_path(name)))
}

/// Opens a directory below `root` in as many steps as the length of its path needs.
fn open_directory(root: &Arc<Dir>, path: &[u8]) -> io::Result<Arc<Dir>> {
    let mut dir = Arc::clone(root);
    for piece in pieces(path) {
        dir = Arc::new(dir.open_dir(piece)?);
    }
    Ok(dir)
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
