//! Snapshots (§10).

use anyhow::{Context, Result, ensure};

use crate::cbor::{Fields, Time, Value};
use crate::crypto::{self, Key, hex};
use crate::repo::{Findings, Repo};

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
    run_key: [u8; 96],
    body: Vec<u8>,
}

fn parse(repo: &Repo, id: Key) -> Result<Snapshot> {
    let signed = repo.signed_box("snapshots", 2, &id)?;
    signed.check_writer()?;
    let mut map = Fields::decode(&signed.payload)?;
    let snapshot = Snapshot {
        id,
        time: map.need(0)?.time()?,
        dataset: map.need(1)?.text()?,
        host: map.need(2)?.text()?,
        domain: map.need(3)?.text()?,
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
    // F24, for owners too.
    ensure!(signed.slot.domain.as_ref() == Some(&snapshot.domain), "forged: its domain is not its signer's");
    Ok(snapshot)
}

/// All snapshots, oldest first.
pub fn snapshots(repo: &Repo, findings: &mut Findings) -> Result<Vec<Snapshot>> {
    let mut snapshots = Vec::new();
    for name in repo.names("snapshots", findings)? {
        match parse(repo, name) {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(error) => findings.push(format!("snapshot {}: {error:#}", hex(&name))),
        }
    }
    snapshots.sort_by_key(|s| (s.time, s.id));
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
