//! What has a file's name already: the same, or in the way.

use std::fs::File;
use std::io;
use std::path::Path;

use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, Metadata, OpenOptions};

use super::directories::Place;
use super::partial::clear_leftovers;
use super::{Considered, Placer, Rejection, attributes};
use crate::copy::error::Refusal;
use crate::copy::path::to_path;
use crate::copy::protocol::Attributes;

impl Placer {
    /// Returns whether an equal file has the name.
    pub(super) fn is_present(
        &self,
        place: &Place,
        offer: &Considered<'_>,
    ) -> Result<bool, Rejection> {
        let (_, name) = offer.path.split();
        let name = to_path(name);
        let existing = match place.dir.symlink_metadata(&name) {
            Ok(existing) => existing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if !existing.is_file() {
            return Err(Refusal::NotAFile.into());
        }
        let is_equal = existing.len() == offer.size
            && match offer.digest {
                Some(digest) => self.storage.hash(&open_existing(&place.dir, &name)?)? == digest,
                // Without the sender's times an equal one says nothing.
                None => {
                    self.options.preserve && attributes::has_mtime(&existing, &offer.attributes)
                }
            };
        if !is_equal && !self.options.overwrite {
            return Err(Refusal::Exists.into());
        }
        if is_equal && !self.options.dry_run {
            if self.options.preserve {
                refresh(&place.dir, &name, &existing, &offer.attributes)?;
            }
            clear_leftovers(&place.dir, offer.path.split().1, &existing)?;
        }
        Ok(is_equal)
    }
}

fn open_existing(dir: &Dir, name: &Path) -> Result<File, Rejection> {
    let mut options = OpenOptions::new();
    options.read(true).follow(FollowSymlinks::No);
    // A FIFO that took the file's name meanwhile must not block the open.
    #[cfg(unix)]
    cap_fs_ext::OpenOptionsSyncExt::nonblock(&mut options, true);
    let file = dir.open_with(name, &options)?;
    if !file.metadata()?.is_file() {
        return Err(Refusal::NotAFile.into());
    }
    Ok(file.into_std())
}

/// Gives an equal file its attributes, if they differ.
fn refresh(
    dir: &Dir,
    name: &Path,
    existing: &Metadata,
    attributes: &Attributes,
) -> Result<(), Rejection> {
    let (has_mode, has_mtime) = (
        attributes::has_mode(existing, attributes),
        attributes::has_mtime(existing, attributes),
    );
    if has_mode && has_mtime {
        return Ok(());
    }
    let file = open_existing(dir, name)?;
    if has_mtime {
        attributes::apply_mode(&file, attributes)?;
    } else {
        attributes::apply(&file, attributes)?;
    }
    Ok(())
}
