//! Numbers of bytes on the command line: `4096`, `500k`, `10M`, `2GiB`.

/// What may stand behind the number. Decimal, as rates and disks are sold; with an `i`, binary.
const UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
    ("ti", 1 << 40),
];

/// Reads a number of bytes, with a fraction or without; capitals and a `B` at the end make no difference.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let text = lower.strip_suffix('b').unwrap_or(&lower);
    let unit_at = text
        .find(|character: char| character.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let (_, factor) = UNITS
        .iter()
        .find(|(name, _)| *name == unit.trim())
        .ok_or("the unit is none of k, M, G, T, Ki, Mi, Gi, Ti")?;
    let wrong = |_| "not a number of bytes such as 4096, 500k or 1.5Gi".to_owned();
    let (whole, fraction) = number
        .trim()
        .split_once('.')
        .unwrap_or((number.trim(), "0"));
    let too_much = || "more than 2^64 bytes".to_owned();
    let whole = whole.parse::<u64>().map_err(wrong)?;
    let whole = whole.checked_mul(*factor).ok_or_else(too_much)?;
    let digits = u32::try_from(fraction.len()).map_err(|_| too_much())?;
    let scale = 10_u64.checked_pow(digits).ok_or_else(too_much)?;
    let part = fraction.parse::<u64>().map_err(wrong)?;
    let part = u128::from(part) * u128::from(*factor) / u128::from(scale);
    let part = u64::try_from(part).map_err(|_| too_much())?;
    whole.checked_add(part).ok_or_else(too_much)
}
