//! The locks and flags that handles and driver task share: std's, or loom's where `tests/races` tries
//! every order of events.

#[cfg(not(loom))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(loom)]
pub(super) use self::visible::{Mutex, MutexGuard};
#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Loom's lock, but with a moment behind the release in which others may act, and one before it where
/// others may find the lock taken. Loom itself goes on to the next access that it knows: what comes
/// before that, such as a notification, would always belong to the critical section.
#[cfg(loom)]
mod visible {
    use std::ops::{Deref, DerefMut};
    use std::sync::{LockResult, TryLockError, TryLockResult};

    use loom::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug)]
    pub(crate) struct Mutex<T> {
        inner: loom::sync::Mutex<T>,
        releases: AtomicUsize,
    }

    #[derive(Debug)]
    pub(crate) struct MutexGuard<'a, T> {
        /// Present until dropped.
        inner: Option<loom::sync::MutexGuard<'a, T>>,
        releases: &'a AtomicUsize,
        /// Whether others may find the lock taken, and not wait for it.
        is_tried: bool,
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self {
                inner: loom::sync::Mutex::new(value),
                releases: AtomicUsize::new(0),
            }
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            // Loom's locks are never poisoned.
            Ok(self.guard(self.inner.lock().unwrap(), false))
        }

        pub(crate) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
            match self.inner.try_lock() {
                Ok(inner) => Ok(self.guard(inner, true)),
                Err(_) => Err(TryLockError::WouldBlock),
            }
        }

        fn guard<'a>(
            &'a self,
            inner: loom::sync::MutexGuard<'a, T>,
            is_tried: bool,
        ) -> MutexGuard<'a, T> {
            MutexGuard {
                inner: Some(inner),
                releases: &self.releases,
                is_tried,
            }
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.inner.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.inner.as_mut().unwrap()
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            let touch = || {
                if !std::thread::panicking() {
                    self.releases.fetch_add(1, Ordering::Relaxed);
                }
            };
            if self.is_tried {
                touch();
            }
            self.inner = None;
            touch();
        }
    }
}
