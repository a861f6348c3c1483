//! Arbitrary bytes as one datagram: decoding never panics, and what decodes encodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reliable_udp::internals::fuzz;

fuzz_target!(|data: &[u8]| fuzz::segment(data));
