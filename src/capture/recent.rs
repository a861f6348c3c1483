//! A map that forgets what has not been asked for in a long time: what strangers send must not make it
//! grow without bound.

use std::collections::HashMap;
use std::hash::Hash;

/// Entries per generation. There are two: an entry lives until twice as many others were touched.
const GENERATION: usize = 32_768;

/// A bounded map.
///
/// Invariant: neither generation holds more than `limit` entries, and no key is in both.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    limit: usize,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    pub(super) fn new() -> Self {
        Self::with_limit(GENERATION)
    }

    fn with_limit(limit: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            limit,
        }
    }

    /// Returns the value of `key` if there is one, which then counts as touched.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.limit {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_stays_and_the_rest_goes() {
        let mut recent = Recent::with_limit(10);
        recent.insert(0, "kept");
        for key in 1..1_000 {
            recent.insert(key, "passing");
            assert_eq!(recent.get(&0), Some(&"kept"), "after {key}");
            assert!(recent.young.len() <= 10 && recent.old.len() <= 10);
        }
        assert_eq!(recent.get(&1), None);
        assert_eq!(recent.get(&999), Some(&"passing"));
    }
}
