//! What may come in through the tunnel: `tcp/22`, `tcp/8000-8010`, `tcp/*`.

use std::str::FromStr;

use super::Ports;
use super::endpoint::parse_ports;
use super::text::deserialize_from_str;

/// Ports of this host that may be connected to from the server's side, by TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed(Ports);

impl Allowed {
    /// The ports.
    pub fn ports(self) -> Ports {
        self.0
    }
}

impl FromStr for Allowed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some(("tcp", "*")) => Ok(Self(Ports { first: 1, last: u16::MAX })),
            Some(("tcp", ports)) => parse_ports(ports).map(Self),
            Some(("udp" | "icmp", _)) => {
                Err(format!("{text:?} needs no entry: datagrams come in anyway, write \"tcp/…\" only"))
            }
            _ => Err(format!("{text:?} is unknown: write \"tcp/22\", \"tcp/8000-8010\" or \"tcp/*\"")),
        }
    }
}

deserialize_from_str!(Allowed, r#"a string like "tcp/22""#);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ports_ranges_and_all_of_them() {
        for (text, range) in
            [("tcp/22", 22..=22), ("tcp/8000-8010", 8000..=8010), ("tcp/*", 1..=u16::MAX), ("tcp/1-1", 1..=1)]
        {
            assert_eq!(text.parse::<Allowed>().unwrap().ports().range(), range, "{text}");
        }
    }

    #[test]
    fn says_what_to_write_instead_of_anything_else() {
        for (text, message) in [
            ("22", r#""22" is unknown: write "tcp/22", "tcp/8000-8010" or "tcp/*""#),
            ("TCP/22", r#""TCP/22" is unknown: write "tcp/22", "tcp/8000-8010" or "tcp/*""#),
            ("sctp/22", r#""sctp/22" is unknown: write "tcp/22", "tcp/8000-8010" or "tcp/*""#),
            ("", r#""" is unknown: write "tcp/22", "tcp/8000-8010" or "tcp/*""#),
            ("udp/53", r#""udp/53" needs no entry: datagrams come in anyway, write "tcp/…" only"#),
            ("tcp/ssh", r#""ssh" is no port: use a number from 1 to 65535"#),
            ("tcp/0", r#""0" is no port: use a number from 1 to 65535"#),
            ("tcp/65536", r#""65536" is no port: use a number from 1 to 65535"#),
            ("tcp/22-", r#""" is no port: use a number from 1 to 65535"#),
            ("tcp/30-20", "the range 30-20 goes down: write 20-30"),
        ] {
            assert_eq!(text.parse::<Allowed>().unwrap_err(), message);
        }
    }
}
