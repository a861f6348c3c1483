//! The watchdog: a session in which nothing moves ends with an error that says what was missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::error::CopyError;

/// How often within the time it allows the watchdog looks.
const LOOKS: u32 = 8;

/// Counts what moves, and names what is waited for.
#[derive(Debug)]
pub(super) struct Watch {
    /// Grows with each byte on the stream.
    moved: AtomicU64,
    /// Grows with each byte on this side's disk.
    worked: Arc<AtomicU64>,
    waiting_for: AtomicUsize,
}

/// What has to happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Disk,
    Room,
    Peer,
}

impl Wait {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Disk, "this side's disk"),
        (Self::Room, "the stream to take more"),
        (Self::Peer, "the other side"),
    ];
}

impl Watch {
    pub(super) fn new(worked: Arc<AtomicU64>) -> Self {
        Self {
            moved: AtomicU64::new(0),
            worked,
            waiting_for: AtomicUsize::new(0),
        }
    }

    /// Something crossed the stream.
    pub(super) fn moved(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// How much this side's disk has done.
    pub(super) fn worked(&self) -> u64 {
        self.worked.load(Ordering::Relaxed)
    }

    pub(super) fn wait_for(&self, wait: Wait) {
        let index = Wait::ALL.iter().position(|(known, _)| *known == wait);
        self.waiting_for
            .store(index.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Resolves once nothing has moved for `patience`, give or take an eighth.
    pub(super) async fn stalled(&self, patience: Duration) -> CopyError {
        let mut looks = interval((patience / LOOKS).max(Duration::from_millis(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = (0, 0);
        let mut idle = 0;
        loop {
            looks.tick().await;
            let seen = (self.moved.load(Ordering::Relaxed), self.worked());
            idle = if seen == last { idle + 1 } else { 0 };
            last = seen;
            if idle > LOOKS {
                let waiting_for = self.waiting_for.load(Ordering::Relaxed);
                let waiting_for = Wait::ALL.get(waiting_for).map_or("", |(_, name)| name);
                return CopyError::Stalled {
                    file: None,
                    after: patience,
                    waiting_for,
                };
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_pause_of_that_length_is_a_stall() {
        let worked = Arc::new(AtomicU64::new(0));
        let watch = Watch::new(Arc::clone(&worked));
        watch.wait_for(Wait::Room);
        let patience = Duration::from_secs(8);
        let begin = tokio::time::Instant::now();
        let moving = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(7)).await;
                watch.moved();
                tokio::time::sleep(Duration::from_secs(7)).await;
                worked.fetch_add(1, Ordering::Relaxed);
            }
        };
        let (error, ()) = tokio::join!(watch.stalled(patience), moving);
        let took = begin.elapsed().as_secs();
        assert!((148..=150).contains(&took), "{took} s");
        assert_eq!(
            error.to_string(),
            "no progress for 8s (stall_timeout), waiting for the stream to take more"
        );
    }
}
