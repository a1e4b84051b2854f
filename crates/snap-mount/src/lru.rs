use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values by key, bounded by weight: what was not used for longest goes first.
pub(crate) struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by when they were last used.
    order: BTreeMap<u64, K>,
    tick: u64,
    weight: u64,
    limit: u64,
}

struct Entry<V> {
    value: V,
    weight: u64,
    used: u64,
}

impl<K: Copy + Eq + Hash, V: Clone> Lru<K, V> {
    pub(crate) fn new(limit: u64) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), tick: 0, weight: 0, limit }
    }

    /// The value, which has been used now.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        self.tick += 1;
        self.order.remove(&entry.used);
        self.order.insert(self.tick, *key);
        entry.used = self.tick;
        Some(entry.value.clone())
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Puts a value in place of the one that is there; what has to go is given to `gone`.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: u64, mut gone: impl FnMut(V)) {
        self.tick += 1;
        let entry = Entry { value, weight, used: self.tick };
        if let Some(old) = self.entries.insert(key, entry) {
            self.order.remove(&old.used);
            self.weight -= old.weight;
            gone(old.value);
        }
        self.order.insert(self.tick, key);
        self.weight += weight;
        // What has just come stays, however large it is: somebody waits for it.
        while self.weight > self.limit && self.entries.len() > 1 {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            if let Some(old) = self.entries.remove(&oldest) {
                self.weight -= old.weight;
                gone(old.value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let mut lru = Lru::new(10);
        let mut gone = Vec::new();
        for key in 1..=3 {
            lru.insert(key, key * 100, 4, |value| gone.push(value));
            lru.get(&1);
        }
        assert_eq!(gone, [200]);
        assert!(lru.contains(&1) && lru.contains(&3) && !lru.contains(&2));
        // One that is too large displaces all others, and the next one displaces it.
        lru.insert(4, 400, 99, |value| gone.push(value));
        lru.insert(5, 500, 1, |value| gone.push(value));
        gone.sort_unstable();
        assert_eq!((gone, lru.weight), (vec![100, 200, 300, 400], 1));
        lru.insert(5, 501, 2, |_| ());
        assert_eq!((lru.get(&5), lru.weight, lru.order.len()), (Some(501), 2, 1));
    }
}
