//! Whether this process may do what the program needs (capabilities(7)).

use rustix::thread::{CapabilitySet, capabilities};

/// Names the capabilities that this process lacks; `None` = it has all it needs.
///
/// CAP_NET_ADMIN is for the TUN device, marks, routes and socket filters, CAP_NET_RAW for packet and raw sockets.
pub fn missing_rights() -> Option<&'static str> {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let has_admin = effective.contains(CapabilitySet::NET_ADMIN);
    let has_raw = effective.contains(CapabilitySet::NET_RAW);
    match (has_admin, has_raw) {
        (true, true) => None,
        (false, true) => Some("CAP_NET_ADMIN"),
        (true, false) => Some("CAP_NET_RAW"),
        (false, false) => Some("CAP_NET_ADMIN and CAP_NET_RAW"),
    }
}
