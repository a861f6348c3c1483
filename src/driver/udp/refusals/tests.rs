#![cfg(unix)]

use std::io::IoSlice;

use super::*;
use crate::endpoint::Ecn;

const EIO: i32 = 5;
const EINVAL: i32 = 22;
const EPERM: i32 = 1;
const ENETUNREACH: i32 = if cfg!(target_os = "linux") { 101 } else { 51 };

/// A system that refuses features, and remembers what it was asked and what left.
#[derive(Default)]
struct System {
    /// The error for a run, if it has one.
    runs: Option<i32>,
    marks: Option<i32>,
    sources: Option<i32>,
    /// The error for everything.
    all: Option<i32>,
    /// The largest datagram, and the error for a run of larger ones.
    mtu: Option<(usize, i32)>,
    /// How many datagrams find room.
    room: Option<usize>,
    calls: usize,
    left: Vec<u8>,
    datagrams: usize,
}

impl System {
    fn send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.calls += 1;
        let fail = |code| Err(io::Error::from_raw_os_error(code));
        let bytes = transmit.gather();
        let size = transmit.segment_size.unwrap_or(bytes.len());
        if let Some(code) = self.all {
            return fail(code);
        }
        if let (Some((mtu, code)), true) = (self.mtu, self.mtu.is_some_and(|(mtu, _)| size > mtu)) {
            assert!(size > mtu);
            return match transmit.segment_size {
                Some(_) => fail(code),
                None => Err(Transmit::too_large()),
            };
        }
        if let (Some(code), Some(_)) = (self.runs, transmit.segment_size) {
            return fail(code);
        }
        if let (Some(code), Some(_)) = (self.marks, transmit.ecn) {
            return fail(code);
        }
        if let (Some(code), Some(_)) = (self.sources, transmit.local_ip) {
            return fail(code);
        }
        if self.room == Some(self.datagrams) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.datagrams += bytes.len().div_ceil(size);
        self.left.extend(bytes);
        Ok(())
    }
}

/// Sends `len` bytes in two slices as datagrams of `size`, marked and from an address, and returns the outcome with
/// what the system saw.
fn send(
    refusals: &Refusals,
    mut system: System,
    len: usize,
    size: usize,
) -> (io::Result<()>, System) {
    let bytes: Vec<u8> = (0..len).map(|i| i.to_le_bytes()[0]).collect();
    let (a, b) = bytes.split_at(len / 3);
    let slices = [IoSlice::new(a), IoSlice::new(b)];
    let mut transmit = Transmit::new("127.0.0.1:9".parse().unwrap(), &slices);
    transmit.segment_size = (size < len).then_some(size);
    transmit.ecn = Some(Ecn::Ect0);
    transmit.local_ip = Some("127.0.0.1".parse().unwrap());
    let outcome = refusals.send(&transmit, |transmit| system.send(transmit));
    if outcome.is_ok() && system.room.is_none() {
        assert_eq!(system.left, bytes, "all of it, once, in order");
        assert_eq!(system.datagrams, len.div_ceil(size));
    }
    (outcome, system)
}

#[derive(Debug, PartialEq)]
struct State {
    max_segments: usize,
    marks: bool,
    source: bool,
}

fn state(refusals: &Refusals) -> State {
    State {
        max_segments: refusals.max_segments(),
        marks: refusals.marks.load(Ordering::Relaxed),
        source: refusals.source().is_some(),
    }
}

#[test]
fn what_the_system_refuses_is_left_out_and_stays_off() {
    // What is refused: runs, marks, sources; then calls of the first send and of the second one, for a run of three
    // datagrams and for one.
    type Case = ([Option<i32>; 3], [usize; 2], [usize; 2]);
    const NO: Option<i32> = None;
    let cases: [Case; 10] = [
        ([NO, NO, NO], [1, 1], [1, 1]),
        // The run, then three single ones; afterwards those only.
        ([Some(EIO), NO, NO], [4, 3], [1, 1]),
        ([Some(EINVAL), NO, NO], [4, 3], [1, 1]),
        // The run, its first datagram with and without the mark, and the rest as a run.
        ([NO, Some(EINVAL), NO], [4, 1], [2, 1]),
        // Without the mark, then without the source.
        ([NO, NO, Some(EINVAL)], [5, 1], [3, 1]),
        ([NO, NO, Some(ENETUNREACH)], [4, 1], [2, 1]),
        ([NO, Some(EINVAL), Some(EINVAL)], [6, 1], [4, 1]),
        // The rest as a run is refused as well.
        ([Some(EIO), Some(EINVAL), NO], [6, 3], [2, 1]),
        ([Some(EIO), NO, Some(EINVAL)], [7, 3], [3, 1]),
        ([Some(EIO), Some(EINVAL), Some(EIO)], [8, 3], [4, 1]),
    ];
    for (refused @ [runs, marks, sources], run_calls, single_calls) in cases {
        for (len, calls) in [(2_500, run_calls), (1_000, single_calls)] {
            let refusals = Refusals::new(64);
            for expected in calls {
                let system = System {
                    runs,
                    marks,
                    sources,
                    ..System::default()
                };
                let (outcome, system) = send(&refusals, system, len, 1_000);
                assert!(outcome.is_ok(), "{refused:?}: {outcome:?}");
                assert_eq!(system.calls, expected, "{refused:?}, {len} bytes");
            }
            let expected = State {
                max_segments: if runs.is_some() && len > 1_000 { 1 } else { 64 },
                marks: marks.is_some(),
                source: sources.is_some(),
            };
            assert_eq!(state(&refusals), expected, "{refused:?}, {len} bytes");
        }
    }
}

#[test]
fn another_error_costs_no_feature() {
    let intact = State {
        max_segments: 64,
        marks: false,
        source: false,
    };
    // The error for everything; calls for a run and for one datagram.
    for (code, run_calls, single_calls) in [(EPERM, 1, 1), (EINVAL, 5, 4), (ENETUNREACH, 4, 3)] {
        for (len, calls) in [(2_500, run_calls), (1_000, single_calls)] {
            let refusals = Refusals::new(64);
            let system = System {
                all: Some(code),
                ..System::default()
            };
            let (outcome, system) = send(&refusals, system, len, 1_000);
            assert_eq!(outcome.unwrap_err().raw_os_error(), Some(code));
            assert_eq!(system.calls, calls, "{code}, {len} bytes");
            assert_eq!(state(&refusals), intact);
        }
    }
}

#[test]
fn datagrams_too_large_for_the_path_are_said_to_be_so_and_segmentation_stays() {
    let emsgsize = Transmit::too_large().raw_os_error().unwrap();
    // Newer kernels say so of a run, older ones that it is invalid.
    for code in [emsgsize, EINVAL] {
        for len in [2_500, 1_000] {
            let refusals = Refusals::new(64);
            let system = || System {
                mtu: Some((999, code)),
                ..System::default()
            };
            let (outcome, seen) = send(&refusals, system(), len, 1_000);
            assert!(Transmit::is_too_large(&outcome.unwrap_err()));
            assert!(seen.left.is_empty());
            assert_eq!(refusals.max_segments(), 64);
            let (outcome, seen) = send(&refusals, system(), len, 900);
            assert!(outcome.is_ok());
            assert_eq!(seen.calls, 1);
        }
    }
}

#[test]
fn a_run_that_was_too_large_only_once_leaves_and_segmentation_stays() {
    let refusals = Refusals::new(64);
    let system = System {
        runs: Transmit::too_large().raw_os_error(),
        ..System::default()
    };
    let (outcome, seen) = send(&refusals, system, 2_500, 1_000);
    assert!(outcome.is_ok());
    assert_eq!((seen.calls, refusals.max_segments()), (4, 64));
}

#[test]
fn a_full_socket_is_told_only_before_the_first_datagram() {
    for (room, is_full, left) in [(0, true, 0), (1, false, 1_000), (2, false, 2_000)] {
        let refusals = Refusals::new(64);
        let system = System {
            runs: Some(EIO),
            room: Some(room),
            ..System::default()
        };
        let (outcome, system) = send(&refusals, system, 2_500, 1_000);
        let error = outcome.err().map(|error| error.kind());
        assert_eq!(error, is_full.then_some(io::ErrorKind::WouldBlock));
        assert_eq!(system.left.len(), left);
    }
}

#[test]
fn only_the_source_address_that_was_refused_is_left_out() {
    let refusals = Refusals::new(64);
    let [lost, kept]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
    let mut calls = Vec::new();
    for source in [lost, lost, kept] {
        let slices = [IoSlice::new(b"segment")];
        let mut transmit = Transmit::new("127.0.0.1:9".parse().unwrap(), &slices);
        transmit.local_ip = Some(source);
        let outcome = refusals.send(&transmit, |transmit| {
            calls.push(transmit.local_ip);
            match transmit.local_ip {
                Some(ip) if ip == lost => Err(io::Error::from_raw_os_error(EINVAL)),
                _ => Ok(()),
            }
        });
        assert!(outcome.is_ok());
    }
    assert_eq!(calls, [Some(lost), None, None, Some(kept)]);
}
