//! The entry of the `controllers` fuzz target: every controller in the box by the same stream of events.

#![allow(
    clippy::panic,
    reason = "to panic is how a property fails, and this is never compiled into a user's build"
)]

use super::CongestionControl;
use super::conformance::{Rule, Suite};

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
        Suite::new(&CongestionControl::Bbr)
            // draft-ietf-ccwg-bbr-06 §2.8 `BBR.MinPipeCwnd`
            .minimum_window(4)
            // A loss below the threshold is no reason to send less while the model is made or checked.
            .except(Rule::LossReduces)
            // Each round trip with a loss lowers the short-term model.
            .except(Rule::OneReductionPerEpisode)
            // It is the model, and not the use of the window, that says how large it has to be.
            .except(Rule::NoGrowthWhileLimited)
            // An undo gives back the last window that no repair has lowered, which may be one from before an earlier
            // episode (draft-ietf-ccwg-bbr-06 §5.6.4.4).
            .except(Rule::UndoRestores),
    ]
}
