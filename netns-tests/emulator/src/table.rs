//! A map that never grows beyond its bound.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A map of at most `bound` entries: a new one pushes out the oldest. Nothing iterates over it, so the order of hashing does not
/// show.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    entries: HashMap<K, (u64, V)>,
    /// The keys with the number of their insertion, oldest first; those removed since then still stand here for a while.
    order: VecDeque<(K, u64)>,
    bound: usize,
    insertions: u64,
}

impl<K: Hash + Eq + Copy, V> Table<K, V> {
    pub(crate) fn new(bound: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), bound, insertions: 0 }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `key`, made by `default` if there is none.
    pub(crate) fn entry(&mut self, key: K, default: impl FnOnce() -> V) -> &mut V {
        if !self.contains(&key) {
            self.make_room_for(key);
        }
        let number = self.insertions;
        &mut self.entries.entry(key).or_insert_with(|| (number, default())).1
    }

    /// Sets the value of `key`, which keeps its age; gives back the entry that had to go.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        if let Some(present) = self.get_mut(&key) {
            *present = value;
            return None;
        }
        let gone = self.make_room_for(key);
        self.entries.insert(key, (self.insertions, value));
        gone
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key).map(|(_, value)| value)
    }

    /// Gives `key` the next number; the oldest entry goes if there are as many as there may be.
    fn make_room_for(&mut self, key: K) -> Option<(K, V)> {
        let gone = if self.entries.len() < self.bound { None } else { self.remove_oldest() };
        self.forget_removed();
        self.insertions += 1;
        self.order.push_back((key, self.insertions));
        gone
    }

    fn remove_oldest(&mut self) -> Option<(K, V)> {
        while let Some((key, number)) = self.order.pop_front() {
            if self.entries.get(&key).is_some_and(|(present, _)| *present == number) {
                return Some((key, self.remove(&key)?));
            }
        }
        None
    }

    /// Keeps the list of keys within twice the bound.
    fn forget_removed(&mut self) {
        if self.order.len() > 2 * self.bound.max(1) {
            let entries = &self.entries;
            self.order.retain(|(key, number)| entries.get(key).is_some_and(|(present, _)| present == number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entry_makes_room() {
        let mut table = Table::new(2);
        assert_eq!(table.insert('a', 1), None);
        assert_eq!(table.insert('b', 2), None);
        assert_eq!(table.insert('a', 3), None);
        assert_eq!(table.insert('c', 4), Some(('a', 3)));
        assert!(!table.contains(&'a'));
        assert_eq!((table.get(&'b'), table.get(&'c')), (Some(&2), Some(&4)));
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
            assert!(table.entries.len() <= 8 && table.order.len() <= 17, "{n}");
        }
    }
}
