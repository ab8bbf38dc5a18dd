//! The configuration of a client.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::document::Document;
use super::keys::{Key, Secret};
use super::{
    ADDRESSES_MAX, Allowed, ConfigError, Congestion, Connect, Endpoints, InterfaceName, Limits, Metrics,
    Mode, Preface, Warning, duration, network, unbuilt,
};
use crate::crypto::{PresharedKey, PrivateKey, PublicKey};

/// Everything a client is told.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Its own key.
    pub private_key: PrivateKey,
    /// Where the server is.
    pub server: Endpoints,
    /// The server's key.
    pub server_key: PublicKey,
    /// The secret shared with the server; zero for none.
    pub preshared_key: PresharedKey,
    /// `[tunnel]`.
    pub tunnel: ClientTunnel,
    /// `[carrier]`.
    pub carrier: Carrier,
    /// `[kcp]`.
    pub kcp: Kcp,
    /// `[inbound]`.
    pub inbound: Inbound,
    /// `[limits]`.
    pub limits: Limits,
    /// `[metrics]`.
    pub metrics: Metrics,
}

/// `[tunnel]` of a client: what goes through it, and how it stands on the host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTunnel {
    /// The name of the device.
    pub interface: InterfaceName,
    /// What goes through the tunnel.
    #[serde(deserialize_with = "network::networks")]
    pub routes: Vec<IpNetwork>,
    /// What of it does not.
    #[serde(deserialize_with = "network::networks")]
    pub exclude: Vec<IpNetwork>,
    /// Whether the networks this host is on stay outside.
    pub lan: bool,
    /// Domains whose addresses go through the tunnel.
    pub domains: Vec<String>,
    /// Who resolves names.
    pub dns: ClientDns,
    /// Whether nothing may leave outside the tunnel, even when it is down.
    pub kill_switch: bool,
    /// When an app's connect is answered.
    pub connect: Connect,
}

/// Who resolves names while the tunnel is up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientDns {
    /// The resolvers that the server names.
    #[default]
    Server,
    /// Those the host has.
    Off,
    /// These.
    List(Vec<IpAddr>),
}

/// `[carrier]`: how packets look outside, and for how long an outage is survived.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Carrier {
    /// How the carrier looks.
    pub mode: Mode,
    /// How many carry at once.
    pub carriers: u8,
    /// How long nothing may come through before every flow is reset.
    #[serde(deserialize_with = "duration::deserialize")]
    pub dead_after: Duration,
    /// What is sent before the first sealed packet.
    pub preface: Preface,
    /// The host that the preface names.
    pub preface_host: String,
}

/// `[kcp]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kcp {
    /// Which congestion control paces it.
    pub congestion: Congestion,
}

/// `[inbound]`: what may come in through the tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Inbound {
    /// Ports that may be connected to. Datagrams are not asked about.
    pub allow: Vec<Allowed>,
}

impl ClientConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, or anything in it is wrong or not built yet.
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), ConfigError> {
        Self::of(&Document::read(path)?)
    }

    /// Checks a text that is to stand in the file `path`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: &Path) -> Result<(Self, Vec<Warning>), ConfigError> {
        Self::of(&Document::new(path, text.to_owned()))
    }

    fn of(document: &Document) -> Result<(Self, Vec<Warning>), ConfigError> {
        let mut warnings = Vec::new();
        let config = document.decode::<File>()?.complete(document, &mut warnings)?;
        config.check(document)?;
        unbuilt::check_client(&config, document)?;
        Ok((config, warnings))
    }

    fn check(&self, document: &Document) -> Result<(), ConfigError> {
        if self.server_key == self.private_key.public_key() {
            let what = "is the key of this client itself: write the server's public key";
            return Err(document.error_at("server_key", what));
        }
        if !DEAD_AFTER.contains(&self.carrier.dead_after) {
            return Err(document.error_at("carrier.dead_after", "must be from 1s to 7d"));
        }
        if let ClientDns::List(resolvers) = &self.tunnel.dns
            && !(1..=ADDRESSES_MAX).contains(&resolvers.len())
        {
            let what = format!("must name 1 to {ADDRESSES_MAX} resolvers, or be \"server\" or \"off\"");
            return Err(document.error_at("tunnel.dns", what));
        }
        self.limits.check(document)
    }
}

impl Default for ClientTunnel {
    fn default() -> Self {
        Self {
            interface: InterfaceName::of_default("vpn0"),
            routes: everything(),
            exclude: Vec::new(),
            lan: true,
            domains: Vec::new(),
            dns: ClientDns::default(),
            kill_switch: false,
            connect: Connect::default(),
        }
    }
}

impl Default for Carrier {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            carriers: 1,
            dead_after: Duration::from_secs(10 * 60),
            preface: Preface::default(),
            preface_host: String::new(),
        }
    }
}

impl<'de> Deserialize<'de> for ClientDns {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(WordOrList)
    }
}

struct WordOrList;

impl<'de> Visitor<'de> for WordOrList {
    type Value = ClientDns;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#""server", "off" or a list of addresses"#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ClientDns, E> {
        match text {
            "server" => Ok(ClientDns::Server),
            "off" => Ok(ClientDns::Off),
            _ => {
                Err(E::custom(format!("{text:?} is unknown: use \"server\", \"off\" or a list of addresses")))
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<ClientDns, A::Error> {
        network::addresses(SeqAccessDeserializer::new(list)).map(ClientDns::List)
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    private_key: Option<Key<PrivateKey>>,
    private_key_file: Option<PathBuf>,
    server: Option<Endpoints>,
    server_key: Option<Key<PublicKey>>,
    preshared_key: Option<Key<PresharedKey>>,
    preshared_key_file: Option<PathBuf>,
    #[serde(default)]
    tunnel: ClientTunnel,
    #[serde(default)]
    carrier: Carrier,
    #[serde(default)]
    kcp: Kcp,
    #[serde(default)]
    inbound: Inbound,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    metrics: Metrics,
}

impl File {
    fn complete(self, document: &Document, warnings: &mut Vec<Warning>) -> Result<ClientConfig, ConfigError> {
        let missing = |key, what| document.error_at(key, what);
        let private = Secret { here: self.private_key, file: self.private_key_file };
        let preshared = Secret { here: self.preshared_key, file: self.preshared_key_file };
        Ok(ClientConfig {
            private_key: private
                .read(document, "private_key", warnings)?
                .ok_or_else(|| missing("private_key", PRIVATE_KEY_MISSING))?,
            preshared_key: preshared.read(document, "preshared_key", warnings)?.unwrap_or_default(),
            server: self.server.ok_or_else(|| missing("server", SERVER_MISSING))?,
            server_key: self
                .server_key
                .map(|Key(key)| key)
                .ok_or_else(|| missing("server_key", SERVER_KEY_MISSING))?,
            tunnel: self.tunnel,
            carrier: self.carrier,
            kcp: self.kcp,
            inbound: self.inbound,
            limits: self.limits,
            metrics: self.metrics,
        })
    }
}

/// `0.0.0.0/0` and `::/0`.
fn everything() -> Vec<IpNetwork> {
    let any = [IpAddr::from([0_u8; 4]), IpAddr::from([0_u8; 16])];
    any.into_iter().filter_map(|any| IpNetwork::new(any, 0).ok()).collect()
}

/// How long an outage may be survived: our choice, because below a second every loss would end
/// the flows, and no application waits for a week.
const DEAD_AFTER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);

pub(super) const PRIVATE_KEY_MISSING: &str = "is missing: write private_key = \"…\" or \
     private_key_file = \"…\" with the output of `vpn genkey`";
const SERVER_MISSING: &str = "is missing: write server = \"203.0.113.9:443\" or a name and port";
const SERVER_KEY_MISSING: &str =
    "is missing: write server_key = \"…\" with the server's public key (`vpn pubkey`)";
