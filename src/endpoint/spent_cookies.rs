//! Cookies that have been redeemed: each makes one connection.
//!
//! A cookie proves itself for as long as it lives, and the ACK that carries it may be late, or come twice:
//! once its connection has ended, a copy would open another one and deliver the same data again. RFC 4987
//! §3.6 leaves that open. As with TIME-WAIT records, the oldest makes room when there are too many.

use std::collections::{HashSet, VecDeque};

use super::cookie::LIFETIME;
use super::demux::{Key, KeyedHash};
use crate::timestamp::Timestamp;
use crate::wire::SeqNumber;

/// Redeemed cookies that may still be valid.
///
/// Invariants:
/// - `order` and `spent` hold the same cookies, each once;
/// - `order` is sorted by time;
/// - there are at most `capacity` of them.
#[derive(Debug)]
pub(super) struct SpentCookies {
    spent: HashSet<(Key, SeqNumber), KeyedHash>,
    order: VecDeque<(Timestamp, Key, SeqNumber)>,
    capacity: usize,
}

impl SpentCookies {
    pub(super) fn new(hash: &KeyedHash, capacity: usize) -> Self {
        Self {
            spent: HashSet::with_hasher(hash.clone()),
            order: VecDeque::new(),
            capacity,
        }
    }

    /// Notes that the connection with our initial sequence number `iss` was made from a cookie.
    pub(super) fn insert(&mut self, now: Timestamp, key: Key, iss: SeqNumber) {
        self.expire(now);
        if self.capacity == 0 || !self.spent.insert((key, iss)) {
            return;
        }
        if self.order.len() >= self.capacity
            && let Some((_, key, iss)) = self.order.pop_front()
        {
            self.spent.remove(&(key, iss));
        }
        self.order.push_back((now + LIFETIME, key, iss));
    }

    pub(super) fn contains(&self, key: &Key, iss: SeqNumber) -> bool {
        self.spent.contains(&(*key, iss))
    }

    /// Removes what could not be redeemed any more. There is no timer for it: what waits here is small, and
    /// goes when the next cookie is redeemed.
    fn expire(&mut self, now: Timestamp) {
        while let Some(&(until, key, iss)) = self.order.front() {
            if until > now {
                break;
            }
            self.order.pop_front();
            self.spent.remove(&(key, iss));
        }
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.spent.len(), self.order.len(), "spent cookies");
        assert!(self.order.len() <= self.capacity, "too many spent cookies");
        assert!(
            self.order.iter().is_sorted_by_key(|&(until, ..)| until),
            "order"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_the_expired_go() {
        let mut cookies = SpentCookies::new(&KeyedHash::new(1), 2);
        let key = |port| Key::new("10.0.0.1:9".parse().unwrap(), port, 1);
        let iss = SeqNumber::new(7);
        for port in 1..=3 {
            cookies.insert(Timestamp::from_millis(u64::from(port)), key(port), iss);
            cookies.check_invariants();
        }
        let held = |cookies: &SpentCookies| {
            (1..=4)
                .map(|p| cookies.contains(&key(p), iss))
                .collect::<Vec<_>>()
        };
        assert_eq!(held(&cookies), [false, true, true, false]);
        assert!(!cookies.contains(&key(2), SeqNumber::new(8)));
        // Twice is once.
        cookies.insert(Timestamp::from_millis(4), key(3), iss);
        cookies.check_invariants();
        // 2 and 3 were noted at 2 and 3 ms.
        cookies.insert(Timestamp::from_millis(3) + LIFETIME, key(4), iss);
        cookies.check_invariants();
        assert_eq!(held(&cookies), [false, false, false, true]);
    }
}
