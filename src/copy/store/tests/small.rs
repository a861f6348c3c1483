//! Files of at most one block.

use super::*;

#[test]
fn a_file_lands_with_its_directories_and_nothing_else() {
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    for len in [0, 1, 5000, BLOCK_LEN] {
        let (path, content) = (format!("a/b/{len}"), bytes(len, 1));
        let sent = place(&mut placer, &Source::new(&path, &content)).unwrap();
        assert_eq!(sent, Sent::Settling);
        assert_eq!(fixture.read(&path), content);
    }
    let expected = ["a/", "a/b/", "a/b/0", "a/b/1", "a/b/1048576", "a/b/5000"];
    assert_eq!(fixture.listing(), expected);
}

#[test]
fn no_final_name_before_the_commit() {
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    let sent = send(&mut placer, &Source::new("a", b"content"), 1).unwrap();
    assert_eq!(sent, Sent::Settling);
    assert!(!fixture.path("a").exists());
    assert_eq!(placer.commit().len(), 1);
    assert!(fixture.path("a").exists());
    assert!(placer.commit().is_empty());
}

#[test]
fn a_group_is_synced_before_it_is_read_back_and_once_for_its_directory() {
    for (files, syncs, all) in [(3, 3 + 1, 0), (60, 1, 1)] {
        let (fixture, disk) = counting(TestDisk::default());
        let mut placer = fixture.placer();
        for i in 0..files {
            let path = format!("{i}");
            let sent = send(&mut placer, &Source::new(&path, b"content"), i).unwrap();
            assert_eq!(sent, Sent::Settling);
            assert!(!placer.is_due());
        }
        let settled = placer.commit();
        assert_eq!(settled.len(), usize::try_from(files).unwrap());
        assert!(settled.iter().all(|settled| settled.result.is_ok()));
        assert_eq!(*disk.syncs_of_all.lock().unwrap(), all);
        assert_eq!(*disk.syncs.lock().unwrap(), syncs);
        let log = disk.log.lock().unwrap();
        let at = |wanted| log.iter().position(|(kind, _)| *kind == wanted);
        assert!(
            at('r') > at('s').into_iter().chain(at('a')).min(),
            "{log:?}"
        );
    }
}

#[test]
fn a_group_is_due_by_files_and_by_bytes() {
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    for i in 0..64 {
        assert!(!placer.is_due());
        let path = format!("{i}");
        send(&mut placer, &Source::new(&path, b"x"), i).unwrap();
    }
    assert!(placer.is_due());
    placer.commit();
    let content = bytes(BLOCK_LEN, 2);
    for i in 0..4 {
        assert!(!placer.is_due());
        let path = format!("m{i}");
        send(&mut placer, &Source::new(&path, &content), i).unwrap();
    }
    assert!(placer.is_due());
}

#[test]
fn a_wrong_file_of_a_group_is_found_and_the_others_arrive() {
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    for (token, path) in (0..).zip(["a", "b", "c"]) {
        let source = Source::new(path, path.as_bytes());
        let wire = wire(path);
        let mut incoming = placer.begin(&source.offer(&wire), 0).unwrap();
        let sent = if path == "b" { b"x" } else { source.content };
        placer.write(&mut incoming, sent).unwrap();
        placer.end(incoming, source.root(), token).unwrap();
    }
    for settled in placer.commit() {
        match settled.token {
            1 => assert!(matches!(settled.result, Err(Rejection::Mismatch))),
            _ => assert!(settled.result.is_ok()),
        }
    }
    assert_eq!(fixture.listing(), ["a", "c"]);
}

#[test]
fn what_is_dropped_or_short_leaves_nothing() {
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    let source = Source::new("a", b"content");
    let path = wire("a");
    let mut incoming = placer.begin(&source.offer(&path), 0).unwrap();
    placer.write(&mut incoming, b"con").unwrap();
    assert_eq!(fixture.listing().len(), 1);
    failure(placer.end(incoming, source.root(), 1));
    assert!(fixture.listing().is_empty());
    let mut incoming = placer.begin(&source.offer(&path), 0).unwrap();
    failure(placer.write(&mut incoming, b"more than seven"));
    placer.keep(incoming);
    assert!(fixture.listing().is_empty());
    send(&mut placer, &source, 1).unwrap();
    drop(placer);
    assert!(fixture.listing().is_empty());
}

#[test]
fn a_leftover_of_a_killed_process_is_cleared_away() {
    let fixture = Fixture::new();
    let (leftover, _) = names::partial_names(b"a");
    std::fs::write(fixture.path(&leftover), "of longer content").unwrap();
    place(&mut fixture.placer(), &Source::new("a", b"content")).unwrap();
    assert_eq!(fixture.read("a"), b"content");
    assert_eq!(fixture.listing(), ["a"]);
}

#[test]
fn a_second_session_takes_a_name_that_a_third_finds_after_a_kill() {
    let fixture = Fixture::new();
    let (first, spare) = (names::partial_names(b"a").0, names::spare_name(b"a"));
    let source = Source::new("a", b"content");
    let (mut one, mut two) = (fixture.placer(), fixture.placer());
    let path = WirePath::parse(b"a").unwrap();
    let held = one.begin(&source.offer(&path), 0).unwrap();
    let other = two.begin(&source.offer(&path), 0).unwrap();
    let mut expected = [first.as_str(), spare.as_str()];
    expected.sort_unstable();
    assert_eq!(fixture.listing(), expected);
    drop((held, other));
    // As if both had been killed.
    for leftover in expected {
        std::fs::write(fixture.path(leftover), "of longer content").unwrap();
    }
    place(&mut fixture.placer(), &source).unwrap();
    assert_eq!(fixture.read("a"), b"content");
    assert_eq!(fixture.listing(), ["a"]);
}

#[cfg(unix)]
#[test]
fn a_session_that_ends_late_leaves_a_sealed_directory_its_time() {
    let fixture = Fixture::new();
    let source = Source::new("d/a", b"content");
    let path = WirePath::parse(b"d/a").unwrap();
    let (mut old, mut new) = (fixture.placer(), fixture.placer());
    let late = old.begin(&source.offer(&path), 0).unwrap();
    place(&mut new, &source).unwrap();
    let attributes = Attributes {
        mode: 0o755,
        mtime_secs: 1_000_000_000,
        mtime_nanos: 5,
    };
    new.seal(&WirePath::parse(b"d").unwrap(), &attributes, 2)
        .unwrap();
    assert!(new.commit().remove(0).result.is_ok());
    drop(late);
    assert_eq!(fixture.listing(), ["d/", "d/a"]);
    let modified = std::fs::metadata(fixture.path("d")).unwrap().modified();
    let since = modified.unwrap().duration_since(std::time::UNIX_EPOCH);
    assert_eq!(since.unwrap(), std::time::Duration::new(1_000_000_000, 5));
}

#[test]
fn what_stands_in_the_temporary_names_place_is_left_alone() {
    #[cfg(unix)]
    {
        let fixture = Fixture::new();
        let (leftover, _) = names::partial_names(b"a");
        // A file with another name would be written through this one.
        std::fs::write(fixture.path("other"), "precious").unwrap();
        std::fs::hard_link(fixture.path("other"), fixture.path(&leftover)).unwrap();
        place(&mut fixture.placer(), &Source::new("a", b"content")).unwrap();
        assert_eq!(fixture.read("other"), b"precious");
        assert_eq!(fixture.read("a"), b"content");
        std::fs::remove_file(fixture.path(&leftover)).unwrap();
        std::os::unix::fs::symlink("other", fixture.path(&leftover)).unwrap();
        place(&mut fixture.placer(), &Source::new("b/a", b"content")).unwrap();
        let content = bytes(3 * BLOCK_LEN, 1);
        let fixture = fixture.overwriting();
        place(&mut fixture.placer(), &Source::new("a", &content)).unwrap();
        assert_eq!(fixture.read("other"), b"precious");
        assert_eq!(fixture.read("a"), content);
        assert_eq!(fixture.listing(), [&*leftover, "a", "b/", "b/a", "other"]);
    }
}

#[test]
fn two_sessions_with_one_name_do_not_meet() {
    let fixture = Fixture::new().overwriting();
    let (mut one, mut other) = (fixture.placer(), fixture.placer());
    let (first, second) = (Source::new("a", b"first"), Source::new("a", b"second"));
    send(&mut one, &first, 1).unwrap();
    send(&mut other, &second, 2).unwrap();
    assert!(one.commit().remove(0).result.is_ok());
    assert_eq!(fixture.read("a"), b"first");
    assert!(other.commit().remove(0).result.is_ok());
    assert_eq!(fixture.read("a"), b"second");
    assert_eq!(fixture.listing(), ["a"]);
}

#[test]
fn an_equal_file_is_present_and_another_is_in_the_way() {
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    let source = Source::new("a", b"content");
    place(&mut placer, &source).unwrap();
    assert_eq!(place(&mut placer, &source).unwrap(), Sent::Present);
    let other = Source::new("a", b"CONTENT");
    assert_eq!(
        place(&mut placer, &other).unwrap(),
        Sent::Present,
        "by size and time"
    );
    let by_digest = Source {
        digest: Some(other.root()),
        ..other.clone()
    };
    assert_eq!(refusal(place(&mut placer, &by_digest)), Refusal::Exists);
    let mut newer = source.clone();
    newer.attributes.mtime_nanos += 1;
    assert_eq!(refusal(place(&mut placer, &newer)), Refusal::Exists);
    newer.digest = Some(newer.root());
    assert_eq!(place(&mut placer, &newer).unwrap(), Sent::Present);
    // It got the newer time with that.
    newer.digest = None;
    assert_eq!(place(&mut placer, &newer).unwrap(), Sent::Present);
    assert_eq!(fixture.read("a"), b"content");

    let fixture = fixture.overwriting();
    let mut placer = fixture.placer();
    assert_eq!(place(&mut placer, &by_digest).unwrap(), Sent::Settling);
    assert_eq!(fixture.read("a"), b"CONTENT");
}

#[test]
fn the_receiver_may_forbid_overwriting() {
    let mut fixture = Fixture::new().overwriting();
    fixture.settings.may_overwrite = false;
    std::fs::write(fixture.path("a"), "there").unwrap();
    let refused = place(&mut fixture.placer(), &Source::new("a", b"content"));
    assert_eq!(refusal(refused), Refusal::Exists);
}

#[test]
fn a_file_that_came_meanwhile_is_not_replaced() {
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    send(&mut placer, &Source::new("a", b"content"), 1).unwrap();
    std::fs::write(fixture.path("a"), "faster").unwrap();
    let settled = placer.commit().remove(0);
    assert_eq!(refusal(settled.result), Refusal::Exists);
    assert_eq!(fixture.listing(), ["a"]);
    assert_eq!(fixture.read("a"), b"faster");
}

#[test]
fn a_dry_run_makes_nothing() {
    let mut fixture = Fixture::new();
    std::fs::write(fixture.path("there"), "content").unwrap();
    let before = std::fs::metadata(fixture.path("there")).unwrap();
    fixture.options.dry_run = true;
    let mut placer = fixture.placer();
    let needed = Decision::Needed {
        from: 0,
        stack: Vec::new(),
    };
    let path = wire("a/b/c");
    let source = Source::new("", b"content");
    assert_eq!(placer.consider(&source.offer(&path)).unwrap(), needed);
    let there = wire("there");
    let refused = placer.consider(&source.offer(&there));
    assert_eq!(refusal(refused), Refusal::Exists);
    let equal = Source {
        digest: Some(source.root()),
        ..source
    };
    let decision = placer.consider(&equal.offer(&there)).unwrap();
    assert_eq!(decision, Decision::Present);
    assert_eq!(placer.consider_link(&path, b"x").unwrap(), needed);
    placer.consider_seal(&path).unwrap();
    let after = std::fs::metadata(fixture.path("there")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert_eq!(before.permissions(), after.permissions());
    assert_eq!(fixture.listing(), ["there"]);
}
