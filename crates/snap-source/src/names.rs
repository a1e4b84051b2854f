use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use nix::unistd::{Gid, Group, Uid, User};

type Cache<K, V> = RwLock<HashMap<K, Option<V>>>;

/// Names of users and groups, each looked up once: the system may have to ask a server.
#[derive(Default)]
pub struct Names {
    users: Cache<u32, Arc<str>>,
    groups: Cache<u32, Arc<str>>,
    uids: Cache<Box<str>, u32>,
    gids: Cache<Box<str>, u32>,
}

impl Names {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of a user, if the system has one.
    pub fn user(&self, uid: u32) -> Option<Arc<str>> {
        cached(&self.users, &uid, || uid, || Some(User::from_uid(Uid::from_raw(uid)).ok()??.name.into()))
    }

    /// The name of a group, if the system has one.
    pub fn group(&self, gid: u32) -> Option<Arc<str>> {
        cached(&self.groups, &gid, || gid, || Some(Group::from_gid(Gid::from_raw(gid)).ok()??.name.into()))
    }

    /// The user of that name.
    pub fn uid_of(&self, name: &str) -> Option<u32> {
        cached(&self.uids, name, || name.into(), || Some(User::from_name(name).ok()??.uid.as_raw()))
    }

    /// The group of that name.
    pub fn gid_of(&self, name: &str) -> Option<u32> {
        cached(&self.gids, name, || name.into(), || Some(Group::from_name(name).ok()??.gid.as_raw()))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

fn cached<K, Q, V>(
    cache: &Cache<K, V>,
    key: &Q,
    own: impl Fn() -> K,
    look_up: impl Fn() -> Option<V>,
) -> Option<V>
where
    K: Hash + Eq + std::borrow::Borrow<Q>,
    Q: Hash + Eq + ?Sized,
    V: Clone,
{
    if let Some(known) = cache.read().unwrap_or_else(PoisonError::into_inner).get(key) {
        return known.clone();
    }
    let found = look_up();
    cache.write().unwrap_or_else(PoisonError::into_inner).insert(own(), found.clone());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name_both_ways_and_nobody_has_none() {
        let names = Names::new();
        for _ in 0..2 {
            assert_eq!(names.user(0).as_deref(), Some("root"));
            assert_eq!(names.uid_of("root"), Some(0));
            assert_eq!(names.gid_of(&names.group(0).unwrap()), Some(0));
            assert_eq!(names.user(4_000_000_123), None);
            assert_eq!(names.gid_of("no such group"), None);
        }
    }
}
