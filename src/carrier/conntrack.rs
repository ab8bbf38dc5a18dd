//! A strict connection tracker, for tests: the window rule of "Real Stateful TCP Packet Filtering in IP Filter" (Guido van Rooij), which
//! Linux' and BSD's firewalls follow, with nothing forgiven.
//!
//! It stands between the ends and knows of each: the highest end it sent, the farthest its peer allowed (ack + window),
//! and the widest window it ever announced. A segment is valid if
//!
//! ```text
//! I    seq <= the farthest the receiver allowed          III  ack <= the highest end the receiver sent
//! II   end >= highest end sent - receiver's window       IV   ack >= that end - max(sender's window, 66,000)
//! ```

use std::net::SocketAddr;

use super::{Flags, Kind, Segment, Seq};

/// One tracked connection. Before its SYN everything is invalid, unless the tracker is loose: then it picks up a connection in its
/// middle, whose window scales it cannot know (so Linux takes the largest, and we with it).
#[derive(Debug, Default)]
pub(super) struct Tracker {
    pub(super) is_loose: bool,
    client: Option<(SocketAddr, Side)>,
    server: Option<Side>,
}

#[derive(Clone, Copy, Debug)]
struct Side {
    end: Seq,
    allowed: Seq,
    widest: u32,
    scale: Option<u8>,
}

impl Side {
    /// The side that sent this SYN or SYN-ACK.
    fn of(syn: &Segment) -> Self {
        let end = syn.seq.advanced_by(1);
        let widest = u32::from(syn.window).max(1);
        Self { end, allowed: end, widest, scale: syn.options.window_scale }
    }

    /// The side that is known to have sent up to `end`, and nothing else.
    fn picked_up(end: Seq) -> Self {
        let widest = u32::from(u16::MAX) << LARGEST_SCALE;
        Self { end, allowed: Seq(end.0.wrapping_add(widest)), widest, scale: Some(LARGEST_SCALE) }
    }
}

impl Tracker {
    /// Judges one segment and learns from it if it is valid; `Err` names the rule it breaks.
    pub(super) fn observe(&mut self, segment: &Segment) -> Result<(), &'static str> {
        if segment.kind() == Kind::Syn {
            let side = Side::of(segment);
            let is_retry = self.client.is_some_and(|(_, client)| client.end == side.end);
            if !is_retry {
                *self = Self { client: Some((segment.source, side)), server: None, ..*self };
            }
            return Ok(());
        }
        if self.is_loose
            && self.client.is_none()
            && matches!(segment.kind(), Kind::Data | Kind::Acknowledgement)
        {
            self.client = Some((segment.source, Side::picked_up(segment.end())));
            self.server = Some(Side::picked_up(segment.ack));
        }
        let (address, client) = self.client.ok_or("no connection")?;
        let from_client = segment.source == address;
        if segment.kind() == Kind::SynAck && !from_client && self.server.is_none() {
            self.server = Some(Side::of(segment));
        }
        let server = self.server.ok_or("before the SYN-ACK")?;
        let (mut sender, mut receiver) = if from_client { (client, server) } else { (server, client) };
        judge(&mut sender, &mut receiver, segment)?;
        let (client, server) = if from_client { (sender, receiver) } else { (receiver, sender) };
        self.client = Some((address, client));
        self.server = Some(server);
        Ok(())
    }
}

fn judge(sender: &mut Side, receiver: &mut Side, segment: &Segment) -> Result<(), &'static str> {
    let phantom = segment.flags.contains(Flags::SYN) || segment.flags.contains(Flags::FIN);
    let end = segment.end().advanced_by(usize::from(phantom));
    let lowest_ack = back(receiver.end, sender.widest.max(66_000));
    match () {
        () if segment.seq.is_after(sender.allowed) => return Err("I: beyond the receiver's window"),
        () if back(sender.end, receiver.widest).is_after(end) => return Err("II: too old"),
        () if segment.ack.is_after(receiver.end) => return Err("III: acknowledges what was not sent"),
        () if lowest_ack.is_after(segment.ack) => return Err("IV: ack stands still"),
        () => {}
    }
    let is_scaled = sender.scale.is_some() && receiver.scale.is_some() && !segment.flags.contains(Flags::SYN);
    let scale = if is_scaled { sender.scale.unwrap_or(0) } else { 0 };
    let window = u32::from(segment.window) << scale;
    sender.widest = sender.widest.max(window);
    sender.end = sender.end.later(end);
    receiver.allowed = receiver.allowed.later(Seq(segment.ack.0.wrapping_add(window)));
    Ok(())
}

/// RFC 7323, section 2.3.
const LARGEST_SCALE: u8 = 14;

fn back(seq: Seq, bytes: u32) -> Seq {
    Seq(seq.0.wrapping_sub(bytes))
}

mod tests {
    use super::*;
    use crate::carrier::emit::tests::{data_v4, syn_v4};
    use crate::carrier::{Options, parse};

    /// After SYN and SYN-ACK of an unscaled server.
    fn opened() -> (Tracker, Segment) {
        let syn = parse(&syn_v4()).unwrap();
        let data = parse(&data_v4()).unwrap();
        let (source, destination) = (syn.destination, syn.source);
        let (seq, ack, flags) = (data.ack.previous(), data.seq, Flags::SYN.with(Flags::ACK));
        let syn_ack =
            Segment { source, destination, seq, ack, flags, options: Options::default(), ..syn.clone() };
        let mut tracker = Tracker::default();
        assert_eq!(tracker.observe(&data), Err("no connection"));
        assert_eq!(tracker.observe(&syn), Ok(()));
        assert_eq!(tracker.observe(&data), Err("before the SYN-ACK"));
        assert_eq!(tracker.observe(&syn_ack), Ok(()));
        (tracker, data)
    }

    #[test]
    fn the_model_knows_each_rule() {
        let (mut tracker, data) = opened();
        let at = |seq: Seq, ack: Seq| Segment { seq, ack, ..data.clone() };
        assert_eq!(tracker.observe(&at(data.seq.advanced_by(64_240), data.ack)), Ok(()));
        assert!(tracker.observe(&at(data.seq.advanced_by(64_241), data.ack)).unwrap_err().starts_with("I:"));
        assert!(tracker.observe(&at(data.seq.previous(), data.ack)).unwrap_err().starts_with("II:"));
        let near = data.seq.advanced_by(64_000);
        assert!(tracker.observe(&at(near, data.ack.advanced_by(1))).unwrap_err().starts_with("III:"));
        assert!(tracker.observe(&at(near, back(data.ack, 66_001))).unwrap_err().starts_with("IV:"));
    }
}
