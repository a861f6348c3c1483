//! What sealing a segment costs by its length: the sum of RFC 1071 and CRC-32C, the crate `crc32c` beside them.
//!
//! ```text
//! cargo bench --manifest-path benches/Cargo.toml --bench checksum
//! ```

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use reliable_udp::internals::wire::{Flags, Header, Integrity, seal};

/// A small segment, the default of an Ethernet path, and the largest datagram of IPv4.
const LENGTHS: [usize; 3] = [64, 1_452, 65_507];

fn main() {
    divan::main();
}

fn segment(len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|i| i.to_le_bytes()[0]).collect();
    let header = Header {
        src_port: 0xc001,
        dst_port: 1,
        flags: Flags::ACK,
        ..Header::default()
    };
    header.encode(&mut bytes);
    bytes
}

fn run(bencher: Bencher<'_, '_>, len: usize, integrity: Integrity) {
    let mut bytes = segment(len);
    bencher
        .counter(BytesCount::new(len))
        .bench_local(|| seal(black_box(&mut bytes), integrity));
}

#[divan::bench(args = LENGTHS)]
fn sum(bencher: Bencher<'_, '_>, len: usize) {
    run(bencher, len, Integrity::Sum);
}

#[divan::bench(args = LENGTHS)]
fn crc(bencher: Bencher<'_, '_>, len: usize) {
    run(bencher, len, Integrity::Crc32c);
}

#[divan::bench(args = LENGTHS)]
fn crate_crc32c(bencher: Bencher<'_, '_>, len: usize) {
    let bytes = segment(len);
    bencher
        .counter(BytesCount::new(len))
        .bench_local(|| crc32c::crc32c(black_box(&bytes)));
}
