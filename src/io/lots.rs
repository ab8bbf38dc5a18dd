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

/// Our choice: lots of half a megabyte in mappings of 32.
const LOTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::sys::page_size;
    use super::*;

    /// Memory of this process that is there, in bytes (proc(5), `statm`).
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * page_size()
    }

    #[test]
    fn lots_take_memory_when_they_are_written_and_give_it_back() {
        const SIZE: usize = 1 << 20;
        let mut lots = Lots::new(SIZE);
        let before = resident();
        let mut lent: Vec<_> = (0..100).map(|_| lots.lend().unwrap()).collect();
        assert!(lent.iter().all(|lot| lot.len() == SIZE));
        for (number, lot) in lent.iter_mut().enumerate() {
            lot.fill(u8::try_from(number).unwrap());
        }
        let full = resident();
        assert!(full - before > 90 * SIZE, "{before} {full}");
        for number in 0..100 {
            lots.discard(number, 0..SIZE);
        }
        assert!(resident() - before < 30 * SIZE, "{before} {full} {}", resident());
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
