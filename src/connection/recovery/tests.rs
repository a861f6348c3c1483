//! A fixture with verbs, and what is tested with it, by topic. Segments of 1,000 bytes are numbered from
//! 0; segment 0 begins at offset 1. The RTT is 100 ms, so the RTO starts at 100 + 4 · 50 = 300 ms.

mod batches;
mod fast_recovery;
mod frto;
mod hostile;
mod rack;
mod sack;
mod timeout;
mod tlp;
mod undo;
mod window;

use std::sync::{Arc, Mutex};

use super::*;
use crate::congestion::{
    Acked, CongestionControl, Lost, RecoveryEntered, RecoveryExited, TimedOut, Undo,
};

const MSS: u64 = 1_000;

/// What the controller heard.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Lost { bytes: u64 },
    Entered { flight_size: u64, in_flight: u64 },
    Exited,
    TimedOut { flight_size: u64, consecutive: u32 },
    IdleRestart,
    Undone { was_timeout: bool },
}

#[derive(Debug, Default)]
struct Log {
    heard: Vec<Heard>,
    acked: Vec<Acked>,
    /// All hooks of the present ACK by the number that the contract gives them.
    order: Vec<u8>,
}

/// Slow start, congestion avoidance and halving; as simple as can be.
#[derive(Debug)]
struct TestController {
    mss: u64,
    cwnd: u64,
    ssthresh: u64,
    uses_prr: bool,
    pacing_rate: Option<u64>,
    before_reduction: (u64, u64),
    log: Arc<Mutex<Log>>,
}

impl TestController {
    fn hear(&self, number: u8, heard: Heard) {
        let mut log = self.log.lock().unwrap();
        log.order.push(number);
        log.heard.push(heard);
    }
}

impl CongestionController for TestController {
    fn on_acked(&mut self, event: &Acked) {
        let mut log = self.log.lock().unwrap();
        log.order.push(4);
        log.acked.push(*event);
        if event.in_recovery || !event.is_cwnd_limited {
            return;
        }
        self.cwnd += if self.cwnd < self.ssthresh {
            event.bytes
        } else {
            self.mss * event.bytes / self.cwnd
        };
    }

    fn on_recovery_entered(&mut self, event: &RecoveryEntered) {
        let RecoveryEntered {
            flight_size,
            in_flight,
            ..
        } = *event;
        self.before_reduction = (self.cwnd, self.ssthresh);
        self.ssthresh = (flight_size / 2).max(2 * self.mss);
        self.cwnd = self.ssthresh;
        self.hear(
            2,
            Heard::Entered {
                flight_size,
                in_flight,
            },
        );
    }

    fn on_timeout(&mut self, event: &TimedOut) {
        let TimedOut {
            flight_size,
            consecutive,
            ..
        } = *event;
        if consecutive == 1 {
            self.before_reduction = (self.cwnd, self.ssthresh);
            self.ssthresh = (flight_size / 2).max(2 * self.mss);
        }
        self.cwnd = self.mss;
        self.hear(
            6,
            Heard::TimedOut {
                flight_size,
                consecutive,
            },
        );
    }

    fn on_lost(&mut self, event: &Lost) {
        self.hear(1, Heard::Lost { bytes: event.bytes });
    }

    fn on_recovery_exited(&mut self, _event: &RecoveryExited) {
        self.hear(5, Heard::Exited);
    }

    fn on_undo(&mut self, event: &Undo) {
        (self.cwnd, self.ssthresh) = self.before_reduction;
        let was_timeout = event.was_timeout;
        self.hear(3, Heard::Undone { was_timeout });
    }

    fn on_idle_restart(&mut self, _event: &IdleRestart) {
        self.hear(0, Heard::IdleRestart);
    }

    fn on_mss_changed(&mut self, mss: u64) {
        self.mss = mss;
    }

    fn cwnd(&self) -> u64 {
        self.cwnd
    }

    fn ssthresh(&self) -> u64 {
        self.ssthresh
    }

    fn pacing_rate(&self) -> Option<u64> {
        self.pacing_rate
    }

    fn uses_prr(&self) -> bool {
        self.uses_prr
    }
}

/// How a fixture is set up.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent settings")]
struct Setup {
    sack: bool,
    rack: bool,
    tail_loss_probe: bool,
    timestamps: bool,
    prr: bool,
    controller_uses_prr: bool,
    frto: bool,
    /// Initial window in segments.
    window: u32,
    /// What the controller asks for.
    pacing_rate: Option<u64>,
    /// Whether its window is paced if it asks for nothing.
    paces_windows: bool,
}

/// With SACK, without RACK and PRR, so that RFC 6675 alone decides what is lost and the window alone decides what may be sent.
const SACK: Setup = Setup {
    sack: true,
    rack: false,
    tail_loss_probe: false,
    timestamps: true,
    prr: false,
    controller_uses_prr: true,
    frto: false,
    window: 10,
    pacing_rate: None,
    paces_windows: false,
};
const NO_SACK: Setup = Setup {
    sack: false,
    timestamps: false,
    ..SACK
};
const RACK: Setup = Setup { rack: true, ..SACK };
const TLP: Setup = Setup {
    tail_loss_probe: true,
    ..RACK
};
const PRR: Setup = Setup { prr: true, ..SACK };

struct RecoveryTest {
    now: Timestamp,
    recovery: Recovery,
    log: Arc<Mutex<Log>>,
    setup: Setup,
}

fn at(segment: u64) -> Offset {
    Offset::FIRST + segment * MSS
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl RecoveryTest {
    fn new(setup: Setup) -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let (heard, wanted) = (log.clone(), setup.clone());
        let congestion =
            CongestionControl::custom(move |params: &ControllerParams| TestController {
                mss: params.mss,
                cwnd: params.initial_window,
                ssthresh: u64::MAX,
                uses_prr: wanted.controller_uses_prr,
                pacing_rate: wanted.pacing_rate,
                before_reduction: (params.initial_window, u64::MAX),
                log: heard.clone(),
            });
        let config = Config::builder()
            .congestion(congestion)
            .initial_window(setup.window)
            .frto(setup.frto)
            .pacing(setup.paces_windows)
            .build()
            .unwrap();
        let mut recovery = Recovery::new(&config);
        recovery.start(
            Timestamp::ZERO,
            RecoveryStart {
                mss: MSS,
                sack: setup.sack,
                rack: setup.rack,
                tail_loss_probe: setup.tail_loss_probe,
                timestamps: setup.timestamps,
                prr: setup.prr,
                handshake_rtt: Some(ms(100)),
                syn_retransmitted: false,
                peer_ack_delay: None,
                seed: 0,
            },
        );
        Self {
            now: Timestamp::ZERO,
            recovery,
            log,
            setup,
        }
    }

    fn advance(&mut self, millis: u64) {
        self.now = self.now + ms(millis);
    }

    /// Sends new segments, one after the other, whatever the window says.
    #[track_caller]
    fn send(&mut self, segments: u64) {
        for _ in 0..segments {
            let start = self.recovery.snd_nxt();
            self.recovery.on_sent(self.now, start..start + MSS);
        }
        self.recovery.check_invariants();
    }

    /// Sends new segments as the window allows and returns how many that were.
    #[track_caller]
    fn send_allowed(&mut self) -> u64 {
        let mut segments = 0;
        while self.recovery.send_allowance(self.now) >= MSS {
            self.send(1);
            segments += 1;
            assert!(segments < 1_000, "no end of it");
        }
        segments
    }

    /// An ACK up to `segment`, exclusive, with SACK blocks by segments.
    #[track_caller]
    fn sack(&mut self, segment: u64, blocks: &[(u64, u64)]) -> AckOutcome {
        let sack: Vec<_> = blocks
            .iter()
            .map(|&(start, end)| at(start)..at(end))
            .collect();
        let is_duplicate =
            at(segment) == self.recovery.snd_una() && self.recovery.flight_size() > 0;
        let rtt = self.setup.timestamps.then_some(ms(100));
        self.arrive(&AckArrival {
            ack: at(segment),
            sack: &sack,
            is_duplicate,
            rtt,
            rtt_tsecr: None,
            ecn_echo: false,
        })
    }

    #[track_caller]
    fn ack(&mut self, segment: u64) -> AckOutcome {
        self.sack(segment, &[])
    }

    #[track_caller]
    fn duplicates(&mut self, count: u32) {
        let una = self.recovery.snd_una().saturating_since(Offset::FIRST) / MSS;
        for _ in 0..count {
            self.ack(una);
        }
    }

    #[track_caller]
    fn arrive(&mut self, arrival: &AckArrival<'_>) -> AckOutcome {
        self.log.lock().unwrap().order.clear();
        let outcome = self.recovery.on_ack(self.now, arrival);
        self.recovery.check_invariants();
        let order = self.log.lock().unwrap().order.clone();
        assert!(order.is_sorted(), "hooks out of order: {order:?}");
        outcome
    }

    /// Goes to the timer's deadline and lets it expire.
    #[track_caller]
    fn expire(&mut self) {
        self.now = self
            .recovery
            .rto_deadline()
            .expect("the timer does not run");
        self.recovery.on_rto(self.now);
        self.recovery.check_invariants();
    }

    /// Goes to the deadline of the reordering timer, which has to be the one that runs, and lets it expire.
    #[track_caller]
    fn expire_reordering(&mut self, millis: u64) {
        let expected = (Timestamp::from_millis(millis), RecoveryTimer::Reordering);
        assert_eq!(self.recovery.timer(), Some(expected));
        self.now = expected.0;
        self.recovery.on_reordering_timeout(self.now);
        self.recovery.check_invariants();
    }

    /// Goes to the deadline of the probe timer, which has to be the one that runs, and lets it expire.
    #[track_caller]
    fn expire_probe(&mut self, millis: u64) {
        let expected = (Timestamp::from_millis(millis), RecoveryTimer::Probe);
        assert_eq!(self.recovery.timer(), Some(expected));
        self.now = expected.0;
        self.recovery.on_probe_timeout(self.now);
        assert!(self.recovery.is_probe_due());
        self.recovery.check_invariants();
    }

    /// Sends the last segment again.
    #[track_caller]
    fn probe(&mut self) {
        let end = self.recovery.snd_nxt();
        self.recovery
            .on_retransmitted(self.now, end.saturating_back(MSS)..end);
        assert!(!self.recovery.is_probe_due());
        self.recovery.check_invariants();
    }

    /// Sends `segment` again, which has to be the next and allowed.
    #[track_caller]
    fn expect_retransmission(&mut self, segment: u64) {
        let next = self.recovery.next_retransmission(MSS);
        assert_eq!(next, Some(at(segment)..at(segment + 1)));
        let allowance = self.recovery.send_allowance(self.now);
        assert!(allowance >= MSS, "only {allowance} bytes allowed");
        self.recovery
            .on_retransmitted(self.now, at(segment)..at(segment + 1));
        self.recovery.check_invariants();
    }

    #[track_caller]
    fn expect_no_retransmission(&self) {
        assert_eq!(self.recovery.next_retransmission(MSS), None);
    }

    #[track_caller]
    fn expect_retransmission_is_not_due(&self) {
        assert!(self.recovery.send_allowance(self.now) < MSS);
    }

    #[track_caller]
    fn expect_allowance(&self, segments: u64) {
        assert_eq!(
            self.recovery.send_allowance(self.now),
            segments * MSS,
            "allowance"
        );
    }

    #[track_caller]
    fn expect_pipe(&self, segments: u64) {
        assert_eq!(self.recovery.pipe(), segments * MSS, "pipe");
    }

    #[track_caller]
    fn expect_heard(&mut self, expected: &[Heard]) {
        let heard = std::mem::take(&mut self.log.lock().unwrap().heard);
        assert_eq!(heard, expected);
    }

    /// The losses and the entry of an episode that begins with the loss of `lost` segments.
    #[track_caller]
    fn expect_recovery(&mut self, lost: u64, flight: u64, in_flight: u64) {
        let mut expected: Vec<_> = (0..lost).map(|_| Heard::Lost { bytes: MSS }).collect();
        let (flight_size, in_flight) = (flight * MSS, in_flight * MSS);
        expected.push(Heard::Entered {
            flight_size,
            in_flight,
        });
        self.expect_heard(&expected);
        assert!(self.recovery.is_in_recovery());
    }

    /// The losses and the timeout of an expiry that found `lost` segments in flight.
    #[track_caller]
    fn expect_timeout(&mut self, lost: u64, flight: u64, consecutive: u32) {
        let mut expected: Vec<_> = (0..lost).map(|_| Heard::Lost { bytes: MSS }).collect();
        expected.push(Heard::TimedOut {
            flight_size: flight * MSS,
            consecutive,
        });
        self.expect_heard(&expected);
    }

    #[track_caller]
    fn expect_exit(&mut self) {
        self.expect_heard(&[Heard::Exited]);
        assert!(!self.recovery.is_in_recovery());
    }

    fn last_acked(&self) -> Acked {
        *self
            .log
            .lock()
            .unwrap()
            .acked
            .last()
            .expect("no ACK was passed on")
    }

    fn deadline(&self) -> Option<u64> {
        self.recovery.rto_deadline().map(Timestamp::as_millis)
    }
}

impl Drop for RecoveryTest {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.expect_heard(&[]);
        }
    }
}
