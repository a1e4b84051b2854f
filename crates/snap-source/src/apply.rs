use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use snap_format::Node;

use crate::names::Names;

/// What of a node's metadata is given to a restored entry.
#[derive(Debug, Clone)]
pub struct ApplyOptions {
    /// Set owner and group; otherwise the entry stays with who restores it.
    pub owner: bool,
    /// Owners by name where this host knows the name, else by number; `None`: always by number.
    pub names: Option<Arc<Names>>,
    /// Set extended attributes, and remove ACLs and capabilities that the node does not have.
    pub xattrs: bool,
    /// Remove `user.*` and `trusted.*` attributes that the node does not have, too.
    pub remove_xattrs: bool,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self { owner: true, names: None, xattrs: true, remove_xattrs: false }
    }
}

impl ApplyOptions {
    /// The owner and group that the node's entry should have on this host.
    pub fn owner_of(&self, node: &Node) -> (u32, u32) {
        let by_name = |name: &Option<String>, look_up: fn(&Names, &str) -> Option<u32>| {
            look_up(self.names.as_deref()?, name.as_deref()?)
        };
        (
            by_name(&node.user, Names::uid_of).unwrap_or(node.uid),
            by_name(&node.group, Names::gid_of).unwrap_or(node.gid),
        )
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
