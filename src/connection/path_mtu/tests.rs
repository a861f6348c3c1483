use super::*;
use crate::ConfigBuilder;

/// Drives the search over a path that carries datagrams of up to `path` bytes.
struct PathMtuTest {
    mtu: PathMtu,
    now: Timestamp,
    path: usize,
    /// What the system refuses above.
    interface: usize,
}

impl PathMtuTest {
    fn new(path: usize) -> Self {
        Self::with(&Config::builder(), path)
    }

    fn with(builder: &ConfigBuilder, path: usize) -> Self {
        let config = builder.clone().build().unwrap();
        let mut mtu = PathMtu::new(&config);
        let now = Timestamp::from_millis(1_000);
        mtu.start(now, 65_507, config.path_mtu_discovery);
        Self {
            mtu,
            now,
            path,
            interface: usize::MAX,
        }
    }

    /// Sends one probe, if one is wanted, and returns its size.
    fn probe(&mut self) -> Option<usize> {
        let size = self.mtu.wanted(self.now)?;
        self.mtu.on_probe_sent(size);
        assert_eq!(self.mtu.wanted(self.now), None, "one at a time");
        if size > self.interface {
            self.mtu.on_refused(self.now, size);
        } else if size <= self.path {
            self.mtu.on_probe_outcome(self.now, ProbeOutcome::Passed);
        } else {
            self.mtu.on_probe_outcome(self.now, ProbeOutcome::Lost);
        }
        self.mtu.check_invariants();
        Some(size)
    }

    /// Probes until nothing is wanted and returns the sizes.
    fn search(&mut self) -> Vec<usize> {
        let probes: Vec<usize> = std::iter::from_fn(|| self.probe()).take(100).collect();
        assert!(probes.len() < 100, "no end: {probes:?}");
        probes
    }

    fn time_out(&mut self, times: u32) {
        for consecutive in 1..=times {
            self.mtu.on_timeout(self.now, consecutive);
            self.mtu.check_invariants();
        }
    }
}

#[test]
fn common_links_are_found_with_few_probes() {
    // Path, what is found, probes sent, of these lost.
    for (path, found, sent, lost) in [
        (65_507, 65_507, 4, 0),
        (8_972, 8_972, 6, 3),
        (1_472, 1_472, 5, 3),
        // Lost at 1,472, and what is left is not worth it.
        (1_452, 1_452, 4, 3),
        // An MTU of 1,300: not at 1,452, 1,342 and 1,287, but at 1,259.
        (1_272, 1_259, 10, 9),
        (1_232, 1_232, 12, 12),
    ] {
        let mut test = PathMtuTest::new(path);
        let probes = test.search();
        assert_eq!(test.mtu.size(), found, "{path}: {probes:?}");
        assert_eq!(probes.len(), sent, "{path}: {probes:?}");
        assert_eq!(test.mtu.probes_sent(), sent as u64);
        assert_eq!(test.mtu.probes_lost(), lost, "{path}: {probes:?}");
    }
}

#[test]
fn every_path_is_found_within_a_thirty_second_or_is_a_step() {
    for path in 1_232..=9_000 {
        let mut test = PathMtuTest::new(path);
        let probes = test.search();
        let size = test.mtu.size();
        assert!(size <= path, "{path}");
        if path <= 1_472 {
            assert!(size + size / 32 + 1 >= path, "{path}: {size} {probes:?}");
        }
        assert!(test.mtu.probes_lost() <= 12, "{path}: {probes:?}");
    }
}

#[test]
fn an_interface_that_refuses_is_measured_without_losses() {
    for (interface, at_least) in [
        (1_472, 1_472),
        (2_016, 1_980),
        (8_952, 8_952),
        (9_188, 8_972),
        (16_356, 15_900),
        (65_487, 65_487),
    ] {
        let mut test = PathMtuTest::new(interface);
        test.interface = interface;
        let probes = test.search();
        assert!(test.mtu.size() >= at_least, "{interface}: {probes:?}");
        assert!(test.mtu.size() <= interface);
        assert!(probes.len() <= 14, "{interface}: {probes:?}");
    }
}

#[test]
fn the_limits_are_kept() {
    let with = |builder: ConfigBuilder| {
        let mut test = PathMtuTest::with(&builder, 65_507);
        let probes = test.search();
        (test.mtu.size(), probes.len())
    };
    let config = Config::builder;
    assert_eq!(with(config().datagram_size(1_400)), (1_400, 0));
    assert_eq!(with(config().path_mtu_discovery(false)), (1_232, 0));
    assert_eq!(with(config().max_datagram_size(1_472)), (1_472, 2));
    assert_eq!(with(config().max_datagram_size(5_000)), (5_000, 3));
    assert_eq!(with(config().max_datagram_size(1_232)), (1_232, 0));
    assert_eq!(with(config().initial_datagram_size(1_472)), (65_507, 2));

    // The peer takes no more than this.
    let mut mtu = PathMtu::new(&Config::default());
    mtu.start(Timestamp::ZERO, 1_000, true);
    assert_eq!((mtu.size(), mtu.wanted(Timestamp::ZERO)), (1_000, None));
    mtu.check_invariants();
}

#[test]
fn a_probe_lost_by_chance_is_sent_again() {
    let mut test = PathMtuTest::new(0);
    assert_eq!(test.probe(), Some(1_452));
    assert_eq!(test.probe(), Some(1_452));
    test.path = 1_472;
    assert_eq!(test.probe(), Some(1_452));
    assert_eq!(test.mtu.size(), 1_452);
}

#[test]
fn a_probe_of_which_nothing_is_known_counts_for_nothing() {
    let mut test = PathMtuTest::new(1_452);
    for _ in 0..5 {
        assert_eq!(test.mtu.wanted(test.now), Some(1_452));
        test.mtu.on_probe_sent(1_452);
        test.mtu
            .on_probe_outcome(test.now, ProbeOutcome::Inconclusive);
    }
    test.search();
    assert_eq!(test.mtu.size(), 1_452);
}

#[test]
fn ten_minutes_later_it_looks_again() {
    let mut test = PathMtuTest::new(1_472);
    test.search();
    test.path = 8_972;
    test.now = test.now + Duration::from_secs(599);
    assert_eq!(test.probe(), None);
    test.now = test.now + Duration::from_secs(1);
    test.search();
    assert_eq!(test.mtu.size(), 8_972);
}

#[test]
fn a_size_that_vanishes_is_given_up_and_counted_once() {
    let mut test = PathMtuTest::new(8_972);
    test.search();
    test.path = 1_472;
    test.time_out(1);
    assert_eq!(test.mtu.size(), 8_972, "one timeout says nothing");
    test.time_out(2);
    assert_eq!(test.mtu.size(), 1_232);
    assert_eq!(test.mtu.black_holes(), 0, "not proved");
    let probes = test.search();
    assert_eq!(test.mtu.black_holes(), 1);
    assert_eq!(probes[..6], [8_972; 6]);
    assert_eq!(test.mtu.size(), 1_472);
}

#[test]
fn timeouts_of_a_path_that_only_loses_are_no_black_hole() {
    let mut test = PathMtuTest::new(8_972);
    test.search();
    test.time_out(2);
    test.path = 0;
    for _ in 0..5 {
        assert_eq!(test.probe(), Some(8_972));
    }
    test.path = 8_972;
    assert_eq!(test.probe(), Some(8_972));
    assert_eq!((test.mtu.size(), test.mtu.black_holes()), (8_972, 0));
}

#[test]
fn where_the_base_does_not_pass_the_smallest_size_is_sent() {
    let mut test = PathMtuTest::new(1_472);
    test.search();
    test.path = 600;
    test.time_out(4);
    assert_eq!(test.mtu.size(), 512);
    assert_eq!(test.search(), [1_232; 3]);
    test.now = test.now + Duration::from_secs(14);
    assert_eq!(test.probe(), None);
    test.path = 1_472;
    test.now = test.now + Duration::from_secs(1);
    test.search();
    assert_eq!(test.mtu.size(), 1_472);
}

#[test]
fn a_refused_segment_is_a_black_hole_at_once() {
    let mut test = PathMtuTest::new(65_507);
    test.search();
    test.interface = 1_472;
    test.path = 1_472;
    test.mtu.on_refused(test.now, 65_507);
    assert_eq!((test.mtu.size(), test.mtu.black_holes()), (1_232, 1));
    test.search();
    assert_eq!(test.mtu.size(), 1_472);
    // What left before the size fell is refused late.
    test.mtu.on_refused(test.now, 65_507);
    assert_eq!((test.mtu.size(), test.mtu.black_holes()), (1_472, 1));
}

#[test]
fn a_fixed_size_stays_whatever_happens() {
    let mut test = PathMtuTest::with(&Config::builder().datagram_size(8_952), 65_507);
    test.time_out(10);
    test.mtu.on_refused(test.now, 8_952);
    assert_eq!(test.mtu.size(), 8_952);
    assert_eq!(test.probe(), None);
}
