//! What is to be measured, and how long that takes.

use std::time::Duration;

use crate::systems::System;

/// What the caller has asked for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Whom to measure, in the order of the rows.
    pub(crate) systems: Vec<System>,
    /// More cells and repeats, for an hour instead of minutes.
    pub(crate) long: bool,
    /// How often everything is measured, if not as often as the part has it.
    pub(crate) repeats: Option<u32>,
    /// Show what our KCP measured and counted, too.
    pub(crate) status: bool,
}

impl Plan {
    /// The repeats of a part that has so many in a quick and in a long run.
    pub(crate) fn repeats(&self, quick: u32, long: u32) -> u32 {
        self.repeats.unwrap_or(if self.long { long } else { quick })
    }

    /// The systems for what begins with a connect: behind ours, ours that answers a connect by itself.
    pub(crate) fn connecting(&self) -> Vec<System> {
        let both = |system| {
            let fast = (system == System::Vpn && !self.systems.contains(&System::VpnFast))
                .then_some(System::VpnFast);
            std::iter::once(system).chain(fast)
        };
        self.systems.iter().copied().flat_map(both).collect()
    }

    /// The systems that run programs of their own.
    pub(crate) fn tunnels(&self) -> Vec<System> {
        self.systems.iter().copied().filter(|system| system.is_tunnel()).collect()
    }

    /// How long it takes to measure `systems` one after another, each for `time`.
    pub(crate) fn one_by_one(systems: &[System], repeats: u32, time: Duration) -> Duration {
        let count = u32::try_from(systems.len()).unwrap_or(u32::MAX);
        (time + SET_UP) * count * repeats
    }
}

/// What the setting up and removing of a network and a system takes, about.
pub(crate) const SET_UP: Duration = Duration::from_secs(2);
