//! Quantities for people.

use std::fmt::{self, Display};
use std::time::Duration;

/// Bytes as `wg` writes them: `3.20 MiB`.
pub(super) struct Size(pub(super) u64);

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, unit)| self.0 >= *unit);
        let Some((name, unit)) = unit else {
            return write!(f, "{} B", self.0);
        };
        // In hundredths, rounded down, without the loss of a float.
        let hundredths = u128::from(self.0) * 100 / u128::from(*unit);
        write!(f, "{}.{:02} {name}", hundredths / 100, hundredths % 100)
    }
}

const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A time span in words: `1 hour, 2 minutes, 5 seconds`.
pub(super) struct Age(pub(super) f64);

impl Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = whole_seconds(self.0);
        let mut parts = Vec::new();
        for (name, length) in SPANS {
            let count = rest / length;
            rest %= length;
            if count > 0 {
                let plural = if count == 1 { "" } else { "s" };
                parts.push(format!("{count} {name}{plural}"));
            }
        }
        if parts.is_empty() {
            return f.write_str("less than a second");
        }
        f.write_str(&parts.join(", "))
    }
}

/// A time span in its two largest units: `1h 2m`.
pub(super) struct ShortAge(pub(super) f64);

impl Display for ShortAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = whole_seconds(self.0);
        let parts =
            SPANS.iter().zip(std::iter::once(u64::MAX).chain(SPANS.iter().map(|(_, length)| *length)));
        let mut parts = parts.map(|((name, length), above)| (seconds % above / length, &name[..1]));
        let Some((count, unit)) = parts.find(|(count, _)| *count > 0) else { return f.write_str("0s") };
        write!(f, "{count}{unit}")?;
        match parts.next() {
            Some((count, unit)) if count > 0 => write!(f, " {count}{unit}"),
            _ => Ok(()),
        }
    }
}

fn whole_seconds(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds).map_or(0, |duration| duration.as_secs())
}

const SPANS: [(&str, u64); 4] = [("day", 24 * 60 * 60), ("hour", 60 * 60), ("minute", 60), ("second", 1)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_sizes_and_ages_in_fitting_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1_550_000, "1.47 MiB"),
            (u64::MAX, "16777215.99 TiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
        for (seconds, text) in [
            (f64::NAN, "less than a second"),
            (-1.0, "less than a second"),
            (1.9, "1 second"),
            (86_400.0, "1 day"),
            (7201.0, "2 hours, 1 second"),
        ] {
            assert_eq!(Age(seconds).to_string(), text);
        }
    }

    #[test]
    fn writes_ages_briefly() {
        for (seconds, text) in [
            (f64::NAN, "0s"),
            (0.9, "0s"),
            (59.9, "59s"),
            (60.0, "1m"),
            (3599.0, "59m 59s"),
            (3605.0, "1h"),
            (7260.0, "2h 1m"),
            (90_000.0, "1d 1h"),
            (864_000.0, "10d"),
        ] {
            assert_eq!(ShortAge(seconds).to_string(), text);
        }
    }
}
