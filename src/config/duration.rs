//! Durations written with their unit: `10m`, `1h30m`, `500ms`.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserializer;

use super::text;

/// Reads a duration.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    text::deserialize(input, r#"a string like "10m""#).map(|Text(duration)| duration)
}

struct Text(Duration);

impl FromStr for Text {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let total = parse(text).ok_or_else(|| {
            format!("{text:?} is no duration: write a number and ms, s, m, h or d, as \"10m\"")
        })?;
        Ok(Self(total))
    }
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (digits, tail) = split_where(rest, |c| !c.is_ascii_digit());
        let (unit, tail) = split_where(tail, |c| c.is_ascii_digit());
        let unit = UNITS.iter().find(|(name, _)| *name == unit)?;
        let part = unit.1.checked_mul(digits.parse().ok()?)?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

fn split_where(text: &str, predicate: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(predicate).unwrap_or(text.len()))
}

const UNITS: [(&str, Duration); 5] = [
    ("ms", Duration::from_millis(1)),
    ("s", Duration::from_secs(1)),
    ("m", Duration::from_secs(60)),
    ("h", Duration::from_secs(60 * 60)),
    ("d", Duration::from_secs(24 * 60 * 60)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_with_their_units() {
        for (text, duration) in [
            ("10m", Duration::from_secs(600)),
            ("500ms", Duration::from_millis(500)),
            ("1h30m", Duration::from_secs(5400)),
            ("2d", Duration::from_secs(172_800)),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(parse(text), Some(duration), "{text}");
        }
        for text in ["", "10", "m", "10 m", "-1s", "1.5s", "10x", "99999999999999999999s", "9999999999d"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
