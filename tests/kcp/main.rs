//! KCP alone, between two ends of a line, under a virtual clock.
//!
//! ```text
//!   App ─ Endpoint (ours, or the crate `kcp`) ─┐                          ┌─ Endpoint ─ App
//!                                              ├── line (link-emulator) ──┤
//!                            a second pair … ──┘                          └── …
//! ```
//!
//! `harness` is shared with `cargo bench --bench links`, which prints the table of long cells; here are shorter ones, with
//! bounds. Every failure names its seed, and the seed reproduces it.

mod bulk;
mod busy;
mod echo;
mod harness;
mod interop;
mod outage;
mod share;
