//! Sealed packets: keys, the Noise handshake, cipher suites, the masked header and the replay
//! window.

mod keys;

pub use keys::{KEY_LEN, KeyError, PresharedKey, PrivateKey, PublicKey};
