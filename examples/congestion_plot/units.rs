//! Numbers with units, as they are written on a command line and in a picture.

use std::time::Duration;

/// Reads a number before one of `units`, which are tried in order; the empty unit stands last if at all.
fn number(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (digits, scale) = units
        .iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    let number = digits.trim().parse::<f64>().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * scale)
}

/// Reads `50ms`, `1.5s`, `2min`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    number(
        text,
        &[("us", 1e-6), ("ms", 1e-3), ("min", 60.0), ("s", 1.0)],
    )
    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    .ok_or_else(|| "write a time with its unit, such as 50ms, 1.5s or 2min".to_owned())
}

/// Reads `400kbit`, `20mbit`, `1gbit`: bits per second; returns bytes per second.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    let bits = number(text, &[("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)]);
    let bits = bits.filter(|bits| (8.0..=1e12).contains(bits));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 1e12 and not negative"
    )]
    bits.map(|bits| (bits / 8.0).round() as u64)
        .ok_or_else(|| "write bits per second, such as 400kbit, 20mbit or 1gbit".to_owned())
}

/// Reads `0.01` or `1%`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    number(text, &[("%", 0.01), ("", 1.0)])
        .filter(|share| *share < 1.0)
        .ok_or_else(|| "write a share below 1, such as 0.01 or 1%".to_owned())
}

/// How much may wait at the bottleneck.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Queue {
    /// So many bandwidth-delay products.
    Bdp(f64),
    Datagrams(usize),
}

/// Reads `1.5bdp` or `100`.
pub(crate) fn queue(text: &str) -> Result<Queue, String> {
    let bdp = number(text, &[("bdp", 1.0)]).filter(|bdp| *bdp > 0.0 && *bdp <= 1e3);
    let datagrams = text
        .parse::<usize>()
        .ok()
        .filter(|datagrams| *datagrams > 0);
    bdp.map(Queue::Bdp)
        .or(datagrams.map(Queue::Datagrams))
        .ok_or_else(|| {
            "write bandwidth-delay products, such as 1.5bdp, or datagrams, such as 100".to_owned()
        })
}

/// A time during which nothing passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blackout {
    pub(crate) start: Duration,
    pub(crate) length: Duration,
    pub(crate) period: Option<Duration>,
}

/// Reads `5s+2s`, or `5s+2s/10s` for one that comes again after every ten seconds.
pub(crate) fn blackout(text: &str) -> Result<Blackout, String> {
    let help = "write START+LENGTH or START+LENGTH/PERIOD, such as 5s+2s or 5s+2s/10s";
    let (start, rest) = text.split_once('+').ok_or(help)?;
    let (length, period) = match rest.split_once('/') {
        Some((length, period)) => (length, Some(duration(period)?)),
        None => (rest, None),
    };
    let length = duration(length)?;
    if period.is_some_and(|period| period <= length) {
        return Err("the period has to be longer than the blackout".to_owned());
    }
    Ok(Blackout {
        start: duration(start)?,
        length,
        period,
    })
}

/// Writes a number with as many decimals as it needs, three at most.
pub(crate) fn short(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Writes a rate given in bytes per second.
pub(crate) fn show_rate(bytes_per_second: f64) -> String {
    let bits = bytes_per_second * 8.0;
    match bits {
        _ if bits < 1e6 => format!("{} kbit/s", short(bits / 1e3)),
        _ if bits < 1e9 => format!("{} Mbit/s", short(bits / 1e6)),
        _ => format!("{} Gbit/s", short(bits / 1e9)),
    }
}

/// Writes a time.
pub(crate) fn show_time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 {
        format!("{} ms", short(seconds * 1e3))
    } else {
        format!("{} s", short(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("50ms"), Ok(ms(50)));
        assert_eq!(duration("1.5 s"), Ok(ms(1_500)));
        assert_eq!(duration("2min"), Ok(ms(120_000)));
        for text in ["", "5", "ms", "-1s", "NaNs", "infs", "1e400s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_have_units() {
        assert_eq!(rate("400kbit"), Ok(50_000));
        assert_eq!(rate("20mbit"), Ok(2_500_000));
        assert_eq!(rate("1gbit"), Ok(125_000_000));
        for text in ["20", "0mbit", "20m", "9999999gbit"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!(show_rate(2_500_000.0), "20 Mbit/s");
        assert_eq!(show_rate(50_000.0), "400 kbit/s");
    }

    #[test]
    fn queues_are_products_or_datagrams() {
        assert_eq!(queue("1.5bdp"), Ok(Queue::Bdp(1.5)));
        assert_eq!(queue("100"), Ok(Queue::Datagrams(100)));
        for text in ["0", "0bdp", "1.5", "64kb", ""] {
            assert!(queue(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_numbers_or_percent() {
        assert_eq!(share("0.25"), Ok(0.25));
        assert_eq!(share("25%"), Ok(0.25));
        for text in ["1", "100%", "-1%", "x"] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn blackouts_come_once_or_again() {
        let (start, length) = (ms(5_000), ms(2_000));
        let once = Blackout {
            start,
            length,
            period: None,
        };
        assert_eq!(blackout("5s+2s"), Ok(once));
        let period = Some(ms(10_000));
        assert_eq!(blackout("5s+2s/10s"), Ok(Blackout { period, ..once }));
        for text in ["5s", "5s+2", "5s+2s/2s"] {
            assert!(blackout(text).is_err(), "{text}");
        }
    }
}
