//! Path MTU discovery: how large the datagrams are that the path carries (RFC 8899, with the probes of
//! RFC 4821).
//!
//! Decides which size is sent, which one is probed next, and when the size in use no longer passes. All sizes
//! are UDP payloads in bytes. It sends nothing: `egress` asks for the size of a probe, `sender` finds the data
//! that fills it, `recovery` tells what became of it, and the transport which size the system refused.
//!
//! ```text
//!              probe passed: next size             600 s later
//!             ┌────────┐                     ┌──────────────────┐
//!             ▼        │   nothing left      ▼                  │
//!   start ─► Searching ┴──────────────► SearchComplete ─────────┘
//!             ▲   │                          │
//!             │   │ two timeouts in a row    │
//!  it passes, │   ▼                          │
//!  or six are └─ Base ◄──────────────────────┘
//!  lost           │ four timeouts in a row
//!                 ▼
//!               Error ─► Searching, once the base size passes
//! ```
//!
//! The search goes up the sizes of common links, since a probe that passes costs nothing, and halves what is left between a size that
//! passed and one that did not. Whether that is worth it depends on who said no: the system refuses at once
//! and for free what is larger than the interface, but a size that vanishes on the way costs
//! [`MAX_PROBES`] segments, so only a narrow gap is narrowed further.
//!
//! A black hole shows as data that is sent again and again in vain. The timeouts of a path that merely loses
//! much look the same, so what they cause is cheap: segments of the base size, and probes of the former size
//! beside them. If one passes, it was ordinary loss, and all is as before; if none of
//! [`BLACK_HOLE_PROBES`] does while the data goes through, it was a black hole.
//!
//! Left out on purpose: ICMP "packet too big" (RFC 8899 §4.6), which an attacker can send too, and which tells no
//! more than the probes find out in a round trip.

use std::time::Duration;

use crate::{Config, Timestamp};

/// RFC 8899 §5.1.2: losses of probes of one size before it counts as too large.
const MAX_PROBES: u8 = 3;
/// The same for a size that has passed before and is suspected to vanish now: with every sixth segment lost,
/// one of 50,000 suspicions is wrongly confirmed.
const BLACK_HOLE_PROBES: u8 = 6;
/// RFC 8899 §5.1.1: how long a finished search rests.
const PMTU_RAISE_TIMER: Duration = Duration::from_secs(600);
/// RFC 8899 §5.1.1: between probes of the base size where not even that passes.
const PROBE_TIMER: Duration = Duration::from_secs(15);
/// RFC 8899 §5.1.2 `MIN_PLPMTU`: what is sent where the base size does not pass. RFC 791 §3.1: every host takes
/// 576 bytes, of which IP and UDP take 28 and seldom more than 64.
const MIN_SIZE: u16 = 512;
/// Timeouts in a row that let the size in use appear too large.
const SUSPICIOUS_TIMEOUTS: u32 = 2;
/// Timeouts in a row that let the base size appear too large.
const DESPERATE_TIMEOUTS: u32 = 4;
/// Sizes on the way up: Ethernet's 1,500 bytes less the headers of IPv6 and UDP, and of IPv4 and UDP; jumbo frames of 9,000
/// bytes; all that IPv4 can carry.
const STEPS: [u16; 4] = [1_452, 1_472, 8_972, 65_507];
/// What is looked at first between a step and a larger one that the interface refused: the same with IPv6.
const STEPS_BELOW: [u16; 2] = [8_952, 65_487];
/// What is gained by another probe must be more than this part of the size.
const WORTHWHILE: u16 = 32;
/// Below this gap in bytes the search ends in any case.
const SMALLEST_GAP: u16 = 16;
/// A gap wider than this part of the size, whose upper end vanished on the way, is left alone: no link in use has
/// an MTU in there.
const NARROW: u16 = 4;

/// The states of RFC 8899 §5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The size is fixed.
    Disabled,
    /// The base size is in use because `suspect`, which had passed, seems to vanish; it is probed.
    Base {
        /// The former size.
        suspect: u16,
    },
    /// `candidate` is probed, larger than what is in use.
    Searching {
        /// What is probed.
        candidate: u16,
    },
    /// Nothing larger is worth probing.
    SearchComplete {
        /// When to look again.
        raise_at: Timestamp,
    },
    /// The base size does not pass; it is probed now and then.
    Error {
        /// When to probe it.
        retry_at: Timestamp,
    },
}

/// The smallest size that is known not to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ceiling {
    size: u16,
    /// Whether the system said so, and not silence.
    is_local: bool,
}

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The peer has it.
    Passed,
    /// It was lost.
    Lost,
    /// Nobody can tell: its data has arrived, but some of it was sent twice.
    Inconclusive,
}

/// The search for the largest datagram that the path carries.
///
/// Invariants:
/// - `base <= max`, and unless the state is `Error`, `base <= size <= max`;
/// - a candidate lies above `size` and below the ceiling;
/// - at most one probe is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMtu {
    state: State,
    /// What is in use: `PLPMTU`.
    size: u16,
    /// `BASE_PLPMTU`
    base: u16,
    /// `MAX_PLPMTU`
    max: u16,
    ceiling: Option<Ceiling>,
    /// The size of the probe on its way.
    probe: Option<u16>,
    /// `PROBE_COUNT`: losses in a row of the size that is probed.
    losses: u8,
    probes_sent: u32,
    probes_lost: u32,
    black_holes: u32,
}

impl PathMtu {
    /// Makes that of a connection whose handshake is not finished.
    pub fn new(config: &Config) -> Self {
        let size = narrow(config.datagram_size);
        Self {
            state: State::Disabled,
            size,
            base: narrow(config.min_datagram_size).min(size),
            max: narrow(config.max_datagram_size).max(size),
            ceiling: None,
            probe: None,
            losses: 0,
            probes_sent: 0,
            probes_lost: 0,
            black_holes: 0,
        }
    }

    /// The handshake is done: `limit` is the largest datagram that both sides take. Searches if `is_enabled`.
    pub fn start(&mut self, now: Timestamp, limit: usize, is_enabled: bool) {
        let limit = narrow(limit);
        self.size = self.size.min(limit);
        self.base = self.base.min(limit);
        self.max = self.max.min(limit);
        if is_enabled {
            self.advance(now);
        }
    }

    /// Returns the largest UDP payload in use, in bytes.
    pub fn size(&self) -> usize {
        usize::from(self.size)
    }

    /// Returns how many probes were sent.
    pub fn probes_sent(&self) -> u64 {
        self.probes_sent.into()
    }

    /// Returns how many of them were lost or refused.
    pub fn probes_lost(&self) -> u64 {
        self.probes_lost.into()
    }

    /// Returns how often a size that had passed no longer did.
    pub fn black_holes(&self) -> u64 {
        self.black_holes.into()
    }

    /// Returns the size of the probe that is wanted now, in bytes.
    pub fn wanted(&mut self, now: Timestamp) -> Option<usize> {
        if self.probe.is_some() {
            return None;
        }
        if let State::SearchComplete { raise_at } = self.state
            && now >= raise_at
        {
            // RFC 8899 §5.2: the path may carry more by now. No timer wakes anybody for this: there is
            // nothing to probe with before there is something to send.
            self.ceiling = None;
            self.advance(now);
        }
        match self.state {
            State::Disabled | State::SearchComplete { .. } => None,
            State::Base { suspect } => Some(suspect),
            State::Searching { candidate } => Some(candidate),
            State::Error { retry_at } => (now >= retry_at).then_some(self.base),
        }
        .map(usize::from)
    }

    /// A probe of `size` left.
    pub fn on_probe_sent(&mut self, size: usize) {
        self.probe = Some(narrow(size));
        self.probes_sent = self.probes_sent.saturating_add(1);
    }

    /// It is known what became of the probe.
    pub fn on_probe_outcome(&mut self, now: Timestamp, outcome: ProbeOutcome) {
        let Some(size) = self.probe.take() else {
            return;
        };
        match outcome {
            ProbeOutcome::Passed => self.on_passed(now, size),
            ProbeOutcome::Lost => self.on_lost(now, size),
            ProbeOutcome::Inconclusive => {}
        }
    }

    /// The retransmission timer has expired `consecutive` times without progress.
    pub fn on_timeout(&mut self, now: Timestamp, consecutive: u32) {
        if self.state == State::Disabled {
            return;
        }
        if self.size > self.base {
            if consecutive >= SUSPICIOUS_TIMEOUTS {
                self.state = State::Base { suspect: self.size };
                self.fall_to(self.base);
            }
        } else if consecutive >= DESPERATE_TIMEOUTS && self.size > MIN_SIZE {
            self.state = State::Error { retry_at: now };
            self.fall_to(MIN_SIZE);
        }
    }

    /// The system refused a datagram of `size` because it is larger than the interface.
    pub fn on_refused(&mut self, now: Timestamp, size: usize) {
        let size = narrow(size);
        if self.probe.take_if(|probe| *probe == size).is_some() {
            self.probes_lost = self.probes_lost.saturating_add(1);
            self.fail(now, size, true);
        } else if size <= self.size && self.state != State::Disabled && size > MIN_SIZE {
            // The route has changed to a narrower interface.
            self.black_holes = self.black_holes.saturating_add(1);
            self.lower_ceiling(size, true);
            if size > self.base {
                self.fall_to(self.base);
                self.advance(now);
            } else {
                self.state = State::Error {
                    retry_at: now + PROBE_TIMER,
                };
                self.fall_to(MIN_SIZE);
            }
        }
    }

    fn on_passed(&mut self, now: Timestamp, size: u16) {
        self.losses = 0;
        if self.size < size {
            self.size = size;
            tracing::debug!(size, "path MTU");
        }
        if self.ceiling.is_some_and(|ceiling| ceiling.size <= size) {
            self.ceiling = None;
        }
        self.advance(now);
    }

    fn on_lost(&mut self, now: Timestamp, size: u16) {
        self.probes_lost = self.probes_lost.saturating_add(1);
        self.losses += 1;
        let most = match self.state {
            State::Base { .. } => BLACK_HOLE_PROBES,
            State::Disabled
            | State::Searching { .. }
            | State::SearchComplete { .. }
            | State::Error { .. } => MAX_PROBES,
        };
        if self.losses >= most {
            self.fail(now, size, false);
        }
    }

    /// Datagrams of `size` do not pass.
    fn fail(&mut self, now: Timestamp, size: u16, is_local: bool) {
        self.losses = 0;
        match self.state {
            State::Disabled | State::SearchComplete { .. } => {}
            State::Base { .. } => {
                self.black_holes = self.black_holes.saturating_add(1);
                tracing::debug!(size, "black hole");
                self.lower_ceiling(size, is_local);
                self.advance(now);
            }
            State::Searching { .. } => {
                self.lower_ceiling(size, is_local);
                self.advance(now);
            }
            State::Error { .. } => {
                self.state = State::Error {
                    retry_at: now + PROBE_TIMER,
                };
            }
        }
    }

    fn lower_ceiling(&mut self, size: u16, is_local: bool) {
        if self.ceiling.is_none_or(|ceiling| size < ceiling.size) {
            self.ceiling = Some(Ceiling { size, is_local });
        }
    }

    fn fall_to(&mut self, size: u16) {
        tracing::debug!(from = self.size, size, "path MTU in doubt");
        self.size = self.size.min(size);
        self.probe = None;
        self.losses = 0;
    }

    fn advance(&mut self, now: Timestamp) {
        self.state = match self.next_candidate() {
            Some(candidate) => State::Searching { candidate },
            None => State::SearchComplete {
                raise_at: now + PMTU_RAISE_TIMER,
            },
        };
    }

    /// Returns what to probe next, larger than what is in use (RFC 8899 §5.3.2).
    fn next_candidate(&self) -> Option<u16> {
        let (size, max) = (self.size, self.max);
        let is_open = |step: u16| {
            step > size && step <= max && self.ceiling.is_none_or(|ceiling| step < ceiling.size)
        };
        if let Some(step) = STEPS.into_iter().find(|&step| is_open(step)) {
            return Some(step);
        }
        let Some(ceiling) = self.ceiling else {
            return (max > size).then_some(max);
        };
        if ceiling.is_local
            && let Some(step) = STEPS_BELOW.into_iter().rev().find(|&step| is_open(step))
        {
            return Some(step);
        }
        let gap = ceiling.size.min(max.saturating_add(1)).saturating_sub(size);
        let is_worthwhile = gap > SMALLEST_GAP.max(size / WORTHWHILE);
        let is_cheap = ceiling.is_local || gap <= size / NARROW;
        (is_worthwhile && is_cheap).then_some(size + gap / 2)
    }

    /// Panics if an invariant of the struct does not hold.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub fn check_invariants(&self) {
        assert!(self.base <= self.max, "{self:?}");
        match self.state {
            State::Error { .. } => assert!(self.size <= self.max, "{self:?}"),
            State::Disabled
            | State::Base { .. }
            | State::Searching { .. }
            | State::SearchComplete { .. } => {
                assert!((self.base..=self.max).contains(&self.size), "{self:?}");
            }
        }
        if let State::Searching { candidate } = self.state {
            let ceiling = self.ceiling.map_or(u32::MAX, |c| c.size.into());
            assert!(
                candidate > self.size && u32::from(candidate) < ceiling,
                "{self:?}"
            );
        }
    }
}

fn narrow(size: usize) -> u16 {
    u16::try_from(size).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
