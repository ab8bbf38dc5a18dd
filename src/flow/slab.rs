//! Flows by number: a slot index, and a generation that tells a slot's tenants apart.

/// Names one flow of one [`Flows`](super::Flows); never reused for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId {
    index: u32,
    generation: u32,
}

/// A vector with free slots that are used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// How many values there are.
    pub(super) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts a value in; `None` when 2^32 slots are taken.
    pub(super) fn insert(&mut self, value: T) -> Option<FlowId> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.grow()?,
        };
        let slot = self.slots.get_mut(index as usize)?;
        slot.value = Some(value);
        Some(FlowId { index, generation: slot.generation })
    }

    pub(super) fn get(&self, id: FlowId) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        slot.value.as_ref().filter(|_| slot.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: FlowId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.value.as_mut().filter(|_| slot.generation == id.generation)
    }

    /// Takes a value out; its id names nothing from then on.
    pub(super) fn remove(&mut self, id: FlowId) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(value)
    }

    /// The ids of all values.
    pub(super) fn ids(&self) -> Vec<FlowId> {
        let numbered = (0u32..).zip(&self.slots);
        numbered
            .filter(|(_, slot)| slot.value.is_some())
            .map(|(index, slot)| FlowId { index, generation: slot.generation })
            .collect()
    }

    fn grow(&mut self) -> Option<u32> {
        let index = u32::try_from(self.slots.len()).ok()?;
        self.slots.push(Slot { generation: 0, value: None });
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_tenants_of_a_slot_apart() {
        let mut slab = Slab::new();
        let first = slab.insert('a').unwrap();
        let other = slab.insert('b').unwrap();
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('c').unwrap();
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(second), Some(&mut 'c'));
        assert_eq!((slab.ids(), slab.len()), (vec![second, other], 2));
    }
}
