//! A placer, and a sender that plays the protocol's part.

mod attributes;
mod large;
mod links;
mod nasty;
mod race;
mod rules;
mod small;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cap_std::ambient_authority;

use super::*;
use crate::copy::disk::PlainDisk;
use crate::copy::nasty::NastyDisk;
use crate::copy::tree_hash::{BLOCK_LEN, TreeHash, block_cv};

/// A root directory that goes away at the end, and what placers get.
#[derive(Debug)]
struct Fixture {
    temp: tempfile::TempDir,
    disk: Arc<dyn Disk>,
    settings: PlaceSettings,
    options: PlaceOptions,
    registry: Arc<Partials>,
    spawn: Spawner,
}

/// A file as the sender has it.
#[derive(Debug, Clone)]
struct Source<'a> {
    path: &'a str,
    content: &'a [u8],
    attributes: Attributes,
    tag: [u8; 16],
    digest: Option<Digest>,
    /// The range that is sent as a hole.
    hole: Option<std::ops::Range<usize>>,
}

impl<'a> Source<'a> {
    fn new(path: &'a str, content: &'a [u8]) -> Self {
        Self {
            path,
            content,
            attributes: Attributes {
                mode: 0o640,
                mtime_secs: 1_000_000_000,
                mtime_nanos: 500,
            },
            tag: [1; 16],
            digest: None,
            hole: None,
        }
    }

    fn root(&self) -> Digest {
        Digest::new(blake3::hash(self.content).into())
    }

    fn size(&self) -> u64 {
        to_u64(self.content.len())
    }

    fn offer<'b>(&self, path: &'b WirePath) -> Considered<'b> {
        Considered {
            path,
            size: self.size(),
            attributes: self.attributes,
            tag: self.tag,
            digest: self.digest,
        }
    }
}

impl Fixture {
    fn new() -> Self {
        Self {
            temp: tempfile::tempdir().unwrap(),
            disk: Arc::new(PlainDisk),
            settings: PlaceSettings {
                may_overwrite: true,
                ..PlaceSettings::default()
            },
            options: PlaceOptions::default(),
            registry: Arc::default(),
            spawn: Spawner::new(|task| task()),
        }
    }

    fn with_disk(disk: impl Disk + 'static) -> Self {
        let disk = Arc::new(disk);
        Self {
            disk,
            ..Self::new()
        }
    }

    fn overwriting(mut self) -> Self {
        self.options.overwrite = true;
        self
    }

    fn placer(&self) -> Placer {
        let root = Dir::open_ambient_dir(self.temp.path(), ambient_authority()).unwrap();
        let mut placer = Placer::new(
            Arc::new(root),
            Arc::clone(&self.disk),
            self.settings.clone(),
            Arc::clone(&self.registry),
            Arc::default(),
            self.spawn.clone(),
        );
        placer.set_options(self.options);
        placer
    }

    fn path(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.path(path)).unwrap()
    }

    /// Everything below the root; directories end in a slash.
    fn listing(&self) -> Vec<String> {
        fn walk(root: &Path, path: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(path).unwrap() {
                let entry = entry.unwrap();
                let name = entry.path();
                let shown = name.strip_prefix(root).unwrap().to_string_lossy();
                if entry.file_type().unwrap().is_dir() {
                    found.push(format!("{shown}/"));
                    walk(root, &name, found);
                } else {
                    found.push(shown.into_owned());
                }
            }
        }
        let mut found = Vec::new();
        walk(self.temp.path(), self.temp.path(), &mut found);
        found.sort();
        found
    }
}

fn wire(path: &str) -> WirePath {
    WirePath::parse(path.as_bytes()).unwrap()
}

/// Bytes without a pattern, from the seed.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut content = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_be_bytes())
        .finalize_xof()
        .fill(&mut content);
    content
}

/// Sends the content from a block on, as far as `until`.
fn feed(
    placer: &mut Placer,
    incoming: &mut Incoming,
    source: &Source<'_>,
    from: usize,
    until: usize,
) -> Result<(), Rejection> {
    const DATA_LEN: usize = 200_000;
    let is_large = source.content.len() > BLOCK_LEN;
    for (index, block) in source.content.chunks(BLOCK_LEN).enumerate() {
        let start = index * BLOCK_LEN;
        if start < from || start >= until {
            continue;
        }
        let hole = source.hole.as_ref().filter(|hole| hole.contains(&start));
        if hole.is_some_and(|hole| start + block.len() <= hole.end) {
            placer.hole(incoming, to_u64(block.len()))?;
        } else {
            for data in block.chunks(DATA_LEN) {
                placer.write(incoming, data)?;
            }
        }
        if is_large {
            placer.block(incoming, block_cv(to_u64(index), block))?;
        }
    }
    Ok(())
}

/// How a file that was sent ended.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Present,
    /// The next commit tells, under this number.
    Settling,
    Mismatch,
}

/// Sends a file; the caller commits.
fn send(placer: &mut Placer, source: &Source<'_>, token: u64) -> Result<Sent, Rejection> {
    let path = wire(source.path);
    let offer = source.offer(&path);
    let from = match placer.consider(&offer)? {
        Decision::Present => return Ok(Sent::Present),
        Decision::Needed { from, stack } => {
            let blocks = from / BLOCK_LEN_U64;
            let mut tree = TreeHash::new();
            for (index, block) in (0..blocks).zip(source.content.chunks(BLOCK_LEN)) {
                tree.push(block_cv(index, block));
            }
            assert_eq!(tree.stack(), stack);
            from
        }
    };
    let mut incoming = placer.begin(&offer, from)?;
    let from = usize::try_from(from).unwrap();
    match feed(placer, &mut incoming, source, from, usize::MAX) {
        Err(Rejection::Mismatch) => return Ok(Sent::Mismatch),
        result => result?,
    }
    Ok(match placer.end(incoming, source.root(), token)? {
        Ended::Settling => Sent::Settling,
        Ended::Mismatch => Sent::Mismatch,
    })
}

/// Sends a file and commits.
fn place(placer: &mut Placer, source: &Source<'_>) -> Result<Sent, Rejection> {
    let sent = send(placer, source, 7)?;
    let mut settled = placer.commit();
    if sent == Sent::Settling {
        assert_eq!(settled.len(), 1);
        let settled = settled.remove(0);
        assert_eq!(settled.token, 7);
        assert_eq!(settled.result?, Placed::File(source.root()));
    } else {
        assert!(settled.is_empty());
    }
    Ok(sent)
}

fn refusal<T: fmt::Debug>(result: Result<T, Rejection>) -> Refusal {
    match result {
        Err(Rejection::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn failure<T: fmt::Debug>(result: Result<T, Rejection>) -> io::Error {
    match result {
        Err(Rejection::Failed(error)) => error,
        other => panic!("did not fail: {other:?}"),
    }
}

/// Counts, and does wrong what a test asks for.
#[derive(Debug, Default)]
struct TestDisk {
    syncs: Mutex<usize>,
    syncs_of_data: Mutex<usize>,
    syncs_of_all: Mutex<usize>,
    /// Bytes read, by what the tests want to know: from which position on.
    reads: Mutex<BTreeMap<u64, usize>>,
    /// Writes beyond this many bytes find no space.
    space: Option<Mutex<usize>>,
    /// What is said to be left.
    free: Option<u64>,
    /// Bytes at these positions are written wrong so many times.
    wrong: Mutex<BTreeMap<u64, usize>>,
    /// What happened, in order: `w`rite, sync of `d`ata, `s`ync, `a`ll, `r`ead, with the length.
    log: Mutex<Vec<(char, u64)>>,
}

impl Disk for TestDisk {
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = PlainDisk.read_at(file, buf, offset)?;
        *self.reads.lock().unwrap().entry(offset).or_default() += read;
        self.log.lock().unwrap().push(('r', offset));
        Ok(read)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if let Some(space) = &self.space {
            let mut space = space.lock().unwrap();
            if *space < bytes.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *space -= bytes.len();
        }
        self.log.lock().unwrap().push(('w', offset));
        let mut bytes = bytes.to_vec();
        for (at, times) in self.wrong.lock().unwrap().iter_mut() {
            if let Some(index) = at.checked_sub(offset)
                && let Some(byte) = bytes.get_mut(usize::try_from(index).unwrap())
                && *times > 0
            {
                *times -= 1;
                *byte ^= 8;
            }
        }
        PlainDisk.write_at(file, &bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        *self.syncs.lock().unwrap() += 1;
        self.log.lock().unwrap().push(('s', 0));
        file.sync_all()
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        *self.syncs_of_data.lock().unwrap() += 1;
        self.log.lock().unwrap().push(('d', 0));
        file.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn sync_file_system(&self, file: &File) -> io::Result<()> {
        *self.syncs_of_all.lock().unwrap() += 1;
        self.log.lock().unwrap().push(('a', 0));
        PlainDisk.sync_file_system(file)
    }

    fn free(&self, file: &File) -> io::Result<Option<u64>> {
        self.free
            .map_or_else(|| PlainDisk.free(file), |free| Ok(Some(free)))
    }
}

/// The placer's disk as the test made it, to look at its counts.
fn counting(disk: TestDisk) -> (Fixture, Arc<TestDisk>) {
    let disk = Arc::new(disk);
    let mut fixture = Fixture::new();
    fixture.disk = Arc::<TestDisk>::clone(&disk);
    (fixture, disk)
}

/// A disk that is not waited for: what these tests are about lies in the cache too.
#[derive(Debug)]
struct Unsynced<D>(D);

impl<D: Disk> Disk for Unsynced<D> {
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(file, buf, offset)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(file, bytes, offset)
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn sync_file_system(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    fn forget(&self, _: &File, _: u64, _: u64) {}
}
