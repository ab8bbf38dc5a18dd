//! A client's side of the streams that the server opens: where they may lead, and what the shell is told of them.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::streams::{Abandoned, StreamEvent, StreamKey};
use crate::mux::{Event, Mux, Opener, ResetCode, StreamId};

/// Streams from the server's side.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// Ports of our own tunnel addresses that may be reached.
    allow: Vec<RangeInclusive<u16>>,
    /// Counts the epochs, so that a stream's key is never used twice.
    incarnation: u64,
    /// Streams that ended together, and of which the shell was not told.
    abandoned: Option<Abandoned>,
    total: u64,
    denied: u64,
}

impl Inbound {
    /// No streams yet; they may lead to these ports.
    pub(crate) fn new(allow: Vec<RangeInclusive<u16>>) -> Self {
        Self { allow, incarnation: 0, abandoned: None, total: 0, denied: 0 }
    }

    /// Every stream that there was is gone.
    pub(crate) fn abandon(&mut self) {
        self.incarnation += 1;
        self.abandoned = Some(Abandoned { peer: PEER, before: self.incarnation });
    }

    /// Whether a stream is of the epoch of now.
    pub(crate) fn has(&self, stream: StreamKey) -> bool {
        stream.incarnation == self.incarnation
    }

    /// The next thing that the shell is to do about streams of `mux`, if that still lives; who reaches for what is not one of
    /// `ours`, or not allowed, is answered here.
    ///
    /// Events are taken one at a time, because what a stream received stays readable only until its reset is taken.
    pub(crate) fn poll_event(
        &mut self,
        mux: Option<&mut Mux>,
        is_ours: impl Fn(IpAddr) -> bool,
    ) -> Option<StreamEvent> {
        if let Some(abandoned) = self.abandoned.take() {
            return Some(StreamEvent::Abandoned(abandoned));
        }
        let mux = mux?;
        loop {
            return Some(match mux.poll_event_of(Opener::Peer)? {
                Event::Open { id, target } => {
                    if !(is_ours(target.ip()) && self.allows(target)) {
                        self.denied += 1;
                        mux.reset(id, ResetCode::Denied);
                        continue;
                    }
                    self.total += 1;
                    StreamEvent::Connect { stream: self.key(id), target }
                }
                Event::Readable { id } => StreamEvent::Readable(self.key(id)),
                Event::Writable { id } => StreamEvent::Writable(self.key(id)),
                Event::Finished { id } => StreamEvent::Finished(self.key(id)),
                Event::Reset { id, .. } => StreamEvent::Reset(self.key(id)),
                Event::Opened { .. } | Event::GoAway => continue,
            });
        }
    }

    /// Streams that the shell was asked to connect, so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Those that were not allowed.
    pub(crate) fn denied(&self) -> u64 {
        self.denied
    }

    fn allows(&self, target: SocketAddr) -> bool {
        self.allow.iter().any(|ports| ports.contains(&target.port()))
    }

    fn key(&self, stream: StreamId) -> StreamKey {
        StreamKey { peer: PEER, incarnation: self.incarnation, stream }
    }
}

/// The server, which is the only one.
const PEER: usize = 0;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::mux::{Limits, Role};

    const OURS: &str = "10.77.0.2";

    fn pair() -> (Mux, Mux) {
        (Mux::new(Role::Server, Limits::default()), Mux::new(Role::Client, Limits::default()))
    }

    #[expect(clippy::disallowed_methods, reason = "only differences matter")]
    fn now() -> Instant {
        Instant::now()
    }

    fn pass(from: &mut Mux, to: &mut Mux) {
        let now = now();
        let mut message = [0; 1024];
        while from.may_fill() {
            let length = from.fill(&mut message, now);
            to.handle_message(&message[..length], now).unwrap();
        }
    }

    /// What becomes of a connect to `target`: the code of its refusal, or none if the shell is asked.
    fn ask(allow: &[RangeInclusive<u16>], target: &str) -> Option<ResetCode> {
        let (mut server, mut client) = pair();
        let mut inbound = Inbound::new(allow.to_vec());
        server.open(target.parse().unwrap(), now()).unwrap();
        pass(&mut server, &mut client);
        let ours: IpAddr = OURS.parse().unwrap();
        let asked = inbound.poll_event(Some(&mut client), |address| address == ours);
        pass(&mut client, &mut server);
        match server.poll_event() {
            Some(Event::Reset { code, .. }) => {
                assert_eq!((asked, inbound.denied(), inbound.total()), (None, 1, 0), "{target}");
                Some(code)
            }
            other => {
                assert_eq!(other, None);
                assert!(matches!(asked, Some(StreamEvent::Connect { .. })), "{target}: {asked:?}");
                assert_eq!((inbound.denied(), inbound.total()), (0, 1), "{target}");
                None
            }
        }
    }

    #[test]
    fn only_allowed_ports_of_our_own_addresses_are_connected() {
        let allow = [22..=22, 8000..=8010];
        for target in ["10.77.0.2:22", "10.77.0.2:8000", "10.77.0.2:8010"] {
            assert_eq!(ask(&allow, target), None, "{target}");
        }
        let others = [
            "10.77.0.2:23",
            "10.77.0.2:7999",
            "10.77.0.2:8011",
            "10.77.0.3:22",
            "127.0.0.1:22",
            "[::1]:22",
            "[::ffff:10.77.0.2]:22",
        ];
        for target in others {
            assert_eq!(ask(&allow, target), Some(ResetCode::Denied), "{target}");
        }
        assert_eq!(ask(&[], "10.77.0.2:22"), Some(ResetCode::Denied));
    }

    #[test]
    fn streams_of_an_epoch_that_is_over_are_gone_before_others_begin() {
        let (mut server, mut client) = pair();
        let mut inbound = Inbound::new(vec![1..=u16::MAX]);
        server.open("10.77.0.2:22".parse().unwrap(), now()).unwrap();
        pass(&mut server, &mut client);
        let Some(StreamEvent::Connect { stream: old, .. }) = inbound.poll_event(Some(&mut client), |_| true)
        else {
            panic!("a connect")
        };
        assert!(inbound.has(old));
        inbound.abandon();
        let (mut server, mut client) = pair();
        server.open("10.77.0.2:22".parse().unwrap(), now()).unwrap();
        pass(&mut server, &mut client);
        let Some(StreamEvent::Abandoned(gone)) = inbound.poll_event(Some(&mut client), |_| true) else {
            panic!("the old ones first")
        };
        let Some(StreamEvent::Connect { stream: new, .. }) = inbound.poll_event(Some(&mut client), |_| true)
        else {
            panic!("a connect")
        };
        assert!(gone.includes(old) && !gone.includes(new) && !inbound.has(old) && inbound.has(new));
        assert_eq!(old.stream, new.stream, "ids begin anew, keys do not");
    }
}
