//! Which names may be given: those of temporaries are ours, and no two may fall together.
//!
//! A directory that folds case finds `README` when it is asked for `readme`, so that the second file
//! of the two would land in the first. Whether a directory does so is asked of the directory itself,
//! with a name that it has; what is spelled how is then looked up in a listing, which is kept.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io;

use cap_std::fs::{Dir, Metadata};

use super::Rejection;
use crate::copy::error::Refusal;
use crate::copy::path::{check_windows_part, to_path};

/// How many names the kept listings hold together, at 16 bytes each and some room.
const MAX_NAMES: usize = 1 << 20;

/// How many directories' listings are kept.
const MAX_LISTINGS: usize = 256;

const PREFIX: &str = ".reliable-udp-";
const PARTIAL: &str = ".part";
const JOURNAL: &str = ".journal";

/// Which names are refused besides those that no system takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::copy) enum NamePolicy {
    /// Those that this system would take for another name.
    #[default]
    Native,
    /// Those that some common system would take for another name or not at all.
    Portable,
}

/// The names of the partial file and the journal for a file of this name.
pub(super) fn partial_names(name: &[u8]) -> (String, String) {
    let hash = blake3::hash(name).to_hex();
    let hash = hash.get(..16).unwrap_or_default();
    (
        format!("{PREFIX}{hash}{PARTIAL}"),
        format!("{PREFIX}{hash}{JOURNAL}"),
    )
}

/// The name of the partial file if that of [`partial_names`] is taken by an older session, which a
/// later one finds again when both were killed.
pub(super) fn spare_name(name: &[u8]) -> String {
    let hash = blake3::Hasher::new()
        .update(b"spare ")
        .update(name)
        .finalize()
        .to_hex();
    let hash = hash.get(..16).unwrap_or_default();
    format!("{PREFIX}{hash}{PARTIAL}")
}

/// A name with 64 random bits, so that neither two transfers nor a leftover collide.
pub(super) fn random_name() -> io::Result<String> {
    let random = getrandom::u64().map_err(io::Error::other)?;
    Ok(format!("{PREFIX}{random:016x}{PARTIAL}"))
}

/// Judges the spelling of a whole path.
pub(super) fn check_spelling(path: &[u8], policy: NamePolicy) -> Result<(), Refusal> {
    for part in path.split(|byte| *byte == b'/') {
        let lower = part.to_ascii_lowercase();
        let is_ours = lower.starts_with(PREFIX.as_bytes())
            && (lower.ends_with(PARTIAL.as_bytes()) || lower.ends_with(JOURNAL.as_bytes()));
        if is_ours {
            return Err(Refusal::ReservedName);
        }
        if policy == NamePolicy::Portable {
            check_windows_part(part)?;
        }
    }
    Ok(())
}

/// Finds names that fall together with another spelling of themselves.
///
/// # Invariants
/// - A listing is that of its directory when it was read, and what was [noted](Self::note) since.
/// - At most [`MAX_LISTINGS`] listings; at most [`MAX_NAMES`] names beyond the newest listing.
#[derive(Debug)]
pub(super) struct Names {
    policy: NamePolicy,
    /// By the directory's path below the root.
    listings: HashMap<Vec<u8>, Listing>,
    kept: usize,
    hasher: RandomState,
    /// How many directories were listed, for the tests.
    #[cfg(test)]
    pub(super) listed: usize,
}

/// The names in a directory, as keyed hashes of 64 bits: collisions on purpose cannot be made.
#[derive(Debug, Default)]
struct Listing {
    /// From a folded name to its first spelling.
    folded: HashMap<u64, u64>,
    /// Further spellings, in a directory that tells them apart.
    others: HashSet<u64>,
}

impl Listing {
    fn insert(&mut self, folded: u64, spelling: u64) {
        let first = *self.folded.entry(folded).or_insert(spelling);
        if first != spelling {
            self.others.insert(spelling);
        }
    }

    fn len(&self) -> usize {
        self.folded.len() + self.others.len()
    }
}

impl Names {
    pub(super) fn new(policy: NamePolicy) -> Self {
        Self {
            policy,
            listings: HashMap::new(),
            kept: 0,
            hasher: RandomState::new(),
            #[cfg(test)]
            listed: 0,
        }
    }

    /// Checks that `name` means itself in `dir`, the directory at `path` below the root.
    pub(super) fn check(&mut self, path: &[u8], dir: &Dir, name: &[u8]) -> Result<(), Rejection> {
        let key = self.hasher.hash_one(fold(name));
        let spelling = self.hasher.hash_one(name);
        if self.policy == NamePolicy::Native {
            if !is_folding(dir, name)? {
                return Ok(());
            }
            // Somebody else may have made it after the listing.
            if self
                .listings
                .get(path)
                .is_some_and(|listing| !listing.folded.contains_key(&key))
            {
                self.forget(path);
            }
        }
        let listing = self.listing(path, dir)?;
        match listing.folded.get(&key) {
            Some(first) if *first != spelling && !listing.others.contains(&spelling) => {
                Err(Refusal::CaseCollision.into())
            }
            _ => Ok(()),
        }
    }

    /// Remembers a name that was given, or is about to be.
    pub(super) fn note(&mut self, path: &[u8], name: &[u8]) {
        let key = self.hasher.hash_one(fold(name));
        let spelling = self.hasher.hash_one(name);
        if let Some(listing) = self.listings.get_mut(path) {
            let before = listing.len();
            listing.insert(key, spelling);
            self.kept += listing.len() - before;
        }
    }

    fn forget(&mut self, path: &[u8]) {
        if let Some(listing) = self.listings.remove(path) {
            self.kept -= listing.len();
        }
    }

    fn listing(&mut self, path: &[u8], dir: &Dir) -> io::Result<&Listing> {
        if !self.listings.contains_key(path) {
            if self.kept >= MAX_NAMES || self.listings.len() >= MAX_LISTINGS {
                self.listings.clear();
                self.kept = 0;
            }
            let mut listing = Listing::default();
            for entry in dir.entries()? {
                let name = entry?.file_name();
                let name = name.as_encoded_bytes();
                listing.insert(self.hasher.hash_one(fold(name)), self.hasher.hash_one(name));
            }
            self.kept += listing.len();
            self.listings.insert(path.to_vec(), listing);
            #[cfg(test)]
            {
                self.listed += 1;
            }
        }
        self.listings
            .get(path)
            .ok_or(io::ErrorKind::NotFound.into())
    }
}

/// Returns whether `dir` has `name` and finds it by another spelling too. False alarms (two hard
/// links) are sorted out by the listing.
fn is_folding(dir: &Dir, name: &[u8]) -> io::Result<bool> {
    let existing = match dir.symlink_metadata(to_path(name)) {
        Ok(existing) => existing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let other = swap_case(name);
    if other == name {
        return Ok(false);
    }
    match dir.symlink_metadata(to_path(&other)) {
        Ok(other) => Ok(is_same(&existing, &other)),
        Err(_) => Ok(false),
    }
}

/// Returns whether both are of one file, or may be where the system does not say.
pub(super) fn is_same(one: &Metadata, other: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use cap_fs_ext::MetadataExt;
        (one.dev(), one.ino()) == (other.dev(), other.ino())
    }
    #[cfg(not(unix))]
    {
        one.len() == other.len()
    }
}

/// Both directions, so that characters with several lower or upper forms meet.
fn fold(name: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(name) {
        Ok(text) => text.to_uppercase().to_lowercase().into_bytes(),
        Err(_) => name.to_ascii_lowercase(),
    }
}

fn swap_case(name: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(name) else {
        return name.to_ascii_uppercase();
    };
    let upper = text.to_uppercase();
    if upper.as_bytes() == name {
        text.to_lowercase().into_bytes()
    } else {
        upper.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use cap_std::ambient_authority;

    use super::*;

    fn dir() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap();
        (temp, dir)
    }

    fn collides(result: &Result<(), Rejection>) -> bool {
        matches!(result, Err(Rejection::Refused(Refusal::CaseCollision)))
    }

    #[test]
    fn our_own_names_are_reserved_in_any_case() {
        for name in [
            ".reliable-udp-0123456789abcdef.part",
            ".Reliable-UDP-0123456789abcdef.Journal",
            "a/.reliable-udp-x.PART/b",
        ] {
            let judged = check_spelling(name.as_bytes(), NamePolicy::Native);
            assert_eq!(judged, Err(Refusal::ReservedName), "{name}");
        }
        for name in ["reliable-udp-x.part", ".reliable-udp-x", "con"] {
            let judged = check_spelling(name.as_bytes(), NamePolicy::Native);
            assert_eq!(judged, Ok(()), "{name}");
        }
        let judged = check_spelling(b"a/con.txt", NamePolicy::Portable);
        assert_eq!(judged, Err(Refusal::ReservedName));
    }

    #[test]
    fn portable_names_must_differ_by_more_than_case() {
        let (_temp, dir) = dir();
        dir.write("README", "").unwrap();
        dir.write("straße", "").unwrap();
        let mut names = Names::new(NamePolicy::Portable);
        assert!(collides(&names.check(b"", &dir, b"readme")));
        assert!(collides(&names.check(b"", &dir, "STRASSE".as_bytes())));
        assert!(names.check(b"", &dir, b"README").is_ok());
        assert!(names.check(b"", &dir, b"new").is_ok());
        names.note(b"", b"new");
        assert!(collides(&names.check(b"", &dir, b"NEW")));
        assert!(names.check(b"", &dir, b"new").is_ok());
    }

    #[test]
    fn many_names_cost_one_listing() {
        let (_temp, dir) = dir();
        let mut names = Names::new(NamePolicy::Portable);
        for i in 0..1000 {
            let name = format!("n{i}");
            names.check(b"", &dir, name.as_bytes()).unwrap();
            names.note(b"", name.as_bytes());
        }
        assert_eq!(names.listed, 1);
        assert_eq!(names.kept, 1000);
    }

    #[test]
    fn a_directory_that_tells_case_apart_takes_both() {
        let (_temp, dir) = dir();
        dir.write("a", "").unwrap();
        if dir.exists("A") {
            return; // The system folds.
        }
        let mut names = Names::new(NamePolicy::Native);
        assert!(names.check(b"", &dir, b"A").is_ok());
        // Two spellings of one file are no folding.
        dir.hard_link("a", &dir, "A").unwrap();
        assert!(names.check(b"", &dir, b"a").is_ok());
        assert!(names.check(b"", &dir, b"A").is_ok());
    }

    #[test]
    fn the_listing_decides_what_a_folding_directory_has() {
        // A hard link stands in for folding: the name is found by both spellings.
        let (_temp, dir) = dir();
        dir.write("readme", "").unwrap();
        if dir.exists("README") {
            return; // The system folds, and the other tests see it.
        }
        dir.hard_link("readme", &dir, "README").unwrap();
        let mut names = Names::new(NamePolicy::Native);
        let key = names.hasher.hash_one(fold(b"readme"));
        let spelling = names.hasher.hash_one(&b"README"[..]);
        let mut listing = Listing::default();
        listing.insert(key, spelling);
        names.listings.insert(Vec::new(), listing);
        assert!(collides(&names.check(b"", &dir, b"readme")));
        assert!(names.check(b"", &dir, b"README").is_ok());
    }
}
