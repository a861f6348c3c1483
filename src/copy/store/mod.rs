//! The receiver's work in the file system: what is there, what is needed, and putting it in its place.
//!
//! Everything goes through a capability for the root directory: whatever path a peer names, and
//! whatever symbolic links appear meanwhile, nothing outside the root is reached. A final name only
//! ever gets content whose hash, as read back from disk after a sync, was the sender's.
//!
//! A file of at most one block waits under a temporary name for the next
//! [commit](Placer::commit), which syncs, reads back and names many at once. A larger file is synced,
//! read back and compared every 4 MiB behind the writing, and a journal says how far it is good, so
//! that it need not be sent again after a kill.
//!
//! This is blocking code that knows nothing of tokio; what runs behind is handed to a closure.

mod attributes;
mod checkpoint;
mod directories;
mod existing;
mod group;
mod journal;
mod links;
mod names;
mod partial;
mod registry;
mod seal;
mod storage;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use cap_std::fs::Dir;

use self::directories::{Directories, Place};
use self::group::Group;
use self::partial::Wanted;
use self::storage::{Problem, Storage};
use super::disk::{Disk, to_u64};
use super::error::Refusal;
use super::path::{WirePath, to_path};
use super::progress::Digest;
use super::protocol::Attributes;
use super::tree_hash::{BLOCK_LEN_U64, Cv};

pub(super) use self::names::NamePolicy;
pub(super) use self::partial::Incoming;
pub(super) use self::registry::Partials;

/// How much is written between two looks at the space left, in bytes.
const MEASURE_EVERY: u64 = 4 * 1024 * 1024;

/// What the receiver's side decides.
#[derive(Debug, Clone, Default)]
pub(super) struct PlaceSettings {
    /// Each write is read back and compared at once, and made again if it differs.
    pub(super) verify_writes: bool,
    /// Each byte read back counts once it had one value `2 n + 1` times; 0 is one read.
    pub(super) read_votes: u8,
    /// How much space on the disk stays free, in bytes; 0 asks nothing.
    pub(super) min_free: u64,
    /// Whether a sender may overwrite what is there.
    pub(super) may_overwrite: bool,
    pub(super) names: NamePolicy,
}

/// What the sender's side asks for.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the flags of a frame, by name"
)]
pub(super) struct PlaceOptions {
    pub(super) overwrite: bool,
    /// Mode and modification time are the sender's.
    pub(super) preserve: bool,
    /// What the journal says is read again before it is believed.
    pub(super) recheck: bool,
    /// Nothing is changed, not even a mode.
    pub(super) dry_run: bool,
}

impl Default for PlaceOptions {
    fn default() -> Self {
        Self {
            overwrite: false,
            preserve: true,
            recheck: false,
            dry_run: false,
        }
    }
}

/// A file that is offered.
#[derive(Debug, Clone)]
pub(super) struct Considered<'a> {
    pub(super) path: &'a WirePath,
    pub(super) size: u64,
    pub(super) attributes: Attributes,
    pub(super) tag: [u8; 16],
    pub(super) digest: Option<Digest>,
}

/// What is to be done about an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// An equal one is there.
    Present,
    /// It has to be sent from this byte on; the stack is that of the bytes before.
    Needed { from: u64, stack: Vec<Cv> },
}

/// How the content of a file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The next commit tells.
    Settling,
    /// It is not what the sender hashed. What is good of it is kept.
    Mismatch,
}

/// What a commit says of one thing.
#[derive(Debug)]
pub(super) struct Settled {
    /// What the caller calls it.
    pub(super) token: u64,
    pub(super) result: Result<Placed, Rejection>,
}

/// Something that has its final name for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// A file whose content, as read back, has this hash.
    File(Digest),
    /// A directory or link.
    Done,
}

/// Why something was not placed.
#[derive(Debug)]
pub(super) enum Rejection {
    Refused(Refusal),
    Failed(io::Error),
    /// What is there is not what [`Placer::consider`] saw: the file has to be offered again.
    Changed,
    /// What lies on the disk is not what the sender hashed.
    Mismatch,
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

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Mismatch => Self::Mismatch,
            Problem::Failed(error) => error.into(),
        }
    }
}

/// Blocking work that runs behind.
pub(super) type Task = Box<dyn FnOnce() + Send>;

/// Runs blocking work elsewhere; may run it at once.
#[derive(Clone)]
pub(super) struct Spawner(Arc<dyn Fn(Task) + Send + Sync>);

impl Spawner {
    pub(super) fn new(spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        Self(Arc::new(spawn))
    }

    fn spawn(&self, task: Task) {
        (self.0)(task);
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spawner")
    }
}

/// Places files below one root directory, for one session.
#[derive(Debug)]
pub(super) struct Placer {
    directories: Directories,
    storage: Storage,
    settings: PlaceSettings,
    options: PlaceOptions,
    registry: Arc<Partials>,
    session: u64,
    spawn: Spawner,
    group: Group,
    scratch: Vec<u8>,
    /// The root, to ask how much space is left.
    root: Option<File>,
}

impl Placer {
    pub(super) fn new(
        root: Arc<Dir>,
        disk: Arc<dyn Disk>,
        settings: PlaceSettings,
        registry: Arc<Partials>,
        moved: Arc<AtomicU64>,
        spawn: Spawner,
    ) -> Self {
        let storage = Storage {
            disk,
            votes: settings.read_votes,
            verify_writes: settings.verify_writes,
            moved,
        };
        Self {
            root: attributes::directory_file(&root).ok(),
            directories: Directories::new(root, settings.names),
            storage,
            settings,
            options: PlaceOptions::default(),
            session: registry.join(),
            registry,
            spawn,
            group: Group::default(),
            scratch: Vec::new(),
        }
    }

    /// Takes what the sender asks for, as far as it is allowed.
    pub(super) fn set_options(&mut self, options: PlaceOptions) {
        self.options = options;
        self.options.overwrite &= self.settings.may_overwrite;
        self.directories.is_mode_due = options.preserve;
    }

    /// How many directories may be made on the way to something.
    pub(super) fn set_max_directories(&mut self, directories: u64) {
        self.directories.room = directories;
    }

    /// Looks whether a file is there already, or a part of it. Opens nothing that stays open and makes
    /// nothing; gives an equal file its mode unless this is a dry run.
    pub(super) fn consider(&mut self, offer: &Considered<'_>) -> Result<Decision, Rejection> {
        let mut needed = Decision::Needed {
            from: 0,
            stack: Vec::new(),
        };
        let mut kept = 0;
        if let Some(place) = self.directories.find(offer.path)? {
            if self.is_present(&place, offer)? {
                return Ok(Decision::Present);
            }
            if offer.size > BLOCK_LEN_U64 {
                // Only now: an offer that is refused ends nobody else's.
                if !self.options.dry_run {
                    self.registry.take_over(offer.path.as_bytes(), self.session);
                }
                let wanted = self.wanted(place, offer, 0);
                let tree = wanted.look(&self.storage, self.options.recheck)?;
                kept = tree.blocks().saturating_mul(BLOCK_LEN_U64);
                needed = Decision::Needed {
                    from: kept,
                    stack: tree.stack().to_vec(),
                };
            }
        }
        if let Some(root) = &self.root {
            self.measure(root, offer.size.saturating_sub(kept))?;
        }
        Ok(needed)
    }

    /// Opens the temporary file of what [`consider`](Self::consider) said is needed; its directories
    /// are made if need be.
    pub(super) fn begin(
        &mut self,
        offer: &Considered<'_>,
        from: u64,
    ) -> Result<Incoming, Rejection> {
        self.registry.take_over(offer.path.as_bytes(), self.session);
        let place = self.directories.make(offer.path)?;
        let (_, name) = offer.path.split();
        match place.dir.symlink_metadata(to_path(name)) {
            Ok(existing) if !existing.is_file() => return Err(Refusal::NotAFile.into()),
            Ok(_) if !self.options.overwrite => return Err(Refusal::Exists.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let wanted = self.wanted(place, offer, from);
        let incoming = if offer.size > BLOCK_LEN_U64 {
            let incoming = wanted.open_large(&self.storage, &self.registry, self.session)?;
            // So that a power cut leaves something to go on with.
            self.directories.touch(&incoming.place.dir)?;
            incoming
        } else if from > 0 {
            return Err(Rejection::Changed);
        } else {
            wanted.open_small()?
        };
        if let Some(file) = &incoming.file {
            self.measure(file, offer.size.saturating_sub(from))?;
        }
        Ok(incoming)
    }

    /// Appends content. After an error the file is to be dropped.
    pub(super) fn write(&mut self, incoming: &mut Incoming, bytes: &[u8]) -> Result<(), Rejection> {
        let live = incoming.large.as_ref().map(|large| Arc::clone(&large.live));
        let held = live
            .as_ref()
            .map(|live| live.hold().ok_or(Refusal::Superseded));
        let _held = held.transpose()?;
        let end = grown(incoming, to_u64(bytes.len()))?;
        let Some(file) = &incoming.file else {
            return Err(Rejection::Changed);
        };
        incoming.unmeasured = incoming.unmeasured.saturating_add(to_u64(bytes.len()));
        if incoming.unmeasured >= MEASURE_EVERY {
            incoming.unmeasured = 0;
            self.measure(file, to_u64(bytes.len()))?;
        }
        self.storage
            .write(file, bytes, incoming.received, &mut self.scratch)?;
        incoming.received = end;
        incoming.extent = end;
        Ok(())
    }

    /// Appends zeros that are not written. After an error the file is to be dropped.
    #[expect(clippy::unused_self, reason = "the same way in as for content")]
    pub(super) fn hole(&mut self, incoming: &mut Incoming, len: u64) -> Result<(), Rejection> {
        incoming.received = grown(incoming, len)?;
        Ok(())
    }

    /// Takes the sender's hash of the block that was just completed, in a file of more than one.
    /// After an error the file is to be dropped.
    pub(super) fn block(&mut self, incoming: &mut Incoming, cv: Cv) -> Result<(), Rejection> {
        let live = incoming.large.as_ref().map(|large| Arc::clone(&large.live));
        let held = live
            .as_ref()
            .map(|live| live.hold().ok_or(Refusal::Superseded));
        let _held = held.transpose()?;
        incoming.block(cv, &self.storage, &self.spawn)
    }

    /// Ends the content. `token` is what the commit is to call it.
    pub(super) fn end(
        &mut self,
        mut incoming: Incoming,
        root: Digest,
        token: u64,
    ) -> Result<Ended, Rejection> {
        if incoming.received != incoming.size {
            return Err(incomplete());
        }
        if incoming.large.is_none() {
            incoming.extend()?;
            self.apply_attributes(&incoming)?;
            self.group.push_file(token, incoming, root);
            return Ok(Ended::Settling);
        }
        match self.end_large(&mut incoming, root) {
            Ok(()) => {
                self.group.push_placed(token, Placed::File(root));
                Ok(Ended::Settling)
            }
            Err(Rejection::Mismatch) => Ok(Ended::Mismatch),
            Err(rejection) => Err(rejection),
        }
    }

    /// Stops in the middle: keeps what a journal vouches for. The same as dropping the file.
    #[expect(clippy::unused_self, reason = "the name of what the session does")]
    pub(super) fn keep(&mut self, incoming: Incoming) {
        drop(incoming);
    }

    /// Returns whether so much waits that the caller should [commit](Self::commit).
    pub(super) fn is_due(&self) -> bool {
        self.group.is_due(self.directories.touched())
    }

    fn end_large(&mut self, incoming: &mut Incoming, root: Digest) -> Result<(), Rejection> {
        let Some(large) = &mut incoming.large else {
            return Ok(());
        };
        let live = Arc::clone(&large.live);
        // Until the file has its name, so that nobody takes over a half-named one.
        let _held = live.hold().ok_or(Refusal::Superseded)?;
        if large.has_pending() {
            incoming.checkpoint(&self.storage, |task| task())?;
        }
        let Some(large) = &mut incoming.large else {
            return Ok(());
        };
        large.wait_for_all();
        if let Some(problem) = live.ledger().problem.take() {
            return Err(problem.into());
        }
        let blocks = incoming.size.div_ceil(BLOCK_LEN_U64);
        if live.ledger().good.blocks() != blocks || large.tree.blocks() != blocks {
            return Err(incomplete());
        }
        if large.tree.clone().root() != Some(root) {
            // Each block is what the sender said, and still the whole is not: no part is to be trusted.
            large.discard()?;
            return Err(Rejection::Mismatch);
        }
        self.apply_attributes(incoming)?;
        self.storage.disk.sync(&live.file)?;
        self.give_name(incoming)?;
        if let Some(large) = &incoming.large {
            large.conclude(&incoming.place.dir);
        }
        Ok(())
    }

    fn apply_attributes(&self, incoming: &Incoming) -> Result<(), Rejection> {
        if self.options.preserve
            && let Some(file) = &incoming.file
        {
            attributes::apply(file, &incoming.attributes)?;
        }
        Ok(())
    }

    /// Gives a verified file its final name, durable after the next sync of directories.
    fn give_name(&mut self, incoming: &mut Incoming) -> Result<(), Rejection> {
        let Place { dir, path } = &incoming.place;
        let name = to_path(&incoming.name);
        self.directories.names.check(path, dir, &incoming.name)?;
        self.directories.touch(dir)?;
        if !incoming.is_named() {
            return Err(Rejection::Changed);
        }
        if self.options.overwrite {
            match dir.symlink_metadata(&name) {
                Ok(existing) if !existing.is_file() => return Err(Refusal::NotAFile.into()),
                _ => dir.rename(&incoming.temporary, dir, &name)?,
            }
        } else {
            rename_exclusively(dir, incoming.temporary.as_ref(), &name)?;
        }
        incoming.is_placed = true;
        self.directories.names.note(path, &incoming.name);
        self.storage.count(1);
        // Only a leftover: the file has its name whatever becomes of that.
        let _ = partial::clear_spare(dir, &incoming.name);
        Ok(())
    }

    fn wanted<'a>(&self, place: Place, offer: &Considered<'a>, from: u64) -> Wanted<'a> {
        let (_, name) = offer.path.split();
        Wanted {
            place,
            path: offer.path.as_bytes().into(),
            name,
            attributes: offer.attributes,
            size: offer.size,
            tag: offer.tag,
            from,
            is_private: self.options.preserve,
        }
    }

    /// Refuses what would leave too little space.
    fn measure(&self, file: &File, needed: u64) -> Result<(), Rejection> {
        if self.settings.min_free > 0
            && let Some(free) = self.storage.disk.free(file)?
            && free.saturating_sub(needed) < self.settings.min_free
        {
            return Err(Refusal::KeepsFree.into());
        }
        Ok(())
    }
}

/// Renames what will not replace anything.
fn rename_exclusively(dir: &Dir, from: &Path, to: &Path) -> Result<(), Rejection> {
    #[cfg(target_os = "linux")]
    {
        let exclusively = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(dir, from, dir, to, exclusively) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::EXIST) => return Err(Refusal::Exists.into()),
            // Some file systems do not know how to.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
    // A link, unlike a rename, never replaces.
    match dir.hard_link(from, dir, to) {
        Ok(()) => {
            // What stays has the same content, and the next session clears it away.
            let _ = dir.remove_file(from);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Refusal::Exists.into()),
        Err(_) if dir.symlink_metadata(to).is_ok() => Err(Refusal::Exists.into()),
        // No hard links here (FAT): the check above is all there is.
        Err(_) => Ok(dir.rename(from, dir, to)?),
    }
}

/// Returns how much of the file is there with `len` bytes more.
fn grown(incoming: &Incoming, len: u64) -> Result<u64, Rejection> {
    let end = incoming.received.checked_add(len);
    end.filter(|end| *end <= incoming.size)
        .ok_or_else(incomplete)
}

fn incomplete() -> Rejection {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the content does not add up to the file",
    )
    .into()
}
