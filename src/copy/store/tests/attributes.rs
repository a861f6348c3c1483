//! Mode and modification time.

#![cfg(unix)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

fn mode(fixture: &Fixture, path: &str) -> u32 {
    std::fs::metadata(fixture.path(path)).unwrap().mode() & 0o7777
}

fn mtime(fixture: &Fixture, path: &str) -> (i64, i64) {
    let metadata = std::fs::metadata(fixture.path(path)).unwrap();
    (metadata.mtime(), metadata.mtime_nsec())
}

#[test]
fn mode_and_time_are_the_senders_but_for_the_dangerous_bits() {
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    let large = bytes(2 * BLOCK_LEN, 1);
    for (path, content) in [("a", &b"x"[..]), ("b", &large)] {
        let mut source = Source::new(path, content);
        source.attributes.mode = 0o6751;
        place(&mut placer, &source).unwrap();
        assert_eq!(mode(&fixture, path), 0o751);
        assert_eq!(mtime(&fixture, path), (1_000_000_000, 500));
        // An equal file gets its mode.
        source.attributes.mode = 0o604;
        assert_eq!(place(&mut placer, &source).unwrap(), Sent::Present);
        assert_eq!(mode(&fixture, path), 0o604);
        assert_eq!(mtime(&fixture, path), (1_000_000_000, 500));
    }
}

#[test]
fn without_preserving_the_system_decides() {
    let mut fixture = Fixture::new();
    fixture.options.preserve = false;
    std::fs::write(fixture.path("mine"), "").unwrap();
    std::fs::create_dir(fixture.path("mine.d")).unwrap();
    let mut placer = fixture.placer();
    let large = bytes(9 * BLOCK_LEN, 1);
    place(&mut placer, &Source::new("d/small", b"x")).unwrap();
    place(&mut placer, &Source::new("d/large", &large)).unwrap();
    let attributes = Source::new("", b"").attributes;
    placer.seal(&wire("d"), &attributes, 1).unwrap();
    for path in ["d/small", "d/large"] {
        assert_eq!(mode(&fixture, path), mode(&fixture, "mine"));
        assert!(mtime(&fixture, path).0 > 1_000_000_000);
    }
    assert_eq!(mode(&fixture, "d"), mode(&fixture, "mine.d"));
    assert!(mtime(&fixture, "d").0 > 1_000_000_000);
    // Begun by a session that preserves, ended by one that does not.
    fixture.options.preserve = true;
    let mut placer = fixture.placer();
    let (path, source) = (wire("c"), Source::new("c", &large));
    let mut incoming = placer.begin(&source.offer(&path), 0).unwrap();
    feed(&mut placer, &mut incoming, &source, 0, 5 * BLOCK_LEN).unwrap();
    placer.keep(incoming);
    fixture.options.preserve = false;
    place(&mut fixture.placer(), &source).unwrap();
    assert_eq!(mode(&fixture, "c"), mode(&fixture, "mine"));
    // Its own times say nothing then.
    let refused = place(&mut fixture.placer(), &Source::new("d/small", b"x"));
    assert_eq!(refusal(refused), Refusal::Exists);
}

#[test]
fn what_is_on_its_way_is_private() {
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    let large = bytes(2 * BLOCK_LEN, 1);
    for content in [&b"x"[..], &large] {
        let source = Source::new("d/a", content);
        let path = wire("d/a");
        let incoming = placer.begin(&source.offer(&path), 0).unwrap();
        for name in fixture.listing() {
            assert_eq!(mode(&fixture, &name) & 0o077, 0, "{name}");
        }
        placer.keep(incoming);
    }
}

#[test]
fn a_directory_is_sealed_after_what_is_in_it() {
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    place(&mut placer, &Source::new("d/e/f", b"x")).unwrap();
    let mut attributes = Source::new("", b"").attributes;
    attributes.mode = 0o500;
    placer.seal(&wire("d/e"), &attributes, 1).unwrap();
    attributes.mode = 0o6000;
    placer.seal(&wire("d/empty"), &attributes, 2).unwrap();
    attributes.mode = 0o000;
    placer.seal(&wire("d"), &attributes, 3).unwrap();
    let settled = placer.commit();
    let mut tokens: Vec<_> = settled.iter().map(|settled| settled.token).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [1, 2, 3]);
    assert!(
        settled
            .iter()
            .all(|settled| matches!(settled.result, Ok(Placed::Done)))
    );
    assert_eq!(mode(&fixture, "d"), 0);
    assert_eq!(mtime(&fixture, "d"), (1_000_000_000, 500));
    let permissions = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(fixture.path("d"), permissions.clone()).unwrap();
    assert_eq!(mode(&fixture, "d/e"), 0o500);
    assert_eq!(mtime(&fixture, "d/e"), (1_000_000_000, 500));
    assert_eq!(mode(&fixture, "d/empty"), 0);
    for path in ["d/e", "d/empty"] {
        std::fs::set_permissions(fixture.path(path), permissions.clone()).unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_unwritable_directory_has_its_named_error() {
    // Root may write everywhere; /proc refuses also root.
    let root = Dir::open_ambient_dir("/proc/self", ambient_authority()).unwrap();
    let fixture = Fixture::new();
    let mut placer = Placer::new(
        Arc::new(root),
        Arc::clone(&fixture.disk),
        PlaceSettings::default(),
        Arc::default(),
        Arc::default(),
        fixture.spawn.clone(),
    );
    let error = failure(place(&mut placer, &Source::new("fdinfo/x", b"x")));
    let kinds = [
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::ReadOnlyFilesystem,
        io::ErrorKind::NotFound,
    ];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    if rustix::process::geteuid().is_root() {
        return;
    }
    let shut = std::fs::Permissions::from_mode(0o500);
    std::fs::create_dir(fixture.path("d")).unwrap();
    std::fs::set_permissions(fixture.path("d"), shut).unwrap();
    let mut placer = fixture.placer();
    let error = failure(place(&mut placer, &Source::new("d/x", b"x")));
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    place(&mut placer, &Source::new("e", b"x")).unwrap();
}
