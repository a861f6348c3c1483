//! Counts what there is to send.

use std::path::Path;

use super::walk::{Found, Root, Tree};
use crate::copy::error::CopyError;

/// How much there is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Survey {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links that stay inside their tree.
    pub links: u64,
    /// Content of the files, in bytes, at the time of the survey.
    pub bytes: u64,
}

/// Counts what [`Sender::send`](crate::copy::Sender::send) would send for these paths, for a progress
/// bar.
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
            Found::Link { .. } => survey.links += 1,
            Found::Skipped { .. } | Found::Left(_) => {}
        }
    }
    Ok(survey)
}
