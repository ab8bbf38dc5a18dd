//! Who resolves names on this host (resolv.conf(5)).

use std::fs;
use std::net::IpAddr;

/// The resolvers of this host that others than itself can reach, in their order; behind the stub of systemd-resolved those that
/// it asks. If there are none, those on this host itself.
pub fn host_resolvers() -> Vec<IpAddr> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let own = nameservers(&read(RESOLV_CONF));
    let upstream = if own.iter().any(|address| address.to_string() == RESOLVED_STUB) {
        nameservers(&read(RESOLVED_CONF))
    } else {
        Vec::new()
    };
    let mut found = [upstream, own.clone()].concat();
    found.retain(|address| !address.is_loopback());
    found.truncate(RESOLVERS_MAX);
    if found.is_empty() { own } else { found }
}

fn nameservers(text: &str) -> Vec<IpAddr> {
    let words = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    words.filter_map(|word| word.trim().parse().ok()).take(RESOLVERS_MAX).collect()
}

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// systemd-resolved.service(8): its stub listener, and the file that names whom it asks.
const RESOLVED_STUB: &str = "127.0.0.53";
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// As the C library's resolver (`MAXNS` of resolv.h).
const RESOLVERS_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_first_three_nameservers() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\n nameserver\t2001:db8::1\n\
                    nameserver fe80::1%eth0\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let found: Vec<_> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
    }
}
