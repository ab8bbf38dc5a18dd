//! The name of a network interface.

use std::fmt;
use std::str::FromStr;

use super::text::deserialize_from_str;

/// A name that the kernel, nftables and a path all take as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// A default of ours.
    pub(super) fn of_default(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let fits = (1..=LENGTH_MAX).contains(&text.len());
        if fits && text.chars().all(plain) && !text.starts_with(['.', '-']) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "{text:?} cannot name an interface: use 1 to {LENGTH_MAX} letters, digits, -, _ or ., \
             beginning with a letter, a digit or _"
        ))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

deserialize_from_str!(InterfaceName, r#"a string like "vpn0""#);

/// The kernel's `IFNAMSIZ` without the zero at the end.
const LENGTH_MAX: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_names_that_need_no_quoting() {
        for text in ["vpn0", "a", "tun_x.1-b", "abcdefghijklmno"] {
            assert_eq!(text.parse::<InterfaceName>().unwrap().as_str(), text);
        }
        for text in ["", "abcdefghijklmnop", "a/b", "vpn 0", "vpn%d", "..", "-x", "ü"] {
            assert!(text.parse::<InterfaceName>().is_err(), "{text}");
        }
    }
}
