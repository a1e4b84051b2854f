//! Verifies everything that a slot can see.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::io::Cursor;

use anyhow::{Context, Result, ensure};

use crate::cbor::{Fields, Value};
use crate::crypto::{self, Key, hex, padme};
use crate::epochs::OWNER;
use crate::pack::{self, DATA, PACK, Pack, Store, TARGET};
use crate::repo::{Findings, Repo};
use crate::snapshot::{Snapshot, snapshots};
use crate::tree::{Node, Type};

/// Verifies all objects; what opening and indexing found is not repeated.
pub fn verify(store: &Store, findings: &mut Findings) -> Result<()> {
    let repo = &store.repo;
    let packs = repo.names("packs", findings)?;
    for name in &packs {
        let found = verify_pack(store, name);
        note(findings, "pack", name, found);
    }
    for pack in &store.index.packs {
        if packs.binary_search(&pack.name).is_err() {
            findings.push(format!("pack {}: in the index, but missing", hex(&pack.name)));
        }
    }
    for (kind, check) in [("records", record as fn(&Repo, &Key) -> Result<()>), ("marks", mark)] {
        for name in repo.names(kind, findings)? {
            note(findings, kind, &name, check(repo, &name));
        }
    }
    let mut seen = HashSet::new();
    for snapshot in snapshots(repo, findings)? {
        if repo.can_read() {
            let mut walk =
                Walk { store, snapshot: &snapshot, seen: &mut seen, links: HashMap::new(), findings };
            let walked = snapshot.root(repo).and_then(|root| walk.directory(&root, b""));
            note(findings, "snapshot", &snapshot.id, walked);
        }
    }
    Ok(())
}

fn note(findings: &mut Findings, kind: &str, name: &Key, result: Result<()>) {
    if let Err(error) = result {
        findings.push(format!("{kind} {}: {error:#}", hex(name)));
    }
}

/// One pack: header, trailer, body, length, its blobs, and what the index says of it.
fn verify_pack(store: &Store, name: &Key) -> Result<()> {
    let bytes = store.repo.object("packs", name, PACK)?;
    let header = pack::header(&store.repo, *name, Cursor::new(&bytes))?;
    let (body, _) = bytes.split_at(usize::try_from(header.body_end)?);
    ensure!(crypto::hash(&[body]) == header.body_hash, "body does not match its hash");
    let unpadded = bytes.len() as u64 - header.zeros;
    let right = if unpadded < TARGET { padme(unpadded) } else { unpadded };
    ensure!(bytes.len() as u64 == right, "length is {}, not the padded {right}", bytes.len()); // F17
    for said in store.index.packs.iter().filter(|pack| pack.name == *name) {
        ensure!(*said == header.pack, "index and header differ");
    }
    verify_blobs(store, &header.pack, body)
}

fn verify_blobs(store: &Store, pack: &Pack, body: &[u8]) -> Result<()> {
    if !store.repo.can_read() {
        return Ok(());
    }
    for row in &pack.rows {
        let at = usize::try_from(row.offset)?;
        let sealed = &body[at..at + usize::try_from(row.stored)?];
        store.open_blob(pack, row, sealed).with_context(|| format!("blob {}", hex(&row.id)))?;
    }
    Ok(())
}

fn record(repo: &Repo, name: &Key) -> Result<()> {
    let signed = repo.signed_box("records", 3, name)?;
    let mut map = Fields::decode(&signed.payload)?;
    let (kind, _, mut body) = (map.need(0)?.text()?, map.need(1)?.time()?, map.need(2)?.fields()?);
    map.end()?;
    match kind.as_str() {
        "check" => {
            for key in 0..3 {
                body.need(key)?.uint::<u64>()?;
            }
            body.end()
        }
        "drill" => Ok(()),
        "forget" => {
            signed.check_writer()?;
            body.need(0)?.array(Value::fixed::<32>)?;
            body.end()
        }
        "replace" => {
            ensure!(signed.slot.role == OWNER, "forged: a replacement that is not an owner's");
            body.need(0)?.array(|pair| {
                let mut pair = pair.fields()?;
                pair.need(0)?.fixed::<32>()?;
                pair.need(1)?.fixed::<32>()?;
                pair.need(2)?.fixed::<16>()?;
                pair.opt(3).map(Value::int).transpose()?;
                pair.end()
            })?;
            let reason = body.opt(1).map(Value::text).transpose()?.unwrap_or_default();
            ensure!(reason.len() <= 4096, "a reason of {} bytes", reason.len());
            body.end()
        }
        _ => signed.check_writer(),
    }
}

fn mark(repo: &Repo, name: &Key) -> Result<()> {
    let signed = repo.signed_box("marks", 4, name)?;
    ensure!(signed.slot.role == OWNER, "not an owner's, does not count");
    let mut map = Fields::decode(&signed.payload)?;
    map.need(0)?.time()?;
    map.need(1)?.array(Value::fixed::<32>)?;
    map.end()
}

struct Walk<'a> {
    store: &'a Store,
    snapshot: &'a Snapshot,
    seen: &'a mut HashSet<(String, Key)>,
    links: HashMap<(u64, u64), Type>,
    findings: &'a mut Findings,
}

impl Walk<'_> {
    /// A damaged subtree is a finding and does not hide its siblings.
    fn directory(&mut self, tree: &Key, path: &[u8]) -> Result<()> {
        let domain = &self.snapshot.domain;
        if !self.seen.insert((domain.clone(), *tree)) {
            return Ok(());
        }
        for node in self.store.directory(domain, tree)? {
            let path = [path, b"/", &node.name].concat();
            if let Err(error) = self.node(node, &path) {
                let snapshot = hex(&self.snapshot.id);
                self.findings.push(format!("snapshot {snapshot}: {}: {error:#}", path.escape_ascii()));
            }
        }
        Ok(())
    }

    fn node(&mut self, node: Node, path: &[u8]) -> Result<()> {
        let domain = &self.snapshot.domain;
        match &node.kind {
            Type::Directory(Some(tree)) => self.directory(tree, path)?,
            Type::File { size, content, holes } if !node.unreadable => {
                let chunks = self.store.chunks(domain, content)?;
                self.store.check_lengths(domain, *size, &chunks, holes)?;
                for chunk in &chunks {
                    // Packs were verified whole; here it is enough that one that holds the chunk is there.
                    let there = |pack: &Pack| self.store.repo.path("packs", &pack.name).exists();
                    let there = self.store.index.places(domain, DATA, chunk).any(|(pack, _)| there(pack));
                    ensure!(there, "chunk {} is missing", hex(chunk));
                }
            }
            _ => {}
        }
        if let Some(link) = node.link {
            match self.links.entry(link) {
                Entry::Occupied(first) => ensure!(*first.get() == node.kind, "hard links to one file differ"),
                Entry::Vacant(vacant) => drop(vacant.insert(node.kind)),
            }
        }
        Ok(())
    }
}
