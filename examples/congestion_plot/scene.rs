//! `Scene`: the simulated path, for how long, and how closely it is looked at.

use std::time::Duration;

use reliable_udp::sim::{LinkConfig, RateTrace};
use reliable_udp::{ConfigError, Timestamp};

use super::units::{Blackout, Queue, short, show_rate, show_time};

/// Datagrams that may wait for the way back, which carries ACKs only.
const RETURN_QUEUE: usize = 1_000;

/// What the bottleneck carries.
#[derive(Debug, Clone)]
pub(crate) enum Rate {
    /// Bytes of UDP payload per second.
    Constant(u64),
    Trace(RateTrace),
}

/// A path and a time.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) rate: Rate,
    /// That of the way back, unlimited if there is none.
    pub(crate) return_rate: Option<u64>,
    pub(crate) rtt: Duration,
    pub(crate) queue: Queue,
    pub(crate) loss: f64,
    pub(crate) jitter: Duration,
    pub(crate) drops: Vec<u64>,
    pub(crate) blackouts: Vec<Blackout>,
    pub(crate) seed: u64,
    /// Between the beginnings of two transfers.
    pub(crate) stagger: Duration,
    /// Whether windows are spread over the round trip.
    pub(crate) paces: bool,
    pub(crate) length: Duration,
    /// Between two looks at the connections.
    pub(crate) sample: Duration,
    /// Over which rates are averaged.
    pub(crate) interval: Duration,
}

impl Scene {
    /// Returns the way of the data.
    pub(crate) fn forward(&self) -> Result<LinkConfig, ConfigError> {
        let mut builder = self.lossless();
        builder = match &self.rate {
            Rate::Constant(rate) => builder.rate(*rate),
            Rate::Trace(trace) => builder.trace(trace.clone()),
        };
        builder = match self.queue {
            Queue::Bdp(_) => builder.queue_bytes(self.queue_bytes().unwrap_or(1)),
            Queue::Datagrams(datagrams) => builder.queue_datagrams(datagrams),
        };
        for number in &self.drops {
            builder = builder.drop_nth(*number);
        }
        builder.loss(self.loss).jitter(self.jitter).build()
    }

    /// Returns the way of the ACKs.
    pub(crate) fn backward(&self) -> Result<LinkConfig, ConfigError> {
        let builder = self.lossless();
        match self.return_rate {
            Some(rate) => builder.rate(rate).queue_datagrams(RETURN_QUEUE).build(),
            None => builder.build(),
        }
    }

    fn lossless(&self) -> reliable_udp::sim::LinkConfigBuilder {
        let mut builder = LinkConfig::builder().delay(self.rtt / 2);
        for blackout in &self.blackouts {
            builder = match blackout.period {
                None => builder.blackout(blackout.start, blackout.length),
                Some(period) => builder.periodic_blackout(blackout.start, blackout.length, period),
            };
        }
        builder
    }

    /// Returns the bottleneck's rate in bytes per second, averaged over the trace if there is one.
    pub(crate) fn mean_rate(&self) -> u64 {
        match &self.rate {
            Rate::Constant(rate) => *rate,
            Rate::Trace(trace) => trace.mean_rate(),
        }
    }

    /// Returns how many bytes the bottleneck can carry between two times.
    pub(crate) fn capacity(&self, from: Duration, until: Duration) -> f64 {
        match &self.rate {
            #[expect(clippy::cast_precision_loss, reason = "a height in a picture")]
            Rate::Constant(rate) => until.saturating_sub(from).as_secs_f64() * *rate as f64,
            #[expect(clippy::cast_precision_loss, reason = "a height in a picture")]
            Rate::Trace(trace) => {
                trace.capacity(Timestamp::ZERO + from, Timestamp::ZERO + until) as f64
            }
        }
    }

    /// Returns the bandwidth-delay product in bytes.
    #[expect(clippy::cast_precision_loss, reason = "a size of a picture")]
    pub(crate) fn bdp(&self) -> f64 {
        self.mean_rate() as f64 * self.rtt.as_secs_f64()
    }

    /// Returns the queue's limit in bytes, if that is its unit.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates"
    )]
    pub(crate) fn queue_bytes(&self) -> Option<usize> {
        match self.queue {
            Queue::Bdp(products) => Some((self.bdp() * products).max(1.0) as usize),
            Queue::Datagrams(_) => None,
        }
    }

    /// Says in one line what path this is.
    pub(crate) fn describe(&self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "a text for readers")]
        let rate = show_rate(self.mean_rate() as f64);
        let mut parts = vec![match &self.rate {
            Rate::Constant(_) => rate,
            Rate::Trace(_) => format!("trace of {rate} on average"),
        }];
        #[expect(clippy::cast_precision_loss, reason = "a text for readers")]
        parts.extend(
            self.return_rate
                .map(|rate| format!("{} back", show_rate(rate as f64))),
        );
        parts.push(format!("RTT {}", show_time(self.rtt)));
        parts.push(match self.queue {
            Queue::Bdp(products) => {
                let kilobytes = (self.bdp() * products / 1e3).round();
                format!("queue {} BDP ({kilobytes} kB)", short(products))
            }
            Queue::Datagrams(datagrams) => format!("queue of {datagrams} datagrams"),
        });
        if self.loss > 0.0 {
            parts.push(format!("{} % random loss", short(self.loss * 100.0)));
        }
        if !self.jitter.is_zero() {
            parts.push(format!("jitter {}", show_time(self.jitter)));
        }
        if !self.drops.is_empty() {
            parts.push(format!("{} datagrams dropped by number", self.drops.len()));
        }
        for blackout in &self.blackouts {
            let again = blackout.period.map(|p| format!(" every {}", show_time(p)));
            parts.push(format!(
                "blackout of {} at {}{}",
                show_time(blackout.length),
                show_time(blackout.start),
                again.unwrap_or_default()
            ));
        }
        if self.loss > 0.0 || !self.jitter.is_zero() {
            parts.push(format!("seed {}", self.seed));
        }
        if !self.paces {
            parts.push("windows not paced".to_owned());
        }
        parts.join(", ")
    }
}
