//! Address space in lots of one size, for buffers that are large and mostly empty.

use std::io;
use std::ops::Range;

use super::sys::Mapping;

/// Lots of anonymous memory, lent for ever; their pages come when they are written, and go when that is asked.
///
/// Many lots share a mapping, as the kernel bounds how many mappings there are (`vm.max_map_count`).
#[derive(Debug)]
pub struct Lots {
    size: usize,
    mappings: Vec<Mapping>,
    /// What of the last mapping has not been lent.
    rest: &'static mut [u8],
}

impl Lots {
    /// Lots of `size` bytes each.
    pub fn new(size: usize) -> Self {
        Self { size, mappings: Vec::new(), rest: &mut [] }
    }

    /// The next lot, all zeros; they are numbered from 0.
    ///
    /// # Errors
    /// There is no address space left.
    pub fn lend(&mut self) -> io::Result<&'static mut [u8]> {
        if self.rest.is_empty() {
            let (mapping, bytes) = Mapping::new(self.size * LOTS)?;
            if let Err(error) = mapping.refuse_huge_pages() {
                // A kernel without large pages does not know the advice.
                tracing::debug!(%error, "pages may be large");
            }
            self.mappings.push(mapping);
            self.rest = bytes;
        }
        let (lot, rest) = std::mem::take(&mut self.rest).split_at_mut(self.size);
        self.rest = rest;
        Ok(lot)
    }

    /// Gives the pages back that lie wholly in `range` of a lot, whose owner needs none of those bytes. Until they are written
    /// again they are zeros, or as they were if the kernel did not take them.
    pub fn discard(&self, lot: usize, range: Range<usize>) {
        let start = lot % LOTS * self.size;
        let Some(mapping) = self.mappings.get(lot / LOTS) else { return };
        let end = range.end.min(self.size);
        if let Err(error) = mapping.discard(start + range.start..start + end) {
            tracing::debug!(%error, "pages could not be given back");
        }
    }
}

/// In one mapping; our choice: 32 MiB of a flow's half a megabyte each.
const LOTS: usize = 64;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, SeekFrom};

    use super::super::sys::page_size;
    use super::*;

    /// How many pages of `memory` there are (pagemap.rst of the kernel: present, or swapped).
    fn resident(memory: &[u8]) -> usize {
        let first = memory.as_ptr().addr() / page_size();
        let mut map = File::open("/proc/self/pagemap").unwrap();
        map.seek(SeekFrom::Start(first as u64 * 8)).unwrap();
        let mut entries = vec![0; memory.len() / page_size() * 8];
        map.read_exact(&mut entries).unwrap();
        entries.chunks_exact(8).filter(|entry| entry[7] & 0xc0 != 0).count()
    }

    #[test]
    fn lots_take_memory_when_they_are_written_and_give_it_back() {
        const SIZE: usize = 1 << 20;
        let mut lots = Lots::new(SIZE);
        for number in 0..100 {
            let lot = lots.lend().unwrap();
            assert_eq!((lot.len(), resident(lot)), (SIZE, 0));
            lot.fill(7);
            assert_eq!(resident(lot), SIZE / page_size());
            lots.discard(number, 0..SIZE);
            assert_eq!(resident(lot), 0);
        }
    }

    #[test]
    fn discards_whole_pages_of_one_lot_only() {
        let mut lots = Lots::new(1 << 20);
        let mut lent: Vec<_> = (0..3).map(|_| lots.lend().unwrap()).collect();
        lent.iter_mut().for_each(|lot| lot.fill(7));
        let page = page_size();
        lots.discard(1, 1..3 * page + 1);
        assert_eq!(
            (lent[1][page - 1], lent[1][page], lent[1][3 * page - 1], lent[1][3 * page]),
            (7, 0, 0, 7)
        );
        lots.discard(1, 0..usize::MAX);
        assert!(lent[1].iter().all(|byte| *byte == 0));
        assert!(lent[0].iter().chain(&*lent[2]).all(|byte| *byte == 7));
        lent[1][5] = 9;
        assert_eq!(lent[1][..6], [0, 0, 0, 0, 0, 9]);
    }
}
