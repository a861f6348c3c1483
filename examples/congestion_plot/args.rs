//! The command line: presets of paths, and what overrides them.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use reliable_udp::congestion::CongestionControl;
use reliable_udp::sim::RateTrace;

use super::scene::{Rate, Scene};
use super::units::{Blackout, Queue, blackout, duration, queue, rate, share};

/// The trace of `--path lte`; `synthetic.rs` made it.
pub(crate) const LTE_TRACE: &str = include_str!("lte.trace");

/// Draws what congestion controllers do on a simulated path, in virtual time: window, round-trip time, delivered
/// rate and queue, with losses, recoveries and timeouts. The same arguments give the same picture, byte for byte.
#[derive(Debug, Clone, Parser)]
#[command(after_help = "\
Examples:
  congestion_plot --congestion cubic --svg cubic.svg
  congestion_plot --congestion newreno,cubic --path lossy --csv samples.csv
  congestion_plot --congestion cubic,cubic --together --stagger 10s --length 60s
  congestion_plot --trace cellular.down --rtt 40ms --queue 200
  congestion_plot --path clean --blackout 10s+2s

Traces are files of mahimahi's mm-link: one line per opportunity to deliver 1,504 bytes, in milliseconds
from the beginning; the trace repeats at its end.")]
pub(crate) struct Args {
    /// Controllers, one column of pictures each, or one colour each with --together.
    #[arg(
        long,
        value_name = "NAMES",
        value_enum,
        value_delimiter = ',',
        default_value = "cubic"
    )]
    pub(crate) congestion: Vec<Controller>,
    /// Lets all of them compete on one bottleneck instead of having the path for themselves, one after another.
    #[arg(long)]
    pub(crate) together: bool,
    /// Lets each start this much after the one before, such as 5s; with --together.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = duration,
        default_value = "0s",
        requires = "together"
    )]
    pub(crate) stagger: Duration,
    /// Sends what the window allows at once instead of spreading it over the round trip.
    #[arg(long)]
    pub(crate) no_pacing: bool,
    /// The path; what follows overrides parts of it.
    #[arg(long, value_name = "NAME", value_enum, default_value = "clean")]
    pub(crate) path: Preset,
    /// Rate of the bottleneck in UDP payload, such as 20mbit.
    #[arg(long, value_name = "RATE", value_parser = rate, conflicts_with = "trace")]
    pub(crate) rate: Option<u64>,
    /// Trace file in mahimahi's format that drives the bottleneck.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Rate of the way back, such as 3mbit [default: no limit, but for satellite].
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) return_rate: Option<u64>,
    /// Round-trip time without the queue, such as 50ms.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) rtt: Option<Duration>,
    /// What may wait at the bottleneck: bandwidth-delay products, such as 1.5bdp, or datagrams, such as 100.
    #[arg(long, value_name = "SIZE", value_parser = queue)]
    pub(crate) queue: Option<Queue>,
    /// Share of the datagrams that is lost at random on the way there, such as 0.01 or 1%.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) loss: Option<f64>,
    /// Delay of up to this much more for each datagram, in order, such as 5ms.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) jitter: Option<Duration>,
    /// Numbers of datagrams that are dropped on the way there, counted from 0.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    pub(crate) drop: Vec<u64>,
    /// Times at which nothing passes: START+LENGTH or START+LENGTH/PERIOD, such as 10s+2s or 5s+2s/20s.
    #[arg(long, value_name = "TIMES", value_delimiter = ',', value_parser = blackout)]
    pub(crate) blackout: Vec<Blackout>,
    /// Length of the picture, such as 30s.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    pub(crate) length: Duration,
    /// Seed of the path's dice.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Time between samples, 1ms at least [default: length / 6000].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) sample: Option<Duration>,
    /// Time over which rates are averaged [default: the RTT, or length / 150 if that is more].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) interval: Option<Duration>,
    /// Where the picture goes.
    #[arg(long, value_name = "FILE", default_value = "congestion.svg")]
    pub(crate) svg: PathBuf,
    /// Where the samples go, as comma-separated values.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Writes the synthetic trace of `--path lte` there, draws nothing.
    #[arg(long, value_name = "FILE")]
    pub(crate) write_trace: Option<PathBuf>,
}

/// A controller by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Controller {
    /// RFC 5681 and RFC 6582
    Newreno,
    /// RFC 9438 with HyStart++ (RFC 9406)
    Cubic,
    /// Version 3 (draft-ietf-ccwg-bbr)
    Bbr,
}

impl Controller {
    /// Returns it with dice that depend on `seed` only, and not on the connection's secrets.
    pub(crate) fn control(self, seed: u64) -> CongestionControl {
        let control = match self {
            Self::Newreno => CongestionControl::NewReno,
            Self::Cubic => CongestionControl::Cubic,
            Self::Bbr => CongestionControl::Bbr,
        };
        CongestionControl::Custom(Arc::new(move |params| {
            let mut params = *params;
            params.seed = seed;
            control.make(&params)
        }))
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Newreno => "NewReno",
            Self::Cubic => "CUBIC",
            Self::Bbr => "BBR",
        }
    }
}

/// A path by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// 20 Mbit/s, 50 ms, queue of 1 BDP
    Clean,
    /// The same with 1 % random loss
    Lossy,
    /// 250 Mbit/s there, 3 Mbit/s back, 600 ms, queue of 1 BDP
    Satellite,
    /// A synthetic trace of a cellular link, about 8 Mbit/s, 50 ms, 5 ms jitter, 300 datagrams
    Lte,
}

impl Preset {
    fn rate(self) -> Result<Rate, Box<dyn Error>> {
        Ok(match self {
            Self::Clean | Self::Lossy => Rate::Constant(2_500_000),
            Self::Satellite => Rate::Constant(31_250_000),
            Self::Lte => Rate::Trace(RateTrace::parse_mahimahi(LTE_TRACE)?),
        })
    }

    fn return_rate(self) -> Option<u64> {
        match self {
            Self::Satellite => Some(375_000),
            Self::Clean | Self::Lossy | Self::Lte => None,
        }
    }

    fn rtt(self) -> Duration {
        Duration::from_millis(match self {
            Self::Clean | Self::Lossy | Self::Lte => 50,
            Self::Satellite => 600,
        })
    }

    fn queue(self) -> Queue {
        match self {
            Self::Clean | Self::Lossy | Self::Satellite => Queue::Bdp(1.0),
            Self::Lte => Queue::Datagrams(300),
        }
    }

    fn loss(self) -> f64 {
        match self {
            Self::Lossy => 0.01,
            Self::Clean | Self::Satellite | Self::Lte => 0.0,
        }
    }

    fn jitter(self) -> Duration {
        Duration::from_millis(match self {
            Self::Lte => 5,
            Self::Clean | Self::Lossy | Self::Satellite => 0,
        })
    }
}

impl Args {
    /// Returns the path that these arguments describe.
    pub(crate) fn scene(&self) -> Result<Scene, Box<dyn Error>> {
        let rate = match (&self.trace, self.rate) {
            (Some(file), _) => {
                let shown = file.display();
                let text =
                    fs::read_to_string(file).map_err(|e| format!("cannot read {shown}: {e}"))?;
                let trace = RateTrace::parse_mahimahi(&text).map_err(|error| {
                    format!("{shown} is no trace of mahimahi (one time in ms per line): {error}")
                })?;
                Rate::Trace(trace)
            }
            (None, Some(rate)) => Rate::Constant(rate),
            (None, None) => self.path.rate()?,
        };
        let shortest = Duration::from_millis(100);
        let longest = Duration::from_secs(3_600);
        if !(shortest..=longest).contains(&self.length) {
            return Err("--length has to be from 100ms to 60min".into());
        }
        let rtt = self.rtt.unwrap_or_else(|| self.path.rtt());
        let tick = Duration::from_millis(1);
        let sample = self.sample.unwrap_or((self.length / 6_000).max(tick));
        if sample < tick || sample > self.length {
            return Err(
                "--sample has to be from 1ms, the simulated clock's tick, to --length".into(),
            );
        }
        // A round number of milliseconds.
        let about = rtt.max(self.length / 150).max(sample).as_millis();
        let about = u64::try_from(about).unwrap_or(u64::MAX).div_ceil(10);
        let about = Duration::from_millis(about * 10).min(self.length);
        let interval = self.interval.unwrap_or(about);
        if interval < sample || interval > self.length {
            return Err("--interval has to be from the time between samples to --length".into());
        }
        let scene = Scene {
            rate,
            return_rate: self.return_rate.or(self.path.return_rate()),
            rtt,
            queue: self.queue.unwrap_or_else(|| self.path.queue()),
            loss: self.loss.unwrap_or_else(|| self.path.loss()),
            jitter: self.jitter.unwrap_or_else(|| self.path.jitter()),
            drops: self.drop.clone(),
            blackouts: self.blackout.clone(),
            seed: self.seed,
            stagger: self.stagger,
            paces: !self.no_pacing,
            length: self.length,
            sample,
            interval,
        };
        // What is out of range is said before anything runs.
        let _ = (scene.forward()?, scene.backward()?);
        Ok(scene)
    }
}
