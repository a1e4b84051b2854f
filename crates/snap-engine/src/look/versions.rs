use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use snap_format::{BlobId, Node};

use super::compare::{Change, change, is_same_version};
use super::history::{History, Past, components, without_content};
use crate::work::{Worker, for_each, lock};
use crate::{Context, EngineError, Phase, Result};

/// One version of an entry.
#[derive(Debug)]
pub struct Version {
    /// What it was, without its list of chunks.
    pub node: Node,
    /// How it differs from the version before it; none for the first.
    pub change: Option<Change>,
    /// Positions in the history of the snapshots that hold it, ascending.
    pub snapshots: Vec<usize>,
}

/// The versions of a path, each once, in the order in which they first appear.
#[derive(Debug, Default)]
pub struct Versions {
    /// They.
    pub list: Vec<Version>,
    /// Positions of snapshots that do not have the path.
    pub absent: Vec<usize>,
    /// Positions of snapshots of which damage hides whether they have it.
    pub unknown: Vec<usize>,
}

/// What a directory has under a name, by the directory's tree: most snapshots share it.
type Known = Mutex<HashMap<(usize, BlobId, usize), Option<Node>>>;

/// Follows the absolute `path` through all snapshots of `history`.
pub fn versions(history: &History, path: &[u8], context: Context<'_>) -> Result<Versions> {
    if components(path).next().is_none() {
        return Err(EngineError::Usage("/ is in every snapshot: name a path below it".into()));
    }
    let found = everywhere(history, path, context)?;
    let mut out = Versions::default();
    let mut domains: Vec<usize> = Vec::new();
    for (number, (found, past)) in found.into_iter().zip(history.past()).enumerate() {
        let node = match found {
            Found::Unknown => {
                out.unknown.push(number);
                continue;
            }
            Found::Absent => {
                out.absent.push(number);
                continue;
            }
            Found::Node(node) => *node,
        };
        let known = out
            .list
            .iter()
            .zip(&domains)
            .position(|(version, domain)| is_same_version(&version.node, &node, *domain == past.domain));
        match known {
            Some(known) => out.list[known].snapshots.push(number),
            None => {
                let change = out.list.last().zip(domains.last()).map(|(before, domain)| {
                    // Of a directory, what is in it.
                    let found = change(&before.node, &node, *domain == past.domain);
                    let is_listing = before.node.tree() != node.tree() && node.tree().is_some();
                    if is_listing && found != Some(Change::Type) {
                        Change::Modified
                    } else {
                        found.unwrap_or(Change::Metadata)
                    }
                });
                domains.push(past.domain);
                out.list.push(Version { node, change, snapshots: vec![number] });
            }
        }
    }
    let bare = |version: Version| Version { node: without_content(version.node), ..version };
    out.list = out.list.into_iter().map(bare).collect();
    Ok(out)
}

/// What a snapshot has at a path.
pub(super) enum Found {
    Node(Box<Node>),
    Absent,
    /// Damage hides it, which was told.
    Unknown,
}

/// What each snapshot of `history` has at `path`, which is not the root.
pub(super) fn everywhere(history: &History, path: &[u8], context: Context<'_>) -> Result<Vec<Found>> {
    context.progress.begin(Phase::Scanning, history.past().len() as u64, 0);
    let known = Known::default();
    let slots: Vec<Mutex<Found>> = history.past().iter().map(|_| Mutex::new(Found::Unknown)).collect();
    let numbers: Vec<usize> = (0..slots.len()).collect();
    for_each(&numbers, history.threads(context), |number, worker| {
        context.check_stop()?;
        let past = &history.past()[*number];
        match lookup(history, past, path, &known, worker) {
            Ok(Some(node)) => *lock(&slots[*number]) = Found::Node(Box::new(node)),
            Ok(None) => *lock(&slots[*number]) = Found::Absent,
            Err(error) => history.lost(context.observer, past, path, error)?,
        }
        context.progress.add(1, 0);
        Ok(())
    })?;
    Ok(slots.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
}

fn lookup(
    history: &History,
    past: &Past,
    path: &[u8],
    known: &Known,
    worker: &mut Worker,
) -> Result<Option<Node>> {
    let mut tree = Some(past.root);
    let mut found = None;
    for (depth, name) in components(path).enumerate() {
        let Some(id) = tree else { return Ok(None) };
        let key = (past.domain, id, depth);
        let before = lock(known).get(&key).cloned();
        let node = match before {
            Some(node) => node,
            None => {
                let node = history.entry(past.domain, &id, name, worker)?;
                lock(known).insert(key, node.clone());
                node
            }
        };
        let Some(node) = node else { return Ok(None) };
        tree = node.tree();
        found = Some(node);
    }
    Ok(found)
}
