//! `Link`: one direction of a simulated path, datagram in, deliveries out.
//!
//! A datagram passes, in this order: the blackouts, what drops marks, and the scripted drops, the MTU, the queue
//! (drop-tail, marks), the transmitter (rate or trace), the wire (random and burst loss, corruption, duplication),
//! the delay with its jitter and spikes, and possibly a detour (reordering). Only a detour changes the order;
//! jitter alone never does.
//!
//! Every impairment draws from a random stream of its own, a fixed number of times per datagram
//! whatever becomes of it: switching one impairment on or off leaves what the others do to the n-th
//! datagram as it was.

mod config;
mod trace;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::ecn::Ecn;
use crate::sim::rng::Rng;
use crate::timestamp::Timestamp;

pub use self::config::{LinkConfig, LinkConfigBuilder, MarkTreatment};
pub use self::trace::{RateTrace, RateTraceError};

/// What a [`Link`] has done so far; every datagram sent is counted under `delivered` or under
/// exactly one of the `lost` and `dropped` causes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// Datagrams that entered the link.
    pub sent: u64,
    /// Datagrams that leave it at least once, corrupted or not.
    pub delivered: u64,
    /// Bytes of these.
    pub bytes_delivered: u64,
    /// Datagrams lost at random.
    pub lost_random: u64,
    /// Datagrams lost in a burst.
    pub lost_burst: u64,
    /// Datagrams dropped because the queue was full.
    pub dropped_queue: u64,
    /// Datagrams dropped because they were larger than the MTU.
    pub dropped_mtu: u64,
    /// Datagrams dropped during a blackout.
    pub dropped_blackout: u64,
    /// Datagrams dropped because they were marked.
    pub dropped_marked: u64,
    /// Datagrams dropped by number.
    pub dropped_scripted: u64,
    /// Datagrams that the queue has marked "congestion experienced".
    pub marked: u64,
    /// Datagrams delivered twice.
    pub duplicated: u64,
    /// Datagrams delayed so that later ones may overtake them.
    pub reordered: u64,
    /// Datagrams delivered with flipped bits.
    pub corrupted: u64,
}

/// What waits for a [`Link`]'s transmitter at an instant, the datagram being sent included. Nothing ever
/// waits where there is neither a rate nor a trace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkQueue {
    /// Datagrams.
    pub datagrams: usize,
    /// Bytes of these, UDP payload only.
    pub bytes: usize,
    /// How long it takes until all of them have left: the queueing delay of what is sent now.
    pub delay: Duration,
}

/// A datagram as it leaves a [`Link`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// When it arrives.
    pub at: Timestamp,
    /// Its bytes, possibly corrupted.
    pub datagram: Bytes,
    /// The mark in its IP header.
    pub ecn: Option<Ecn>,
}

/// What becomes of one datagram: nothing, one delivery or two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Deliveries([Option<Delivery>; 2]);

impl IntoIterator for Deliveries {
    type Item = Delivery;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Delivery>, 2>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

/// One direction of a simulated path.
///
/// Invariants:
/// - `queue` holds, in order of departure, what has not left the transmitter at `now`;
///   `queued_bytes` is the sum of its lengths, and `busy_until` its last departure;
/// - deliveries that take no detour are in order.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    streams: Streams,
    is_bad: bool,
    queue: VecDeque<(Timestamp, usize)>,
    queued_bytes: usize,
    busy_until: Timestamp,
    progress: trace::Progress,
    last_arrival: Timestamp,
    stats: LinkStats,
}

/// One random stream per impairment.
#[derive(Debug)]
struct Streams {
    jitter: Rng,
    loss: Rng,
    burst: Rng,
    duplicate: Rng,
    reorder: Rng,
    corrupt: Rng,
}

impl Streams {
    fn new(seed: u64) -> Self {
        // The numbers are part of what a seed means; a new impairment takes the next one.
        Self {
            jitter: Rng::stream(seed, 0),
            loss: Rng::stream(seed, 1),
            burst: Rng::stream(seed, 2),
            duplicate: Rng::stream(seed, 3),
            reorder: Rng::stream(seed, 4),
            corrupt: Rng::stream(seed, 5),
        }
    }
}

/// What the random streams have in store for one datagram.
struct Draw {
    jitter: Duration,
    is_lost: bool,
    is_burst_lost: bool,
    is_duplicated: bool,
    detour: Option<Duration>,
    corruption: Option<(u64, u8)>,
}

impl Link {
    /// Makes a link; `seed` and `config` alone decide what it will do.
    pub fn new(seed: u64, config: LinkConfig) -> Self {
        Self {
            config,
            streams: Streams::new(seed),
            is_bad: false,
            queue: VecDeque::new(),
            queued_bytes: 0,
            busy_until: Timestamp::ZERO,
            progress: trace::Progress::default(),
            last_arrival: Timestamp::ZERO,
            stats: LinkStats::default(),
        }
    }

    /// Returns its configuration.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Replaces its configuration for what is sent from now on; what it has queued stays queued.
    pub fn set_config(&mut self, config: LinkConfig) {
        if let Some(trace) = config.trace.as_ref()
            && self.config.trace.as_ref() != Some(trace)
        {
            self.progress = trace::Progress::new(trace, self.busy_until);
        }
        self.config = config;
    }

    /// Returns what it has done so far.
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Returns what waits for the transmitter at `now`, which is not before the latest datagram was sent.
    pub fn queue(&self, now: Timestamp) -> LinkQueue {
        let departed = self.queue.iter().take_while(|(at, _)| *at <= now);
        let (datagrams, bytes) = departed.fold((0, 0), |(n, sum), (_, len)| (n + 1, sum + len));
        LinkQueue {
            datagrams: self.queue.len() - datagrams,
            bytes: self.queued_bytes.saturating_sub(bytes),
            delay: self.busy_until.saturating_since(now),
        }
    }

    /// Sends a datagram without a mark into the link; `now` never goes backwards. Deliveries may be later than
    /// those of datagrams sent afterwards.
    pub fn send(&mut self, now: Timestamp, datagram: Bytes) -> Deliveries {
        self.send_marked(now, datagram, None)
    }

    /// Sends a datagram with a mark in its IP header into the link, else as [`send`](Self::send).
    pub fn send_marked(&mut self, now: Timestamp, datagram: Bytes, ecn: Option<Ecn>) -> Deliveries {
        let number = self.stats.sent;
        self.stats.sent += 1;
        let len = datagram.len();
        let draw = self.draw();
        if ecn.is_some() && self.config.marks == MarkTreatment::Drop {
            self.stats.dropped_marked += 1;
            return Deliveries::default();
        }
        let Some((departure, is_crowded)) = self.admit(now, number, len) else {
            return Deliveries::default();
        };
        let ecn = self.mark(ecn, is_crowded);
        if draw.is_lost {
            self.stats.lost_random += 1;
            return Deliveries::default();
        }
        if draw.is_burst_lost {
            self.stats.lost_burst += 1;
            return Deliveries::default();
        }

        self.stats.delivered += 1;
        self.stats.bytes_delivered += len as u64;
        let spike = self.config.spike_at(departure);
        let mut at = (departure + self.config.delay + draw.jitter + spike).max(self.last_arrival);
        if let Some(lateness) = draw.detour {
            self.stats.reordered += 1;
            at = at + lateness;
        } else {
            self.last_arrival = at;
        }
        let datagram = match draw.corruption {
            Some((position, mask)) if len > 0 => {
                self.stats.corrupted += 1;
                corrupted(&datagram, position, mask)
            }
            _ => datagram,
        };
        let copy = draw.is_duplicated.then(|| Delivery {
            at,
            datagram: datagram.clone(),
            ecn,
        });
        self.stats.duplicated += u64::from(copy.is_some());
        Deliveries([Some(Delivery { at, datagram, ecn }), copy])
    }

    /// Sends a train of datagrams, `stride` bytes each but for the last, and passes on what arrives as
    /// `deliver(at, bytes, stride, ecn)`: trains stay whole where the configuration treats all alike.
    pub(crate) fn send_train(
        &mut self,
        now: Timestamp,
        train: Bytes,
        stride: usize,
        ecn: Option<Ecn>,
        mut deliver: impl FnMut(Timestamp, Bytes, usize, Option<Ecn>),
    ) {
        let stride = stride.clamp(1, train.len().max(1));
        if self.config.is_uniform() {
            if self.is_down(now) {
                let datagrams = train.len().div_ceil(stride).max(1) as u64;
                self.stats.sent += datagrams;
                self.stats.dropped_blackout += datagrams;
                return;
            }
            self.count_train(train.len(), stride);
            deliver(now + self.config.delay, train, stride, ecn);
            return;
        }
        let mut rest = train;
        loop {
            let datagram = rest.split_to(stride.min(rest.len()));
            let len = datagram.len();
            for delivery in self.send_marked(now, datagram, ecn) {
                deliver(delivery.at, delivery.datagram, len.max(1), delivery.ecn);
            }
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Counts a train that passed by a link which does nothing.
    pub(crate) fn count_train(&mut self, len: usize, stride: usize) {
        let datagrams = len.div_ceil(stride.max(1)).max(1) as u64;
        self.stats.sent += datagrams;
        self.stats.delivered += datagrams;
        self.stats.bytes_delivered += len as u64;
    }

    /// Draws for one datagram from every stream in use.
    fn draw(&mut self) -> Draw {
        let c = &self.config;
        let s = &mut self.streams;
        let jitter = if c.jitter.is_zero() {
            Duration::ZERO
        } else {
            s.jitter.duration(c.jitter)
        };
        let is_lost = c.loss > 0.0 && s.loss.chance(c.loss);
        let is_burst_lost = c.burst.is_some_and(|burst| {
            let turns = s.burst.chance(if self.is_bad {
                burst.leave
            } else {
                burst.enter
            });
            self.is_bad ^= turns;
            let is_lost = s.burst.chance(burst.loss);
            self.is_bad && is_lost
        });
        let is_duplicated = c.duplicate > 0.0 && s.duplicate.chance(c.duplicate);
        let detour = (c.reorder > 0.0)
            .then(|| (s.reorder.chance(c.reorder), s.reorder.duration(c.lateness)))
            .and_then(|(happens, lateness)| happens.then_some(lateness));
        let corruption = (c.corrupt > 0.0)
            .then(|| {
                let happens = s.corrupt.chance(c.corrupt);
                let position = s.corrupt.next_u64();
                let mask = u8::try_from(s.corrupt.range(1..=255)).unwrap_or(1);
                (happens, (position, mask))
            })
            .and_then(|(happens, what)| happens.then_some(what));
        Draw {
            jitter,
            is_lost,
            is_burst_lost,
            is_duplicated,
            detour,
            corruption,
        }
    }

    /// Returns the mark that a datagram leaves the queue with.
    fn mark(&mut self, ecn: Option<Ecn>, is_crowded: bool) -> Option<Ecn> {
        let is_marked = is_crowded && matches!(ecn, Some(Ecn::Ect0 | Ecn::Ect1));
        self.stats.marked += u64::from(is_marked);
        match self.config.marks {
            MarkTreatment::Clear => None,
            MarkTreatment::Spoil => Some(Ecn::Ce),
            MarkTreatment::Keep | MarkTreatment::Drop if is_marked => Some(Ecn::Ce),
            MarkTreatment::Keep | MarkTreatment::Drop => ecn,
        }
    }

    /// Passes a datagram through everything before the wire; returns when its last byte has left the
    /// transmitter, and whether the queue was longer than it should be.
    fn admit(&mut self, now: Timestamp, number: u64, len: usize) -> Option<(Timestamp, bool)> {
        if self.is_down(now) {
            self.stats.dropped_blackout += 1;
            return None;
        }
        if self.config.drops.contains(&number) {
            self.stats.dropped_scripted += 1;
            return None;
        }
        if self.config.mtu_at(now).is_some_and(|mtu| len > mtu) {
            self.stats.dropped_mtu += 1;
            return None;
        }
        if self.config.rate.is_none() && self.config.trace.is_none() {
            return Some((now, false));
        }
        while let Some(&(departure, bytes)) = self.queue.front() {
            if departure > now {
                break;
            }
            self.queue.pop_front();
            self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        }
        let is_over_bytes = self
            .config
            .queue_bytes
            .is_some_and(|limit| self.queued_bytes + len > limit);
        let is_over_datagrams = self
            .config
            .queue_datagrams
            .is_some_and(|limit| self.queue.len() >= limit);
        if !self.queue.is_empty() && (is_over_bytes || is_over_datagrams) {
            self.stats.dropped_queue += 1;
            return None;
        }
        let is_crowded = self
            .config
            .mark_bytes
            .is_some_and(|limit| self.queued_bytes > limit)
            || self
                .config
                .mark_delay
                .is_some_and(|limit| self.busy_until.saturating_since(now) > limit);
        self.busy_until = self.departure(now, len);
        self.queue.push_back((self.busy_until, len));
        self.queued_bytes += len;
        Some((self.busy_until, is_crowded))
    }

    /// Returns when the last byte of what is admitted now leaves the transmitter.
    fn departure(&mut self, now: Timestamp, len: usize) -> Timestamp {
        if let Some(trace) = &self.config.trace {
            return self.progress.depart(trace, now, len);
        }
        let rate = self.config.rate.map_or(u128::MAX, u128::from).max(1);
        let nanos = (len as u128 * 1_000_000_000).div_ceil(rate);
        let transmission = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.busy_until.max(now) + transmission
    }

    fn is_down(&self, now: Timestamp) -> bool {
        self.config
            .blackouts
            .iter()
            .any(|blackout| blackout.covers(now))
    }
}

/// Returns a copy of a datagram that is not empty, with the bits of `mask` flipped in one byte.
fn corrupted(datagram: &Bytes, position: u64, mask: u8) -> Bytes {
    let mut bytes = datagram.to_vec();
    let index = usize::try_from(position % bytes.len().max(1) as u64).unwrap_or(0);
    if let Some(byte) = bytes.get_mut(index) {
        *byte ^= mask;
    }
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests;
