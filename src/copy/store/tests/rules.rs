//! Which names and places are refused.

use super::*;

#[test]
fn places_that_are_taken_are_refused_by_name() {
    let fixture = Fixture::new().overwriting();
    std::fs::create_dir(fixture.path("dir")).unwrap();
    std::fs::write(fixture.path("file"), "").unwrap();
    let mut placer = fixture.placer();
    let taken = place(&mut placer, &Source::new("dir", b"x"));
    assert_eq!(refusal(taken), Refusal::NotAFile);
    let below = place(&mut placer, &Source::new("file/a", b"x"));
    assert_eq!(refusal(below), Refusal::NotADirectory);
    let below = place(&mut placer, &Source::new("file/a/b", b"x"));
    assert_eq!(refusal(below), Refusal::NotADirectory);
    let attributes = Source::new("", b"").attributes;
    let sealed = placer.seal(&wire("file"), &attributes, 1);
    assert_eq!(refusal(sealed), Refusal::NotADirectory);
    let sealed = placer.consider_seal(&wire("file"));
    assert_eq!(refusal(sealed), Refusal::NotADirectory);
    let ours = place(&mut placer, &Source::new("x/.RELIABLE-udp-1.part", b"x"));
    assert_eq!(refusal(ours), Refusal::ReservedName);
    let ours = placer.seal(&wire("a/.reliable-udp-1.part"), &attributes, 1);
    assert_eq!(refusal(ours), Refusal::ReservedName);
    assert_eq!(fixture.listing(), ["dir/", "file"]);
}

#[cfg(unix)]
#[test]
fn links_that_are_there_are_followed_inside_the_root_only() {
    let outside = tempfile::tempdir().unwrap();
    let fixture = Fixture::new().overwriting();
    std::fs::create_dir_all(fixture.path("a/real")).unwrap();
    std::fs::create_dir(fixture.path("top")).unwrap();
    std::os::unix::fs::symlink("../top", fixture.path("a/inside")).unwrap();
    std::os::unix::fs::symlink(outside.path(), fixture.path("a/outside")).unwrap();
    std::os::unix::fs::symlink("../..", fixture.path("a/above")).unwrap();
    std::os::unix::fs::symlink("top/x", fixture.path("a/name")).unwrap();
    let mut placer = fixture.placer();
    place(&mut placer, &Source::new("a/inside/x", b"x")).unwrap();
    assert_eq!(fixture.read("top/x"), b"x");
    for path in ["a/outside/x", "a/above/x", "a/outside/y/x"] {
        let refused = place(&mut placer, &Source::new(path, b"x"));
        assert_eq!(refusal(refused), Refusal::LeavesRoot, "{path}");
    }
    let sealed = placer.seal(&wire("a/outside/d"), &Source::new("", b"").attributes, 1);
    assert_eq!(refusal(sealed), Refusal::LeavesRoot);
    let refused = place(&mut placer, &Source::new("a/name", b"x"));
    assert_eq!(refusal(refused), Refusal::NotAFile);
    assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
}

#[test]
fn portable_names_do_not_fall_together() {
    let mut fixture = Fixture::new().overwriting();
    fixture.settings.names = NamePolicy::Portable;
    let mut placer = fixture.placer();
    place(&mut placer, &Source::new("Dir/File", b"1")).unwrap();
    for path in ["dir/x", "DIR/File", "Dir/FILE", "Dir/file/x"] {
        let refused = place(&mut placer, &Source::new(path, b"2"));
        assert_eq!(refusal(refused), Refusal::CaseCollision, "{path}");
    }
    let attributes = Source::new("", b"").attributes;
    let sealed = placer.seal(&wire("DIR"), &attributes, 1);
    assert_eq!(refusal(sealed), Refusal::CaseCollision);
    let linked = placer.link(&wire("Dir/FILE"), b"x", &attributes, 1);
    assert_eq!(refusal(linked), Refusal::CaseCollision);
    for path in ["aux", "a/con.txt/b", "a:b", "end."] {
        let refused = place(&mut placer, &Source::new(path, b"2"));
        assert_eq!(refusal(refused), Refusal::ReservedName, "{path}");
    }
    place(&mut placer, &Source::new("Dir/File", b"33")).unwrap();
    // Both on their way at once.
    send(&mut placer, &Source::new("Dir/one", b"1"), 1).unwrap();
    let refused = send(&mut placer, &Source::new("Dir/ONE", b"1"), 2);
    assert_eq!(refusal(refused), Refusal::CaseCollision);
    placer.commit();
    // And in a later session.
    let refused = place(&mut fixture.placer(), &Source::new("Dir/ONE", b"1"));
    assert_eq!(refusal(refused), Refusal::CaseCollision);
    assert_eq!(fixture.listing(), ["Dir/", "Dir/File", "Dir/one"]);
}

#[test]
fn many_files_of_a_directory_cost_one_listing() {
    let mut fixture = Fixture::new();
    fixture.settings.names = NamePolicy::Portable;
    let mut placer = fixture.placer();
    for i in 0..500 {
        let path = format!("d/{i}");
        send(&mut placer, &Source::new(&path, b"x"), i).unwrap();
        if placer.is_due() {
            placer.commit();
        }
    }
    // The root's and the directory's.
    assert_eq!(placer.directories.names.listed, 2);
}

/// Others write as much as we do.
#[derive(Debug)]
struct Shrinking(Mutex<u64>);
impl Disk for Shrinking {
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        PlainDisk.read_at(file, buf, offset)
    }
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        *self.0.lock().unwrap() -= 2 * to_u64(bytes.len());
        PlainDisk.write_at(file, bytes, offset)
    }
    fn free(&self, _: &File) -> io::Result<Option<u64>> {
        Ok(Some(*self.0.lock().unwrap()))
    }
}

#[test]
fn space_is_kept_free_before_and_during() {
    let free = 10 << 20;
    let (mut fixture, _) = counting(TestDisk {
        free: Some(free),
        ..TestDisk::default()
    });
    fixture.settings.min_free = 8 << 20;
    let mut placer = fixture.placer();
    let large = bytes(3 * BLOCK_LEN, 1);
    let refused = place(&mut placer, &Source::new("a/b", &large));
    assert_eq!(refusal(refused), Refusal::KeepsFree);
    place(&mut placer, &Source::new("b", b"small")).unwrap();
    let small = &large[..2 * BLOCK_LEN];
    place(&mut placer, &Source::new("c", small)).unwrap();
    assert_eq!(fixture.listing(), ["b", "c"]);

    // Somebody else takes the space meanwhile.
    let mut fixture = Fixture::with_disk(Shrinking(Mutex::new(32 << 20)));
    fixture.settings.min_free = 10 << 20;
    let large = bytes(15 * BLOCK_LEN, 1);
    let refused = place(&mut fixture.placer(), &Source::new("a", &large));
    assert_eq!(refusal(refused), Refusal::KeepsFree);
    assert!(!fixture.path("a").exists());
}

#[test]
fn a_full_disk_is_named_and_what_is_good_is_kept() {
    let (fixture, _) = counting(TestDisk {
        space: Some(Mutex::new(6 << 20)),
        ..TestDisk::default()
    });
    let large = bytes(9 * BLOCK_LEN, 1);
    let mut placer = fixture.placer();
    let error = failure(place(&mut placer, &Source::new("a", &large)));
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let (partial, journal) = names::partial_names(b"a");
    let mut expected = [partial.clone(), journal];
    expected.sort();
    assert_eq!(fixture.listing(), expected);
    assert_eq!(fixture.read(&partial), &large[..4 * BLOCK_LEN]);

    let (fixture, _) = counting(TestDisk {
        space: Some(Mutex::new((3 << 20) + 100)),
        ..TestDisk::default()
    });
    let mut placer = fixture.placer();
    let error = failure(place(&mut placer, &Source::new("a", &large)));
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(fixture.listing().is_empty(), "{:?}", fixture.listing());
    place(&mut placer, &Source::new("b", b"small")).unwrap();
}
