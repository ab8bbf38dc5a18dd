//! Inner TCP: ends the TCP connections of the programs on this side, one flow each.
//!
//! The kernel's segments come from the TUN device, smoltcp answers them as if it were the far end,
//! and the bytes go on as a stream; so loss and delay on the path never reach the program's TCP.
//! smoltcp is named only in this module.
//!
//! ```text
//!   SYN ──> held ──accept──> open ──both FINs──> Closed
//!            │ refuse          │ RST, gave up
//!            v                 v
//!   RST, ICMP or nothing     Reset
//! ```
//!
//! A SYN is *held* until the owner knows what the real far end says, and only then answered: a
//! refused connection is refused, an unreachable host unreachable ([`Refusal`]).
//!
//! The contract of [`Flows`]: feed input ([`Flows::handle_packet`], [`Flows::handle_timeout`], or a
//! command), then drain [`Flows::poll_packet`] and [`Flows::poll_event`], then read
//! [`Flows::poll_timeout`] and wait. What the events promise stands at [`Event`].

mod config;
mod connection;
mod deadlines;
mod event;
mod flows;
mod memory;
mod pool;
mod resting;
mod slab;
mod socket;
mod stack;
mod tuple;

#[cfg(test)]
mod tests;

pub use crate::packet::tcp::{Segment, reset_for};
pub use config::{FlowLimits, Stats};
pub use event::{Event, Refusal};
pub use flows::Flows;
pub use memory::Memory;
pub use slab::FlowId;
