//! Symbolic links that stay inside the tree that is copied.

use std::io;

use cap_fs_ext::DirExt;
#[cfg(not(unix))]
use cap_fs_ext::SystemTimeSpec;
use cap_std::fs::Dir;
#[cfg(not(unix))]
use cap_std::time::SystemTime;

use super::names::{partial_names, random_name};
use super::{Decision, Placed, Placer, Rejection};
#[cfg(not(unix))]
use crate::copy::attributes::join_time;
use crate::copy::error::Refusal;
use crate::copy::links::check_target;
use crate::copy::path::{WirePath, to_path};
use crate::copy::protocol::Attributes;

/// What lies under the name that a link is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    /// The same link.
    Equal,
    /// Another link or a regular file.
    Replaceable,
}

impl Placer {
    /// Looks whether a link is there already. Makes nothing.
    pub(in crate::copy) fn consider_link(
        &mut self,
        path: &WirePath,
        target: &[u8],
    ) -> Result<Decision, Rejection> {
        check_target(path, target)?;
        let needed = Decision::Needed {
            from: 0,
            stack: Vec::new(),
        };
        let Some(place) = self.directories.find(path)? else {
            return Ok(needed);
        };
        let place = self.directories.without_links(&place.path)?;
        let (_, name) = path.split();
        match look(&place.dir, name, target)? {
            Found::Equal => Ok(Decision::Present),
            Found::Replaceable if !self.options.overwrite => Err(Refusal::Exists.into()),
            Found::Replaceable | Found::Nothing => Ok(needed),
        }
    }

    /// Makes a link; `false`: it is there already, and no commit will tell of it.
    pub(in crate::copy) fn link(
        &mut self,
        path: &WirePath,
        target: &[u8],
        attributes: &Attributes,
        token: u64,
    ) -> Result<bool, Rejection> {
        check_target(path, target)?;
        let place = self.directories.make(path)?;
        let place = self.directories.without_links(&place.path)?;
        let (_, name) = path.split();
        let is_replacing = match look(&place.dir, name, target)? {
            Found::Equal => return Ok(false),
            Found::Replaceable if !self.options.overwrite => {
                return Err(Refusal::Exists.into());
            }
            Found::Replaceable => true,
            Found::Nothing => false,
        };
        self.directories.touch(&place.dir)?;
        let mtime = self.options.preserve.then_some(attributes);
        make(&place.dir, name, target, mtime, is_replacing)?;
        self.directories.names.note(&place.path, name);
        self.storage.count(1);
        self.group.push_placed(token, Placed::Done);
        Ok(true)
    }
}

/// Looks at what has the name now.
fn look(dir: &Dir, name: &[u8], target: &[u8]) -> Result<Found, Rejection> {
    let name = to_path(name);
    match dir.symlink_metadata(&name) {
        Ok(existing) if existing.is_symlink() => {
            let is_equal = dir.read_link_contents(&name)? == to_path(target);
            Ok(if is_equal {
                Found::Equal
            } else {
                Found::Replaceable
            })
        }
        Ok(existing) if existing.is_file() => Ok(Found::Replaceable),
        Ok(_) => Err(Refusal::NotAFile.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(error.into()),
    }
}

/// Makes a link; with `is_replacing` in place of whatever file or link has its name.
fn make(
    dir: &Dir,
    name: &[u8],
    target: &[u8],
    mtime: Option<&Attributes>,
    is_replacing: bool,
) -> Result<(), Rejection> {
    let (final_name, target) = (to_path(name), to_path(target));
    // Making a link, unlike renaming one, never replaces.
    if !is_replacing {
        symlink(dir, &target, &final_name)?;
        set_mtime(dir, &final_name, mtime);
        return Ok(());
    }
    let mut temporary = partial_names(name).0.into();
    if dir
        .symlink_metadata(&temporary)
        .is_ok_and(|leftover| leftover.is_symlink())
    {
        dir.remove_file_or_symlink(&temporary)?;
    } else if dir.symlink_metadata(&temporary).is_ok() {
        temporary = random_name()?.into();
    }
    symlink(dir, &target, &temporary)?;
    set_mtime(dir, &temporary, mtime);
    dir.rename(&temporary, dir, &final_name).map_err(|error| {
        let _ = dir.remove_file_or_symlink(&temporary);
        error.into()
    })
}

fn symlink(
    dir: &Dir,
    target: &std::path::PathBuf,
    name: &std::path::PathBuf,
) -> Result<(), Rejection> {
    DirExt::symlink(dir, target, name).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Refusal::Exists.into(),
        io::ErrorKind::Unsupported => Refusal::LinksUnsupported.into(),
        // Windows lets few users make links, FAT has none: EPERM, ERROR_PRIVILEGE_NOT_HELD.
        _ if matches!(error.raw_os_error(), Some(1314)) && cfg!(windows) => {
            Refusal::LinksUnsupported.into()
        }
        io::ErrorKind::PermissionDenied if cfg!(unix) && error.raw_os_error() == Some(1) => {
            Refusal::LinksUnsupported.into()
        }
        _ => error.into(),
    })
}

/// A link's own time is a nicety that not every file system has.
fn set_mtime(dir: &Dir, name: &std::path::PathBuf, attributes: Option<&Attributes>) {
    let Some(attributes) = attributes else {
        return;
    };
    // Not through cap-std, which panics at a time before 1970.
    #[cfg(unix)]
    {
        use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_OMIT};
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: attributes.mtime_secs,
                tv_nsec: attributes.mtime_nanos.into(),
            },
        };
        let _ = rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
    #[cfg(not(unix))]
    if attributes.mtime_secs >= 0
        && let Some(time) = join_time(attributes.mtime_secs, attributes.mtime_nanos)
    {
        let time = SystemTimeSpec::from(SystemTime::from_std(time));
        let _ = dir.set_symlink_times(name, None, Some(time));
    }
}
