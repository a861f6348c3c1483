use super::*;

/// A window whose peer sends segments of 1,000 bytes and whose reader reads when told.
struct WindowTest {
    window: Window,
    rcv_nxt: Offset,
    readable: usize,
    /// Right edge that the peer has been told.
    told: Offset,
}

impl WindowTest {
    fn new(capacity: usize, shift: u8) -> Self {
        let mut window = Window::new(capacity, 1 << 30);
        let told = Offset::FIRST + u64::from(window.field_syn());
        window.set_shift(shift);
        Self {
            window,
            rcv_nxt: Offset::FIRST,
            readable: 0,
            told,
        }
    }

    fn receive(&mut self, bytes: usize) {
        self.rcv_nxt += bytes as u64;
        self.readable += bytes;
        assert!(self.rcv_nxt <= self.window.right_edge());
    }

    fn read(&mut self, bytes: usize) {
        self.readable -= bytes;
    }

    /// Advertises and returns the window in bytes.
    #[track_caller]
    fn advertise(&mut self) -> u64 {
        let before = self.window.right_edge();
        let field = self.window.advertise(self.rcv_nxt, self.readable, 1_000);
        let window = u64::from(field) << self.window.shift;
        self.told = self.rcv_nxt + window;
        self.window.check_invariants(self.rcv_nxt, self.readable);
        assert!(
            self.window.right_edge() >= before,
            "the right edge moved left"
        );
        assert!(
            self.told <= self.window.right_edge(),
            "told more than is accepted"
        );
        window
    }

    fn has_update(&self) -> bool {
        self.window.has_update(self.rcv_nxt, self.readable, 1_000)
    }
}

#[test]
fn a_syn_tells_the_unscaled_window() {
    for (capacity, field) in [
        (4_096, 4_096),
        (65_535, 65_535),
        (65_536, 65_535),
        (1 << 30, 65_535),
    ] {
        let mut window = Window::new(capacity, capacity);
        assert_eq!(window.field_syn(), field, "{capacity}");
        window.set_shift(14);
        assert_eq!(window.field_syn(), field, "{capacity}, scaling agreed on");
        assert_eq!(
            window.right_edge(),
            Offset::FIRST + u64::from(field),
            "{capacity}"
        );
    }
}

#[test]
fn the_first_scaled_window_opens_to_the_capacity() {
    // (capacity, shift, window): rounded down to whole units, at most 65,535 of them.
    let cases = [
        (65_535, 0, 65_535),
        (1 << 20, 0, 65_535),
        (1 << 20, 5, 1 << 20),
        (1_000_000, 4, 1_000_000),
        (1_000_001, 4, 1_000_000),
        (1 << 24, 9, 1 << 24),
        (1 << 30, 14, 65_535 << 14),
    ];
    for (capacity, shift, window) in cases {
        assert_eq!(
            WindowTest::new(capacity, shift).advertise(),
            window,
            "{capacity} {shift}"
        );
    }
}

#[test]
fn the_window_closes_while_nobody_reads() {
    let mut test = WindowTest::new(10_000, 0);
    for left in (0..10).rev() {
        test.receive(1_000);
        assert_eq!(test.advertise(), left * 1_000);
    }
}

#[test]
fn small_openings_are_not_told() {
    let mut test = WindowTest::new(10_000, 0);
    test.advertise();
    test.receive(10_000);
    assert_eq!(test.advertise(), 0);
    // Below one segment the edge stays; an update waits for two.
    test.read(999);
    assert_eq!(test.advertise(), 0);
    assert!(!test.has_update());
    test.read(1_000);
    assert!(!test.has_update());
    test.read(1);
    assert!(test.has_update());
    assert_eq!(test.advertise(), 2_000);
    assert!(!test.has_update());
    // One segment of room is told if an ACK leaves anyway.
    test.read(1_000);
    assert!(!test.has_update());
    assert_eq!(test.advertise(), 3_000);
}

#[test]
fn half_a_small_buffer_is_worth_an_update() {
    let mut test = WindowTest::new(1_500, 0);
    test.advertise();
    test.receive(1_500);
    assert_eq!(test.advertise(), 0);
    test.read(749);
    assert!(!test.has_update());
    test.read(1);
    assert!(test.has_update());
    assert_eq!(test.advertise(), 750);
}

#[test]
fn there_is_no_update_before_the_first_scaled_window() {
    assert!(!WindowTest::new(1 << 20, 5).has_update());
}

#[test]
fn rounding_never_takes_the_edge_back_from_an_honest_peer() {
    for shift in [0, 1, 5, 7] {
        let mut test = WindowTest::new(1 << 20, shift);
        test.advertise();
        let mut edge = test.told;
        // Two segments of 999 bytes per ACK until half a million bytes wait.
        while test.readable < 500_000 {
            test.receive(1_998);
            test.advertise();
            assert!(
                test.told >= edge,
                "shift {shift}: {:?} after {edge:?}",
                test.told
            );
            edge = test.told;
        }
    }
}

#[test]
fn tiny_segments_cannot_push_the_edge_on_for_ever() {
    // Each byte makes rounding promise one more; units are 16 KiB.
    let mut test = WindowTest::new(1 << 20, 14);
    test.advertise();
    let mut received = 0;
    while test.window.right_edge() > test.rcv_nxt {
        test.receive(1);
        test.advertise();
        received += 1;
    }
    assert!(received <= (1 << 20) / 4 * 5, "{received} bytes");
    assert_eq!(test.advertise(), 0);
    test.read(received);
    assert!(test.has_update());
    assert_eq!(test.advertise(), 1 << 20);
}

#[test]
fn a_capacity_below_one_unit_does_not_shut_the_window() {
    let mut test = WindowTest::new(4_096, 14);
    for _ in 0..20 {
        let window = usize::try_from(test.advertise()).unwrap();
        assert!(window > 0);
        test.receive(window);
        test.read(window);
    }
}

#[test]
fn the_window_grows_to_its_limit_and_never_shrinks() {
    let mut test = WindowTest::new(65_536, 7);
    test.window.max_capacity = 1 << 20;
    assert_eq!(test.advertise(), 65_536);
    test.window.grow_to(200_000);
    // More than half of the old window is news.
    assert!(test.has_update());
    // Whole units of 128.
    assert_eq!(test.advertise(), 199_936);
    test.window.grow_to(100_000);
    assert_eq!(test.advertise(), 199_936);
    test.window.grow_to(1 << 40);
    assert_eq!(test.advertise(), 1 << 20);
}
