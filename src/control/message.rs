//! What is said on the control socket: a line of JSON each way.

use serde::{Deserialize, Serialize};

use super::Tunnel;

/// What a command asks of a running tunnel: `{"request":"status"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// How it is.
    Status {
        /// Each of its flows, too.
        #[serde(default)]
        flows: bool,
    },
    /// To undo everything and end.
    Down,
}

/// What the tunnel answers: `{"response":"done"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    /// How it is.
    Status {
        /// The tunnel.
        tunnel: Box<Tunnel>,
    },
    /// It is done: after `Down`, everything is undone.
    Done,
    /// It cannot be done.
    Error {
        /// Why, in one sentence.
        message: String,
    },
}

/// The longest request: our choice, with room for what later requests may carry.
pub(super) const REQUEST_MAX: usize = 4 << 10;

/// The longest response: our choice, room for the peers of a large server and for as many flows as are listed.
pub(super) const RESPONSE_MAX: usize = 16 << 20;
