//! The signals that ask a program to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// SIGTERM, SIGINT and SIGHUP; from the moment it is made none of them kills the process.
#[derive(Debug)]
pub(crate) struct EndSignals([Signal; 3]);

impl EndSignals {
    /// Starts to catch them.
    pub(crate) fn catch() -> Result<Self, Failure> {
        let catch =
            |kind| signal(kind).map_err(|error| Failure::of_system("cannot watch for signals", &error));
        Ok(Self([
            catch(SignalKind::terminate())?,
            catch(SignalKind::interrupt())?,
            catch(SignalKind::hangup())?,
        ]))
    }

    /// Waits for the next. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
