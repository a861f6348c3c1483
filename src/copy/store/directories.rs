//! The directories below the root: found, made, judged, and synced.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::Arc;

use cap_fs_ext::DirExt;
use cap_std::fs::{Dir, DirBuilder};

use super::Rejection;
use super::attributes::directory_file;
use super::names::{NamePolicy, Names, check_spelling};
use super::storage::Storage;
use crate::copy::error::Refusal;
use crate::copy::path::{WirePath, pieces, to_path};

/// How many directories are remembered to have names that mean themselves.
const MAX_KNOWN: usize = 4096;

/// A directory and its path below the root; empty for the root itself.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) dir: Arc<Dir>,
    pub(super) path: Arc<[u8]>,
}

/// The directories below one root.
///
/// Everything goes through a [`Dir`], a capability for the root directory: whatever path a peer
/// names, and whatever symbolic links appear meanwhile, nothing outside the root is reached.
#[derive(Debug)]
pub(super) struct Directories {
    root: Place,
    policy: NamePolicy,
    pub(super) names: Names,
    /// The directory of the last file: the next one is likely to go there too.
    last: Option<Place>,
    /// Paths whose every part exists, is a directory, and is spelled like that.
    known: HashSet<Arc<[u8]>>,
    /// Directories with entries that were not synced yet, open for it since before a mode that
    /// could prevent that; by device and inode.
    touched: BTreeMap<(u64, u64), File>,
    /// Whether directories that are made get a mode of their own later.
    pub(super) is_mode_due: bool,
    /// How many more may be made.
    pub(super) room: u64,
}

impl Directories {
    pub(super) fn new(root: Arc<Dir>, policy: NamePolicy) -> Self {
        let path = Arc::default();
        Self {
            root: Place { dir: root, path },
            policy,
            names: Names::new(policy),
            last: None,
            known: HashSet::new(),
            touched: BTreeMap::new(),
            is_mode_due: true,
            room: u64::MAX,
        }
    }

    /// Looks for the directory of a path and judges all its names. `None`: it is not there yet.
    pub(super) fn find(&mut self, path: &WirePath) -> Result<Option<Place>, Rejection> {
        check_spelling(path.as_bytes(), self.policy)?;
        let (parent, name) = path.split();
        let Some(place) = self.walk(parent.unwrap_or_default(), false)? else {
            return Ok(None);
        };
        self.names.check(&place.path, &place.dir, name)?;
        Ok(Some(place))
    }

    /// As [`find`](Self::find), but makes what is missing.
    pub(super) fn make(&mut self, path: &WirePath) -> Result<Place, Rejection> {
        check_spelling(path.as_bytes(), self.policy)?;
        let (parent, name) = path.split();
        let place = self.make_all(parent.unwrap_or_default())?;
        self.names.check(&place.path, &place.dir, name)?;
        // The name is taken from now on: another spelling of it may come before it is placed.
        if self.policy == NamePolicy::Portable {
            self.names.note(&place.path, name);
        }
        Ok(place)
    }

    /// Opens a directory and makes what is missing; its path's names are judged already.
    pub(super) fn make_all(&mut self, path: &[u8]) -> Result<Place, Rejection> {
        let place = self.walk(path, true)?;
        place.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound).into())
    }

    /// Checks that the way to a directory has no symbolic link.
    pub(super) fn without_links(&self, path: &[u8]) -> Result<Place, Rejection> {
        let mut dir = Arc::clone(&self.root.dir);
        for part in path
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty())
        {
            dir = match dir.open_dir_nofollow(to_path(part)) {
                Ok(next) => Arc::new(next),
                Err(error) => {
                    let existing = dir.symlink_metadata(to_path(part));
                    if existing.is_ok_and(|existing| existing.is_symlink()) {
                        return Err(Refusal::NotADirectory.into());
                    }
                    return Err(error.into());
                }
            };
        }
        let path = path.into();
        Ok(Place { dir, path })
    }

    /// The last directory may have changed under its handle.
    pub(super) fn forget_last(&mut self) {
        self.last = None;
    }

    /// An entry of this directory is to be synced.
    pub(super) fn touch(&mut self, dir: &Dir) -> io::Result<()> {
        #[cfg(unix)]
        {
            use cap_fs_ext::MetadataExt;
            let metadata = dir.dir_metadata()?;
            let key = (metadata.dev(), metadata.ino());
            if let std::collections::btree_map::Entry::Vacant(entry) = self.touched.entry(key) {
                entry.insert(directory_file(dir)?);
            }
        }
        // Windows cannot sync a directory and need not.
        #[cfg(not(unix))]
        let _ = dir;
        Ok(())
    }

    pub(super) fn touched(&self) -> usize {
        self.touched.len()
    }

    /// Makes all names given since the last call durable.
    pub(super) fn sync(&mut self, storage: &Storage) -> io::Result<()> {
        let files: Vec<File> = std::mem::take(&mut self.touched).into_values().collect();
        let files: Vec<&File> = files.iter().collect();
        for result in storage.sync_all(&files) {
            match result {
                // Some file systems in user space know no sync of directories.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn walk(&mut self, path: &[u8], is_made: bool) -> Result<Option<Place>, Rejection> {
        if path.is_empty() {
            return Ok(Some(self.root.clone()));
        }
        if let Some(last) = &self.last
            && *last.path == *path
        {
            return Ok(Some(last.clone()));
        }
        let path: Arc<[u8]> = path.into();
        if !self.known.contains(&path) && !self.judge(&path, is_made)? {
            return Ok(None);
        }
        let place = Place {
            dir: match self.open(&path) {
                Ok(dir) => dir,
                // It was there once.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.known.clear();
                    if !self.judge(&path, is_made)? {
                        return Ok(None);
                    }
                    self.open(&path)?
                }
                Err(error) => return Err(error.into()),
            },
            path,
        };
        self.last = Some(place.clone());
        Ok(Some(place))
    }

    /// Checks the name of each directory on the way, and makes what is missing. `false`: one is
    /// missing and stays so.
    fn judge(&mut self, path: &[u8], is_made: bool) -> Result<bool, Rejection> {
        let mut start = 0;
        loop {
            let rest = path.get(start..).unwrap_or_default();
            let end = rest.iter().position(|byte| *byte == b'/');
            let end = end.map_or(path.len(), |at| start + at);
            let upto = path.get(..end).unwrap_or_default();
            if !self.known.contains(upto) {
                let parent = path.get(..start.saturating_sub(1)).unwrap_or_default();
                let name = path.get(start..end).unwrap_or_default();
                if !self.judge_one(parent, name, is_made)? {
                    return Ok(false);
                }
                if self.known.len() >= MAX_KNOWN {
                    self.known.clear();
                }
                self.known.insert(upto.into());
            }
            if end == path.len() {
                return Ok(true);
            }
            start = end + 1;
        }
    }

    fn judge_one(&mut self, parent: &[u8], name: &[u8], is_made: bool) -> Result<bool, Rejection> {
        let dir = self.open(parent)?;
        self.names.check(parent, &dir, name)?;
        let part = to_path(name);
        match dir.symlink_metadata(&part) {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        if !is_made {
            return Ok(false);
        }
        let room = self.room.checked_sub(1);
        let room = room.ok_or(Refusal::TooManyFiles)?;
        let mut builder = DirBuilder::new();
        // Nobody else looks into it before it has its own mode.
        #[cfg(unix)]
        if self.is_mode_due {
            cap_std::fs::DirBuilderExt::mode(&mut builder, 0o700);
        }
        match dir.create_dir_with(&part, &builder) {
            Ok(()) => {
                self.room = room;
                self.touch(&dir)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        self.names.note(parent, name);
        Ok(true)
    }

    /// Opens a directory below the root, a long path in pieces.
    fn open(&self, path: &[u8]) -> io::Result<Arc<Dir>> {
        let mut dir = Arc::clone(&self.root.dir);
        for piece in pieces(path) {
            dir = Arc::new(dir.open_dir(&piece)?);
        }
        Ok(dir)
    }
}
