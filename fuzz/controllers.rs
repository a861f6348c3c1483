//! Arbitrary streams of events, possible and impossible ones, to every congestion controller.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reliable_udp::internals::fuzz;

fuzz_target!(|data: &[u8]| fuzz::controllers(data));
