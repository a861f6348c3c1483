//! What a file copy does and does not do, one rule a test: going on, passing over, refusing, lying
//! disks, stalled peers, many targets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

#[cfg(unix)]
mod disks;
mod fixture;
#[cfg(unix)]
mod going_on;
#[cfg(unix)]
mod rules;
mod sessions;
mod sources;

#[path = "../support/link.rs"]
mod link;
