//! Numbers that nobody else uses: a routing table, a mark, rule priorities.

use anyhow::{Context, Result};

use super::netlink::{Netlink, RuleSummary};
use crate::io::Family;

/// Finds a number that is neither a routing table nor a mark in the rules of this network namespace; it serves as both.
///
/// The search begins at a place that `name` decides: instances that start at the same moment do not pick the same.
///
/// # Errors
/// Netlink is not available.
pub async fn free_number(name: &str) -> Result<u32> {
    let netlink = Netlink::open()?;
    let rules = all_rules(&netlink).await?;
    for number in candidates(name) {
        let is_ruled = rules.iter().any(|rule| rule.table == number || rule.mark == Some(number));
        if !is_ruled
            && !netlink.has_routes(number, Family::V4).await?
            && !netlink.has_routes(number, Family::V6).await?
        {
            return Ok(number);
        }
    }
    anyhow::bail!("no routing table between {FIRST} and {} is free: delete some (ip rule)", FIRST + COUNT - 1)
}

/// Finds two adjacent priorities for our rules, the lower first.
pub(super) async fn free_priorities(netlink: &Netlink) -> Result<(u32, u32)> {
    let rules = all_rules(netlink).await?;
    let mut taken: Vec<u32> = rules.iter().map(|rule| rule.priority).collect();
    taken.sort_unstable();
    choose_priorities(&taken)
        .context("no two adjacent priorities are free in front of the main table: see `ip rule`")
}

async fn all_rules(netlink: &Netlink) -> Result<Vec<RuleSummary>> {
    let mut rules = netlink.rules(Family::V4).await?;
    rules.extend(netlink.rules(Family::V6).await?);
    Ok(rules)
}

/// In front of all rules but the local table's (0), as the kernel itself chooses; where there is no room, the last two free
/// ones before the main table. `taken` is sorted.
fn choose_priorities(taken: &[u32]) -> Option<(u32, u32)> {
    let first =
        taken.iter().copied().find(|priority| *priority > 0).unwrap_or(MAIN_PRIORITY).min(MAIN_PRIORITY);
    if first > 2 {
        return Some((first - 2, first - 1));
    }
    let is_free = |priority: u32| taken.binary_search(&priority).is_err();
    (1..MAIN_PRIORITY - 1).rev().find(|low| is_free(*low) && is_free(low + 1)).map(|low| (low, low + 1))
}

/// All numbers, from the one that the name's hash (FNV-1a) points at.
fn candidates(name: &str) -> impl Iterator<Item = u32> {
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0..COUNT).map(move |step| FIRST + (hash % COUNT + step) % COUNT)
}

/// Our choice: above the tables that people name by hand and below 65,536, which some tools keep for masks.
const FIRST: u32 = 40_000;
const COUNT: u32 = 4_096;
/// The priority of the kernel's rule for the main table.
const MAIN_PRIORITY: u32 = 32_766;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_two_priorities_in_front_of_all_rules() {
        assert_eq!(choose_priorities(&[0, 0, 32_766, 32_766, 32_767]), Some((32_764, 32_765)));
        assert_eq!(choose_priorities(&[0, 5210, 32_766]), Some((5208, 5209)));
        assert_eq!(choose_priorities(&[0, 3, 32_766]), Some((1, 2)));
        assert_eq!(choose_priorities(&[]), Some((32_764, 32_765)));
    }

    #[test]
    fn takes_the_last_free_pair_when_there_is_no_room_in_front() {
        assert_eq!(choose_priorities(&[0, 1, 32_765, 32_766]), Some((32_763, 32_764)));
    }

    #[test]
    fn different_names_begin_at_different_numbers_and_see_all() {
        assert_ne!(candidates("home").next(), candidates("office").next());
        let mut all: Vec<_> = candidates("home").collect();
        all.sort_unstable();
        assert!(all.iter().copied().eq(FIRST..FIRST + COUNT));
    }
}
