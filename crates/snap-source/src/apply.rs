use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use snap_format::{Node, Xattr};

use crate::linux;
use crate::names::Names;
use crate::stat::Stat;

/// What of a node's metadata is given to a restored entry.
#[derive(Debug, Clone)]
pub struct ApplyOptions {
    /// Set owner and group; otherwise the entry stays with who restores it.
    pub owner: bool,
    /// Owners by name where this host knows the name, else by number; `None`: always by number.
    pub names: Option<Arc<Names>>,
    /// Owners that are somebody else here, before all that.
    pub map: Arc<OwnerMap>,
    /// Set extended attributes, and remove ACLs and capabilities that the node does not have.
    pub xattrs: bool,
    /// Remove `user.*` and `trusted.*` attributes that the node does not have, too.
    pub remove_xattrs: bool,
}

/// Whose entries become whose. The first that fits counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerMap {
    /// Users of the source, and the number of a user here.
    pub users: Vec<(Owner, u32)>,
    /// Groups of the source, and the number of a group here.
    pub groups: Vec<(Owner, u32)>,
}

/// A user or group of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// All of them.
    Any,
    /// By number.
    Id(u32),
    /// By the name that the source knew.
    Name(String),
}

impl OwnerMap {
    fn find(list: &[(Owner, u32)], name: Option<&str>, id: u32) -> Option<u32> {
        let fits = |owner: &Owner| match owner {
            Owner::Any => true,
            Owner::Id(wanted) => *wanted == id,
            Owner::Name(wanted) => name == Some(wanted),
        };
        list.iter().find(|(owner, _)| fits(owner)).map(|(_, to)| *to)
    }
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self { owner: true, names: None, map: Arc::default(), xattrs: true, remove_xattrs: false }
    }
}

impl ApplyOptions {
    /// The owner and group that the node's entry should have on this host.
    pub fn owner_of(&self, node: &Node) -> (u32, u32) {
        let by_name = |name: &Option<String>, look_up: fn(&Names, &str) -> Option<u32>| {
            look_up(self.names.as_deref()?, name.as_deref()?)
        };
        let OwnerMap { users, groups } = &*self.map;
        let user = OwnerMap::find(users, node.user.as_deref(), node.uid);
        let group = OwnerMap::find(groups, node.group.as_deref(), node.gid);
        (
            user.or_else(|| by_name(&node.user, Names::uid_of)).unwrap_or(node.uid),
            group.or_else(|| by_name(&node.group, Names::gid_of)).unwrap_or(node.gid),
        )
    }
}

impl ApplyOptions {
    /// Whether the node's owner or mode would change an entry of this status, as far as this user can change them.
    pub fn would_change(&self, stat: &Stat, node: &Node) -> bool {
        linux::apply::would_change(self, stat, node)
    }

    /// The same for the extended attributes that an entry has, sorted by name.
    pub fn would_change_xattrs(&self, found: &[Xattr], node: &Node) -> bool {
        self.xattrs && linux::apply::would_change_xattrs(self, found, &node.xattrs)
    }
}

/// A piece of metadata that could not be set. The entry is there and the rest of it was applied: that is
/// for the caller to mention, not a failure.
#[derive(Debug)]
pub struct ApplyNote {
    /// `owner`, `group`, `mode`, `set-id bits`, `time`, `type`, or `xattr` and its name.
    pub what: Cow<'static, str>,
    /// Why.
    pub error: io::Error,
}

impl fmt::Display for ApplyNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} not set: {}", self.what, self.error)
    }
}

#[cfg(test)]
mod tests {
    use snap_format::{NodeKind, Time};

    use super::*;

    #[test]
    fn the_first_owner_that_fits_counts_and_others_keep_their_number() {
        let mut node = Node::new(b"x".to_vec(), NodeKind::Fifo, Time::default());
        (node.uid, node.gid) = (1000, 100);
        (node.user, node.group) = (Some("alice".into()), Some("users".into()));
        let owners = |users: &[(Owner, u32)], groups: &[(Owner, u32)]| {
            let map = Arc::new(OwnerMap { users: users.to_vec(), groups: groups.to_vec() });
            ApplyOptions { map, ..ApplyOptions::default() }.owner_of(&node)
        };
        assert_eq!(owners(&[], &[]), (1000, 100));
        assert_eq!(owners(&[(Owner::Id(1000), 7), (Owner::Any, 8)], &[]), (7, 100));
        assert_eq!(owners(&[(Owner::Name("bob".into()), 7), (Owner::Any, 8)], &[]), (8, 100));
        assert_eq!(owners(&[(Owner::Name("alice".into()), 7)], &[(Owner::Id(100), 9)]), (7, 9));
        assert_eq!(owners(&[(Owner::Name("1000".into()), 7)], &[(Owner::Id(1000), 9)]), (1000, 100));
    }
}
