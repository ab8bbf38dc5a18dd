//! A map that never grows beyond its bound.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A map of at most `bound` entries: a new one pushes out the oldest. Nothing iterates over it, so the order of hashing does not
/// show.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
    bound: usize,
}

impl<K: Hash + Eq + Clone, V> Table<K, V> {
    pub(crate) fn new(bound: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), bound }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sets the value of `key`; gives back the entry that had to go.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        if self.entries.insert(key.clone(), value).is_some() {
            return None;
        }
        self.order.push_back(key);
        if self.entries.len() <= self.bound {
            return None;
        }
        let oldest = self.order.pop_front()?;
        self.entries.remove_entry(&oldest)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.entries.remove(key)?;
        self.order.retain(|other| other != key);
        Some(value)
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
    fn a_removed_entry_leaves_room() {
        let mut table = Table::new(2);
        table.insert('a', 1);
        table.insert('b', 2);
        assert_eq!(table.remove(&'a'), Some(1));
        assert_eq!(table.remove(&'a'), None);
        assert_eq!(table.insert('c', 3), None);
        assert_eq!(table.insert('d', 4), Some(('b', 2)));
        assert!(!table.is_empty());
    }
}
