//! Makes a tree to copy, and compares two trees without the help of the copy.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use reliable_udp::sim::Rng;

/// Makes `files` files of `bytes` bytes together: one has half of them, a few are empty, the others
/// have random sizes; they lie up to four directories deep.
pub(crate) fn make(root: &Path, files: u64, bytes: u64, mut rng: Rng) -> io::Result<()> {
    fs::create_dir_all(root.join("an empty directory"))?;
    write(&root.join("big.bin"), bytes / 2, &mut rng)?;
    let others = files.saturating_sub(1);
    let mut left = bytes - bytes / 2;
    for number in 0..others {
        let mut dir = root.to_path_buf();
        for level in 0..number % 5 {
            dir.push(format!("level {level}-{}", number % 7));
        }
        fs::create_dir_all(&dir)?;
        // On average the fair share; the last one takes what is left.
        let size = match (number + 1 == others, number % 50) {
            (true, _) => left,
            (false, 0) => 0,
            (false, _) => (rng.next_u64() % (2 * left / (others - number)).max(1)).min(left),
        };
        left -= size;
        write(&dir.join(format!("file {number} ⇄.bin")), size, &mut rng)?;
    }
    Ok(())
}

fn write(path: &Path, size: u64, rng: &mut Rng) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for _ in 0..size / 8 {
        file.write_all(&rng.next_u64().to_le_bytes())?;
    }
    for _ in 0..size % 8 {
        file.write_all(b"-")?;
    }
    file.flush()
}

/// What a copy must keep of a file or directory.
#[derive(PartialEq, Eq)]
struct Kept {
    is_dir: bool,
    mode: u32,
    modified: SystemTime,
    hash: Option<blake3::Hash>,
}

/// Returns the paths that are not the same in both trees. What cannot be copied does not count.
pub(crate) fn differences(a: &Path, b: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut left, mut right) = (BTreeMap::new(), BTreeMap::new());
    describe(a, Path::new(""), &mut left)?;
    describe(b, Path::new(""), &mut right)?;
    let mut different: Vec<_> = left
        .iter()
        .filter(|(path, kept)| right.get(*path) != Some(kept))
        .map(|(path, _)| path.clone())
        .collect();
    different.extend(right.into_keys().filter(|path| !left.contains_key(path)));
    Ok(different)
}

fn describe(root: &Path, path: &Path, all: &mut BTreeMap<PathBuf, Kept>) -> io::Result<()> {
    // An empty path would end in a separator, which a file must not.
    let full = if path.as_os_str().is_empty() {
        root.to_path_buf()
    } else {
        root.join(path)
    };
    let metadata = fs::symlink_metadata(&full)?;
    if !metadata.is_dir() && !metadata.is_file() {
        return Ok(());
    }
    #[cfg(unix)]
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o1777;
    #[cfg(not(unix))]
    let mode = 0;
    let hash = if metadata.is_file() {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(&full)?)?;
        Some(hasher.finalize())
    } else {
        None
    };
    let (is_dir, modified) = (metadata.is_dir(), metadata.modified()?);
    all.insert(
        path.to_path_buf(),
        Kept {
            is_dir,
            mode,
            modified,
            hash,
        },
    );
    if is_dir {
        for entry in fs::read_dir(&full)? {
            describe(root, &path.join(entry?.file_name()), all)?;
        }
    }
    Ok(())
}
