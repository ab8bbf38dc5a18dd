//! Firewalls. The router as the strictest of home routers: it masks the clients behind its address and lets nothing pass that its
//! connection tracking does not know. And a host that does not hear something.

use anyhow::{Context, Result};

use crate::node::Node;

/// Lets the clients out behind the router's address, answers in, and drops what connection tracking finds invalid.
///
/// With `loose`, a TCP connection may be picked up in its middle, as Linux does by default; without, it must begin with a SYN.
/// Sequence numbers outside of the advertised windows are invalid in any case.
///
/// # Errors
/// If the kernel or `nft` refuses.
pub fn raise(router: &Node, loose: bool) -> Result<()> {
    router.program("nft")?.words("-f -").input(RULES).output()?;
    // They exist from the first rule that needs connection tracking.
    router.set_sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "0")?;
    router.set_sysctl("net/netfilter/nf_conntrack_tcp_loose", if loose { "1" } else { "0" })
}

/// The TCP connections that the router tracks to `port`, one a line, as `conntrack -L` shows them.
///
/// # Errors
/// If `conntrack` fails.
pub fn connections(router: &Node, port: u16) -> Result<Vec<String>> {
    let list = router.run(&format!("conntrack -L -p tcp --orig-port-dst {port}"))?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// Forgets every connection, as a router that starts anew.
///
/// # Errors
/// If `conntrack` fails.
pub fn forget(router: &Node) -> Result<()> {
    router.run("conntrack -F")?;
    Ok(())
}

/// How many packets connection tracking has found invalid, as `conntrack -S` counts them.
///
/// # Errors
/// If `conntrack` fails or does not count.
pub fn invalid(router: &Node) -> Result<u64> {
    let counts = router.run("conntrack -S")?;
    let counts = counts.split_whitespace().filter_map(|word| word.strip_prefix("invalid="));
    counts.map(|count| count.parse::<u64>().context("conntrack -S")).sum()
}

/// A host that does not hear some packets, until they are let in again.
#[derive(Debug)]
pub struct Deafness<'a> {
    node: &'a Node,
}

/// Has `node` drop the packets to it that match `filter`, in nftables' words; one such rule at a time.
///
/// # Errors
/// If the kernel or `nft` refuses.
pub fn drop_input<'a>(node: &'a Node, filter: &str) -> Result<Deafness<'a>> {
    let rules = format!(
        "table inet deaf {{ chain input {{ type filter hook input priority filter; {filter} counter drop; }}; }}\n"
    );
    node.program("nft")?.words("-f -").input(rules).output()?;
    Ok(Deafness { node })
}

impl Deafness<'_> {
    /// How many packets were dropped.
    ///
    /// # Errors
    /// If `nft` fails or does not count.
    pub fn packets(&self) -> Result<u64> {
        let list = self.node.run("nft list table inet deaf")?;
        let mut words = list.split_whitespace().skip_while(|word| *word != "packets").skip(1);
        Ok(words.next().context("no counter")?.parse()?)
    }

    /// Lets them in again.
    ///
    /// # Errors
    /// If `nft` fails.
    pub fn remove(self) -> Result<()> {
        self.node.run("nft delete table inet deaf")?;
        Ok(())
    }
}

const RULES: &str = "
table inet strict {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        ct state established,related accept
        iifname \"client*\" ct state new accept
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname { \"server\", \"target\" } masquerade
    }
}
";
