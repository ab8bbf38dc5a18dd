//! A link emulator: what a bad line and the boxes on it do to packets, in virtual time and from a seed.
//!
//! A [`Line`] has a [`Profile`] for each direction and [`Middlebox`]es at one of its ends:
//!
//! ```text
//!                 ┌──────────── lane out: profiles[0] ───────────┐
//!   client ───────┤  blackout, queue, loss, corruption, delay    ├──── boxes ──── router
//!                 └──────────── lane in:  profiles[1] ───────────┘
//! ```
//!
//! So a box at [`End::Router`] (the usual place: the network of an ISP, behind the last mile) sees what the client sent after the
//! line has lost and delayed it, and what the client is sent before that; at [`End::Client`] it is the other way round.
//!
//! Sans-IO: feed frames with [`Emulator::handle_frame`], take those that are due with [`Emulator::poll_frame`], read
//! [`Emulator::poll_timeout`], wait. A frame is an Ethernet frame or a bare IP packet, as [`Layer`] says. The same configuration,
//! seed and input give the same output, and what one lane draws does not depend on what the other carries.
//!
//! # What becomes of every frame
//!
//! For each direction, at any moment (the names are fields of [`Stats`]):
//!
//! ```text
//!   received + duplicated + forged = forwarded + dropped() + in flight
//! ```

#[cfg(test)]
mod accounting;
mod checksum;
mod craft;
mod emulator;
mod frame;
mod ip;
mod lane;
mod line;
mod loss;
mod middlebox;
mod pool;
mod profile;
mod stats;
mod table;
mod tcp;
#[cfg(test)]
mod testing;
mod travelling;

pub use checksum::{checksum, sum};
pub use emulator::Emulator;
pub use ip::{Flow, Layer, TCP, UDP};
pub use lane::MAX_IN_FLIGHT;
pub use line::{Direction, End, Line};
pub use loss::Loss;
pub use middlebox::{MAX_FLOWS, Middlebox, Segment, Towards};
pub use profile::{Blackouts, Jitter, Profile, Reorder};
pub use stats::Stats;
