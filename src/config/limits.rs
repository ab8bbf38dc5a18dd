//! The sections that both ends have: bounds on memory, and metrics.

use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::document::Document;
use super::{ByteSize, ConfigError, text};

/// Hard bounds on what is buffered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Of one session.
    pub session_buffer: ByteSize,
    /// Of the whole process.
    pub process_buffer: ByteSize,
}

impl Limits {
    pub(super) fn check(&self, document: &Document) -> Result<(), ConfigError> {
        if self.session_buffer < SESSION_BUFFER_MIN {
            let what = format!("must be at least {SESSION_BUFFER_MIN}");
            return Err(document.error_at("limits.session_buffer", what));
        }
        // What is above a session is for the buffers of a client's flows.
        if self.process_buffer.bytes() / 2 < self.session_buffer.bytes() {
            let what = format!("must be at least twice session_buffer, {}", self.session_buffer);
            return Err(document.error_at("limits.process_buffer", what));
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { session_buffer: ByteSize::from_mebibytes(64), process_buffer: ByteSize::from_mebibytes(1024) }
    }
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// The address to listen on; written `""` for none.
    #[serde(deserialize_with = "listen")]
    pub listen: Option<SocketAddr>,
}

fn listen<'de, D: Deserializer<'de>>(input: D) -> Result<Option<SocketAddr>, D::Error> {
    text::deserialize(input, r#"a string like "127.0.0.1:9586""#).map(|Address(address)| address)
}

struct Address(Option<SocketAddr>);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let address = text.parse().map_err(|_| {
            format!("{text:?} is no address with a port: write \"127.0.0.1:9586\", or \"\" for none")
        })?;
        Ok(Self(Some(address)))
    }
}

/// Our choice: less cannot hold one round trip of an ordinary link (100 ms at 80 Mbit/s).
const SESSION_BUFFER_MIN: ByteSize = ByteSize::from_mebibytes(1);
