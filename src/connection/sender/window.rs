//! The peer's window, and what it and Nagle's algorithm let out.
//!
//! RFC 9293 §3.10.7.4 (window update), §3.8.6.2.1 (sender's silly-window avoidance), §3.7.4 (Nagle, with
//! Minshall's amendment that only an unacknowledged *small* segment holds another one back), §3.8.6.1
//! (zero-window probing).

use std::time::Duration;

use crate::Timestamp;
use crate::connection::Offset;

/// The peer's offered window.
#[derive(Debug, Clone, Copy)]
pub struct SendWindow {
    /// SND.WND: bytes that the peer offered beyond `snd_una`.
    wnd: u64,
    /// Largest window ever offered (RFC 9293 §3.8.6.2.1, RFC 5961 §5.2).
    max_wnd: u64,
    /// SND.WL1: segment sequence number of the last window update.
    wl1: Offset,
    /// SND.WL2: segment acknowledgment number of the last window update.
    wl2: Offset,
}

impl SendWindow {
    /// Makes the window of a connection whose peer has offered nothing yet.
    pub fn new() -> Self {
        Self {
            wnd: 0,
            max_wnd: 0,
            wl1: Offset::ZERO,
            wl2: Offset::ZERO,
        }
    }

    /// Returns SND.WND in bytes.
    pub fn wnd(&self) -> u64 {
        self.wnd
    }

    /// Returns the largest window ever offered, in bytes.
    pub fn max_wnd(&self) -> u64 {
        self.max_wnd
    }

    /// Takes the window of a segment that is newer than the one that last set it, and says whether it
    /// changed.
    pub fn update(&mut self, seq: Offset, ack: Offset, wnd: u64) -> bool {
        // RFC 9293 §3.10.7.4: SND.WL1 < SEG.SEQ, or equal and SND.WL2 =< SEG.ACK
        if (self.wl1, self.wl2) > (seq, ack) {
            return false;
        }
        let changed = self.wnd != wnd;
        self.wl1 = seq;
        self.wl2 = ack;
        self.wnd = wnd;
        self.max_wnd = self.max_wnd.max(wnd);
        changed
    }
}

/// What the window and Nagle's algorithm say about new data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// So many bytes may go, the last segment possibly short.
    Send(u64),
    /// Nothing to send.
    Empty,
    /// Nagle's algorithm waits for an ACK or for more data.
    HeldByNagle,
    /// The peer's window is closed or too small to be worth a segment.
    Closed,
}

/// The facts on which [`verdict`] decides.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Bytes written and never sent.
    pub unsent: u64,
    /// Bytes of the peer's window beyond `snd_nxt`.
    pub usable: u64,
    /// Effective send MSS.
    pub mss: u64,
    /// Largest window ever offered.
    pub max_wnd: u64,
    /// Whether a segment shorter than `mss` is outstanding.
    pub small_outstanding: bool,
    /// Whether anything is outstanding.
    pub outstanding: bool,
    /// Whether the tail must go out: `nodelay`, `flush`, or a FIN behind it.
    pub is_pushed: bool,
}

/// Decides how much new data may be sent now (RFC 9293 §3.8.6.2.1).
pub fn verdict(demand: &Demand) -> Verdict {
    let Demand {
        unsent,
        usable,
        mss,
        ..
    } = *demand;
    if unsent == 0 {
        return Verdict::Empty;
    }
    let sendable = unsent.min(usable);
    // The tail that remains behind the last full segment.
    let tail = sendable % mss.max(1);
    let full = sendable - tail;
    if sendable == unsent {
        // (2): everything fits the window; the short tail is Nagle's to judge.
        let may_send_tail = tail == 0 || demand.is_pushed || !demand.small_outstanding;
        return match (may_send_tail, full) {
            (true, _) => Verdict::Send(sendable),
            (false, 0) => Verdict::HeldByNagle,
            (false, _) => Verdict::Send(full),
        };
    }
    if full > 0 {
        // (1): at least one full segment.
        return Verdict::Send(full);
    }
    // (3): less than a segment fits; worth sending if it is half of the largest window ever seen.
    if sendable > 0 && sendable >= demand.max_wnd / 2 && !demand.outstanding {
        return Verdict::Send(sendable);
    }
    Verdict::Closed
}

/// The persist timer: probes a window that stays closed (RFC 9293 §3.8.6.1).
///
/// The interval starts at the RTO and doubles up to the largest RTO, or up to what is left of the caller's
/// patience. It never gives up while the peer answers; unanswered probes are counted, and silence is
/// timed, for the caller to judge.
///
/// It is off while the window is open or nothing waits for it.
#[derive(Debug, Clone, Default)]
pub struct Persist(Option<Box<Waiting>>);

/// The window is closed.
#[derive(Debug, Clone)]
struct Waiting {
    /// When the next probe is due.
    deadline: Timestamp,
    /// Probes sent since the window closed: the exponent of the back-off.
    probes: u32,
    /// Probes sent since the peer was last heard.
    unanswered: u32,
    /// Since when the peer has not been heard, or since the window closed; but an interval that had to
    /// be longer than the patience counts for no more than that.
    silent_since: Timestamp,
}

impl Persist {
    /// Starts the timer if it is off.
    pub fn start(&mut self, now: Timestamp, rto: Duration) {
        self.0.get_or_insert_with(|| {
            Box::new(Waiting {
                deadline: now + rto,
                probes: 0,
                unanswered: 0,
                silent_since: now,
            })
        });
    }

    /// Stops the timer.
    pub fn stop(&mut self) {
        self.0 = None;
    }

    /// Returns when the next probe is due.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.0.as_ref().map(|waiting| waiting.deadline)
    }

    /// Returns since when probes have gone unanswered; `None` while none has.
    pub fn silent_since(&self) -> Option<Timestamp> {
        let waiting = self.0.as_ref().filter(|waiting| waiting.unanswered > 0)?;
        Some(waiting.silent_since)
    }

    /// Returns the number of probes sent since the peer was last heard.
    pub fn unanswered(&self) -> u32 {
        self.0.as_ref().map_or(0, |waiting| waiting.unanswered)
    }

    /// A probe was sent: sets the next one's time. `patience` bounds the interval, but for the RTO.
    pub fn on_probe_sent(
        &mut self,
        now: Timestamp,
        rto: Duration,
        max_rto: Duration,
        patience: Option<Duration>,
    ) {
        let Some(waiting) = &mut self.0 else {
            return;
        };
        if waiting.unanswered == 0 {
            let silence = now.saturating_since(waiting.silent_since);
            let excess = silence.saturating_sub(patience.unwrap_or_default());
            waiting.silent_since = waiting.silent_since + excess;
        }
        waiting.probes = waiting.probes.saturating_add(1);
        waiting.unanswered = waiting.unanswered.saturating_add(1);
        let factor = 1_u32 << waiting.probes.min(16);
        let longest = patience.map_or(max_rto, |patience| patience.max(rto).min(max_rto));
        waiting.deadline = now + rto.saturating_mul(factor).min(longest);
    }

    /// The peer was heard.
    pub fn on_heard(&mut self, now: Timestamp) {
        if let Some(waiting) = &mut self.0 {
            waiting.unanswered = 0;
            waiting.silent_since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u64 = 1_000;

    fn demand(unsent: u64, usable: u64) -> Demand {
        Demand {
            unsent,
            usable,
            mss: MSS,
            max_wnd: 10_000,
            small_outstanding: false,
            outstanding: false,
            is_pushed: false,
        }
    }

    #[test]
    fn the_window_and_nagle_decide_what_goes_out() {
        let waiting = Demand {
            small_outstanding: true,
            outstanding: true,
            ..demand(300, 9_000)
        };
        let cases = [
            ("nothing written", demand(0, 9_000), Verdict::Empty),
            (
                "idle: a small write goes at once",
                demand(300, 9_000),
                Verdict::Send(300),
            ),
            (
                "small segment outstanding: held",
                waiting,
                Verdict::HeldByNagle,
            ),
            (
                "full segments outstanding: the tail goes (Minshall)",
                Demand {
                    outstanding: true,
                    ..demand(300, 9_000)
                },
                Verdict::Send(300),
            ),
            (
                "pushed: goes",
                Demand {
                    is_pushed: true,
                    ..waiting
                },
                Verdict::Send(300),
            ),
            (
                "full segments go, the tail is held",
                Demand {
                    unsent: 2_300,
                    ..waiting
                },
                Verdict::Send(2_000),
            ),
            (
                "window takes two of three",
                demand(3_000, 2_500),
                Verdict::Send(2_000),
            ),
            ("window closed", demand(3_000, 0), Verdict::Closed),
            (
                "silly window: 400 of at most 10000",
                demand(3_000, 400),
                Verdict::Closed,
            ),
            (
                "small receiver: half of its largest window is worth sending",
                Demand {
                    max_wnd: 800,
                    ..demand(3_000, 400)
                },
                Verdict::Send(400),
            ),
            (
                "small receiver, but something is outstanding",
                Demand {
                    max_wnd: 800,
                    outstanding: true,
                    ..demand(3_000, 400)
                },
                Verdict::Closed,
            ),
        ];
        for (name, demand, expected) in cases {
            assert_eq!(verdict(&demand), expected, "{name}");
        }
    }

    #[test]
    fn an_old_segment_does_not_set_the_window() {
        let mut window = SendWindow::new();
        assert!(window.update(Offset::new(100), Offset::new(50), 4_000));
        assert!(
            !window.update(Offset::new(99), Offset::new(60), 1_000),
            "older SEG.SEQ"
        );
        assert!(
            !window.update(Offset::new(100), Offset::new(49), 1_000),
            "older SEG.ACK"
        );
        assert_eq!(window.wnd(), 4_000);
        assert!(
            window.update(Offset::new(100), Offset::new(50), 2_000),
            "same age: taken"
        );
        assert!(
            !window.update(Offset::new(100), Offset::new(51), 2_000),
            "unchanged"
        );
        assert_eq!((window.wnd(), window.max_wnd()), (2_000, 4_000));
    }

    #[test]
    fn probes_back_off_and_never_stop_while_answered() {
        let rto = Duration::from_millis(200);
        let max = Duration::from_secs(2);
        let mut persist = Persist::default();
        persist.start(Timestamp::ZERO, rto);
        // 200 ms, then 400, 800, 1600 and from there the ceiling of 2 s.
        for expected in [200_u64, 600, 1_400, 3_000, 5_000, 7_000] {
            let due = Timestamp::from_millis(expected);
            assert_eq!(persist.deadline(), Some(due));
            persist.on_probe_sent(due, rto, max, None);
            assert_eq!(persist.unanswered(), 1);
            persist.on_heard(due);
            assert_eq!(persist.silent_since(), None);
        }
    }

    #[test]
    fn probes_are_frequent_enough_for_the_patience_left() {
        let rto = Duration::from_millis(200);
        let max = Duration::from_secs(60);
        let patience = Some(Duration::from_secs(1));
        let mut persist = Persist::default();
        persist.start(Timestamp::ZERO, rto);
        // 200 ms, then 400, 800 and from there 1 s.
        for expected in [200_u64, 600, 1_400, 2_400, 3_400] {
            let due = Timestamp::from_millis(expected);
            assert_eq!(persist.deadline(), Some(due));
            persist.on_probe_sent(due, rto, max, patience);
            persist.on_heard(due + Duration::from_millis(10));
        }
        let due = Timestamp::from_millis(4_400);
        persist.on_probe_sent(due, rto, max, patience);
        // Not only since the probe that stays unanswered.
        assert_eq!(persist.silent_since(), Some(Timestamp::from_millis(3_410)));
    }

    #[test]
    fn a_long_rto_is_no_silence_of_the_peer() {
        let (rto, patience) = (Duration::from_secs(3), Duration::from_millis(500));
        let mut persist = Persist::default();
        persist.start(Timestamp::ZERO, rto);
        let due = Timestamp::from_millis(3_000);
        persist.on_probe_sent(due, rto, Duration::from_secs(60), Some(patience));
        assert_eq!(persist.silent_since(), Some(Timestamp::from_millis(2_500)));
        assert_eq!(persist.deadline(), Some(due + rto));
    }
}
