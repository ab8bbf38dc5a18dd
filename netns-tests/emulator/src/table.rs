//! A map that never grows beyond its bound.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A map of at most `bound` entries: a new one pushes out the one that was not used for longest. To read a value or to set it is to
/// use it. Nothing iterates over the map, so the order of hashing does not show.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    /// Each value with the number of its last use.
    entries: HashMap<K, (u64, V)>,
    /// The keys by the number of their last use.
    order: BTreeMap<u64, K>,
    bound: usize,
    uses: u64,
}

impl<K: Hash + Eq + Copy, V> Table<K, V> {
    pub(crate) fn new(bound: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), bound, uses: 0 }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        self.get_mut(key).map(|value| &*value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (last, value) = self.entries.get_mut(key)?;
        // The newest stays the newest: a lone flow costs nothing.
        if *last != self.uses {
            self.order.remove(last);
            self.uses += 1;
            self.order.insert(self.uses, *key);
            *last = self.uses;
        }
        Some(value)
    }

    /// Whether there is an entry, without using it.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `key`, made by `default` if there is none.
    pub(crate) fn entry(&mut self, key: K, default: impl FnOnce() -> V) -> &mut V {
        if self.get_mut(&key).is_none() {
            self.make_room_for(key);
        }
        let number = self.uses;
        &mut self.entries.entry(key).or_insert_with(|| (number, default())).1
    }

    /// Sets the value of `key`; gives back the entry that had to go.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        if let Some(present) = self.get_mut(&key) {
            *present = value;
            return None;
        }
        let gone = self.make_room_for(key);
        self.entries.insert(key, (self.uses, value));
        gone
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (last, value) = self.entries.remove(key)?;
        self.order.remove(&last);
        Some(value)
    }

    /// Gives `key` the next number; the entry not used for longest goes if there are as many as there may be.
    fn make_room_for(&mut self, key: K) -> Option<(K, V)> {
        let gone = if self.entries.len() < self.bound { None } else { self.remove_idlest() };
        self.uses += 1;
        self.order.insert(self.uses, key);
        gone
    }

    fn remove_idlest(&mut self) -> Option<(K, V)> {
        let (_, key) = self.order.pop_first()?;
        let (_, value) = self.entries.remove(&key)?;
        Some((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_not_used_for_longest_makes_room() {
        let mut table = Table::new(3);
        for (value, key) in (1..).zip(['a', 'b', 'c']) {
            assert_eq!(table.insert(key, value), None);
        }
        assert_eq!(table.insert('a', 4), None);
        assert_eq!(table.get(&'b'), Some(&2));
        assert_eq!(table.insert('d', 5), Some(('c', 3)));
        assert_eq!(table.get_mut(&'a'), Some(&mut 4));
        assert_eq!(table.insert('e', 6), Some(('b', 2)));
        assert_eq!(*table.entry('d', || 0), 5);
        assert!(table.contains(&'a'), "which is no use of it");
        assert_eq!(*table.entry('f', || 7), 7);
        assert!(!table.contains(&'a'));
        assert_eq!(['d', 'e', 'f'].map(|key| table.get(&key).copied()), [Some(5), Some(6), Some(7)]);
    }

    #[test]
    fn a_removed_entry_leaves_room_and_is_new_when_it_comes_again() {
        let mut table = Table::new(2);
        table.insert('a', 1);
        table.insert('b', 2);
        assert_eq!(table.remove(&'a'), Some(1));
        assert_eq!(table.remove(&'a'), None);
        assert_eq!(table.insert('a', 3), None);
        assert_eq!(table.insert('c', 4), Some(('b', 2)));
        assert_eq!(table.insert('d', 5), Some(('a', 3)));
        assert!(!table.is_empty());
    }

    #[test]
    fn holds_its_bound_whatever_comes_and_goes() {
        let mut table = Table::new(8);
        for n in 0..10_000_u32 {
            table.insert(n, n);
            if n % 3 == 0 {
                table.remove(&(n / 2));
                table.remove(&n);
            }
            if n % 5 == 0 {
                table.get(&(n / 3));
                table.entry(n - n % 4, || n);
            }
            assert!(table.entries.len() <= 8 && table.order.len() == table.entries.len(), "{n}");
        }
    }
}
