use snap_repo::Snapshot;

use crate::restore::is_safety_snapshot;
use crate::{EngineError, Result};

/// Which snapshots are meant: every field that is given must fit.
#[derive(Debug, Clone, Default)]
pub struct SnapshotFilter {
    /// Host names; any of them.
    pub hosts: Vec<String>,
    /// Datasets; any of them.
    pub datasets: Vec<String>,
    /// Tags; all of them.
    pub tags: Vec<String>,
    /// Source paths; all of them. Readers only.
    pub paths: Vec<Vec<u8>>,
}

impl SnapshotFilter {
    /// Whether a snapshot passes; `paths` are its source paths, empty if the role may not know them.
    pub fn matches(&self, snapshot: &Snapshot, paths: &[Vec<u8>]) -> bool {
        let envelope = &snapshot.envelope;
        (self.hosts.is_empty() || self.hosts.contains(&envelope.host))
            && (self.datasets.is_empty() || self.datasets.contains(&envelope.dataset))
            && self.tags.iter().all(|tag| envelope.tags.contains(tag))
            && self.paths.iter().all(|path| paths.contains(path))
    }

    /// Whether it lets everything pass.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.datasets.is_empty() && self.tags.is_empty() && self.paths.is_empty()
    }
}

/// A snapshot by name: `latest`, `latest~N`, or a unique prefix of its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The newest but N.
    Latest(usize),
    /// Hexadecimal prefix of at least four digits.
    Prefix(String),
}

/// What a [`Selector`] found.
#[derive(Debug)]
pub struct Selection<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// `dataset@host` of every group that the name could have meant, if there are several.
    pub groups: Vec<String>,
}

/// Fewest digits of an id prefix.
const MIN_PREFIX: usize = 4;

impl Selector {
    /// Reads a name.
    pub fn parse(name: &str) -> Result<Self> {
        if name == "latest" {
            return Ok(Self::Latest(0));
        }
        if let Some(back) = name.strip_prefix("latest~") {
            let is_number = !back.is_empty() && back.bytes().all(|byte| byte.is_ascii_digit());
            let back = back.parse().ok().filter(|_| is_number);
            let back =
                back.ok_or_else(|| EngineError::Usage(format!("{name}: after latest~ comes a number")))?;
            return Ok(Self::Latest(back));
        }
        let is_hex = name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if name.len() < MIN_PREFIX || name.len() > 64 || !is_hex {
            return Err(EngineError::Usage(format!(
                "{name:?} is no snapshot: use latest, latest~N, or at least {MIN_PREFIX} digits of an id"
            )));
        }
        Ok(Self::Prefix(name.to_owned()))
    }

    /// Finds it among `snapshots`, which are sorted oldest first and have passed the filters.
    pub fn select<'a>(&self, snapshots: &[&'a Snapshot]) -> Result<Selection<'a>> {
        match self {
            Self::Prefix(prefix) => select_prefix(prefix, snapshots),
            Self::Latest(back) => select_latest(*back, snapshots),
        }
    }
}

fn select_prefix<'a>(prefix: &str, snapshots: &[&'a Snapshot]) -> Result<Selection<'a>> {
    let found: Vec<_> =
        snapshots.iter().filter(|snapshot| snapshot.id.to_hex().starts_with(prefix)).collect();
    match found[..] {
        [] => Err(EngineError::NoSnapshot(format!("no snapshot has an id that begins with {prefix}"))),
        [snapshot] => Ok(Selection { snapshot, groups: Vec::new() }),
        _ => {
            let matches: Vec<_> =
                found.iter().map(|snapshot| snapshot.id.to_hex()[..12].to_owned()).collect();
            Err(EngineError::Ambiguous { name: prefix.to_owned(), matches: matches.join(", ") })
        }
    }
}

fn select_latest<'a>(back: usize, snapshots: &[&'a Snapshot]) -> Result<Selection<'a>> {
    // What a restore saved of the live files is the latest only where nothing else is asked for.
    let mut order: Vec<&Snapshot> =
        snapshots.iter().copied().filter(|snapshot| !is_safety_snapshot(snapshot)).collect();
    if order.is_empty() {
        order = snapshots.to_vec();
    }
    // One whose time lies ahead of the store's is not the latest while another is there.
    order.sort_by_key(|snapshot| (!snapshot.is_from_the_future(), snapshot.envelope.time, snapshot.id));
    let newest =
        order.last().ok_or_else(|| EngineError::NoSnapshot("there is no snapshot that fits".into()))?;
    let group = |snapshot: &Snapshot| format!("{}@{}", snapshot.envelope.dataset, snapshot.envelope.host);
    let mut groups: Vec<String> = order.iter().map(|snapshot| group(snapshot)).collect();
    groups.sort();
    groups.dedup();
    let chosen = group(newest);
    let same: Vec<_> = order.iter().filter(|snapshot| group(snapshot) == chosen).collect();
    let snapshot = same.iter().rev().nth(back).ok_or_else(|| {
        EngineError::NoSnapshot(format!(
            "there is no latest~{back}: only {} snapshots of {chosen} fit",
            same.len()
        ))
    })?;
    Ok(Selection { snapshot, groups: if groups.len() > 1 { groups } else { Vec::new() } })
}
