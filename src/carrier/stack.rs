//! What the two ends resemble: a Windows client and the Linux server that answers it. All of it is visible to anyone on the
//! path and must stay the same for the life of a connection.

use std::net::SocketAddr;

use super::phase::Window;

/// The traits of one TCP stack.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stack {
    /// TTL or hop limit at the sender.
    pub(super) hop_limit: u8,
    /// Window scale offered.
    pub(super) window_scale: u8,
    /// Receive window in bytes once the handshake is over.
    receive_window: u32,
}

impl Stack {
    /// The window of every segment after the handshake: constant, so that receivers merge our segments.
    pub(super) const fn window(&self, is_scaled: bool) -> Window {
        match is_scaled {
            #[expect(clippy::cast_possible_truncation, reason = "both windows fit, asserted below")]
            true => Window {
                field: (self.receive_window >> self.window_scale) as u16,
                bytes: self.receive_window,
            },
            false => Window { field: u16::MAX, bytes: u16::MAX as u32 },
        }
    }
}

/// Windows 10: TTL 128, scale 8. The window covers 1 Gbit/s at 130 ms.
pub(super) const WINDOWS: Stack = Stack { hop_limit: 128, window_scale: 8, receive_window: 0xff00 << 8 };

/// Linux 5 with `tcp_rmem` raised to 32 MiB, as servers on long paths have it: TTL 64, scale 10 (from that bound).
pub(super) const LINUX: Stack = Stack { hop_limit: 64, window_scale: 10, receive_window: 32 << 20 };

const _: () = assert!(WINDOWS.receive_window >> WINDOWS.window_scale <= u16::MAX as u32);
const _: () = assert!(LINUX.receive_window >> LINUX.window_scale <= u16::MAX as u32);

/// The MSS that a stack announces to `remote` on an interface of this MTU.
pub(super) const fn own_mss(remote: &SocketAddr, mtu: u16) -> u16 {
    let mss = match remote {
        SocketAddr::V4(_) => mtu.saturating_sub(40),
        SocketAddr::V6(_) => mtu.saturating_sub(60),
    };
    if mss < SMALLEST_MSS { SMALLEST_MSS } else { mss }
}

/// The MSS of a peer that announces none (RFC 9293, section 3.7.1).
pub(super) const fn default_mss(remote: &SocketAddr) -> u16 {
    match remote {
        SocketAddr::V4(_) => 536,
        SocketAddr::V6(_) => 1220,
    }
}

/// The window of SYN and SYN-ACK: both stacks take the largest multiple of the MSS that needs no scale (64,240 for 1460,
/// 64,800 for 1440). Linux' better known 65,160 is that of connections with timestamps, which Windows does not offer.
pub(super) const fn initial_window(mss: u16) -> u16 {
    match mss {
        0 => u16::MAX,
        mss => u16::MAX / mss * mss,
    }
}

/// Of an Ethernet link without tunnels.
pub(super) const ETHERNET_MTU: u16 = 1500;

/// The least that is announced, and answered to a client that announces less: Linux' own default for a peer that says nothing
/// (RFC 9293, section 3.7.1).
pub(super) const SMALLEST_MSS: u16 = 536;
