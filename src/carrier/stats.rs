//! Why packets are dropped, and how often. A reason's name is also its metric's label.

use std::ops::AddAssign;

/// Defines the reasons and their counters from one list, so that none is forgotten.
macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $reason:ident => $counter:ident,)+) => {
        /// Why a packet was dropped or changed nothing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $reason,)+
        }

        impl DropReason {
            /// The reason as a metric label, equal to the name of its counter in [`Stats`].
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$reason => stringify!($counter),)+
                }
            }
        }

        /// Counters of one part: a connection, a listener, or whoever calls [`parse`](super::parse). Packets unless said.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            /// SYN-ACKs answered to strangers.
            pub syn_acks: u64,
            $($(#[doc = $doc])+ pub $counter: u64,)+
        }

        impl Stats {
            /// Counts one packet dropped for `reason`.
            pub const fn on_drop(&mut self, reason: DropReason) {
                match reason {
                    $(DropReason::$reason => self.$counter += 1,)+
                }
            }

            /// Every reason's label and count.
            pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($counter), self.$counter),)+].into_iter()
            }
        }

        impl AddAssign for Stats {
            fn add_assign(&mut self, other: Self) {
                self.syn_acks += other.syn_acks;
                $(self.$counter += other.$counter;)+
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its headers.
    Truncated => truncated,
    /// Neither IPv4 nor IPv6.
    NotIp => not_ip,
    /// Not TCP.
    NotTcp => not_tcp,
    /// The IP length field is smaller than the headers or larger than the packet.
    BadIpLength => bad_ip_length,
    /// IPv4 options or an IPv6 extension header: no TCP connection of today carries them.
    IpOptions => ip_options,
    /// A fragment: we send with DF.
    Fragment => fragment,
    /// The TCP data offset points into the header or beyond the packet.
    BadTcpLength => bad_tcp_length,
    /// The options of a SYN are cut short, or one has an impossible length.
    BadTcpOptions => bad_tcp_options,
    /// Flags no TCP sends: SYN with FIN or RST, or none of SYN, RST and ACK.
    BadFlags => bad_flags,
    /// A port 0, a source that is no host, or a packet from its own destination.
    BadAddress => bad_address,
    /// Of another connection.
    WrongPeer => wrong_peer,
    /// Before the handshake was over.
    NotEstablished => not_established,
    /// After the connection was closed or given up.
    Closed => closed,
    /// A SYN for a connection that exists.
    UnexpectedSyn => unexpected_syn,
    /// A SYN-ACK that answers no SYN of ours.
    UnexpectedSynAck => unexpected_syn_ack,
    /// The SYN-ACK we had already: our ACK was lost or late, and is sent again.
    RepeatedSynAck => repeated_syn_ack,
    /// A RST, never believed: middleboxes forge them and NAT routers send them.
    Reset => injected_resets,
    /// A FIN, never believed: only a sealed close ends anything.
    Fin => injected_fins,
    /// A payload on a carrier's 4-tuple that no key of it opens.
    Unopened => injected_payloads,
    /// A packet from a stranger without payload.
    NoPayload => no_payload,
    /// A payload that opened far outside of the window: what it carries counts, its numbers do not.
    OffWindow => off_window,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_reason_under_its_label_and_adds_up() {
        let mut one = Stats::default();
        one.on_drop(DropReason::Reset);
        one.on_drop(DropReason::Reset);
        one.on_drop(DropReason::OffWindow);
        let mut sum = one;
        sum += one;
        assert_eq!(sum.injected_resets, 4);
        assert_eq!(
            sum.drops().find(|(label, _)| *label == DropReason::OffWindow.label()),
            Some(("off_window", 2))
        );
        assert_eq!(sum.drops().map(|(_, count)| count).sum::<u64>(), 6);
    }
}
