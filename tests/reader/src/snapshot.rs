//! Snapshots (§10).

use anyhow::{Context, Result, ensure};

use crate::cbor::{Fields, Time, Value};
use crate::crypto::{self, Key, hex};
use crate::epochs::OWNER;
use crate::repo::{Findings, Head, PAYLOAD, Repo};

/// Kind of a snapshot bundle (§5).
const BUNDLE: u8 = 5;
/// Most items of an array (§16).
const ITEMS: usize = 65_536;

/// The envelope of a snapshot.
pub struct Snapshot {
    /// Its id.
    pub id: Key,
    /// When its run began.
    pub time: Time,
    /// Its dataset.
    pub dataset: String,
    /// Its host.
    pub host: String,
    /// Its domain.
    pub domain: String,
    /// When the store took it, as far as a bundle says: seconds.
    pub stored: Option<i64>,
    run_key: [u8; 96],
    body: Vec<u8>,
}

/// A snapshot from its bytes.
fn parse(repo: &Repo, bytes: &[u8], stored: Option<i64>) -> Result<Snapshot> {
    let id = crypto::hash(&[bytes]);
    let signed = repo.open_box("snapshots", 2, bytes)?;
    signed.check_writer()?;
    let mut map = Fields::decode(&signed.payload)?;
    let snapshot = Snapshot {
        id,
        time: map.need(0)?.time()?,
        dataset: map.need(1)?.text()?,
        host: map.need(2)?.text()?,
        domain: map.need(3)?.text()?,
        stored,
        run_key: map.need(8)?.fixed()?,
        body: map.need(9)?.bytes()?,
    };
    map.opt(4).map(Value::fixed::<32>).transpose()?;
    map.opt(5).map(|v| v.array(Value::text)).transpose()?;
    map.opt(6).map(Value::text).transpose()?;
    let mut summary = map.need(7)?.fields()?;
    for key in 0..=12 {
        summary.opt(key).map(Value::uint::<u64>).transpose()?;
    }
    summary.end()?;
    map.opt(10).map(Value::fixed::<16>).transpose()?;
    map.opt(11).map(|v| v.array(Value::text)).transpose()?;
    map.end()?;
    signed.check_domain(&snapshot.domain)?; // F24
    Ok(snapshot)
}

/// The members of a bundle: times of storing and bytes.
fn members(repo: &Repo, bytes: &[u8]) -> Result<Vec<(i64, Vec<u8>)>> {
    let signed = repo.open_box("snapshots", BUNDLE, bytes)?;
    ensure!(signed.slot.role == OWNER, "forged: a bundle that is not an owner's"); // F12
    let mut map = Fields::decode(&signed.payload)?;
    let members = map.need(0)?.array(|value| {
        let [stored, bytes] = value.tuple()?;
        Ok((stored.int()?, bytes.bytes()?))
    })?;
    map.end()?;
    ensure!((1..=ITEMS).contains(&members.len()), "a bundle of {} snapshots", members.len());
    Ok(members)
}

/// The snapshots of one object; damaged members of a bundle are findings.
fn read(repo: &Repo, name: &Key, findings: &mut Findings) -> Result<Vec<Snapshot>> {
    let bytes = repo.object("snapshots", name, PAYLOAD)?;
    if Head::parse(&bytes, b"SNAPSBOX")?.kind != BUNDLE {
        return Ok(vec![parse(repo, &bytes, None)?]);
    }
    let mut snapshots = Vec::new();
    for (stored, member) in members(repo, &bytes)? {
        match parse(repo, &member, Some(stored)) {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(error) => {
                let id = hex(&crypto::hash(&[&member]));
                findings.push(format!("bundle {}: snapshot {id}: {error:#}", hex(name)));
            }
        }
    }
    Ok(snapshots)
}

/// All snapshots, oldest first, each once (F29).
pub fn snapshots(repo: &Repo, findings: &mut Findings) -> Result<Vec<Snapshot>> {
    let mut snapshots: Vec<Snapshot> = Vec::new();
    for name in repo.names("snapshots", findings)? {
        match read(repo, &name, findings) {
            Ok(more) => snapshots.extend(more),
            Err(error) => findings.push(format!("snapshot {}: {error:#}", hex(&name))),
        }
    }
    snapshots.sort_by_key(|s| (s.time, s.id));
    snapshots.dedup_by_key(|s| s.id);
    Ok(snapshots)
}

impl Snapshot {
    /// The id of its root tree.
    pub fn root(&self, repo: &Repo) -> Result<Key> {
        let run_key = repo.run_key(&self.run_key)?;
        let body =
            crypto::open(&run_key, &[&repo.id, b"snapshot body"], &self.body).context("snapshot body")?;
        let mut map = Fields::decode(&body)?;
        let root = map.need(0)?.fixed()?;
        map.need(1)?.array(Value::bytes)?;
        map.opt(2).map(Value::fields).transpose()?;
        map.end()?;
        Ok(root)
    }
}
