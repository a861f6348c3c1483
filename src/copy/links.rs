//! Which symbolic links are copied: those that stay inside what is copied, wherever it lands.

use super::error::Refusal;
use super::path::WirePath;

/// Checks where the symbolic link `path` points to.
///
/// Its target must be `../`, any number of times, and a path of names: so it can be judged by its
/// spelling alone, since the directories that `..` leaves are those of `path`, which are no links.
/// It must not leave the first part of `path`, the top of the tree that is copied: what lies beside
/// that is somebody else's at the receiver.
pub(super) fn check_target(path: &WirePath, target: &[u8]) -> Result<(), Refusal> {
    // The directories that the link lies in, but for the top, which may not be left.
    let mut inner = path
        .as_bytes()
        .split(|byte| *byte == b'/')
        .count()
        .checked_sub(2)
        .ok_or(Refusal::LinkLeaves)?;
    let mut rest = target;
    while let Some(after) = rest.strip_prefix(b"../") {
        inner = inner.checked_sub(1).ok_or(Refusal::LinkLeaves)?;
        rest = after;
    }
    match WirePath::parse(rest) {
        Ok(_) => Ok(()),
        Err(Refusal::TooLong) => Err(Refusal::TooLong),
        Err(_) => Err(Refusal::LinkLeaves),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_judged_by_where_they_lead() {
        let leaves = Err(Refusal::LinkLeaves);
        let cases: &[(&str, &[u8], Result<(), Refusal>)] = &[
            ("top/link", b"file", Ok(())),
            ("top/link", b"a/deep/file", Ok(())),
            ("top/link", b"../file", leaves),
            ("top/link", b"../top/file", leaves),
            ("top/a/link", b"../file", Ok(())),
            ("top/a/link", b"../a/b/file", Ok(())),
            ("top/a/link", b"../../file", leaves),
            ("top/a/b/link", b"../../file", Ok(())),
            ("top/a/b/link", b"../../../file", leaves),
            ("top/a/b/link", b"..", leaves),
            ("top/a/b/link", b"../..", leaves),
            ("top/a/b/link", b"../", leaves),
            ("top/a/b/link", b"x/../file", leaves),
            ("top/a/b/link", b"./file", leaves),
            ("top/a/b/link", b".", leaves),
            ("top/a/b/link", b"", leaves),
            ("top/a/b/link", b"x//y", leaves),
            ("top/a/b/link", b"x\0y", leaves),
            ("top/a/b/link", b"x/", leaves),
            ("top/a/b/link", b"/etc/passwd", leaves),
            ("top/a/b/link", b"..//etc/passwd", leaves),
            ("top/a/b/link", b"C:\\windows", leaves),
            ("top/a/b/link", b"../C:/windows", leaves),
            ("top/a/b/link", b"...", Ok(())),
            ("top/a/b/link", b"..x/y", Ok(())),
            ("top", b"file", leaves),
        ];
        for (path, target, expected) in cases {
            let path = WirePath::parse(path.as_bytes()).unwrap();
            let shown = String::from_utf8_lossy(target);
            assert_eq!(
                check_target(&path, target),
                *expected,
                "{path:?} -> {shown}"
            );
        }
        let path = WirePath::parse(b"top/link").unwrap();
        assert_eq!(check_target(&path, &[b'x'; 256]), Err(Refusal::TooLong));
    }
}
