//! A packet as a box sees it.

use std::net::SocketAddr;
use std::time::Instant;

use crate::checksum::is_right;
use crate::craft::{self, TCP_CHECKSUM};
use crate::frame::Frame;
use crate::ip::{Flow, IpHeader, Layer};
use crate::line::Direction;
use crate::stats::Stats;
use crate::tcp::TcpHeader;

/// A packet on its way through the boxes.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    layer: Layer,
    pub(crate) direction: Direction,
    pub(crate) header: IpHeader,
    /// Source and destination of TCP and UDP.
    pub(crate) ends: Option<(SocketAddr, SocketAddr)>,
    pub(crate) now: Instant,
    pub(crate) stats: &'a mut Stats,
    frame: &'a mut Frame,
    forged: Vec<(Direction, Vec<u8>)>,
}

impl<'a> Packet<'a> {
    /// `None` if the frame holds no IP packet; boxes do not see those.
    pub(crate) fn new(
        layer: Layer,
        direction: Direction,
        frame: &'a mut Frame,
        now: Instant,
        stats: &'a mut Stats,
    ) -> Option<Self> {
        let header = layer.parse(&frame.bytes)?;
        let ends = header.ends(&frame.bytes);
        Some(Self { layer, direction, header, ends, now, stats, frame, forged: Vec::new() })
    }

    /// The TCP or UDP flow; the two ends that are there may have been changed by a NAT.
    pub(crate) fn flow(&self) -> Option<Flow> {
        self.ends.map(|(source, destination)| Flow::new(self.header.protocol, source, destination))
    }

    pub(crate) fn tcp(&self) -> Option<TcpHeader> {
        TcpHeader::parse(&self.frame.bytes, &self.header)
    }

    /// The TCP segment, if the line has not damaged it: no box may learn from numbers that nobody sent.
    pub(crate) fn intact_tcp(&self) -> Option<TcpHeader> {
        let segment = self.tcp()?;
        let field = self.header.transport + TCP_CHECKSUM;
        is_right(&self.frame.bytes, &self.header, field).then_some(segment)
    }

    /// Bytes of the IP packet.
    pub(crate) fn size(&self) -> usize {
        self.layer.wire_bytes(&self.frame.bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.frame.bytes
    }

    /// The frame, to change what its header says; [`Packet::reread`] afterwards.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.frame.bytes
    }

    pub(crate) fn reread(&mut self) {
        self.ends = self.header.ends(&self.frame.bytes);
    }

    /// Sends an IP packet of the box's own along with this one or back; nothing happens if this one was forged itself.
    pub(crate) fn forge(&mut self, direction: Direction, packet: &[u8]) {
        let goes_back = direction != self.direction;
        if let Some(frame) = craft::framed(self.layer, &self.frame.bytes, packet, goes_back)
            && !self.frame.is_forged
        {
            self.forged.push((direction, frame));
        }
    }

    pub(crate) fn is_forged(&self) -> bool {
        self.frame.is_forged
    }

    pub(crate) fn take_forged(&mut self) -> Vec<(Direction, Vec<u8>)> {
        std::mem::take(&mut self.forged)
    }
}
