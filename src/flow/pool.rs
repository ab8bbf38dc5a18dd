//! Sockets for flows: those of flows that ended, and new ones, within one budget of memory.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::config::FlowLimits;
use super::memory::{Budget, Group, Memory};
use super::socket::{FLOW_BYTES, Socket, ring_sizes};

/// Where flows get their sockets from and leave them.
#[derive(Debug)]
pub(super) struct Pool {
    /// `None` = sockets have rings of their own.
    memory: Option<Box<dyn Memory>>,
    /// How many lots the memory has lent.
    lots: usize,
    /// Sockets without a flow; those that still have their pages are the last.
    spare: VecDeque<Socket>,
    /// Of those, what they take.
    warm: usize,
    budget: Budget,
}

impl Pool {
    pub(super) fn new(limits: &FlowLimits) -> Self {
        let budget = Budget::new(limits.memory, limits.memory_of_group);
        Self { memory: None, lots: 0, spare: VecDeque::new(), warm: 0, budget }
    }

    /// Takes memory from elsewhere from now on; to be said before the first flow.
    pub(super) fn set_memory(&mut self, memory: Box<dyn Memory>) {
        if self.lots == 0 {
            self.memory = Some(memory);
        }
    }

    /// A socket that waits for the SYN to `target`; `None` if smoltcp does not take the address, or there is no memory.
    pub(super) fn take(&mut self, target: SocketAddr, group: Group, limits: &FlowLimits) -> Option<Socket> {
        let mut socket = match self.spare.pop_back() {
            Some(spare) => {
                self.warm -= spare.charge();
                spare
            }
            None => self.make(limits)?,
        };
        if !socket.listen(target) {
            self.give_back(socket);
            return None;
        }
        socket.join(group, &mut self.budget);
        Some(socket)
    }

    fn make(&mut self, limits: &FlowLimits) -> Option<Socket> {
        let (receive, send) = ring_sizes(limits);
        let Some(memory) = &mut self.memory else {
            return Some(Socket::of_heap((receive, send)));
        };
        let rings = memory.lend(receive + send)?.split_at_mut_checked(receive)?;
        self.lots += 1;
        Some(Socket::of_lot(self.lots - 1, rings))
    }

    /// Takes back the socket of a flow that ended.
    pub(super) fn give_back(&mut self, mut socket: Socket) {
        socket.retire(&mut self.memory);
        socket.join(None, &mut self.budget);
        if self.warm + socket.charge() > WARM {
            self.cool(&mut socket);
            self.spare.push_front(socket);
        } else {
            self.warm += socket.charge();
            self.spare.push_back(socket);
        }
    }

    /// Lets go of the pages of a socket that hold nothing which is needed.
    pub(super) fn rest(&mut self, socket: &mut Socket) {
        socket.rest(&mut self.memory);
        socket.settle(&mut self.budget);
    }

    /// Lets go of the pages of every socket without a flow.
    pub(super) fn cool_spares(&mut self) {
        if self.warm == 0 {
            return;
        }
        let mut spare = std::mem::take(&mut self.spare);
        spare.iter_mut().filter(|socket| socket.charge() > 0).for_each(|socket| self.cool(socket));
        self.spare = spare;
        self.warm = 0;
    }

    fn cool(&mut self, socket: &mut Socket) {
        socket.rest(&mut self.memory);
        socket.uncharge(&mut self.budget);
    }

    /// Charges a socket for what it takes now.
    pub(super) fn settle(&mut self, socket: &mut Socket) {
        socket.settle(&mut self.budget);
    }

    /// Charges for a flow that will need a socket, if it is accepted.
    pub(super) fn reserve(&mut self, group: Group) {
        self.budget.change(group, 0, FLOW_BYTES);
    }

    /// The flow has its socket, or needs none any more.
    pub(super) fn release(&mut self, group: Group) {
        self.budget.change(group, FLOW_BYTES, 0);
    }

    /// Bytes that all sockets take.
    pub(super) const fn used(&self) -> usize {
        self.budget.used()
    }

    /// Bytes that those of a group may take beside.
    pub(super) fn left(&self, group: Group) -> usize {
        self.budget.left(group)
    }
}

/// What sockets without a flow may keep, so that short connections one after the other meet no fresh pages (our choice).
const WARM: usize = 4 << 20;

const _: () = assert!(WARM > FLOW_BYTES);
