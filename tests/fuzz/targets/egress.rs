//! Lines of text: `+entry` allows, `-entry` denies, `=network` is the host's own, `?address port` asks.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use vpn::egress::{EgressPolicy, Entry};

/// An entry reads back as it is written; an answer does not depend on the order of entries, and follows one more entry
/// that names exactly the target.
pub(crate) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (mut allow, mut deny, mut own, mut asked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        let Some((kind, rest)) = line.split_at_checked(1) else { continue };
        match kind {
            "+" => allow.extend(entry(rest)),
            "-" => deny.extend(entry(rest)),
            "=" => own.extend(rest.parse::<IpNetwork>()),
            "?" => asked.extend(question(rest)),
            _ => {}
        }
    }
    for (address, port) in asked {
        ask(&allow, &deny, &own, address, port);
    }
}

fn entry(text: &str) -> Option<Entry> {
    let entry: Entry = text.parse().ok()?;
    assert_eq!(entry.to_string().parse(), Ok(entry));
    assert_eq!(entry.network().ip(), entry.network().network());
    assert_ne!(entry.port(), Some(0));
    Some(entry)
}

fn question(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let (address, port) = text.split_once(' ').unwrap_or((text, ""));
    Some((address.parse().ok()?, port.parse().ok()))
}

fn ask(allow: &[Entry], deny: &[Entry], own: &[IpNetwork], address: IpAddr, port: Option<u16>) {
    let answer = |allow: &[Entry], deny: &[Entry]| {
        EgressPolicy::new(allow.to_vec(), deny.to_vec(), own.iter().copied()).allows(address, port)
    };
    let backwards = |list: &[Entry]| list.iter().rev().copied().collect::<Vec<_>>();
    let is_allowed = answer(allow, deny);
    assert_eq!(is_allowed, answer(&backwards(allow), &backwards(deny)), "{address} {port:?}");
    let exact = Entry::new(IpNetwork::from(address), port);
    let denied = answer(allow, &[deny, &[exact]].concat());
    assert!(!denied, "{address} {port:?} in spite of its own denial");
    let is_mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    if !deny.contains(&exact) && !is_mapped {
        assert!(
            answer(&[allow, &[exact]].concat(), deny),
            "not {address} {port:?} in spite of its own permission"
        );
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        "?127.0.0.1 80\n?1.1.1.1 443\n?::1\n?fe80::1 22",
        "+10.1.0.0/16\n+10.1.2.3/32:25\n-10.0.0.0/8\n-10.1.2.0/24\n?10.1.2.3 25\n?10.1.2.3\n?10.2.0.1 80",
        "=192.168.1.2/24\n=2001:db8::2/64\n+192.168.1.2/32:53\n?192.168.1.2 53\n?192.168.1.255 9\n?2001:db8:: 22",
        "+::ffff:0:0/96\n-[fd00::]/8:25\n-10.0.0.0/8\n?::ffff:10.0.0.1 80\n?::ffff:1.1.1.1 80\n?fd00::1 25",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
