//! Files under their temporary names: found again, opened, written, kept or removed.

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io;
use std::sync::Arc;

use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, Metadata, OpenOptions};

use super::checkpoint::{BLOCKS, Checkpoint, Live, MAX_OUTSTANDING, Outstanding};
use super::directories::Place;
use super::journal::{Journal, Subject};
use super::names::{is_same, partial_names, random_name, spare_name};
use super::registry::Partials;
use super::storage::Storage;
use super::{Rejection, Spawner, Task};
use crate::copy::protocol::Attributes;
use crate::copy::tree_hash::{BLOCK_LEN_U64, Cv, TreeHash};

/// A file under its temporary name. Dropping it keeps what its journal vouches for, or removes it.
#[derive(Debug)]
pub(in crate::copy) struct Incoming {
    pub(super) place: Place,
    /// The last part of the final path.
    pub(super) name: Vec<u8>,
    pub(super) temporary: String,
    pub(super) file: Option<Arc<File>>,
    pub(super) attributes: Attributes,
    pub(super) size: u64,
    /// How much of the file is there, holes included, in bytes.
    pub(super) received: u64,
    /// How long the temporary file is, in bytes; less if a hole is at the end.
    pub(super) extent: u64,
    /// Since the space left was looked at, in bytes.
    pub(super) unmeasured: u64,
    pub(super) is_placed: bool,
    /// More than one block: the file can be gone on with.
    pub(super) large: Option<Box<Large>>,
}

/// What a file of more than one block has besides.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) live: Arc<Live>,
    registry: Arc<Partials>,
    path: Arc<[u8]>,
    journal: Option<String>,
    /// The sender's hashes of all blocks so far.
    pub(super) tree: TreeHash,
    /// Up to the last checkpoint begun.
    begun: TreeHash,
    /// The blocks since.
    pending: Vec<Cv>,
    outstanding: VecDeque<Outstanding>,
}

/// What a new file is to be.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) place: Place,
    pub(super) path: Arc<[u8]>,
    pub(super) name: &'a [u8],
    pub(super) attributes: Attributes,
    pub(super) size: u64,
    pub(super) tag: [u8; 16],
    /// What is there already, in bytes.
    pub(super) from: u64,
    /// Whether the mode comes from the sender, later.
    pub(super) is_private: bool,
}

impl Wanted<'_> {
    /// Opens a file of at most one block, under the name that a leftover of it would have.
    pub(super) fn open_small(self) -> Result<Incoming, Rejection> {
        let (mut temporary, _) = partial_names(self.name);
        let dir = &self.place.dir;
        let mut file = create(dir, &temporary, self.is_private)?;
        if file.is_none()
            && let Some(leftover) = open_own(dir, &temporary, true)?
        {
            dir.remove_file(&temporary)?;
            drop(leftover);
            file = create(dir, &temporary, self.is_private)?;
        }
        let file = match file {
            Some(file) => file,
            None => create_spare(dir, self.name, &mut temporary, self.is_private)?,
        };
        Ok(self.incoming(temporary, Arc::new(file), None))
    }

    /// Opens a file of more than one block: the one that is there, if it can be gone on with.
    pub(super) fn open_large(
        self,
        storage: &Storage,
        registry: &Arc<Partials>,
        session: u64,
    ) -> Result<Incoming, Rejection> {
        let (mut temporary, journal_name) = partial_names(self.name);
        let (file, journal, good) = match self.open_named(&temporary, &journal_name, storage)? {
            Some((file, journal, good)) => (file, Some(journal), good),
            None if self.from > 0 => return Err(Rejection::Changed),
            // Whatever has our names: do without a journal.
            None => {
                let dir = &self.place.dir;
                let file = create_spare(dir, self.name, &mut temporary, self.is_private)?;
                (file, None, TreeHash::new())
            }
        };
        let vouched = good.blocks().saturating_mul(BLOCK_LEN_U64);
        if vouched != self.from || file.metadata()?.len() < vouched {
            return Err(Rejection::Changed);
        }
        // Stale bytes would fill what the sender says is a hole.
        file.set_len(self.from)?;
        let file = Arc::new(file);
        let journal_name = journal.as_ref().map(|_| journal_name);
        let live = Live::new(Arc::clone(&file), self.size, journal, good.clone());
        let live = Arc::new(live);
        registry.insert(Arc::clone(&self.path), session, Arc::clone(&live));
        let large = Large {
            live,
            registry: Arc::clone(registry),
            path: Arc::clone(&self.path),
            journal: journal_name,
            tree: good.clone(),
            begun: good,
            pending: Vec::new(),
            outstanding: VecDeque::new(),
        };
        Ok(self.incoming(temporary, file, Some(Box::new(large))))
    }

    /// Opens the partial file and the journal that belong to the name, both ours alone.
    fn open_named(
        &self,
        temporary: &str,
        journal: &str,
        storage: &Storage,
    ) -> Result<Option<(File, Journal, TreeHash)>, Rejection> {
        let dir = &self.place.dir;
        let file = match open_own(dir, temporary, true)? {
            Some(file) => {
                self.change_mode(&file)?;
                Some(file)
            }
            None if self.from > 0 => None,
            None => create(dir, temporary, self.is_private)?,
        };
        let Some(file) = file else { return Ok(None) };
        let Some(journal) = open_or_create_own(dir, journal)? else {
            return Ok(None);
        };
        let subject = self.subject(&file)?;
        let disk = Arc::clone(&storage.disk);
        let (mut journal, mut good) = Journal::open(journal, disk, subject, storage.votes);
        if self.from == 0 {
            // Before the content that it vouches for goes.
            journal.reset()?;
            good = TreeHash::new();
        }
        Ok(Some((file, journal, good)))
    }

    /// A leftover was private if its sender wanted a mode of its own; this one may want another.
    fn change_mode(&self, file: &File) -> Result<(), Rejection> {
        #[cfg(unix)]
        if self.is_private {
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            file.set_permissions(private)?;
        } else {
            let (dir, mut name) = (&self.place.dir, String::new());
            let probe = create_random(dir, &mut name, false)?;
            let permissions = probe.metadata().map(|metadata| metadata.permissions());
            dir.remove_file(&name)?;
            file.set_permissions(permissions?)?;
        }
        #[cfg(not(unix))]
        let _ = file;
        Ok(())
    }

    /// Looks for what is there of the file already, without changing anything.
    pub(super) fn look(&self, storage: &Storage, is_recheck: bool) -> io::Result<TreeHash> {
        let (temporary, journal) = partial_names(self.name);
        let dir = &self.place.dir;
        // What somebody else works on, be it another process, cannot be gone on with.
        let Some(file) = open_own(dir, &temporary, true)? else {
            return Ok(TreeHash::new());
        };
        let Some(journal) = open_own(dir, &journal, false)? else {
            return Ok(TreeHash::new());
        };
        let subject = self.subject(&file)?;
        let disk = Arc::clone(&storage.disk);
        let (_, good) = Journal::open(journal, disk, subject, storage.votes);
        let vouched = good.blocks().saturating_mul(BLOCK_LEN_U64);
        if vouched >= self.size || file.metadata()?.len() < vouched {
            return Ok(TreeHash::new());
        }
        if is_recheck && !storage.is_prefix(&file, &good)? {
            return Ok(TreeHash::new());
        }
        Ok(good)
    }

    fn subject(&self, file: &File) -> io::Result<Subject> {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&file.metadata()?);
        #[cfg(not(unix))]
        let inode = file.metadata().map(|_| 0)?;
        let (size, tag) = (self.size, self.tag);
        Ok(Subject { size, tag, inode })
    }

    fn incoming(self, temporary: String, file: Arc<File>, large: Option<Box<Large>>) -> Incoming {
        Incoming {
            place: self.place,
            name: self.name.to_vec(),
            temporary,
            file: Some(file),
            attributes: self.attributes,
            size: self.size,
            received: self.from,
            extent: self.from,
            unmeasured: 0,
            is_placed: false,
            large,
        }
    }
}

/// What is known to be good of a file, after it was dropped too.
#[derive(Debug)]
pub(in crate::copy) struct Good(Option<Arc<Live>>);

impl Good {
    /// So many bytes of the file stay, if it was not placed.
    pub(in crate::copy) fn bytes(&self) -> u64 {
        let blocks = self.0.as_ref().map(|live| live.ledger().good.blocks());
        blocks.unwrap_or_default().saturating_mul(BLOCK_LEN_U64)
    }
}

impl Incoming {
    pub(in crate::copy) fn good(&self) -> Good {
        let large = self.large.as_ref().filter(|large| large.journal.is_some());
        Good(large.map(|large| Arc::clone(&large.live)))
    }

    /// Whether the temporary name is still that of the file. Locks see to it, where there are any.
    pub(super) fn is_named(&self) -> bool {
        let file = self.file.as_ref();
        file.is_some_and(|file| is_named(&self.place.dir, &self.temporary, file))
    }

    /// Makes the file as long as what was received: a hole at the end leaves nothing else.
    pub(super) fn extend(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file
            && self.extent < self.received
        {
            file.set_len(self.received)?;
            self.extent = self.received;
        }
        Ok(())
    }

    /// Takes the hash of the block that has just been completed; begins a checkpoint when it is time.
    pub(super) fn block(
        &mut self,
        cv: Cv,
        storage: &Storage,
        spawn: &Spawner,
    ) -> Result<(), Rejection> {
        let Some(large) = &mut self.large else {
            return Ok(());
        };
        large.tree.push(cv);
        large.pending.push(cv);
        if large.pending.len() < BLOCKS {
            return Ok(());
        }
        self.checkpoint(storage, |task| spawn.spawn(task))
    }

    /// Begins a checkpoint of all blocks that none covers yet.
    pub(super) fn checkpoint(
        &mut self,
        storage: &Storage,
        run: impl FnOnce(Task),
    ) -> Result<(), Rejection> {
        self.extend()?;
        let end = self.received;
        let Some(large) = &mut self.large else {
            return Ok(());
        };
        while large.outstanding.len() >= MAX_OUTSTANDING {
            large.wait_for_one();
        }
        if let Some(problem) = large.live.ledger().problem.take() {
            return Err(problem.into());
        }
        let checkpoint = Checkpoint {
            live: Arc::clone(&large.live),
            storage: storage.clone(),
            before: std::mem::replace(&mut large.begun, large.tree.clone()),
            cvs: std::mem::take(&mut large.pending),
            end,
        };
        let (task, outstanding) = checkpoint.into_task();
        large.outstanding.push_back(outstanding);
        run(task);
        Ok(())
    }
}

impl Large {
    /// Waits for the oldest checkpoint.
    fn wait_for_one(&mut self) {
        if let Some(outstanding) = self.outstanding.pop_front() {
            outstanding.wait();
        }
    }

    pub(super) fn wait_for_all(&mut self) {
        while !self.outstanding.is_empty() {
            self.wait_for_one();
        }
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Nothing of the file is worth keeping.
    pub(super) fn discard(&self) -> io::Result<()> {
        let mut ledger = self.live.ledger();
        ledger.good = TreeHash::new();
        ledger.journal.as_mut().map_or(Ok(()), Journal::reset)
    }

    /// The file has its name: there is nothing to go on with.
    pub(super) fn conclude(&self, dir: &Dir) {
        self.registry.remove(&self.path, &self.live);
        self.remove_journal(dir);
    }

    fn remove_journal(&self, dir: &Dir) {
        if let Some(name) = &self.journal {
            self.live.ledger().journal = None;
            let _ = dir.remove_file(name);
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(large) = &mut self.large {
            large.wait_for_all();
            let live = Arc::clone(&large.live);
            if self.is_placed {
                return;
            }
            let Some(_held) = live.hold() else {
                // Another session has it now: hands off, unless the name is nobody else's.
                if large.journal.is_none() {
                    let dir = &self.place.dir;
                    unnoticed(dir, || drop(dir.remove_file(&self.temporary)));
                }
                return;
            };
            let vouched = live.ledger().good.blocks();
            let is_kept = vouched > 0 && large.journal.is_some();
            if is_kept {
                // The rest would be sent again; on a full disk its space is better free.
                let _ = live.file.set_len(vouched.saturating_mul(BLOCK_LEN_U64));
            } else {
                let dir = Arc::clone(&self.place.dir);
                unnoticed(&dir, || large.remove_journal(&dir));
                self.remove();
            }
            // Last, and unlocked: who does not find it there takes what lies on the disk.
            let _ = live.file.unlock();
            if let Some(large) = &self.large {
                large.registry.remove(&large.path, &live);
            }
        } else if !self.is_placed {
            self.remove();
        }
    }
}

impl Incoming {
    /// Removes the file while it is locked, so that it is not another's by now.
    fn remove(&mut self) {
        if self.is_named() {
            // Windows wants it closed.
            if cfg!(windows) {
                self.file = None;
            }
            // Nothing more can be done about a leftover, and its name says what it is.
            let dir = &self.place.dir;
            unnoticed(dir, || drop(dir.remove_file(&self.temporary)));
        }
    }
}

/// Changes a directory and leaves it its modification time: a later session may have sealed it.
fn unnoticed(dir: &Dir, change: impl FnOnce()) {
    #[cfg(unix)]
    {
        let handle = super::attributes::directory_file(dir);
        let modified = handle
            .as_ref()
            .ok()
            .and_then(|handle| handle.metadata().ok()?.modified().ok());
        change();
        if let (Ok(handle), Some(modified)) = (handle, modified) {
            let _ = handle.set_times(std::fs::FileTimes::new().set_modified(modified));
        }
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        change();
    }
}

/// Removes what a kill left of the transfer of a file that is there: a journal, or a second name.
pub(super) fn clear_leftovers(dir: &Dir, name: &[u8], existing: &Metadata) -> io::Result<()> {
    let (temporary, journal) = partial_names(name);
    for leftover in [temporary, journal, spare_name(name)] {
        let Ok(found) = dir.symlink_metadata(&leftover) else {
            continue;
        };
        let own = if is_same(&found, existing) {
            None
        } else {
            let own = open_own(dir, &leftover, true)?;
            if own.is_none() {
                continue;
            }
            own
        };
        dir.remove_file(&leftover)?;
        drop(own);
    }
    Ok(())
}

/// Removes what a kill left of a session that found the file's first temporary name taken.
pub(super) fn clear_spare(dir: &Dir, name: &[u8]) -> io::Result<()> {
    let spare = spare_name(name);
    if let Some(own) = open_own(dir, &spare, true)? {
        dir.remove_file(&spare)?;
        drop(own);
    }
    Ok(())
}

fn options(is_private: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).follow(FollowSymlinks::No);
    #[cfg(unix)]
    {
        // Otherwise what the system makes of it is the mode that stays.
        let mode = if is_private { 0o600 } else { 0o666 };
        cap_std::fs::OpenOptionsExt::mode(&mut options, mode);
        // A FIFO in place of a leftover must not block.
        cap_fs_ext::OpenOptionsSyncExt::nonblock(&mut options, true);
    }
    #[cfg(not(unix))]
    let _ = is_private;
    options
}

/// Makes and locks a file; `None` if the name is taken.
fn create(dir: &Dir, name: &str, is_private: bool) -> Result<Option<File>, Rejection> {
    let file = match dir.open_with(name, options(is_private).create_new(true)) {
        Ok(file) => file.into_std(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Another process may have taken it for a leftover before the lock.
    Ok((is_locked(&file) && is_named(dir, name, &file)).then_some(file))
}

/// Creates a file beside one that is taken.
fn create_spare(
    dir: &Dir,
    name: &[u8],
    temporary: &mut String,
    is_private: bool,
) -> Result<File, Rejection> {
    clear_spare(dir, name)?;
    *temporary = spare_name(name);
    match create(dir, temporary, is_private)? {
        Some(file) => Ok(file),
        None => create_random(dir, temporary, is_private),
    }
}

fn create_random(dir: &Dir, name: &mut String, is_private: bool) -> Result<File, Rejection> {
    *name = random_name()?;
    let file = create(dir, name, is_private)?;
    file.ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists).into())
}

/// Opens a leftover of ours: a regular file with this one name that nobody uses. With `is_locked`
/// it is ours alone from then on.
fn open_own(dir: &Dir, name: &str, is_taken: bool) -> io::Result<Option<File>> {
    let mut options = options(true);
    if is_taken {
        make_writable(dir, name)?;
    } else {
        options.write(false);
    }
    let Ok(file) = dir.open_with(name, &options) else {
        return Ok(None);
    };
    let file = file.into_std();
    if !is_own(&Metadata::from_file(&file)?) || (is_taken && !is_locked(&file)) {
        return Ok(None);
    }
    // Its last user may have given it another name before the lock.
    Ok(is_named(dir, name, &file).then_some(file))
}

/// A leftover may have the mode of the whole file already, which may keep its owner from writing.
fn make_writable(dir: &Dir, name: &str) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mut options = options(true);
        let Ok(file) = dir.open_with(name, options.write(false)) else {
            return Ok(());
        };
        let file = file.into_std();
        let metadata = Metadata::from_file(&file)?;
        let mode = file.metadata()?.permissions().mode();
        if mode & 0o200 == 0 && is_own(&metadata) && is_locked(&file) {
            file.set_permissions(PermissionsExt::from_mode(mode & 0o7777 | 0o200))?;
        }
    }
    #[cfg(not(unix))]
    let _ = (dir, name);
    Ok(())
}

fn open_or_create_own(dir: &Dir, name: &str) -> Result<Option<File>, Rejection> {
    match create(dir, name, true)? {
        Some(file) => Ok(Some(file)),
        None => Ok(open_own(dir, name, true)?),
    }
}

/// Only what this user made: what somebody else made could be changed by them later.
fn is_own(metadata: &Metadata) -> bool {
    if !metadata.is_file() {
        return false;
    }
    #[cfg(unix)]
    if cap_fs_ext::MetadataExt::nlink(metadata) != 1 {
        return false;
    }
    #[cfg(target_os = "linux")]
    if cap_std::fs::MetadataExt::uid(metadata) != rustix::process::geteuid().as_raw() {
        return false;
    }
    true
}

fn is_locked(file: &File) -> bool {
    match file.try_lock() {
        // Where the file system knows no locks, the name has to do.
        Ok(()) | Err(TryLockError::Error(_)) => true,
        Err(TryLockError::WouldBlock) => false,
    }
}

fn is_named(dir: &Dir, name: &str, file: &File) -> bool {
    match (dir.symlink_metadata(name), Metadata::from_file(file)) {
        (Ok(named), Ok(open)) => named.is_file() && is_same(&named, &open),
        _ => false,
    }
}
