//! What one measurement gives, and what it is computed from.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// Figures by name.
pub(crate) type Figures = BTreeMap<String, f64>;

/// How long and how much.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) seconds: f64,
    /// How many connections at once where that is asked for; without it, the measurement's own.
    pub(crate) connections: Option<usize>,
}

impl Settings {
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// What this process has used so far.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    cpu: Duration,
}

impl Usage {
    pub(crate) fn now() -> io::Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        Ok(Self {
            cpu: duration(usage.user_time()) + duration(usage.system_time()),
        })
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu - before.cpu,
        }
    }

    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.cpu.as_secs_f64()
    }

    /// The figures of so many bytes in so much time.
    pub(crate) fn transfer(&self, bytes: u64, took: Duration) -> Figures {
        let gigabytes = bytes as f64 / 1e9;
        Figures::from([
            ("gbit".to_owned(), gigabytes * 8.0 / took.as_secs_f64()),
            ("cpu_per_gb".to_owned(), self.cpu.as_secs_f64() / gigabytes),
        ])
    }
}

fn duration(time: TimeVal) -> Duration {
    Duration::from_secs(time.tv_sec().unsigned_abs())
        + Duration::from_micros(time.tv_usec().unsigned_abs())
}

/// The most memory that was resident at once, and what is now, in bytes.
pub(crate) fn resident() -> io::Result<(f64, f64)> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024.0)
    };
    match (field("VmHWM:"), field("VmRSS:")) {
        (Some(peak), Some(now)) => Ok((peak, now)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
