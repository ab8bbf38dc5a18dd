//! `kind u8, text`: every small value that is written as text.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use vpn::carrier::Mode;
use vpn::config::{ByteSize, Endpoint, InterfaceName, Listen, parse_network};
use vpn::control::InstanceName;
use vpn::crypto::{PresharedKey, PrivateKey, PublicKey};
use vpn::egress::Entry;

/// What is read is written, and read again, as the same; names fit where they will stand.
pub(crate) fn run(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match kind % 9 {
        0 => same_again::<Endpoint>(text),
        1 => same_again::<Listen>(text),
        2 => same_again::<ByteSize>(text),
        3 => same_again::<Entry>(text),
        4 => same_again::<PublicKey>(text),
        5 => secrets(text),
        6 => names(text),
        7 => {
            if let Ok(network) = parse_network(text) {
                assert_eq!(parse_network(&network.to_string()), Ok(network));
                assert_eq!(network.ip(), network.network());
            }
        }
        _ => {
            if let Ok(mode) = text.parse::<Mode>() {
                assert_eq!((mode.name(), Mode::from_wire(mode.to_wire())), (text, Some(mode)));
            }
        }
    }
}

fn same_again<T: FromStr<Err: Debug> + Display + Debug + PartialEq>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let written = value.to_string();
    let again: T =
        written.parse().unwrap_or_else(|error| panic!("{text:?} is written as {written:?}: {error:?}"));
    assert_eq!(again, value, "{text:?}");
    assert_eq!(again.to_string(), written);
}

fn secrets(text: &str) {
    if let (Ok(private), Ok(preshared)) = (text.parse::<PrivateKey>(), text.parse::<PresharedKey>()) {
        assert_eq!(private.as_bytes(), preshared.as_bytes());
        assert_eq!(
            (private.to_string(), preshared.to_string()),
            (text.trim_ascii().into(), text.trim_ascii().into())
        );
        assert!(!format!("{private:?}{preshared:?}").contains(text.trim_ascii()));
    }
}

fn names(text: &str) {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Ok(name) = text.parse::<InterfaceName>() {
        // The kernel's IFNAMSIZ holds a zero, too.
        assert!(name.as_str() == text && text.len() < 16 && text.chars().all(is_plain) && text != "..");
    }
    if let Ok(name) = text.parse::<InstanceName>() {
        assert!(
            name.as_str() == text && text.len() <= 48 && text.chars().all(is_plain) && !text.starts_with('.')
        );
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
    [
        (0, "203.0.113.9:443"),
        (0, "[2001:db8::1]:4000-4100"),
        (0, "vpn.example:443"),
        (1, "0.0.0.0:443"),
        (1, "[::]:1-65535"),
        (2, "64MiB"),
        (2, "17179869183GiB"),
        (3, "10.0.0.0/8:25"),
        (3, "[fd00::]/8:25"),
        (4, key),
        (5, key),
        (6, "vpn0"),
        (6, "home-2.a_b"),
        (7, "10.0.0.0/8"),
        (7, "::/0"),
        (8, "handshake+advance"),
        (8, "bare+fixed"),
    ]
    .map(|(kind, text)| [&[kind], text.as_bytes()].concat())
    .to_vec()
}
