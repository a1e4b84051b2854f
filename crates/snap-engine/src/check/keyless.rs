//! What anyone can see without a key: whether each object's bytes have the hash in its name.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use snap_backend::{Backend, ErrorKind, ObjectName};
use snap_crypto::hash;
use snap_format::{CONFIG_CHECKSUM_LEN, Config, Epoch, FormatError, ObjectId, limits};
use snap_repo::{Area, Finding, FindingCode, RepoError, object_name, parse_object_name, verify_object_name};

use super::CheckReport;
use super::store::{Fetched, Store};
use crate::work::{for_each, lock};
use crate::{Context, Event, Phase, Result};

/// The two names of the config.
pub(crate) const CONFIGS: [&str; 2] = ["config", "config.bak"];

fn fixed(name: &str) -> ObjectName {
    ObjectName::new(name).expect("the fixed names are valid")
}

/// Judges `config` and `config.bak` by their own checksums; returns one that is whole.
pub(super) fn check_configs(store: Store<'_>, findings: &mut Vec<Finding>) -> Result<Option<Config>> {
    let mut whole: Vec<(Config, Vec<u8>)> = Vec::new();
    let mut newer_one = None;
    let mut buffer = Vec::new();
    for name in CONFIGS.map(fixed) {
        let size = match store.backend.stat(&name) {
            Ok(meta) => meta.size_bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                findings.push(Finding::new(FindingCode::Missing, name.as_str(), "it is not there"));
                continue;
            }
            Err(error) => return Err(RepoError::from(error).into()),
        };
        let mut corrupt = |why: &str| findings.push(Finding::new(FindingCode::Corrupt, name.as_str(), why));
        let bytes = match store.fetch(&name, size.min(limits::CONFIG as u64 + 1), &mut buffer)? {
            Fetched::Whole(bytes) if bytes.len() <= limits::CONFIG => bytes,
            Fetched::Damaged(finding) => {
                findings.push(finding);
                continue;
            }
            _ => {
                corrupt("it is too large");
                continue;
            }
        };
        match bytes.split_last_chunk::<CONFIG_CHECKSUM_LEN>() {
            None => corrupt("it is too short"),
            Some((body, checksum)) if hash(body) != *checksum => {
                corrupt("its checksum does not fit");
                // A newer version may have another checksum; a flipped bit can look like another version.
                if let Err(source) = Config::decode(body)
                    && source.is_newer()
                {
                    newer_one.get_or_insert_with(|| newer(&name, source));
                }
            }
            Some((body, _)) => match Config::decode(body) {
                Err(source) if source.is_newer() => return Err(newer(&name, source).into()),
                Err(error) => corrupt(&error.to_string()),
                Ok(config) => whole.push((config, bytes.to_vec())),
            },
        }
    }
    if let Some(error) = newer_one.filter(|_| whole.is_empty()) {
        return Err(error.into());
    }
    if let [(_, first), (_, second)] = whole.as_slice()
        && first != second
    {
        let why = "it differs from config.bak, and both are whole: one of them is another repository's";
        findings.push(Finding::new(FindingCode::Corrupt, CONFIGS[0], why));
        return Ok(None);
    }
    Ok(whole.into_iter().next().map(|(config, _)| config))
}

fn newer(name: &ObjectName, source: FormatError) -> RepoError {
    RepoError::Newer { object: name.to_string(), source: Box::new(source) }
}

/// The hash that the last part of a name gives, for the areas of the format and the logs.
fn named_hash(name: &str) -> Option<ObjectId> {
    match parse_object_name(name) {
        Some((_, id)) => Some(id),
        None => name.strip_prefix("logs/").and_then(|rest| ObjectId::from_hex(rest.rsplit_once('/')?.1)),
    }
}

/// Compares every object's bytes with its name; needs no key. The epochs, which are not secret, must also form a chain
/// from the first one without a gap. What has been deleted beyond that, and what was forged, needs a key to be seen.
pub fn check_keyless(backend: &dyn Backend, context: Context<'_>) -> Result<CheckReport> {
    let read_bytes = AtomicU64::new(0);
    let store = Store { backend, context, read_bytes: &read_bytes };
    let mut findings = Vec::new();
    let config = check_configs(store, &mut findings)?;
    let mut objects: Vec<(ObjectName, ObjectId, u64)> = Vec::new();
    let mut strangers = Vec::new();
    let listed = backend.list("", &mut |meta| {
        match named_hash(meta.name.as_str()) {
            Some(id) => objects.push((meta.name, id, meta.size_bytes)),
            None if CONFIGS.contains(&meta.name.as_str()) => {}
            None => strangers.push(meta.name),
        }
        Ok(())
    });
    listed.map_err(RepoError::from)?;
    let no_config = findings.iter().filter(|finding| finding.code == FindingCode::Missing).count() == 2;
    if no_config && objects.is_empty() {
        return Err(RepoError::NoRepository(backend.location()).into());
    }
    for name in strangers {
        context.note(name.as_str().as_bytes(), "not an object of a repository: left alone");
    }
    let known: HashSet<ObjectId> = objects.iter().map(|(_, id, _)| *id).collect();
    let bytes = objects.iter().map(|(_, _, size)| size).sum();
    context.progress.begin(Phase::ReadingData, objects.len() as u64, bytes);
    let (found, epochs) = (Mutex::new(findings), Mutex::new(BTreeMap::new()));
    let threads = context.threads.max(backend.parallelism());
    for_each(&objects, threads, |(name, id, size), worker| {
        match store.fetch(name, *size, &mut worker.bytes)? {
            Fetched::Whole(bytes) => {
                match verify_object_name(name, id, bytes, |other| known.contains(other)) {
                    Some(finding) => lock(&found).push(finding),
                    None if name.as_str().starts_with(Area::Epochs.prefix()) => {
                        if let Ok((epoch, ..)) = Epoch::decode(bytes) {
                            lock(&epochs).insert(*id, epoch.previous);
                        }
                    }
                    None => {}
                }
            }
            Fetched::TooLarge(hash) if hash == id.0 => {}
            Fetched::TooLarge(_) => {
                let why = "its bytes do not have the hash in its name";
                lock(&found).push(Finding::new(FindingCode::Corrupt, name.as_str(), why));
            }
            Fetched::Gone => {}
            Fetched::Damaged(finding) => lock(&found).push(finding),
        }
        context.progress.add(1, *size);
        Ok(())
    })?;
    let mut findings = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let named = lock(&epochs).values().copied().flatten().collect::<Vec<_>>();
    let first = config.map(|config| config.first_epoch);
    for epoch in named.into_iter().chain(first).filter(|epoch| !known.contains(epoch)) {
        let why = "the config or a later epoch names it";
        findings.push(Finding::new(FindingCode::Missing, object_name(Area::Epochs, &epoch).as_str(), why));
    }
    findings.sort();
    findings.dedup();
    findings.iter().for_each(|finding| context.observer.event(Event::Finding(finding)));
    let objects = objects.len() as u64 + CONFIGS.len() as u64;
    Ok(CheckReport { findings, objects, read_bytes: read_bytes.into_inner(), ..CheckReport::default() })
}
