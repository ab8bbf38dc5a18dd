//! Where a server is, and where it listens: a host and a port or a range of ports.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::text::deserialize_from_str;

/// Where a server is: `host:443`, `[2001:db8::1]:443`, `host:4000-4100`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The ports it listens on.
    pub ports: Ports,
}

/// A host by its address or by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name to resolve.
    Name(String),
}

/// A port, or a range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first port; never 0.
    pub first: u16,
    /// The last port; the first one if there is only one.
    pub last: u16,
}

impl Ports {
    /// Whether it is more than one port.
    pub fn is_range(self) -> bool {
        self.first != self.last
    }

    /// How many ports.
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// Both ends included.
    pub fn range(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

/// Where a server listens: `0.0.0.0:443`, `[::]:443`, `0.0.0.0:4000-4100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address; unspecified for all of its family.
    pub address: IpAddr,
    /// The ports.
    pub ports: Ports,
}

impl Listen {
    /// The address with each port.
    pub fn addresses(self) -> impl Iterator<Item = SocketAddr> {
        self.ports.range().map(move |port| SocketAddr::new(self.address, port))
    }

    /// Whether a packet to this address is for us: to every address of our family where ours is unspecified.
    pub fn covers(&self, destination: SocketAddr) -> bool {
        let any = self.address.is_unspecified() && self.address.is_ipv4() == destination.is_ipv4();
        self.ports.range().contains(&destination.port()) && (any || self.address == destination.ip())
    }

    /// The first port that stands in both.
    pub fn shared_port(&self, other: &Self) -> Option<u16> {
        let first = self.ports.first.max(other.ports.first);
        (self.address == other.address && first <= self.ports.last.min(other.ports.last)).then_some(first)
    }
}

/// One endpoint or a list of them; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    first: Endpoint,
    others: Vec<Endpoint>,
}

impl Endpoints {
    /// All of them, in the order in which they are tried.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, ports) = split(text)?;
        let host = match host {
            Bare::Bracketed(address) => Host::Address(IpAddr::V6(address)),
            Bare::Plain(host) => match host.parse::<IpAddr>() {
                Ok(address) => Host::Address(address),
                Err(_) => Host::Name(check_name(host)?),
            },
        };
        match &host {
            Host::Address(address) if address.is_unspecified() => {
                Err(format!("{text:?} is no address of a server"))
            }
            Host::Address(_) | Host::Name(_) => Ok(Self { host, ports }),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, ports) = split(text)?;
        let address = match host {
            Bare::Bracketed(address) => IpAddr::V6(address),
            Bare::Plain(host) => host
                .parse()
                .map_err(|_| format!("{host:?} is no IP address: write \"0.0.0.0:443\" or \"[::]:443\""))?,
        };
        Ok(Self { address, ports })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_range() {
            return write!(f, "{}-{}", self.first, self.last);
        }
        write!(f, "{}", self.first)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.ports),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}:{}", self.ports),
            Host::Name(name) => write!(f, "{name}:{}", self.ports),
        }
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.others.iter().try_for_each(|other| write!(f, ", {other}"))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V6(address) => write!(f, "[{address}]:{}", self.ports),
            IpAddr::V4(address) => write!(f, "{address}:{}", self.ports),
        }
    }
}

deserialize_from_str!(Endpoint, r#"a string like "vpn.example:443""#);
deserialize_from_str!(Listen, r#"a string like "0.0.0.0:443""#);

impl<'de> Deserialize<'de> for Endpoints {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(OneOrList)
    }
}

struct OneOrList;

impl<'de> Visitor<'de> for OneOrList {
    type Value = Endpoints;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a string like "vpn.example:443", or a list of them"#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Endpoints, E> {
        let first = text.parse().map_err(E::custom)?;
        let others = Vec::new();
        Ok(Endpoints { first, others })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Endpoints, A::Error> {
        let mut all = Vec::<Endpoint>::deserialize(SeqAccessDeserializer::new(list))?.into_iter();
        let empty = || A::Error::custom("is empty: name at least one server");
        Ok(Endpoints { first: all.next().ok_or_else(empty)?, others: all.collect() })
    }
}

/// A host as it is written: only an IPv6 address stands in brackets.
enum Bare<'a> {
    Bracketed(Ipv6Addr),
    Plain(&'a str),
}

fn split(text: &str) -> Result<(Bare<'_>, Ports), String> {
    let (host, ports) = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .ok_or_else(|| format!("{text:?} is not HOST:PORT: write it as \"vpn.example:443\""))?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match inner {
        Some(inner) => Bare::Bracketed(inner.parse().map_err(|_| format!("{inner:?} is no IPv6 address"))?),
        None if host.contains(':') => {
            return Err(format!(
                "{text:?} is ambiguous: put the IPv6 address in brackets, as \"[2001:db8::1]:443\""
            ));
        }
        None => Bare::Plain(host),
    };
    Ok((host, parse_ports(ports)?))
}

pub(super) fn parse_ports(text: &str) -> Result<Ports, String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(0) | Err(_) => Err(format!("{text:?} is no port: use a number from 1 to 65535")),
        Ok(port) => Ok(port),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("the range {text} goes down: write {last}-{first}"));
    }
    Ok(Ports { first, last })
}

fn check_name(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let digits = name.chars().all(|c| c.is_ascii_digit() || c == '.');
    if name.len() > NAME_MAX || !name.chars().all(plain) || digits {
        return Err(format!("{name:?} is neither an address nor a host name"));
    }
    Ok(name.to_owned())
}

/// The longest host name (RFC 1035 section 2.3.4, in text).
const NAME_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_names_and_ranges_and_writes_them_back() {
        for text in ["203.0.113.9:443", "vpn.example:443", "[2001:db8::1]:443", "host:4000-4100"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["0.0.0.0:443", "[::]:443", "10.0.0.1:4000-4100"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        assert!(!"host:5-5".parse::<Endpoint>().unwrap().ports.is_range());
    }

    #[test]
    fn a_listener_covers_its_ports_at_its_address_or_at_all_of_its_family() {
        let covers = |listen: &str, destination: &str| {
            listen.parse::<Listen>().unwrap().covers(destination.parse().unwrap())
        };
        for port in [4000, 4050, 4100] {
            assert!(covers("0.0.0.0:4000-4100", &format!("192.0.2.1:{port}")));
            assert!(covers("[::]:4000-4100", &format!("[2001:db8::1]:{port}")));
        }
        assert!(
            !covers("0.0.0.0:4000-4100", "192.0.2.1:3999") && !covers("0.0.0.0:4000-4100", "192.0.2.1:4101")
        );
        assert!(!covers("0.0.0.0:443", "[2001:db8::1]:443") && !covers("[::]:443", "192.0.2.1:443"));
        assert!(covers("192.0.2.1:443", "192.0.2.1:443") && !covers("192.0.2.1:443", "192.0.2.2:443"));
    }

    #[test]
    fn two_listeners_share_the_ports_that_stand_in_both() {
        let shared =
            |one: &str, other: &str| one.parse::<Listen>().unwrap().shared_port(&other.parse().unwrap());
        assert_eq!(shared("0.0.0.0:10-20", "0.0.0.0:20-30"), Some(20));
        assert_eq!(shared("0.0.0.0:10-20", "0.0.0.0:12"), Some(12));
        assert_eq!(shared("0.0.0.0:10-20", "0.0.0.0:21-30"), None);
        assert_eq!(shared("0.0.0.0:10-20", "[::]:10-20"), None);
    }

    #[test]
    fn says_what_is_wrong_with_an_endpoint() {
        for (text, error) in [
            ("host", r#""host" is not HOST:PORT: write it as "vpn.example:443""#),
            (":443", r#"":443" is not HOST:PORT: write it as "vpn.example:443""#),
            ("host:0", r#""0" is no port: use a number from 1 to 65535"#),
            ("host:http", r#""http" is no port: use a number from 1 to 65535"#),
            ("host:9-5", "the range 9-5 goes down: write 5-9"),
            (
                "2001:db8::1:443",
                r#""2001:db8::1:443" is ambiguous: put the IPv6 address in brackets, as "[2001:db8::1]:443""#,
            ),
            ("[host]:443", r#""host" is no IPv6 address"#),
            ("a b:443", r#""a b" is neither an address nor a host name"#),
            ("1.2.3:443", r#""1.2.3" is neither an address nor a host name"#),
            ("0.0.0.0:443", r#""0.0.0.0:443" is no address of a server"#),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error.to_owned()));
        }
        assert!("localhost:443".parse::<Listen>().is_err());
    }
}
