//! What one segment of 1,232 bytes costs in the codec: encode, seal, decode, verify.
//!
//! ```text
//! cargo bench --manifest-path benches/Cargo.toml --bench codec
//! ```

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use reliable_udp::internals::wire::{
    Flags, Header, Integrity, Options, Segment, SeqNumber, Timestamps, seal,
};

/// The default datagram.
const DATAGRAM: usize = 1_232;

fn main() {
    divan::main();
}

/// The header of a data segment in the middle of a transfer.
fn header() -> Header {
    Header {
        src_port: 0xc001,
        dst_port: 1,
        seq: SeqNumber::new(123_456_789),
        ack: SeqNumber::new(987_654_321),
        flags: Flags::ACK | Flags::PSH,
        window: 4_096,
        options: Options {
            timestamps: Some(Timestamps {
                tsval: 1_000,
                tsecr: 2_000,
            }),
            ..Options::default()
        },
    }
}

fn datagram(integrity: Integrity) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..DATAGRAM).map(|i| i.to_le_bytes()[0]).collect();
    header().encode(&mut bytes);
    seal(&mut bytes, integrity);
    bytes
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let mut buf = vec![0; DATAGRAM];
    bencher
        .counter(BytesCount::new(DATAGRAM))
        .bench_local(|| black_box(header()).encode(black_box(&mut buf)));
}

#[divan::bench(args = [Integrity::Sum, Integrity::Crc32c])]
fn seal_segment(bencher: Bencher<'_, '_>, integrity: Integrity) {
    let mut bytes = datagram(integrity);
    bencher
        .counter(BytesCount::new(DATAGRAM))
        .bench_local(|| seal(black_box(&mut bytes), integrity));
}

#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    let bytes = datagram(Integrity::Crc32c);
    bencher
        .counter(BytesCount::new(DATAGRAM))
        .bench_local(|| Segment::decode(black_box(&bytes)).is_ok());
}

#[divan::bench(args = [Integrity::Sum, Integrity::Crc32c])]
fn verify(bencher: Bencher<'_, '_>, integrity: Integrity) {
    let bytes = datagram(integrity);
    let segment = Segment::decode(&bytes).expect("it was encoded by `datagram`");
    assert!(segment.verify(integrity));
    bencher
        .counter(BytesCount::new(DATAGRAM))
        .bench_local(|| black_box(&segment).verify(integrity));
}
