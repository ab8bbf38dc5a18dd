//! Our nftables table: built as text, handed to `nft -f -` as one transaction, so that all of it is there or nothing.
//!
//! The table `inet vpn-INTERFACE` is ours alone: an interface name is unique in its network namespace, so two instances never
//! meet in one table.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::IpAddr,
    ops::RangeInclusive,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;

/// Names the table of an interface. What `nft` takes in no identifier is written as `_` and its hexadecimal code.
pub(super) fn table_name(interface: &str) -> String {
    let mut name = "vpn-".to_owned();
    for byte in interface.bytes() {
        if byte.is_ascii_alphanumeric() || b"_-.".contains(&byte) {
            name.push(char::from(byte));
        } else {
            name += &format!("_{byte:02x}");
        }
    }
    name
}

/// The client's table: what enters the tunnel with a source that is not ours (marked programs, containers) gets ours.
pub(super) fn client_ruleset(interface: &str, addresses: &[IpNetwork]) -> String {
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv4());
    let families = [v4, v6].into_iter().filter(|own| !own.is_empty());
    let rules = families.map(|own: Vec<&IpNetwork>| {
        let list: Vec<_> = own.iter().map(|address| address.ip().to_string()).collect();
        let family = own.first().map_or("ip", |address| family(address));
        format!("oifname \"{interface}\" {family} saddr != {{ {} }} masquerade", list.join(", "))
    });
    ruleset(interface, rules, "")
}

/// The server's table: what leaves the tunnel networks for elsewhere gets the address of its way out.
///
/// To masquerade is to track every connection of the host, those that strangers pretend to begin with us too: a flood fills the
/// host's table within seconds, and then nobody's connections pass. The kernel has no use for what comes to where we listen, which
/// we read before it; so what is more than ordinary is dropped there before it is an entry of that table. Others may hold the
/// same ports on other addresses and in the other version of IP: `listen` says where we do, an unspecified address for all of
/// its version.
pub(super) fn server_ruleset(
    interface: &str,
    addresses: &[IpNetwork],
    listen: &[(IpAddr, RangeInclusive<u16>)],
) -> String {
    let rule = |address: &IpNetwork| {
        let network = (address.network(), address.prefix());
        format!("{} saddr {}/{} oifname != \"{interface}\" masquerade", family(address), network.0, network.1)
    };
    let to_ours: String =
        listen.iter().map(|listen| format!("\t\t{} goto strangers\n", destination(listen))).collect();
    let rest = format!(
        "\tchain strangers {{\n\t\tct state new limit rate over {TRACKED} drop\n\t}}\n\
         \tchain input {{\n\t\ttype filter hook input priority mangle; policy accept;\n{to_ours}\t}}\n"
    );
    ruleset(interface, addresses.iter().map(rule), &rest)
}

/// The text that removes a table, whether it is there or not.
pub(super) fn removal(table: &str) -> String {
    format!("add table inet {table}\ndelete table inet {table}\n")
}

/// True if the program `nft` can be started.
pub(super) fn is_installed() -> bool {
    let quiet = nft().arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// Runs one transaction.
///
/// # Errors
/// What `nft` says, in one line.
pub(super) fn run(ruleset: &str) -> Result<()> {
    let mut child = nft()
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the program nft: install the package nftables")?;
    if let Some(mut stdin) = child.stdin.take() {
        // If nft died its words say more than our broken pipe.
        stdin.write_all(ruleset.as_bytes()).or_else(tolerate_broken_pipe).context("cannot write to nft")?;
    }
    let output = child.wait_with_output().context("cannot wait for the program nft")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("nft refused our table: {}", words.lines().next().unwrap_or("it gave no reason"));
    }
    Ok(())
}

/// `sudo` and service managers may leave the system folders out of PATH.
fn nft() -> Command {
    let mut command = Command::new("nft");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/local/sbin")).stdout(Stdio::null());
    command
}

fn tolerate_broken_pipe(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// The whole table, replacing one of that name; `rest` are other chains.
fn ruleset(interface: &str, rules: impl Iterator<Item = String>, rest: &str) -> String {
    let table = table_name(interface);
    let mut text = removal(&table);
    let mut lines = String::new();
    for rule in rules {
        writeln!(lines, "\t\t{rule}").unwrap_or_default();
    }
    text += &format!(
        "table inet {table} {{\n\tchain postrouting {{\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n{lines}\t}}\n{rest}}}\n"
    );
    text
}

/// Our choice: more new carriers than a server of many clients sees, and, remembered for 300 s each, few entries.
///
/// To conntrack the SYN-ACK that answers a dropped SYN belongs to no connection and is invalid: a host whose own rules drop such
/// packets on their way out lets no new client in while more than this come, but those that do without a SYN.
const TRACKED: &str = "20/second burst 200 packets";

/// What matches the packets to where we listen.
fn destination((address, ports): &(IpAddr, RangeInclusive<u16>)) -> String {
    let to = match address {
        IpAddr::V4(any) if any.is_unspecified() => "meta nfproto ipv4".to_owned(),
        IpAddr::V6(any) if any.is_unspecified() => "meta nfproto ipv6".to_owned(),
        IpAddr::V4(one) => format!("ip daddr {one}"),
        IpAddr::V6(one) => format!("ip6 daddr {one}"),
    };
    format!("{to} tcp dport {}", port_list(ports))
}

fn port_list(range: &RangeInclusive<u16>) -> String {
    let (first, last) = (range.start(), range.end());
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn family(address: &IpNetwork) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(networks: &[&str]) -> Vec<IpNetwork> {
        networks.iter().map(|network| network.parse().unwrap()).collect()
    }

    #[test]
    fn a_client_masquerades_foreign_sources_into_the_tunnel() {
        let text = client_ruleset("vpn0", &networks(&["10.77.0.2/24", "fd77::2/64"]));
        let expected = "add table inet vpn-vpn0\ndelete table inet vpn-vpn0\ntable inet vpn-vpn0 {\n\tchain postrouting {\n\
            \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
            \t\toifname \"vpn0\" ip saddr != { 10.77.0.2 } masquerade\n\
            \t\toifname \"vpn0\" ip6 saddr != { fd77::2 } masquerade\n\t}\n}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_client_with_several_addresses_keeps_them_all() {
        let text = client_ruleset("vpn0", &networks(&["10.77.0.2/24", "10.78.0.2/24"]));
        assert!(text.contains("ip saddr != { 10.77.0.2, 10.78.0.2 } masquerade"), "{text}");
        assert!(!text.contains("ip6"), "{text}");
    }

    #[test]
    fn a_server_masquerades_its_networks_everywhere_else() {
        let text = server_ruleset("vpns0", &networks(&["10.77.0.1/24", "fd77::1/64"]), &[]);
        assert!(text.contains("ip saddr 10.77.0.0/24 oifname != \"vpns0\" masquerade\n"), "{text}");
        assert!(text.contains("ip6 saddr fd77::/64 oifname != \"vpns0\" masquerade\n"), "{text}");
    }

    #[test]
    fn a_server_drops_strangers_only_where_it_listens() {
        let listen = [
            ("0.0.0.0", 443..=443),
            ("::", 4100..=4102),
            ("203.0.113.9", 4000..=4100),
            ("2001:db8::9", 443..=443),
        ];
        let text = server_ruleset("vpns0", &[], &listen.map(|(to, ports)| (to.parse().unwrap(), ports)));
        let rules: Vec<_> = text.lines().filter_map(|line| line.strip_suffix(" goto strangers")).collect();
        let expected = [
            "\t\tmeta nfproto ipv4 tcp dport 443",
            "\t\tmeta nfproto ipv6 tcp dport 4100-4102",
            "\t\tip daddr 203.0.113.9 tcp dport 4000-4100",
            "\t\tip6 daddr 2001:db8::9 tcp dport 443",
        ];
        assert_eq!(rules, expected, "{text}");
    }

    #[test]
    fn names_tables_with_what_nft_takes() {
        assert_eq!(table_name("eth0.5"), "vpn-eth0.5");
        assert_eq!(table_name("a@b"), "vpn-a_40b");
    }
}
