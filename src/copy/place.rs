//! Puts files in their place: temporary name, write, sync, read back and hash, attributes, rename.
//!
//! Everything goes through a [`Dir`], a capability for the root directory: whatever path a peer
//! names, and whatever symbolic links appear meanwhile, nothing outside the root is reached. A final
//! name only ever gets content whose hash, as read back from disk, was the expected one.

use std::fmt;
use std::fs::{File, FileTimes};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::fs::{Dir, DirBuilder, OpenOptions};

use super::error::Refusal;
use super::path::{WirePath, pieces, to_path};
use super::progress::Digest;
use super::protocol::{Attributes, Verdict};
use super::tree::join_time;

/// How much is written before the system is made to write it out: bounds the last sync of a large
/// file, and lets the disk work while the network does.
const SYNC_EVERY: u64 = 64 * 1024 * 1024;

/// How much is read back at once, in bytes.
const READ_BACK_LEN: usize = 128 * 1024;

/// What lies between a file's bytes and the disk. The tests put one in that flips bits.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// Writes a prefix of `bytes`; returns its length.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<usize>;

    /// Makes what was written durable, and the next [`read_back`](Self::read_back) reach the disk.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Reads what lies on the disk; 0 at the end of the file.
    fn read_back(&self, file: &mut File, buf: &mut [u8]) -> io::Result<usize>;
}

/// The file system as it is.
#[derive(Debug)]
pub(super) struct PlainDisk;

impl Disk for PlainDisk {
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()?;
        // Clean pages can be dropped, so that reading back asks the disk and not the cache. Only a
        // hint: a file system that keeps them (tmpfs has nothing else) still reads back right.
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
        Ok(())
    }

    fn read_back(&self, file: &mut File, buf: &mut [u8]) -> io::Result<usize> {
        file.read(buf)
    }
}

/// Why a file or directory was not placed.
#[derive(Debug)]
pub(super) enum Rejection {
    Refused(Refusal),
    Failed(io::Error),
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for Rejection {
    fn from(error: io::Error) -> Self {
        // cap-std reports a way out of the root as an error of its own, not the system's.
        if error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none() {
            return Self::Refused(Refusal::LeavesRoot);
        }
        match error.kind() {
            io::ErrorKind::NotADirectory => Self::Refused(Refusal::NotADirectory),
            _ => Self::Failed(error),
        }
    }
}

impl From<Rejection> for Verdict {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Refused(refusal) => Self::Refused(refusal),
            Rejection::Failed(error) => Self::Failed(error.kind(), error.to_string()),
        }
    }
}

/// Places files below one root directory.
#[derive(Debug)]
pub(super) struct Placer {
    root: Arc<Dir>,
    disk: Arc<dyn Disk>,
    overwrite: bool,
    /// The directory of the last file: the next one is likely to go there too.
    last: Option<(Vec<u8>, Arc<Dir>)>,
    /// Directories with entries that were not synced yet; none twice in a row.
    touched: Vec<Arc<Dir>>,
    /// Grows with each byte moved to or from the disk and each thing placed, for the peer's patience.
    moved: Arc<AtomicU64>,
    read_buf: Vec<u8>,
}

/// A file under its temporary name. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Incoming {
    dir: Arc<Dir>,
    name: PathBuf,
    temporary: String,
    /// Closed before the removal, which Windows would otherwise refuse.
    file: Option<File>,
    attributes: Attributes,
    unsynced: u64,
    is_placed: bool,
}

impl Placer {
    pub(super) fn new(
        root: Arc<Dir>,
        disk: Arc<dyn Disk>,
        overwrite: bool,
        moved: Arc<AtomicU64>,
    ) -> Self {
        let (last, touched, read_buf) = (None, Vec::new(), Vec::new());
        Self {
            root,
            disk,
            overwrite,
            last,
            touched,
            moved,
            read_buf,
        }
    }

    /// Opens a temporary file beside the file's final name; its directories are made if need be.
    pub(super) fn begin(
        &mut self,
        path: &WirePath,
        attributes: Attributes,
    ) -> Result<Incoming, Rejection> {
        let (parent, name) = path.split();
        let name = to_path(name);
        let dir = self.directory(parent.unwrap_or_default())?;
        match dir.symlink_metadata(&name) {
            Ok(existing) if !existing.is_file() => return Err(Refusal::NotAFile.into()),
            Ok(_) if !self.overwrite => return Err(Refusal::Exists.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        cap_std::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let temporary = temporary_name()?;
        let file = dir.open_with(&temporary, &options)?.into_std();
        let file = Some(file);
        Ok(Incoming {
            dir,
            name,
            temporary,
            file,
            attributes,
            unsynced: 0,
            is_placed: false,
        })
    }

    pub(super) fn write(&self, incoming: &mut Incoming, mut bytes: &[u8]) -> Result<(), Rejection> {
        let Some(file) = incoming.file.as_mut() else {
            return Ok(());
        };
        while !bytes.is_empty() {
            let written = match self.disk.write(file, bytes) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            bytes = bytes.get(written..).unwrap_or_default();
            let written = u64::try_from(written).unwrap_or(u64::MAX);
            self.moved.fetch_add(written, Ordering::Relaxed);
            incoming.unsynced += written;
        }
        if incoming.unsynced >= SYNC_EVERY {
            incoming.unsynced = 0;
            file.sync_data()?;
        }
        Ok(())
    }

    /// Syncs and reads back; if the hash is the expected one, gives the file its attributes and its
    /// final name. Otherwise it is removed. The name itself is durable after [`sync`](Self::sync).
    pub(super) fn finish(
        &mut self,
        mut incoming: Incoming,
        expected: Digest,
    ) -> Result<Verdict, Rejection> {
        let Some(mut file) = incoming.file.take() else {
            return Ok(Verdict::Unknown);
        };
        apply_attributes(&file, &incoming.attributes)?;
        self.disk.sync(&file)?;
        let digest = self.read_back(&mut file)?;
        drop(file);
        if digest != expected {
            return Ok(Verdict::Mismatch(digest));
        }
        self.rename(&mut incoming)?;
        self.moved.fetch_add(1, Ordering::Relaxed);
        self.touch(&incoming.dir);
        Ok(Verdict::Verified(digest))
    }

    /// Makes the directory if need be and gives it its attributes, after its contents.
    pub(super) fn seal(
        &mut self,
        path: &WirePath,
        attributes: &Attributes,
    ) -> Result<(), Rejection> {
        let dir = self.directory(path.as_bytes())?;
        #[cfg(unix)]
        {
            let file = directory_file(&dir)?;
            apply_attributes(&file, attributes)?;
            sync_directory(&file)?;
        }
        #[cfg(not(unix))]
        let _ = (dir, attributes);
        self.moved.fetch_add(1, Ordering::Relaxed);
        // Its next file, if any, must not find it through a handle that predates its mode.
        self.last = None;
        Ok(())
    }

    /// Makes all names given since the last call durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        for dir in std::mem::take(&mut self.touched) {
            // Windows cannot sync a directory and need not.
            #[cfg(unix)]
            sync_directory(&directory_file(&dir)?)?;
            #[cfg(not(unix))]
            drop(dir);
        }
        Ok(())
    }

    /// How many directories wait for [`sync`](Self::sync); each is an open handle.
    pub(super) fn touched_directories(&self) -> usize {
        self.touched.len()
    }

    fn read_back(&mut self, file: &mut File) -> io::Result<Digest> {
        file.rewind()?;
        self.read_buf.resize(READ_BACK_LEN, 0);
        let mut hasher = blake3::Hasher::new();
        loop {
            let read = match self.disk.read_back(file, &mut self.read_buf) {
                Ok(0) => return Ok(Digest::new(hasher.finalize().into())),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(self.read_buf.get(..read).unwrap_or_default());
            self.moved
                .fetch_add(u64::try_from(read).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    fn rename(&self, incoming: &mut Incoming) -> Result<(), Rejection> {
        let Incoming {
            dir,
            name,
            temporary,
            ..
        } = &*incoming;
        if self.overwrite {
            dir.rename(temporary, dir, name)?;
            incoming.is_placed = true;
            return Ok(());
        }
        // A link, unlike a rename, never replaces. The temporary name goes when `incoming` drops.
        match dir.hard_link(temporary, dir, name) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Refusal::Exists.into())
            }
            Err(_) if dir.symlink_metadata(name).is_ok() => Err(Refusal::Exists.into()),
            // No hard links here (FAT): the check above is all there is.
            Err(_) => {
                dir.rename(temporary, dir, name)?;
                incoming.is_placed = true;
                Ok(())
            }
        }
    }

    /// Opens a directory below the root, making what is missing. Empty means the root.
    fn directory(&mut self, path: &[u8]) -> Result<Arc<Dir>, Rejection> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some((last, dir)) = &self.last
            && last == path
        {
            return Ok(Arc::clone(dir));
        }
        let mut dir = Arc::clone(&self.root);
        for piece in pieces(path) {
            dir = match dir.open_dir(&piece) {
                Ok(next) => Arc::new(next),
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(dir, &piece)?,
                Err(error) => return Err(error.into()),
            };
        }
        self.last = Some((path.to_vec(), Arc::clone(&dir)));
        Ok(dir)
    }

    fn make(&mut self, mut dir: Arc<Dir>, path: &PathBuf) -> Result<Arc<Dir>, Rejection> {
        let mut builder = DirBuilder::new();
        // Nobody else looks into it before it has its own mode.
        #[cfg(unix)]
        cap_std::fs::DirBuilderExt::mode(&mut builder, 0o700);
        for part in path {
            match dir.create_dir_with(part, &builder) {
                Ok(()) => self.touch(&dir),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            dir = Arc::new(dir.open_dir(part)?);
        }
        Ok(dir)
    }

    fn touch(&mut self, dir: &Arc<Dir>) {
        if !self
            .touched
            .last()
            .is_some_and(|last| Arc::ptr_eq(last, dir))
        {
            self.touched.push(Arc::clone(dir));
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        drop(self.file.take());
        if !self.is_placed {
            // Nothing more can be done about a leftover, and its name says what it is.
            let _ = self.dir.remove_file(&self.temporary);
        }
    }
}

/// 64 random bits, so that neither two transfers nor a leftover collide.
fn temporary_name() -> io::Result<String> {
    let random = getrandom::u64().map_err(io::Error::other)?;
    Ok(format!(".reliable-udp-{random:016x}.part"))
}

/// The set-user-id and set-group-id bits are left out: a peer that may write files here does not
/// thereby get to say as whom they run.
#[cfg(unix)]
const MODE_MASK: u32 = 0o1777;

fn apply_attributes(file: &File, attributes: &Attributes) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(attributes.mode & MODE_MASK))?;
    }
    let mtime = join_time(attributes.mtime_secs, attributes.mtime_nanos).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "modification time out of range")
    })?;
    file.set_times(FileTimes::new().set_modified(mtime))
}

/// A [`Dir`] is a handle for lookups only; attributes and sync need one that was opened for reading.
#[cfg(unix)]
fn directory_file(dir: &Dir) -> io::Result<File> {
    Ok(dir.open(".")?.into_std())
}

/// Some file systems in user space know no sync of directories and say "invalid argument".
#[cfg(unix)]
fn sync_directory(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}
