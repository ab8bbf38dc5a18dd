//! What a VPN may have changed on a host, to compare before and after.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::node::Node;

/// The answers to a fixed list of questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState(BTreeMap<&'static str, String>);

impl HostState {
    /// Asks `node`.
    ///
    /// # Errors
    /// If a question cannot be asked.
    pub fn of(node: &Node) -> Result<Self> {
        QUESTIONS
            .into_iter()
            .map(|question| Ok((question, ask(node, question)?)))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The answer to one of the questions, empty if it is none of them.
    #[must_use]
    pub fn answer(&self, question: &str) -> &str {
        self.0.get(question).map_or("", String::as_str)
    }

    /// Checks that nothing is different now.
    ///
    /// # Errors
    /// With the first answer that differs.
    pub fn expect_unchanged(&self, node: &Node) -> Result<()> {
        let now = Self::of(node)?;
        for (question, before) in &self.0 {
            let after = &now.0[question];
            if before != after {
                bail!("{} is not as it was: {question}\nbefore:\n{before}\nafter:\n{after}", node.role());
            }
        }
        Ok(())
    }
}

fn ask(node: &Node, question: &str) -> Result<String> {
    let answer = node.program("sh")?.arg("-c").arg(question).output()?;
    Ok(answer)
}

/// Everything a VPN touches: interfaces, addresses, rules, routes, firewall, forwarding, resolver, its own files.
const QUESTIONS: [&str; 14] = [
    "ip -brief link",
    "ip -brief address",
    "ip rule",
    "ip -6 rule",
    "ip route show table all",
    "ip -6 route show table all | grep -v ' proto kernel .*expires' || true",
    "nft list ruleset",
    "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv4/conf/*/rp_filter",
    "cat /proc/sys/net/ipv6/conf/*/forwarding /proc/sys/net/ipv6/conf/*/accept_ra",
    "cat /etc/resolv.conf",
    "ss -Hltn | awk '{print $4}' | sort",
    "ss -Ha --raw --packet | awk '{print $1, $5}' | sort",
    "find /run -path /run/vpn/'*' | sort",
    "find /run -type s | sort",
];
