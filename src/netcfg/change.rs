//! The changes that outlive a killed process, each with what undoes it.

use std::path::PathBuf;

use anyhow::Result;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{
    netlink::{Netlink, Rule, Target},
    nft, sysctl,
};

/// One change of the host, as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A policy rule.
    Rule(Rule),
    /// A `throw` route of our table; routes into the device vanish with it.
    ThrowRoute {
        /// Our table.
        table: u32,
        /// What stays outside.
        network: IpNetwork,
    },
    /// An nftables table of the family `inet`.
    NftTable {
        /// Its name.
        name: String,
    },
    /// A kernel parameter that we set.
    Sysctl {
        /// Its file.
        path: PathBuf,
        /// What to restore, unless somebody set something else meanwhile.
        before: String,
        /// What we wrote.
        after: String,
    },
    /// A kernel parameter that a later change drags along, to be restored whatever it then is.
    SysctlSnapshot {
        /// Its file.
        path: PathBuf,
        /// What to restore.
        value: String,
    },
}

impl Change {
    /// Makes the host as it was; what is gone already is fine.
    pub(super) async fn undo(&self, netlink: &Netlink) -> Result<()> {
        match self {
            Self::Rule(rule) => netlink.delete_rule(*rule).await,
            Self::ThrowRoute { table, network } => {
                netlink.delete_route(*table, *network, Target::Throw).await
            }
            Self::NftTable { name } => nft::run(&nft::removal(name)),
            Self::Sysctl { path, before, after } => {
                if sysctl::read(path)?.as_ref() == Some(after) {
                    sysctl::write(path, before)?;
                }
                Ok(())
            }
            Self::SysctlSnapshot { path, value } => sysctl::write(path, value).map(|_| ()),
        }
    }
}
