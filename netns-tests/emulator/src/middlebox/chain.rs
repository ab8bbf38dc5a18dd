//! The boxes of a line in their order, and the way of a packet through them.

use crate::Layer;
use crate::middlebox::{MAX_FLOWS, Middlebox};
use crate::packet::{Flow, TCP, UDP};
use crate::pool::Pool;
use crate::stats::Cause;
use crate::table::Table;

/// A frame on its way.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    pub(crate) fn copy(&self, pool: &mut Pool) -> Self {
        Self { bytes: pool.copy(&self.bytes) }
    }
}

/// All boxes of a line, and before them the list of flows that were killed by command.
#[derive(Debug)]
pub(crate) struct Chain {
    layer: Layer,
    boxes: Vec<Middlebox>,
    killed: Table<Flow, ()>,
    newest_tcp: Option<Flow>,
}

impl Chain {
    pub(crate) fn new(layer: Layer, boxes: Vec<Middlebox>) -> Self {
        Self { layer, boxes, killed: Table::new(MAX_FLOWS), newest_tcp: None }
    }

    pub(crate) fn set_boxes(&mut self, boxes: Vec<Middlebox>) {
        self.boxes = boxes;
    }

    pub(crate) fn kill(&mut self, flow: Flow) {
        self.killed.insert(flow, ());
        self.newest_tcp = self.newest_tcp.filter(|newest| *newest != flow);
    }

    pub(crate) fn revive(&mut self, flow: &Flow) {
        self.killed.remove(flow);
    }

    pub(crate) const fn newest_tcp(&self) -> Option<Flow> {
        self.newest_tcp
    }

    /// Lets a frame through, or says why not.
    pub(crate) fn handle(&mut self, frame: &Frame) -> Result<(), Cause> {
        let Some(header) = self.layer.parse(&frame.bytes) else {
            return Ok(());
        };
        if let Some(flow) = header.flow(&frame.bytes) {
            if self.killed.contains(&flow) {
                return Err(Cause::Killed);
            }
            if flow.protocol == TCP {
                self.newest_tcp = Some(flow);
            }
        }
        if header.protocol == UDP && self.boxes.contains(&Middlebox::DropUdp) {
            return Err(Cause::Udp);
        }
        Ok(())
    }
}
