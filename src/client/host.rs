//! The host while a tunnel is up: what changes around us, and what of ours somebody takes away.

use std::future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::netcfg::{self, ClientHost, ClientPlan, HostChange, Journal, Own, Watch};

/// Our place on the host.
#[derive(Debug)]
pub(super) struct Host {
    watch: Watch,
    /// What we have set up, once we have.
    ours: Option<Arc<ClientHost>>,
    repair: Repair,
    repaired: Option<Instant>,
}

/// Where putting things back stands.
#[derive(Debug)]
enum Repair {
    Nothing,
    At(Instant),
    /// In a task of its own, because the tunnel goes on meanwhile.
    Running(JoinHandle<Result<usize>>),
}

impl Host {
    /// Begins to watch; the device and the table of this number are ours.
    pub(super) async fn watch(device: u32, table: u32) -> Result<Self> {
        let mut watch = Watch::open().await?;
        watch.set_own(Own { device, table });
        Ok(Self { watch, ours: None, repair: Repair::Nothing, repaired: None })
    }

    /// Sets the host up; returns notes for the user.
    pub(super) async fn apply(&mut self, plan: &ClientPlan, journal: &mut Journal) -> Result<Vec<String>> {
        let (ours, notes) = netcfg::apply_client(plan, journal).await?;
        self.ours = Some(Arc::new(ours));
        Ok(notes)
    }

    /// Waits until packets may have another way to the server; what of ours was taken away is put back meanwhile. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        loop {
            tokio::select! {
                change = self.watch.next() => {
                    self.on_change(change);
                    if change.network {
                        return;
                    }
                }
                () = self.repair.step() => self.on_step(),
            }
        }
    }

    fn on_change(&mut self, change: HostChange) {
        // What is taken away while something is put back may be missed by that.
        if change.own && self.ours.is_some() && !matches!(self.repair, Repair::At(_)) {
            let now = Instant::now();
            self.repair.abort();
            // Who takes it away again and again gets no race.
            self.repair = Repair::At(self.repaired.map_or(now, |repaired| now.max(repaired + REPAIR_EVERY)));
        }
    }

    fn on_step(&mut self) {
        let ours = self.ours.clone().filter(|_| matches!(self.repair, Repair::At(_)));
        self.repair = match ours {
            Some(ours) => {
                self.repaired = Some(Instant::now());
                Repair::Running(tokio::spawn(async move { ours.restore().await }))
            }
            None => Repair::Nothing,
        };
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.repair.abort();
    }
}

impl Repair {
    /// Waits until the next step is due.
    async fn step(&mut self) {
        match self {
            Self::Nothing => future::pending().await,
            Self::At(at) => sleep_until(*at).await,
            Self::Running(task) => match task.await {
                Ok(Ok(0)) | Err(_) => {}
                Ok(Ok(count)) => {
                    tracing::info!(
                        count,
                        "addresses, routes or rules of the tunnel were taken away: put back"
                    );
                }
                Ok(Err(error)) => tracing::warn!("routes of the tunnel were taken away: {error:#}"),
            },
        }
    }

    fn abort(&self) {
        if let Self::Running(task) = self {
            task.abort();
        }
    }
}

/// Our choice: often enough for people, seldom enough beside a program that wants our routes away.
const REPAIR_EVERY: Duration = Duration::from_secs(1);
