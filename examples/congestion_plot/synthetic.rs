//! Where `lte.trace` comes from: made up, not recorded.
//!
//! A slow swing between good and bad radio, a faster one on top, and a share of chance; then opportunities are
//! laid where their sum passes the next 1,504 bytes. Whole numbers only, so that it is the same everywhere.

use std::fmt::Write;

use reliable_udp::sim::Rng;

/// Milliseconds until it repeats.
const PERIOD: u64 = 10_000;
/// Bytes per opportunity.
const OPPORTUNITY: u64 = 1_504;

/// Rises and falls between 0 and `height` once per `period`.
fn triangle(at: u64, period: u64, height: u64) -> u64 {
    let phase = at % period * 2;
    let distance = if phase < period {
        phase
    } else {
        period * 2 - phase
    };
    height * distance / period
}

/// Makes the trace's text.
pub(crate) fn lte() -> String {
    let mut rng = Rng::new(4);
    let mut text = String::new();
    let (mut fading, mut credit) = (0, 0);
    for at in 0..PERIOD {
        // A fade lasts 100 ms and halves what there is, or does not.
        if at % 100 == 0 {
            fading = rng.below(100);
        }
        // Bytes per millisecond: 250 to 1,650, 2 to 13 Mbit/s.
        let swing = 250 + triangle(at, 5_000, 1_000) + triangle(at + 300, 1_250, 400);
        credit += swing * (50 + fading) / 100;
        while credit >= OPPORTUNITY {
            credit -= OPPORTUNITY;
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", at + 1);
        }
    }
    let _ = writeln!(text, "{PERIOD}");
    text
}
