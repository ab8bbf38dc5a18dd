//! The memory of the flows' rings: where it comes from, which of it is in use, and how much there may be.
//!
//! A flow's two rings are large, because the kernel hands over segments of 64 KiB, and idle flows are many. So a ring is
//! address space that takes memory page by page when it is first written, and gives it back when the flow rests. What is
//! counted here is the pages that may have been written, which is more than what waits in the rings: smoltcp walks a
//! receive ring from end to end, however little is in it.

use std::fmt;
use std::ops::Range;

/// Where the memory of rings comes from.
pub trait Memory: fmt::Debug + Send {
    /// `size` bytes of address space that take no memory yet, for ever; the first time as lot 0, then 1 and so on. `None` when
    /// there are none left.
    fn lend(&mut self, size: usize) -> Option<&'static mut [u8]>;

    /// Nobody needs what stands in `range` of a lot any more: its pages may go, and are then read as anything until they are
    /// written again.
    fn discard(&mut self, lot: usize, range: Range<usize>);
}

/// The part of one ring that was written since its pages last went, as offsets in the stream of bytes that passes through it;
/// the ring begins where the offset is a multiple of its size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    from: u64,
    to: u64,
}

impl Extent {
    /// Nothing yet, of a ring that stands at `offset`.
    pub(super) const fn at(offset: u64) -> Self {
        Self { from: offset, to: offset }
    }

    /// Bytes up to `offset` were written.
    pub(super) fn reach(&mut self, offset: u64) {
        self.to = self.to.max(offset);
    }

    /// The offset behind the last byte that was written.
    pub(super) const fn end(self) -> u64 {
        self.to
    }

    /// Whether it begins where the ring does.
    pub(super) const fn is_of_start(self) -> bool {
        self.from == 0
    }

    /// Memory that it takes of a ring of `size` bytes.
    pub(super) fn bytes(self, size: usize) -> usize {
        if self.from == self.to {
            return 0;
        }
        let page = PAGE as u64;
        let pages = self.to.next_multiple_of(page) - self.from / page * page;
        usize::try_from(pages).unwrap_or(usize::MAX).min(size)
    }
}

/// All that the flows together hold, and may.
#[derive(Debug)]
pub(super) struct Budget {
    used: usize,
    limit: usize,
    /// By group.
    groups: Vec<usize>,
    limit_of_group: usize,
}

/// Flows that have a bound of their own together; `None` = only the one on all.
pub(super) type Group = Option<usize>;

impl Budget {
    pub(super) const fn new(limit: usize, limit_of_group: usize) -> Self {
        Self { used: 0, limit, groups: Vec::new(), limit_of_group }
    }

    /// Bytes in use.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Bytes left for a group.
    pub(super) fn left(&self, group: Group) -> usize {
        let all = self.limit.saturating_sub(self.used);
        let Some(group) = group else { return all };
        let used = self.groups.get(group).copied().unwrap_or_default();
        all.min(self.limit_of_group.saturating_sub(used))
    }

    /// What took `before` bytes takes `now`.
    pub(super) fn change(&mut self, group: Group, before: usize, now: usize) {
        if before == now {
            return;
        }
        let after = |used: usize| (used + now).saturating_sub(before);
        self.used = after(self.used);
        let Some(group) = group else { return };
        if self.groups.len() <= group {
            self.groups.resize(group + 1, 0);
        }
        if let Some(used) = self.groups.get_mut(group) {
            *used = after(*used);
        }
    }
}

/// What a page is here at least; where pages are larger, more is taken than counted, up to their size in each ring.
pub(super) const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_pages_that_were_written() {
        let size = 16 * 4096;
        let mut extent = Extent::default();
        assert_eq!(extent.bytes(size), 0);
        extent.reach(1);
        assert_eq!(extent.bytes(size), 4096);
        extent.reach(4097);
        assert_eq!(extent.bytes(size), 2 * 4096);
        extent.reach(100);
        assert_eq!(extent.bytes(size), 2 * 4096);
        let mut later = Extent::at(4095);
        later.reach(4097);
        assert_eq!(later.bytes(size), 2 * 4096);
        later.reach(u64::from(u32::MAX));
        assert_eq!(later.bytes(size), size);
    }
}
