//! What is connected to through the tunnel, on either side of it: what each accepts, sends and reads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use vpn::mux::ResetCode;
use vpn::session::{StreamEvent, StreamKey, Streams};

use super::stream::{Direction, Reader, Writer};

/// One connection as it is to be. Its port is its name: no two connections of a world have the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) target: SocketAddr,
    pub(crate) manner: Manner,
    pub(crate) upload_len: u64,
    pub(crate) download_len: u64,
    /// Both ends finish behind their last byte.
    pub(crate) finishes: bool,
}

/// What a target does when it is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Accepts, sends and reads.
    Serve,
    /// Nothing listens there.
    Refuse,
    /// The host cannot be reached.
    Unreachable,
    /// Accepts, then resets.
    Reset,
    /// Does not answer.
    Silent,
}

/// One connection at the target.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) stream: Option<StreamKey>,
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    /// It ended with a RST, whoever sent it.
    pub(crate) reset: bool,
}

/// All targets of one host, by port.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    pub(crate) plans: BTreeMap<u16, Plan>,
    /// What became of the last connection to each.
    pub(crate) sides: BTreeMap<u16, Side>,
    ports: BTreeMap<StreamKey, u16>,
    /// Streams that wait for a silent target.
    waiting: BTreeMap<u16, StreamKey>,
    pub(crate) resets: usize,
}

impl Targets {
    /// Does what the shell would do with its sockets.
    pub(crate) fn handle_event(&mut self, event: StreamEvent, streams: &mut impl Streams, now: Instant) {
        match event {
            StreamEvent::Connect { stream, target } => self.connect(stream, target.port(), streams),
            StreamEvent::Readable(stream) => self.read(stream, streams, now),
            StreamEvent::Writable(stream) => self.write(stream, streams),
            StreamEvent::Finished(stream) => {
                if let Some(side) = self.side(stream) {
                    side.reader.end();
                    self.forget_if_done(stream);
                }
            }
            StreamEvent::Reset(stream) => {
                self.resets += 1;
                self.lose(stream);
            }
            StreamEvent::Abandoned(which) => {
                let gone: Vec<_> = self.streams().filter(|stream| which.includes(*stream)).collect();
                gone.into_iter().for_each(|stream| self.lose(stream));
            }
        }
    }

    /// Whether everybody who connected ended with a FIN.
    pub(crate) fn are_done(&self) -> bool {
        self.sides.values().all(|side| side.reader.finished)
    }

    /// The host they were connected from is gone, and so are they.
    pub(crate) fn drop_connections(&mut self) {
        self.streams().collect::<Vec<_>>().into_iter().for_each(|stream| self.lose(stream));
    }

    /// Connections that ended are not looked at any more.
    pub(crate) fn forget(&mut self) {
        self.drop_connections();
        self.sides.clear();
    }

    /// Goes on with a connection whose writer or reader was told something else.
    pub(crate) fn resume(&mut self, port: u16, streams: &mut impl Streams, now: Instant) {
        if let Some(stream) = self.sides.get(&port).and_then(|side| side.stream) {
            self.read(stream, streams, now);
            self.write(stream, streams);
        }
    }

    /// A target resets its connection; whether there was one.
    pub(crate) fn reset(&mut self, port: u16, streams: &mut impl Streams) -> bool {
        let Some(stream) = self.sides.get(&port).and_then(|side| side.stream) else { return false };
        self.lose(stream);
        streams.abort(stream);
        true
    }

    /// A silent target serves from now on.
    pub(crate) fn wake(&mut self, port: u16, streams: &mut impl Streams) {
        if let Some(plan) = self.plans.get_mut(&port).filter(|plan| plan.manner == Manner::Silent) {
            plan.manner = Manner::Serve;
        }
        if let Some(stream) = self.waiting.remove(&port) {
            self.connect(stream, port, streams);
        }
    }

    fn connect(&mut self, stream: StreamKey, port: u16, streams: &mut impl Streams) {
        let plan = self.plans[&port];
        match plan.manner {
            Manner::Refuse => return streams.reset(stream, ResetCode::Refused),
            Manner::Unreachable => return streams.reset(stream, ResetCode::HostUnreachable),
            Manner::Reset => {
                streams.connected(stream);
                return streams.reset(stream, ResetCode::Reset);
            }
            Manner::Silent => {
                self.waiting.insert(port, stream);
                return;
            }
            Manner::Serve => streams.connected(stream),
        }
        let side = Side {
            stream: Some(stream),
            writer: Writer::new(plan.target, Direction::Download, plan.download_len, plan.finishes),
            reader: Reader::new(plan.target, Direction::Upload),
            reset: false,
        };
        self.sides.insert(port, side);
        self.ports.insert(stream, port);
        self.write(stream, streams);
    }

    fn write(&mut self, stream: StreamKey, streams: &mut impl Streams) {
        let Some(side) = self.side(stream) else { return };
        while side.writer.written < side.writer.length {
            match streams.write(stream, &side.writer.next()) {
                0 => return,
                taken => side.writer.written += taken as u64,
            }
        }
        if side.writer.is_to_finish() {
            side.writer.finished = true;
            streams.finish(stream);
            self.forget_if_done(stream);
        }
    }

    fn read(&mut self, stream: StreamKey, streams: &mut impl Streams, now: Instant) {
        let Some(side) = self.side(stream).filter(|side| !side.reader.stopped) else { return };
        loop {
            let bytes = streams.readable(stream);
            let length = bytes.len();
            if length == 0 {
                return;
            }
            side.reader.take(bytes);
            streams.consume(stream, length, now);
        }
    }

    fn forget_if_done(&mut self, stream: StreamKey) {
        if self.side(stream).is_some_and(|side| side.reader.finished && side.writer.finished) {
            self.lose(stream);
        }
    }

    fn lose(&mut self, stream: StreamKey) {
        self.waiting.retain(|_, waiting| *waiting != stream);
        if let Some(side) = self.side(stream) {
            side.reset = !(side.reader.finished && side.writer.finished);
            side.stream = None;
            self.ports.remove(&stream);
        }
    }

    fn side(&mut self, stream: StreamKey) -> Option<&mut Side> {
        self.sides.get_mut(self.ports.get(&stream)?)
    }

    fn streams(&self) -> impl Iterator<Item = StreamKey> {
        self.ports.keys().chain(self.waiting.values()).copied()
    }
}
