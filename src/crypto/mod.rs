//! Sealed packets: keys, the Noise handshake, cipher suites, the masked header and the replay
//! window.
//!
//! [`Initiator`] and [`Responder`] exchange two messages and end up with [`Keys`]; each end turns
//! them into a [`Sealer`] and an [`Opener`]. [`Mask::header`] says of any packet whose it is before
//! a key is touched. Nothing here reads a clock or draws randomness of its own, and every packet
//! that is not taken has a named reason with a `label` for metrics.

mod handshake;
mod keys;
mod mask;
mod packet;
mod payload;
mod replay;
mod suite;
mod timestamp;

pub use handshake::{
    HandshakeError, Initiator, Keys, MESSAGE_MAX_LEN, MESSAGE1_MIN_LEN, Received, Responder,
};
pub use keys::{KEY_LEN, KeyError, PresharedKey, PrivateKey, PublicKey};
pub use mask::{HEADER_LEN, Header, Mask};
pub use packet::{
    COUNTER_LIMIT, OVERHEAD, OpenError, Opened, Opener, REKEY_AFTER_PACKETS, SealError, Sealer,
};
pub use payload::{
    MAX_LIST, MESSAGE1_LEN, Message1, Message2, PayloadError, Refusal, SESSION_ID_LEN, SessionId, VERSION,
    is_tunnel_address,
};
pub use suite::{Suite, SuiteSet, TAG_LEN};
pub use timestamp::{TIMESTAMP_LEN, Timestamp};
