//! Arbitrary ranges into the receiver's reassembly, compared with a naive map of bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reliable_udp::internals::fuzz;

fuzz_target!(|data: &[u8]| fuzz::assembler(data));
