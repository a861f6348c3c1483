//! A directory that is swapped for a link to the outside while files go into it.

#![cfg(target_os = "linux")]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[test]
fn nothing_lands_outside_while_a_directory_is_swapped_for_a_link() {
    let runs = std::env::var("RELIABLE_UDP_RUNS").ok();
    let runs: u64 = runs.and_then(|runs| runs.parse().ok()).unwrap_or(10_000);
    let outside = tempfile::tempdir().unwrap();
    let sealed = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(outside.path(), sealed).unwrap();
    let fixture = Fixture::with_disk(Unsynced(PlainDisk)).overwriting();
    std::fs::create_dir(fixture.path("a")).unwrap();
    std::fs::create_dir(fixture.path("a/d")).unwrap();
    std::fs::create_dir(fixture.path("a/d/e")).unwrap();
    std::os::unix::fs::symlink(outside.path(), fixture.path("a/trap")).unwrap();
    let large = bytes(BLOCK_LEN + 1, 1);
    let is_over = AtomicBool::new(false);
    let (mut placed, mut refused, mut swaps) = (0, 0, 0_u64);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let dir = File::open(fixture.path("a")).unwrap();
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            let mut swaps = 0;
            while !is_over.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(&dir, "d", &dir, "trap", exchange).unwrap();
                swaps += 1;
            }
            swaps
        });
        for run in 0..runs {
            // A new one has no handles from before.
            let mut placer = fixture.placer();
            let path = match run % 4 {
                0 => format!("a/d/e/{}", run % 64),
                1 => format!("a/d/new{run}/x"),
                _ => format!("a/d/{}", run % 64),
            };
            let content = if run % 500 == 7 { &large } else { &b"x"[..] };
            let result = match run % 4 {
                2 => {
                    let attributes = Source::new("", b"").attributes;
                    let link = placer.link(&wire(&path), b"e", &attributes, 1);
                    placer
                        .seal(
                            &wire("a/d"),
                            &Attributes {
                                mode: 0o755,
                                ..attributes
                            },
                            2,
                        )
                        .and(link.map(|_| ()))
                }
                _ => place(&mut placer, &Source::new(&path, content)).map(|_| ()),
            };
            placer.commit();
            match result {
                Ok(()) => placed += 1,
                Err(_) => refused += 1,
            }
        }
        is_over.store(true, Ordering::Relaxed);
        swaps = swapper.join().unwrap();
    });
    let found: Vec<_> = std::fs::read_dir(outside.path()).unwrap().collect();
    assert!(found.is_empty(), "{found:?}");
    let metadata = outside.path().metadata().unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o711);
    assert_ne!(metadata.mtime(), 1_000_000_000);
    println!("{placed} placed, {refused} refused, {swaps} swaps");
    assert!(placed > 0 && refused > 0 && swaps > runs / 10);
}
