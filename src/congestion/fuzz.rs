//! The entry of the `controllers` fuzz target: every controller in the box by the same stream of events.

#![allow(
    clippy::panic,
    reason = "to panic is how a property fails, and this is never compiled into a user's build"
)]

use super::CongestionControl;
use super::conformance::Suite;

/// Runs the stream that `data` encodes ([`Suite::run_stream`]) on each controller.
///
/// # Panics
///
/// If one breaks a rule.
pub fn fuzz_controllers(data: &[u8]) {
    for suite in suites() {
        if let Err(violation) = suite.run_stream(data) {
            panic!("{:?}: {violation}", suite.control());
        }
    }
}

/// Every controller in the box, with the rules that it departs from on purpose.
pub(super) fn suites() -> Vec<Suite> {
    vec![
        Suite::new(&CongestionControl::NewReno),
        Suite::new(&CongestionControl::Cubic),
    ]
}
