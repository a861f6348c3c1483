//! Symbolic links.

#![cfg(unix)]

use super::*;

fn link(placer: &mut Placer, path: &str, target: &str) -> Result<bool, Rejection> {
    let attributes = Source::new("", b"").attributes;
    let considered = placer.consider_link(&wire(path), target.as_bytes());
    let made = placer.link(&wire(path), target.as_bytes(), &attributes, 3);
    match (&considered, &made) {
        (Ok(Decision::Present), Ok(false))
        | (Ok(Decision::Needed { .. }), Ok(true))
        | (Err(_), Err(_)) => {}
        other => panic!("{other:?}"),
    }
    let settled = placer.commit();
    assert_eq!(
        settled.len(),
        usize::from(made.as_ref().is_ok_and(|made| *made))
    );
    assert!(
        settled
            .iter()
            .all(|settled| matches!(settled.result, Ok(Placed::Done)))
    );
    made
}

#[test]
fn links_are_made_found_and_replaced() {
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    assert!(link(&mut placer, "a/b/l", "../c").unwrap());
    let target = std::fs::read_link(fixture.path("a/b/l")).unwrap();
    assert_eq!(target, Path::new("../c"));
    let metadata = std::fs::symlink_metadata(fixture.path("a/b/l")).unwrap();
    let mtime = std::os::unix::fs::MetadataExt::mtime(&metadata);
    assert_eq!(mtime, 1_000_000_000);
    assert!(!link(&mut placer, "a/b/l", "../c").unwrap(), "present");
    assert_eq!(refusal(link(&mut placer, "a/b/l", "d")), Refusal::Exists);
    std::fs::write(fixture.path("a/file"), "").unwrap();
    assert_eq!(refusal(link(&mut placer, "a/file", "d")), Refusal::Exists);

    let fixture = fixture.overwriting();
    let mut placer = fixture.placer();
    // Of a kill.
    let (leftover, _) = names::partial_names(b"l");
    std::os::unix::fs::symlink("x", fixture.path("a/b").join(leftover)).unwrap();
    assert!(link(&mut placer, "a/b/l", "d").unwrap());
    assert!(link(&mut placer, "a/file", "d").unwrap());
    for path in ["a/b/l", "a/file"] {
        let target = std::fs::read_link(fixture.path(path)).unwrap();
        assert_eq!(target, Path::new("d"));
    }
    assert_eq!(refusal(link(&mut placer, "a/b", "c")), Refusal::NotAFile);
    assert_eq!(fixture.listing(), ["a/", "a/b/", "a/b/l", "a/file"]);
}

#[test]
fn links_that_leave_are_refused() {
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    for (path, target) in [
        ("a/l", "../b"),
        ("l", "a"),
        ("a/l", "/b"),
        ("a/b/l", "../../c"),
    ] {
        let refused = link(&mut placer, path, target);
        assert_eq!(refusal(refused), Refusal::LinkLeaves, "{path} {target}");
    }
    assert!(fixture.listing().is_empty());
}

#[test]
fn the_way_to_a_link_has_no_link() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.path("a/real/deep")).unwrap();
    std::os::unix::fs::symlink("real/deep", fixture.path("a/short")).unwrap();
    let mut placer = fixture.placer();
    // From where it lands, the target would lead somewhere else.
    let refused = link(&mut placer, "a/short/l", "../c");
    assert_eq!(refusal(refused), Refusal::NotADirectory);
    assert!(link(&mut placer, "a/real/deep/l", "../c").unwrap());
}
