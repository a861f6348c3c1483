//! Directories: made if need be, and given their attributes after everything in them.

use std::io;

use super::names::check_spelling;
use super::{Placed, Placer, Rejection};
use crate::copy::error::Refusal;
use crate::copy::path::{WirePath, to_path};
use crate::copy::protocol::Attributes;

impl Placer {
    /// Looks whether a directory could be made. Makes nothing.
    pub(in crate::copy) fn consider_seal(&mut self, path: &WirePath) -> Result<(), Rejection> {
        let Some(place) = self.directories.find(path)? else {
            return Ok(());
        };
        let (_, name) = path.split();
        match place.dir.metadata(to_path(name)) {
            Ok(existing) if !existing.is_dir() => Err(Refusal::NotADirectory.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the directory if need be and gives it its attributes, after its contents.
    pub(in crate::copy) fn seal(
        &mut self,
        path: &WirePath,
        attributes: &Attributes,
        token: u64,
    ) -> Result<(), Rejection> {
        check_spelling(path.as_bytes(), self.settings.names)?;
        let place = self.directories.make_all(path.as_bytes())?;
        // Open for its sync from before it has its mode.
        self.directories.touch(&place.dir)?;
        #[cfg(unix)]
        if self.options.preserve {
            super::attributes::apply(&super::attributes::directory_file(&place.dir)?, attributes)?;
        }
        #[cfg(not(unix))]
        let _ = attributes;
        // Its next file, if any, must not find it through a handle that predates its mode.
        self.directories.forget_last();
        self.storage.count(1);
        self.group.push_placed(token, Placed::Done);
        Ok(())
    }
}
