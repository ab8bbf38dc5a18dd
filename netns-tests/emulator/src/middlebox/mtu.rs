//! A hop that some packets do not fit through.

use crate::craft;
use crate::middlebox::Station;
use crate::middlebox::packet::Packet;
use crate::stats::Cause;

/// [`Middlebox::Mtu`](crate::Middlebox::Mtu).
#[derive(Debug)]
pub(crate) struct Mtu {
    pub(crate) size: usize,
    pub(crate) icmp: bool,
}

impl Station for Mtu {
    fn handle(&mut self, packet: &mut Packet<'_>) -> Result<(), Cause> {
        if packet.header.end - packet.header.start <= self.size {
            return Ok(());
        }
        if self.icmp
            && let Some(message) = craft::too_big(packet.bytes(), &packet.header, self.size)
        {
            packet.forge(packet.direction.reverse(), &message);
        }
        Err(Cause::TooBig)
    }
}

#[cfg(test)]
mod tests {
    use crate::ip::{Layer, UDP};
    use crate::testing::{ENDS, Rig, address, ethernet, has_valid_checksums, udp};
    use crate::{Direction, End, Line, Middlebox, Profile};

    #[test]
    fn larger_packets_are_silently_gone() {
        let mut rig = Rig::new(Line::new(Profile::CLEAR).with(Middlebox::Mtu { size: 1400, icmp: false }));
        for (client, server) in ENDS {
            assert!(rig.passes(Direction::Out, &udp(client, server, 1400)));
            assert!(rig.pass(Direction::Out, &udp(client, server, 1401)).is_empty());
            assert!(rig.pass(Direction::In, &udp(server, client, 1500)).is_empty());
        }
        assert_eq!(Direction::BOTH.map(|direction| rig.stats(direction).too_big), [2, 2]);
        assert_eq!(Direction::BOTH.map(|direction| rig.stats(direction).forged), [0, 0]);
    }

    #[test]
    fn a_polite_router_tells_the_sender_how_much_fits() {
        for place in [End::Client, End::Router] {
            let line = Line::new(Profile::CLEAR).with(Middlebox::Mtu { size: 1300, icmp: true }).at(place);
            let mut rig = Rig::new(line);
            for (client, server) in ENDS {
                let sent = udp(client, server, 1500);
                let answers = rig.pass(Direction::Out, &sent);
                let [(Direction::In, answer)] = answers.as_slice() else { panic!("{answers:?}") };
                let header = Layer::Ip.parse(answer).unwrap();
                assert!(has_valid_checksums(answer));
                assert_eq!(header.destination(answer), Some(address(client).ip()));
                let message = &answer[header.transport..];
                let (kind, mtu) =
                    if header.is_ipv6 { ([2, 0], &message[4..8]) } else { ([3, 4], &message[6..8]) };
                assert_eq!(message[..2], kind);
                assert!(mtu.ends_with(&1300_u16.to_be_bytes()));
                assert!(sent.starts_with(&message[8..]) && message.len() > 100);
                assert!(answer.len() <= 1280);
            }
            assert_eq!(rig.stats(Direction::In).forged, 2);
            assert_eq!(rig.stats(Direction::In).forwarded, 2);
        }
    }

    #[test]
    fn the_answer_on_ethernet_goes_back_to_who_sent() {
        let line = Line::new(Profile::CLEAR).with(Middlebox::Mtu { size: 1300, icmp: true });
        let mut rig = Rig::seeded(line, Layer::Ethernet, 1);
        let sent = ethernet(&udp(ENDS[0].0, ENDS[0].1, 1500));
        let answers = rig.pass(Direction::Out, &sent);
        let (_, answer) = &answers[0];
        assert_eq!(
            (&answer[..6], &answer[6..12], &answer[12..14]),
            (&sent[6..12], &sent[..6], &sent[12..14])
        );
    }

    #[test]
    fn nobody_is_told_about_a_message_or_a_later_fragment() {
        let mut rig = Rig::new(Line::new(Profile::CLEAR).with(Middlebox::Mtu { size: 100, icmp: true }));
        let mut fragment = udp(ENDS[0].0, ENDS[0].1, 200);
        fragment[7] = 10;
        assert!(rig.pass(Direction::Out, &fragment).is_empty());
        let quoted = udp(ENDS[0].1, ENDS[0].0, 200);
        let (client, server) = (address(ENDS[0].0).ip(), address(ENDS[0].1).ip());
        assert!(rig.pass(Direction::Out, &crate::testing::icmp(client, server, 3, &quoted)).is_empty());
        assert_eq!(quoted[9], UDP);
        assert_eq!(rig.stats(Direction::Out).too_big, 2);
    }
}
