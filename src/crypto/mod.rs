//! Sealed packets: keys, the Noise handshake, cipher suites, the masked header and the replay
//! window.

mod keys;
mod packet;
mod replay;
mod suite;

pub use keys::{KEY_LEN, KeyError, PresharedKey, PrivateKey, PublicKey};
pub use packet::{
    COUNTER_LIMIT, HEADER_LEN, Header, Mask, OVERHEAD, OpenError, Opened, Opener,
    REKEY_AFTER_PACKETS, SealError, Sealer,
};
pub use suite::{Suite, SuiteSet, TAG_LEN};
