//! Names as they travel: relative paths of bytes, checked before anything touches the disk.
//!
//! A path is a row of parts joined by `/`, without a leading or trailing one. On Unix the parts are
//! the file system's own bytes, so names that are not UTF-8 survive; on other systems they are UTF-8.
//! The check here refuses what is wrong by its spelling; that no symbolic link leads out of the root
//! is `cap-std`'s work when the path is opened.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Refusal;

/// Longest path on the wire, in bytes. Linux's 4,096 is a limit per system call, not per tree.
pub(super) const MAX_PATH_LEN: usize = 32 * 1024;

/// Longest part of a path, in bytes: the limit of all common file systems.
pub(super) const MAX_PART_LEN: usize = 255;

/// How much of a path is opened in one system call; below every system's `PATH_MAX`.
const MAX_OPEN_LEN: usize = 900;

/// A relative path in its form on the wire.
///
/// # Invariants
/// - 1 to [`MAX_PATH_LEN`] bytes; every part has 1 to [`MAX_PART_LEN`] bytes, none is `.` or `..`,
///   none holds NUL.
/// - The first part is no drive letter, and this system can name every part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct WirePath(Arc<[u8]>);

impl WirePath {
    /// Checks bytes that a peer sent.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.contains(&0) {
            return Err(Refusal::Nul);
        }
        if bytes.len() > MAX_PATH_LEN {
            return Err(Refusal::TooLong);
        }
        if bytes.first() == Some(&b'/') {
            return Err(Refusal::Absolute);
        }
        if is_drive(bytes) {
            return Err(Refusal::DriveLetter);
        }
        for part in bytes.split(|byte| *byte == b'/') {
            check_part(part)?;
        }
        Ok(Self(bytes.into()))
    }

    /// Makes a path of one part from a name of this system.
    pub(super) fn from_name(name: &OsStr) -> Result<Self, Refusal> {
        Self::parse(name_bytes(name)?)
    }

    /// Returns this path with one more part.
    pub(super) fn join(&self, name: &OsStr) -> Result<Self, Refusal> {
        let name = name_bytes(name)?;
        check_part(name)?;
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        if bytes.len() > MAX_PATH_LEN {
            return Err(Refusal::TooLong);
        }
        Ok(Self(bytes.into()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Splits off the last part: the directory (`None` for the root itself) and the name in it.
    pub(super) fn split(&self) -> (Option<&[u8]>, &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (self.0.get(..at), self.0.get(at + 1..).unwrap_or_default()),
            None => (None, &self.0),
        }
    }

    /// Returns the path as this system spells it.
    pub(super) fn to_path(&self) -> PathBuf {
        to_path(&self.0)
    }
}

/// Turns checked bytes into a path of this system.
pub(super) fn to_path(bytes: &[u8]) -> PathBuf {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Path::new(OsStr::from_bytes(bytes)).to_path_buf()
    }
    #[cfg(not(unix))]
    {
        PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Shows bytes that may be no valid path, for an error message: at most 256 of them.
pub(super) fn display_bytes(bytes: &[u8]) -> PathBuf {
    const SHOWN: usize = 256;
    match bytes.get(..SHOWN) {
        Some(head) if bytes.len() > SHOWN => {
            let mut path = to_path(head).into_os_string();
            path.push(format!("… ({} bytes)", bytes.len()));
            path.into()
        }
        _ => to_path(bytes),
    }
}

/// Cuts a checked path into pieces that each fit into one system call.
pub(super) fn pieces(path: &[u8]) -> impl Iterator<Item = PathBuf> + '_ {
    let mut rest = path;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = match rest.get(..MAX_OPEN_LEN) {
            None => rest.len(),
            // Parts are at most 255 bytes, so there is always a separator to cut at.
            Some(head) => head
                .iter()
                .rposition(|byte| *byte == b'/')
                .unwrap_or(rest.len()),
        };
        let (piece, tail) = rest.split_at(cut);
        rest = tail.strip_prefix(b"/").unwrap_or(tail);
        Some(to_path(piece))
    })
}

#[cfg_attr(
    unix,
    expect(clippy::unnecessary_wraps, reason = "fails on other systems")
)]
fn name_bytes(name: &OsStr) -> Result<&[u8], Refusal> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Ok(name.as_bytes())
    }
    #[cfg(not(unix))]
    {
        name.to_str()
            .map(str::as_bytes)
            .ok_or(Refusal::NotRepresentable)
    }
}

/// `C:`, `C:/…` and `C:\…`. Refused on every system, so that a tree means the same everywhere.
fn is_drive(bytes: &[u8]) -> bool {
    match bytes {
        [letter, b':'] | [letter, b':', b'/' | b'\\', ..] => letter.is_ascii_alphabetic(),
        _ => false,
    }
}

fn check_part(part: &[u8]) -> Result<(), Refusal> {
    if part.is_empty() {
        return Err(Refusal::EmptyPart);
    }
    if part == b"." || part == b".." {
        return Err(Refusal::ParentDirectory);
    }
    if part.len() > MAX_PART_LEN {
        return Err(Refusal::TooLong);
    }
    if part.contains(&0) {
        return Err(Refusal::Nul);
    }
    #[cfg(windows)]
    check_windows_part(part)?;
    Ok(())
}

/// What Win32 would read as a device, a stream or another name.
pub(super) fn check_windows_part(part: &[u8]) -> Result<(), Refusal> {
    const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];
    let text = std::str::from_utf8(part).map_err(|_| Refusal::NotRepresentable)?;
    let is_reserved_char = |c: char| c < ' ' || r#"<>:"|?*\"#.contains(c);
    if text.contains(is_reserved_char) || text.ends_with(['.', ' ']) {
        return Err(Refusal::ReservedName);
    }
    let stem = text
        .split('.')
        .next()
        .unwrap_or_default()
        .trim_end()
        .to_ascii_lowercase();
    let numbered = stem
        .strip_prefix("com")
        .or_else(|| stem.strip_prefix("lpt"));
    let is_port = numbered.is_some_and(|digit| {
        digit.chars().count() == 1
            && digit.contains(|c: char| c.is_ascii_digit() || "¹²³".contains(c))
    });
    if DEVICES.contains(&stem.as_str()) || is_port {
        return Err(Refusal::ReservedName);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_judged_by_their_spelling() {
        let long_part = vec![b'x'; MAX_PART_LEN + 1];
        let long_path = b"ab/".repeat(MAX_PATH_LEN);
        let cases: &[(&str, &[u8], Result<(), Refusal>)] = &[
            ("a name", b"a", Ok(())),
            ("a tree", b"a/b/c", Ok(())),
            ("spaces and a newline", b" a/\n", Ok(())),
            ("dots inside a name", b"..a/b../...", Ok(())),
            ("a colon inside a name", b"a:b/cc:", Ok(())),
            ("the longest part", &long_part[1..], Ok(())),
            ("nothing", b"", Err(Refusal::EmptyPart)),
            ("an empty part", b"a//b", Err(Refusal::EmptyPart)),
            ("a trailing separator", b"a/", Err(Refusal::EmptyPart)),
            ("the parent", b"..", Err(Refusal::ParentDirectory)),
            (
                "the parent inside",
                b"a/../../b",
                Err(Refusal::ParentDirectory),
            ),
            (
                "the parent at the end",
                b"a/..",
                Err(Refusal::ParentDirectory),
            ),
            (
                "the directory itself",
                b"./a",
                Err(Refusal::ParentDirectory),
            ),
            ("absolute", b"/etc/passwd", Err(Refusal::Absolute)),
            ("absolute twice", b"//host/share", Err(Refusal::Absolute)),
            ("a drive", b"C:", Err(Refusal::DriveLetter)),
            (
                "a drive and a path",
                b"c:/windows",
                Err(Refusal::DriveLetter),
            ),
            (
                "a drive and a backslash",
                b"C:\\windows",
                Err(Refusal::DriveLetter),
            ),
            ("NUL", b"a\0b", Err(Refusal::Nul)),
            ("a long part", &long_part, Err(Refusal::TooLong)),
            ("a long path", &long_path, Err(Refusal::TooLong)),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(WirePath::parse(bytes).map(|_| ()), *expected, "{name}");
        }
    }

    #[test]
    fn names_that_windows_would_misread_are_reserved() {
        for part in [
            "con", "NUL.txt", "com1", "LPT9.x", "a:b", "a\\b", "a.", "a ", "what?",
        ] {
            assert_eq!(
                check_windows_part(part.as_bytes()),
                Err(Refusal::ReservedName),
                "{part}"
            );
        }
        for part in ["console", "com", "com10", "nul_", "a.b"] {
            assert_eq!(check_windows_part(part.as_bytes()), Ok(()), "{part}");
        }
        assert_eq!(check_windows_part(b"\xff"), Err(Refusal::NotRepresentable));
    }

    #[test]
    fn long_paths_are_cut_at_separators_and_lose_nothing() {
        let path = [&b"x".repeat(MAX_PART_LEN)[..]].repeat(40).join(&b'/');
        let pieces: Vec<_> = pieces(&path).collect();
        assert!(pieces.len() > 1);
        assert!(
            pieces
                .iter()
                .all(|piece| piece.as_os_str().len() <= MAX_OPEN_LEN)
        );
        let joined: PathBuf = pieces.iter().collect();
        assert_eq!(joined, to_path(&path));
    }

    #[test]
    fn splitting_yields_directory_and_name() {
        let path = WirePath::parse(b"a/b/c").unwrap();
        assert_eq!(path.split(), (Some(&b"a/b"[..]), &b"c"[..]));
        assert_eq!(WirePath::parse(b"a").unwrap().split(), (None, &b"a"[..]));
        assert_eq!(path.join(OsStr::new("d")).unwrap().as_bytes(), b"a/b/c/d");
    }
}
