//! `OnDemand`: a part of a connection that takes memory only while there is something in it.
//!
//! An idle connection is to hold little. What it keeps for data under way stands in boxes of this kind: each is made
//! with the first change, and given back when nothing is left in it.

use std::ops::{Deref, DerefMut};

/// A type of which one value stands for all that nobody has written to.
pub trait Blank: Sized + 'static {
    /// Makes an empty value, which holds no memory of its own.
    fn new() -> Self;

    /// Returns the one to be looked at in place of all others.
    fn blank() -> &'static Self;
}

/// A value that takes memory from the first change on, until it is released.
#[derive(Debug, Clone)]
pub struct OnDemand<T>(Option<Box<T>>);

impl<T> OnDemand<T> {
    /// Makes an empty one.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Returns the value to be changed, if it takes memory.
    pub fn existing(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// Empties it and gives its memory back.
    pub fn release(&mut self) {
        self.0 = None;
    }
}

impl<T: Blank> Deref for OnDemand<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => T::blank(),
        }
    }
}

impl<T: Blank> DerefMut for OnDemand<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_with(|| Box::new(T::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Blank for Vec<u8> {
        fn new() -> Self {
            Self::new()
        }

        fn blank() -> &'static Self {
            static BLANK: Vec<u8> = Vec::new();
            &BLANK
        }
    }

    #[test]
    fn only_a_change_takes_memory() {
        let mut value = OnDemand::<Vec<u8>>::new();
        assert!(value.is_empty() && value.existing().is_none());
        value.push(1);
        assert_eq!(value[..], [1]);
        assert!(value.existing().is_some());
        value.release();
        assert!(value.is_empty() && value.existing().is_none());
    }
}
