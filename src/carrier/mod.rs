//! Fake TCP: packets that look like one healthy TCP connection to NATs, firewalls and providers.
//!
//! Each outer packet is an IP header, a TCP header and exactly one sealed packet. Nothing here retransmits or orders
//! anything: the sequence and acknowledgement numbers are scenery, drawn so that a strict connection tracker
//! finds no fault in it. The layer is sans-IO: IP packets come in as bytes and leave as bytes.
//!
//! - [`parse`] and [`Repr`]: the codec of IP + TCP, IPv4 and IPv6;
//! - [`Connection`]: either end of one fake connection;
//! - [`Listener`]: answers SYNs from strangers without keeping anything about them.
//!
//! What comes to a client goes `parse` → [`Connection::handle_segment`], by its 4-tuple → the seal →
//! [`Connection::on_opened`]. A server has many clients and believes no 4-tuple: what the seal opens goes `parse` → the
//! seal → [`Connection::on_opened`], everything else to the [`Listener`], and to a connection only what that must answer as
//! TCP would. Only [`Connection::on_opened`] moves the numbers of a connection that stands: whoever can forge a TCP header but
//! not the seal changes nothing of it. The exception comes after its end: once we have closed, a FIN within the window moves the
//! ack and is acknowledged as TCP would, whoever sent it; a forged one ends the farewell early, and nothing else.

mod checksum;
mod connection;
mod cookie;
mod emit;
mod listener;
mod mode;
mod options;
mod packet;
mod phase;
mod scenery;
mod seq;
mod stack;
mod stats;

#[cfg(test)]
mod conntrack;
#[cfg(test)]
mod simulation;

pub use connection::{Connection, Input, State};
pub use emit::{EmitError, Repr, header_len};
pub use listener::{Accepted, Listener, ListenerAction};
pub use mode::{Mode, UnknownMode};
pub use options::{Options, SynOptions};
pub use packet::{Flags, Kind, Segment, parse};
pub use seq::Seq;
pub use stats::{DropReason, Stats};
