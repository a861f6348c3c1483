//! `LinkConfig` and its builder: what a link does to datagrams, and the validation of it.

use std::time::Duration;

use super::trace::RateTrace;
use crate::error::ConfigError;
use crate::timestamp::Timestamp;

/// What one direction of a simulated path does to datagrams. The default does nothing at all.
///
/// ```
/// use std::time::Duration;
/// use reliable_udp::sim::LinkConfig;
///
/// # fn main() -> Result<(), reliable_udp::ConfigError> {
/// let link = LinkConfig::builder()
///     .delay(Duration::from_millis(20))
///     .rate(1_250_000)
///     .queue_bytes(64 * 1024)
///     .loss(0.01)
///     .build()?;
/// # let _ = link;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use]
pub struct LinkConfig {
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) rate: Option<u64>,
    pub(super) trace: Option<RateTrace>,
    pub(super) queue_bytes: Option<usize>,
    pub(super) queue_datagrams: Option<usize>,
    pub(super) loss: f64,
    pub(super) burst: Option<Burst>,
    pub(super) duplicate: f64,
    pub(super) reorder: f64,
    pub(super) lateness: Duration,
    pub(super) corrupt: f64,
    pub(super) mtu: Option<usize>,
    /// From when on another limit holds, in order.
    pub(super) mtu_changes: Vec<(Duration, usize)>,
    pub(super) blackouts: Vec<Blackout>,
    pub(super) spikes: Vec<Spike>,
    pub(super) drops: Vec<u64>,
    pub(super) mark_bytes: Option<usize>,
    pub(super) mark_delay: Option<Duration>,
    pub(super) marks: MarkTreatment,
}

/// What a path does to congestion marks (RFC 3168 §5) besides setting them where its queue is long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MarkTreatment {
    /// Leaves them alone.
    #[default]
    Keep,
    /// Clears all of them, "congestion experienced" too.
    Clear,
    /// Sets "congestion experienced" on every datagram, marked or not.
    Spoil,
    /// Drops every datagram that has one.
    Drop,
}

/// The two-state loss model of Gilbert and Elliott; the good state loses nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Burst {
    pub(super) enter: f64,
    pub(super) leave: f64,
    pub(super) loss: f64,
}

/// A time during which nothing passes, once or again every `period`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Blackout {
    start: Duration,
    length: Duration,
    period: Option<Duration>,
}

impl Blackout {
    pub(super) fn covers(self, now: Timestamp) -> bool {
        let since_origin = now.saturating_since(Timestamp::ZERO);
        let Some(since) = since_origin.checked_sub(self.start) else {
            return false;
        };
        match self.period {
            None => since < self.length,
            Some(period) => since.as_nanos() % period.as_nanos().max(1) < self.length.as_nanos(),
        }
    }
}

/// A time during which everything is delayed by more than usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spike {
    start: Duration,
    length: Duration,
    extra: Duration,
}

impl LinkConfig {
    /// Returns the largest datagram that passes at `now`; `None` is no limit.
    pub(super) fn mtu_at(&self, now: Timestamp) -> Option<usize> {
        let since_origin = now.saturating_since(Timestamp::ZERO);
        let after = self
            .mtu_changes
            .partition_point(|change| change.0 <= since_origin);
        let latest = after
            .checked_sub(1)
            .and_then(|index| self.mtu_changes.get(index));
        latest.map(|change| change.1).or(self.mtu)
    }

    /// Returns what the delay spikes add to the delay of what leaves the transmitter at `departure`.
    pub(super) fn spike_at(&self, departure: Timestamp) -> Duration {
        let since_origin = departure.saturating_since(Timestamp::ZERO);
        let is_on = |spike: &&Spike| {
            since_origin >= spike.start && since_origin.saturating_sub(spike.start) < spike.length
        };
        self.spikes
            .iter()
            .filter(is_on)
            .map(|spike| spike.extra)
            .sum()
    }

    /// Starts from a link that does nothing.
    pub fn builder() -> LinkConfigBuilder {
        LinkConfigBuilder {
            config: Self::default(),
        }
    }

    /// Starts from this configuration.
    pub fn to_builder(&self) -> LinkConfigBuilder {
        LinkConfigBuilder {
            config: self.clone(),
        }
    }

    /// Tells whether every datagram arrives at once and unchanged.
    pub fn is_transparent(&self) -> bool {
        *self == Self::default()
    }

    /// Tells whether all datagrams that enter together arrive together or not at all, whatever
    /// their number and sizes.
    pub(super) fn is_uniform(&self) -> bool {
        let uniform = Self {
            delay: self.delay,
            blackouts: self.blackouts.clone(),
            ..Self::default()
        };
        *self == uniform
    }
}

/// Builds a [`LinkConfig`]; made by [`LinkConfig::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct LinkConfigBuilder {
    config: LinkConfig,
}

impl LinkConfigBuilder {
    /// Sets the one-way delay, at most 1 hour. Default: 0.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.config.delay = delay;
        self
    }

    /// Adds up to this much to the delay of each datagram, uniformly, at most 1 hour. Order is kept.
    /// Default: 0.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.config.jitter = jitter;
        self
    }

    /// Sets the transmitter's rate in bytes of UDP payload per second, at least 1. Default: no limit.
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.config.rate = Some(bytes_per_second);
        self
    }

    /// Lets the transmitter send when a trace says so, which begins with the simulation and repeats, instead
    /// of at a constant [`rate`](Self::rate). Default: none.
    pub fn trace(mut self, trace: RateTrace) -> Self {
        self.config.trace = Some(trace);
        self
    }

    /// Sets how many bytes may wait for the transmitter, the one being sent included, at least 1; a
    /// datagram that does not fit is dropped unless nothing waits. Needs a
    /// [`rate`](Self::rate) or a [`trace`](Self::trace). Default: no limit.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.config.queue_bytes = Some(bytes);
        self
    }

    /// Sets how many datagrams may wait for the transmitter, the one being sent included, at least 1.
    /// Needs a [`rate`](Self::rate) or a [`trace`](Self::trace). Default: no limit.
    pub fn queue_datagrams(mut self, datagrams: usize) -> Self {
        self.config.queue_datagrams = Some(datagrams);
        self
    }

    /// Loses each datagram with this probability, 0 to 1. Default: 0.
    pub fn loss(mut self, probability: f64) -> Self {
        self.config.loss = probability;
        self
    }

    /// Loses datagrams in bursts (Gilbert-Elliott): with each datagram the link enters its bad state
    /// with probability `enter` or leaves it with probability `leave`, and in the bad state loses
    /// the datagram with probability `loss`; each 0 to 1. Default: never.
    pub fn burst_loss(mut self, enter: f64, leave: f64, loss: f64) -> Self {
        self.config.burst = Some(Burst { enter, leave, loss });
        self
    }

    /// Delivers a datagram twice with this probability, 0 to 1. Default: 0.
    pub fn duplicate(mut self, probability: f64) -> Self {
        self.config.duplicate = probability;
        self
    }

    /// With this probability, 0 to 1, delays a datagram by up to `lateness` more, uniformly, at most
    /// 1 hour, while later ones overtake it. Default: 0.
    pub fn reorder(mut self, probability: f64, lateness: Duration) -> Self {
        self.config.reorder = probability;
        self.config.lateness = lateness;
        self
    }

    /// With this probability, 0 to 1, flips one to eight bits of one byte of a datagram. The plain
    /// checksum detects every such error. Default: 0.
    pub fn corrupt(mut self, probability: f64) -> Self {
        self.config.corrupt = probability;
        self
    }

    /// Silently drops datagrams of more than this many bytes of UDP payload, at least 1: a path MTU
    /// black hole. Default: no limit.
    pub fn mtu(mut self, bytes: usize) -> Self {
        self.config.mtu = Some(bytes);
        self
    }

    /// Replaces that limit by `bytes` from `start` on, counted from the beginning of the simulation: the route has
    /// changed. May be called again for later changes; those of one time hold in the order of the calls. Default: none.
    pub fn mtu_from(mut self, start: Duration, bytes: usize) -> Self {
        let changes = &mut self.config.mtu_changes;
        changes.insert(
            changes.partition_point(|change| change.0 <= start),
            (start, bytes),
        );
        self
    }

    /// Drops everything sent from `start` until `start + length`, counted from the beginning of the
    /// simulation. May be called again for further ones. Default: none.
    pub fn blackout(mut self, start: Duration, length: Duration) -> Self {
        self.config.blackouts.push(Blackout {
            start,
            length,
            period: None,
        });
        self
    }

    /// Drops everything sent during `length` from `start` on and again after every `period`, which
    /// has to be longer than `length`. Default: none.
    pub fn periodic_blackout(
        mut self,
        start: Duration,
        length: Duration,
        period: Duration,
    ) -> Self {
        self.config.blackouts.push(Blackout {
            start,
            length,
            period: Some(period),
        });
        self
    }

    /// Adds `extra`, at most 1 hour, to the delay of everything that leaves the transmitter from `start`
    /// until `start + length`, counted from the beginning of the simulation. Order is kept: what leaves
    /// right afterwards waits behind it. May be called again; spikes that overlap add up. Default: none.
    pub fn delay_spike(mut self, start: Duration, length: Duration, extra: Duration) -> Self {
        self.config.spikes.push(Spike {
            start,
            length,
            extra,
        });
        self
    }

    /// Drops the datagram with this number, counted from 0. May be called again for further ones.
    /// Default: none.
    pub fn drop_nth(mut self, number: u64) -> Self {
        self.config.drops.push(number);
        self
    }

    /// Marks a datagram "congestion experienced" if it is ECT and finds more than this many bytes waiting for the
    /// transmitter. Needs a [`rate`](Self::rate) or a [`trace`](Self::trace). Default: never.
    pub fn mark_above_bytes(mut self, bytes: usize) -> Self {
        self.config.mark_bytes = Some(bytes);
        self
    }

    /// Marks a datagram "congestion experienced" if it is ECT and has to wait for the transmitter for more than
    /// this long. Needs a [`rate`](Self::rate) or a [`trace`](Self::trace). Default: never.
    pub fn mark_above_delay(mut self, delay: Duration) -> Self {
        self.config.mark_delay = Some(delay);
        self
    }

    /// Sets what becomes of congestion marks, those included that the link itself has set. Default:
    /// [`MarkTreatment::Keep`].
    pub fn marks(mut self, treatment: MarkTreatment) -> Self {
        self.config.marks = treatment;
        self
    }

    /// Checks all values and returns the configuration.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first value that is out of range or contradicts another.
    pub fn build(self) -> Result<LinkConfig, ConfigError> {
        let c = &self.config;
        let spikes = c.spikes.iter().map(|spike| ("delay_spike", spike.extra));
        let delays = [
            ("delay", c.delay),
            ("jitter", c.jitter),
            ("reorder", c.lateness),
        ];
        for (field, value) in delays.into_iter().chain(spikes) {
            if value > Duration::from_secs(3_600) {
                return Err(out_of_range(field, format!("{value:?}"), "0 to 1 h"));
            }
        }
        let burst = c.burst.unwrap_or(Burst {
            enter: 0.0,
            leave: 0.0,
            loss: 0.0,
        });
        for (field, value) in [
            ("loss", c.loss),
            ("burst_loss", burst.enter),
            ("burst_loss", burst.leave),
            ("burst_loss", burst.loss),
            ("duplicate", c.duplicate),
            ("reorder", c.reorder),
            ("corrupt", c.corrupt),
        ] {
            // Not a number is in no range.
            if !(0.0..=1.0).contains(&value) {
                return Err(out_of_range(field, value.to_string(), "0 to 1"));
            }
        }
        let queue_datagrams = c.queue_datagrams;
        for (field, is_zero) in [
            ("rate", c.rate == Some(0)),
            ("queue_bytes", c.queue_bytes == Some(0)),
            ("queue_datagrams", queue_datagrams == Some(0)),
            ("mtu", c.mtu == Some(0)),
            ("mtu_from", c.mtu_changes.iter().any(|change| change.1 == 0)),
        ] {
            if is_zero {
                return Err(out_of_range(field, "0".to_owned(), "at least 1"));
            }
        }
        for (field, value) in [
            ("queue_bytes", c.queue_bytes),
            ("queue_datagrams", queue_datagrams),
            ("mark_above_bytes", c.mark_bytes),
            (
                "mark_above_delay",
                c.mark_delay
                    .map(|delay| usize::try_from(delay.as_millis()).unwrap_or(usize::MAX)),
            ),
        ] {
            if let (Some(value), None, None) = (value, c.rate, &c.trace) {
                let conflict = "without a rate or a trace nothing is queued";
                let value = value.to_string();
                return Err(ConfigError::Conflict {
                    field,
                    value,
                    conflict,
                });
            }
        }
        if let (Some(rate), Some(_)) = (c.rate, &c.trace) {
            return Err(ConfigError::Conflict {
                field: "rate",
                value: rate.to_string(),
                conflict: "the trace sets the rate",
            });
        }
        for blackout in &c.blackouts {
            if blackout
                .period
                .is_some_and(|period| period <= blackout.length)
            {
                return Err(ConfigError::Conflict {
                    field: "periodic_blackout",
                    value: format!("{:?}", blackout.length),
                    conflict: "the period is not longer",
                });
            }
        }
        Ok(self.config)
    }
}

fn out_of_range(field: &'static str, value: String, range: &'static str) -> ConfigError {
    ConfigError::OutOfRange {
        field,
        value,
        range,
    }
}
