//! `role u8`, then operations on one end of MUX: messages with anything in them, frames that name streams which exist,
//! and the commands of its owner.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vpn::mux::{Event, Limits, Mux, ResetCode, Role, StreamId};

use super::input::Input;
use super::start;

/// The bounds hold whatever comes; what leaves is whole frames of the documented format, no stream sends before its
/// `OPEN`, beyond its credit or behind its end; each event makes sense for its stream.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new(input.u8());
    while let Some(operation) = input.operation() {
        if !world.operate(operation, &mut input) {
            break;
        }
        world.check();
    }
    world.fill(1400);
    world.hear();
}

struct World {
    mux: Mux,
    now: Instant,
    is_odd: bool,
    ids: Vec<StreamId>,
    /// What left of each stream.
    sent: HashMap<u32, Sent>,
    /// The highest limit that the peer may have granted: at most what was said.
    granted: HashMap<u32, u64>,
}

#[derive(Debug, Default)]
struct Sent {
    bytes: u64,
    is_open: bool,
    is_finished: bool,
    is_reset: bool,
}

impl World {
    fn new(role: u8) -> Self {
        let is_odd = role & 1 == 0;
        Self {
            mux: Mux::new(if is_odd { Role::Client } else { Role::Server }, LIMITS),
            now: start(),
            is_odd,
            ids: Vec::new(),
            sent: HashMap::new(),
            granted: HashMap::new(),
        }
    }

    /// Returns whether the session goes on.
    fn operate(&mut self, operation: u8, input: &mut Input<'_>) -> bool {
        match operation % 13 {
            0 => return self.receive(input.bytes()),
            1 | 2 => {
                let mut message = Vec::new();
                for _ in 0..=input.below(4) {
                    message.extend(frame(input));
                }
                return self.receive(&message);
            }
            3 => self.ids.extend(self.mux.open(target(), self.now)),
            4 => self.with(input, |mux, id, _| mux.accept(id)),
            5 => self.with(input, |mux, id, length| assert!(mux.write(id, &vec![1; length]) <= length)),
            6 => self.with(input, |mux, id, _| mux.finish(id)),
            7 => {
                let now = self.now;
                self.with(input, |mux, id, length| mux.consume(id, length, now));
            }
            8 => self.with(input, |mux, id, _| mux.reset(id, ResetCode::Denied)),
            9 => self.with(input, |mux, id, _| mux.abort(id, ResetCode::Reset)),
            10 => self.fill(24 + usize::from(input.u16() % 2000)),
            11 => self.hear(),
            _ => self.later(input),
        }
        true
    }

    fn later(&mut self, input: &mut Input<'_>) {
        self.now += Duration::from_millis(u64::from(input.u8()));
        match input.u8() % 8 {
            0 => self.mux.go_away(),
            1 => self.mux.set_rtt(Duration::from_millis(u64::from(input.u16()))),
            _ => {}
        }
    }

    fn receive(&mut self, message: &[u8]) -> bool {
        let mut rest = message;
        while let Some((6, id, body)) = take_frame(&mut rest) {
            let limit = body.try_into().map_or(0, u64::from_le_bytes);
            let granted = self.granted.entry(id).or_default();
            *granted = limit.max(*granted);
        }
        // Credit behind a frame of another kind is found by looking at every place.
        for at in 0..message.len() {
            if let Some((6, id, body)) = take_frame(&mut &message[at..]) {
                let limit = body.try_into().map_or(0, u64::from_le_bytes);
                let granted = self.granted.entry(id).or_default();
                *granted = limit.max(*granted);
            }
        }
        self.mux.handle_message(message, self.now).is_ok()
    }

    fn with(&mut self, input: &mut Input<'_>, act: impl FnOnce(&mut Mux, StreamId, usize)) {
        let (number, length) = (input.below(self.ids.len()), usize::from(input.u16()));
        if let Some(&id) = self.ids.get(number) {
            act(&mut self.mux, id, length);
        }
    }

    fn hear(&mut self) {
        for _ in 0..1000 {
            match self.mux.poll_event() {
                None => return,
                Some(Event::Open { id, .. }) => {
                    assert_eq!(u32::from(id) % 2 == 1, !self.is_odd);
                    assert!(!self.ids.contains(&id), "{id} is offered twice");
                    self.ids.push(id);
                }
                Some(Event::Readable { id }) => assert!(self.ids.contains(&id)),
                Some(Event::Finished { id }) => assert!(self.mux.readable(id).is_empty()),
                Some(Event::Reset { id, .. }) => {
                    assert!(self.mux.readable(id).is_empty() && self.mux.write(id, b"x") == 0);
                }
                Some(Event::Opened { id } | Event::Writable { id }) => assert!(self.ids.contains(&id)),
                Some(Event::GoAway) => assert!(self.mux.open(target(), self.now).is_err()),
            }
        }
        panic!("events never end");
    }

    fn fill(&mut self, room: usize) {
        let mut buffer = vec![0; room];
        let length = self.mux.fill(&mut buffer, self.now);
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let Some((kind, id, body)) = take_frame(&mut rest) else { panic!("we wrote {rest:02x?}") };
            self.check_sent(kind, id, body);
        }
    }

    fn check_sent(&mut self, kind: u8, id: u32, body: &[u8]) {
        if kind >= PING {
            return;
        }
        let is_ours = (id % 2 == 1) == self.is_odd;
        let sent = self.sent.entry(id).or_default();
        assert!(!sent.is_reset, "a frame of type {kind} behind the RESET of {id}");
        match kind {
            1 => assert!(is_ours && !std::mem::replace(&mut sent.is_open, true), "OPEN of {id}"),
            2 => assert!(!is_ours && !std::mem::replace(&mut sent.is_open, true), "OPENED of {id}"),
            3 => {
                assert!(sent.is_open && !sent.is_finished && !body.is_empty(), "DATA of {id}: {sent:?}");
                sent.bytes += body.len() as u64;
                let granted = self.granted.get(&id).copied().unwrap_or(0).max(64 << 10);
                assert!(sent.bytes <= granted, "{id} sent {} of {granted}", sent.bytes);
            }
            4 => assert!(sent.is_open && !std::mem::replace(&mut sent.is_finished, true), "FIN of {id}"),
            5 => sent.is_reset = true,
            _ => assert!(sent.is_open || !is_ours, "CREDIT of {id}"),
        }
    }

    fn check(&self) {
        let stats = self.mux.stats();
        assert!(stats.streams <= LIMITS.streams, "{stats:?}");
        let half = LIMITS.session_buffer / 2;
        assert!(stats.send_buffered <= half && stats.receive_buffered <= half, "{stats:?}");
        assert!(stats.streams > 0 || (stats.send_buffered, stats.receive_buffered) == (0, 0), "{stats:?}");
    }
}

/// A frame off the front: its type, its stream (0 for the session) and what follows the id and, in `DATA`, the length.
/// Written from the format's description, not from the code.
fn take_frame<'a>(message: &mut &'a [u8]) -> Option<(u8, u32, &'a [u8])> {
    let (&kind, rest) = message.split_first()?;
    if kind >= PING {
        let (body, rest) = rest.split_at_checked(if kind == 9 { 0 } else { 8 })?;
        *message = rest;
        return (kind <= 9).then_some((kind, 0, body));
    }
    let (id, rest) = rest.split_first_chunk()?;
    let (length, rest) = match kind {
        1 => (if *rest.first()? == 4 { 7 } else { 19 }, rest),
        2 | 4 => (0, rest),
        3 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        5 => (1, rest),
        6 => (8, rest),
        _ => return None,
    };
    let (body, rest) = rest.split_at_checked(length)?;
    *message = rest;
    Some((kind, u32::from_le_bytes(*id), body))
}

/// One frame of a small stream, well formed.
pub(crate) fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let (kind, id) = (1 + input.u8() % 9, u32::from(input.u8() % 16) + 1);
    let mut frame = vec![kind];
    if kind < PING {
        frame.extend(id.to_le_bytes());
    }
    match kind {
        1 => frame.extend([4, 198, 51, 100, 7, 80, 0]),
        3 => {
            let length = input.u16().max(1);
            frame.extend(length.to_le_bytes());
            frame.resize(frame.len() + usize::from(length), 7);
        }
        5 => frame.push(1 + input.u8() % 7),
        6 => frame.extend((u64::from(input.u32()) << (input.u8() % 33)).to_le_bytes()),
        7 | 8 => frame.extend([7; 8]),
        _ => {}
    }
    frame
}

fn target() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], 80))
}

/// The first type that belongs to no stream.
const PING: u8 = 7;

const LIMITS: Limits = Limits {
    streams: 10,
    opens_per_second: 5_000,
    send_buffer: 50_000,
    receive_window_initial: 64 << 10,
    receive_window_max: 200_000,
    session_buffer: 300_000,
};

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let one = |kind: u8, id: u8, arguments: &[u8]| [&[1, 0, kind - 1, id - 1], arguments].concat();
    let hear = || vec![11];
    let fill = || vec![10, 0xff, 3];
    let offered = [vec![1], one(1, 1, &[]), hear(), vec![4, 0, 0, 0]].concat();
    let opened = [vec![0, 3], fill(), one(2, 1, &[])].concat();
    let mut raw = vec![1, 0];
    let open = [1, 1, 0, 0, 0, 6, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0x50, 0];
    raw.extend(u16::try_from(open.len()).expect("a short frame").to_le_bytes());
    raw.extend(open);
    vec![
        [raw, hear(), vec![8, 0, 0, 0], fill()].concat(),
        [offered.clone(), one(3, 1, &[200, 0]), hear(), vec![7, 0, 200, 0], one(4, 1, &[]), hear(), fill()]
            .concat(),
        [
            offered.clone(),
            vec![5, 0, 0xff, 0xff],
            fill(),
            fill(),
            one(6, 1, &[0, 0, 2, 0, 0]),
            fill(),
            hear(),
        ]
        .concat(),
        [offered, vec![5, 0, 9, 0, 9, 0, 0, 0], fill(), one(5, 1, &[0]), hear()].concat(),
        [opened.clone(), hear(), vec![5, 0, 0, 9, 6, 0, 0, 0], fill(), fill(), one(4, 1, &[]), hear()]
            .concat(),
        [opened, one(7, 1, &[]), one(8, 1, &[]), fill(), one(9, 1, &[]), hear(), vec![12, 9, 0], fill()]
            .concat(),
    ]
}
