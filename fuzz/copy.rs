//! Both ends of the file copy, each against a peer that says anything.
#![no_main]

#[path = "../tests/support/copy_fuzz.rs"]
mod copy_fuzz;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| copy_fuzz::copy(data));
