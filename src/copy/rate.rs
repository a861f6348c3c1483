//! A bound on how fast sessions send.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::check_range;
use super::error::CopyError;

/// What may be made up for after a pause: enough that coarse timers do not cost speed.
const CATCH_UP: Duration = Duration::from_millis(50);

const MIN_PIECE_LEN: usize = 64;
const MAX_PIECE_LEN: usize = 16 * 1024;

/// Bounds how fast all sessions that share it send together.
///
/// Bytes count as they are handed to the stream, frames and repeated attempts included. Cloning
/// shares the bound.
///
/// ```
/// use reliable_udp::copy::{RateLimit, Sender};
///
/// let limit = RateLimit::new(2_000_000)?; // 16 Mbit/s in all, however many targets there are
/// let sender = Sender::builder().rate_limit(limit).build()?;
/// # Ok::<(), reliable_udp::copy::CopyError>(())
/// ```
#[derive(Debug, Clone)]
pub struct RateLimit {
    bytes_per_second: u64,
    /// When the next byte may go: the time that everything handed out so far takes.
    next: Arc<Mutex<Option<Instant>>>,
}

impl RateLimit {
    /// Makes a bound of so many bytes per second. Range: from 1,024.
    ///
    /// # Errors
    /// [`CopyError::InvalidArgument`] below that.
    pub fn new(bytes_per_second: u64) -> Result<Self, CopyError> {
        let range = "1,024 bytes per second and more";
        let is_inside = bytes_per_second >= 1024;
        check_range(is_inside, "rate_limit", &bytes_per_second, range)?;
        Ok(Self {
            bytes_per_second,
            next: Arc::default(),
        })
    }

    /// How much should go at a time, in bytes: a sixteenth of a second's worth, so that none of many
    /// sessions at a low rate waits for so long that it seems stalled.
    pub(super) fn piece_len(&self) -> usize {
        let piece = usize::try_from(self.bytes_per_second / 16);
        piece.map_or(MAX_PIECE_LEN, |piece| {
            piece.clamp(MIN_PIECE_LEN, MAX_PIECE_LEN)
        })
    }

    /// Waits until so many bytes may go. Cancelled, the bytes count as gone.
    pub(super) async fn take(&self, bytes: usize) {
        #[expect(
            clippy::disallowed_methods,
            reason = "no part of the core; a bound on bytes per second is about real time"
        )]
        let now = Instant::now();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let start = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
            let start = next.unwrap_or(now).max(earliest);
            *next = start.checked_add(cost);
            start
        };
        sleep_until(start).await;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sessions_share_the_bound() {
        let limit = RateLimit::new(100_000).unwrap();
        let begin = Instant::now();
        let session = |limit: RateLimit| async move {
            for _ in 0..100 {
                limit.take(10_000).await;
            }
        };
        tokio::join!(session(limit.clone()), session(limit));
        // 2 MB at 100 kB/s: 20 s, of which the last piece starts 0.1 s before the end.
        let took = begin.elapsed().as_secs_f64();
        assert!((19.7..20.1).contains(&took), "{took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_not_made_up_for() {
        let limit = RateLimit::new(1_000_000).unwrap();
        limit.take(1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begin = Instant::now();
        for _ in 0..100 {
            limit.take(10_000).await;
        }
        let took = begin.elapsed().as_secs_f64();
        assert!((0.9..1.01).contains(&took), "{took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn none_of_many_sessions_waits_for_long() {
        let limit = RateLimit::new(10_000).unwrap();
        let session = |limit: RateLimit| async move {
            for _ in 0..5 {
                let begin = Instant::now();
                limit.take(limit.piece_len()).await;
                assert!(begin.elapsed() < Duration::from_secs(10));
            }
        };
        let sessions: Vec<_> = (0..100)
            .map(|_| tokio::spawn(session(limit.clone())))
            .collect();
        for session in sessions {
            session.await.unwrap();
        }
    }

    #[test]
    fn a_bound_that_would_look_like_a_stall_is_refused() {
        assert!(RateLimit::new(1023).is_err());
    }
}
