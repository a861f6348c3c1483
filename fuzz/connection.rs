//! Arbitrary inputs to a connection: segments, also hostile ones, time steps and the application.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reliable_udp::internals::fuzz;

fuzz_target!(|data: &[u8]| fuzz::connection(data));
