//! Packs (§7), the index (§8) and blobs (§6).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result, bail, ensure};

use crate::cbor::{Fields, Value};
use crate::crypto::{self, Key, hex};
use crate::repo::{Findings, Head, Repo, Signed, decompress};

/// Kind of blobs and packs.
pub const DATA: u8 = 1;
/// Kind of blobs and packs.
pub const TREE: u8 = 2;
/// Target length of a pack (F17).
pub const TARGET: u64 = 16 << 20;
/// Limit of a pack, and of a blob in it (§16).
pub const PACK: u64 = (64 << 20) + BLOB + 40;
const BLOB: u64 = 16 << 20;

/// A row of a blob table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The blob's id.
    pub id: Key,
    /// Where the sealed blob, or the group that it is a member of, begins in the pack.
    pub offset: u64,
    /// Length of the sealed blob or group.
    pub stored: u32,
    /// Length of the blob's plaintext.
    pub plain: u32,
    /// Where it begins in the plaintext of its group.
    start: u32,
    /// Length of the plaintext of the group, or of the blob.
    unit: u32,
    codec: u8,
    run_key: u8,
}

/// What an index object or a pack header says about a pack.
#[derive(PartialEq, Eq)]
pub struct Pack {
    /// Its name.
    pub name: Key,
    /// Its length.
    pub size: u64,
    /// [`DATA`] or [`TREE`].
    pub kind: u8,
    /// Its domain.
    pub domain: String,
    run_keys: Vec<[u8; 96]>,
    /// Its blobs.
    pub rows: Vec<Row>,
}

impl Pack {
    fn new(
        name: Key,
        size: u64,
        kind: u8,
        domain: String,
        run_keys: Vec<[u8; 96]>,
        table: &[[u8; 42]],
    ) -> Result<Self> {
        ensure!(matches!(kind, DATA | TREE), "pack of an unknown kind {kind}: needs a newer snap");
        ensure!(run_keys.len() <= 256 && table.len() <= 1 << 20, "too many run keys or blobs");
        let mut offset = 28;
        let mut rows: Vec<Row> = Vec::new();
        // Where the group begins in `rows` that the last row belongs to.
        let mut group = 0;
        for row in table {
            let u32_at = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
            let id = *row.first_chunk().context("blob id")?;
            let (stored, plain, codec, run_key) = (u32_at(32), u32_at(36), row[40], row[41]);
            ensure!(usize::from(run_key) < run_keys.len(), "blob without a run key");
            ensure!(u64::from(plain) <= BLOB, "blob of a length out of range");
            let mut row = Row { id, offset, stored, start: 0, plain, unit: plain, codec, run_key };
            if let (0, 2 | 3) = (stored, codec) {
                // A further member of the group of the row before.
                let before = rows.last().context("group without a beginning")?;
                ensure!((before.codec, before.run_key) == (codec, run_key), "group whose members differ");
                (row.offset, row.stored, row.start) = (before.offset, before.stored, before.unit);
                let unit = before.unit.checked_add(plain).filter(|unit| u64::from(*unit) <= BLOB);
                row.unit = unit.context("group of a length out of range")?;
            } else {
                ensure!(stored >= 40, "blob of a length out of range");
                group = rows.len();
                offset += u64::from(stored);
            }
            rows.push(row);
            let unit = row.unit;
            rows[group..].iter_mut().for_each(|member| member.unit = unit);
        }
        ensure!(offset <= size, "blobs beyond the end of the pack");
        Ok(Self { name, size, kind, domain, run_keys, rows })
    }

    /// Where the last blob ends.
    fn end(&self) -> u64 {
        self.rows.last().map_or(28, |row| row.offset + u64::from(row.stored))
    }
}

/// Number of a pack and of a row in its table.
type Place = (usize, usize);

/// Where blobs lie.
#[derive(Default)]
pub struct Index {
    /// All packs that are known.
    pub packs: Vec<Pack>,
    rows: HashMap<(u8, String, Key), Vec<Place>>,
}

impl Index {
    fn add(&mut self, pack: Pack) {
        for (at, row) in pack.rows.iter().enumerate() {
            let places = self.rows.entry((pack.kind, pack.domain.clone(), row.id)).or_default();
            places.push((self.packs.len(), at));
        }
        self.packs.push(pack);
    }

    /// The places of a blob.
    pub fn places(&self, domain: &str, kind: u8, id: &Key) -> impl Iterator<Item = (&Pack, &Row)> {
        let places = self.rows.get(&(kind, domain.to_owned(), *id));
        places.into_iter().flatten().map(|(pack, row)| (&self.packs[*pack], &self.packs[*pack].rows[*row]))
    }
}

fn index_pack(value: Value) -> Result<Pack> {
    let mut map = value.fields()?;
    let pack = Pack::new(
        map.need(0)?.fixed()?,
        map.need(1)?.uint()?,
        map.need(2)?.uint()?,
        map.need(3)?.text()?,
        map.need(4)?.joined()?,
        &map.need(5)?.joined()?,
    )?;
    map.end()?;
    Ok(pack)
}

fn read_index(repo: &Repo, name: &Key, index: &mut Index, findings: &mut Findings) -> Result<()> {
    let signed = repo.signed_box("index", 1, name)?;
    signed.check_writer()?;
    let mut map = Fields::decode(&signed.payload)?;
    let packs = map.need(0)?.array(index_pack)?;
    map.opt(1).map(|v| v.array(Value::fixed::<32>)).transpose()?;
    map.end()?;
    for pack in packs {
        match signed.check_domain(&pack.domain) {
            Ok(()) => index.add(pack),
            Err(error) => findings.push(format!("index {}: {error:#}", hex(name))), // F19
        }
    }
    Ok(())
}

/// The index as the index objects tell it.
pub fn index(repo: &Repo, findings: &mut Findings) -> Result<Index> {
    let mut index = Index::default();
    for name in repo.names("index", findings)? {
        if let Err(error) = read_index(repo, &name, &mut index, findings) {
            findings.push(format!("index {}: {error:#}", hex(&name)));
        }
    }
    Ok(index)
}

/// The index rebuilt from the headers of the packs (F18).
pub fn index_from_packs(repo: &Repo, findings: &mut Findings) -> Result<Index> {
    let mut index = Index::default();
    for name in repo.names("packs", findings)? {
        match File::open(repo.path("packs", &name)).map_err(Into::into).and_then(|f| header(repo, name, f)) {
            Ok(header) => index.add(header.pack),
            Err(error) => findings.push(format!("pack {}: {error:#}", hex(&name))),
        }
    }
    Ok(index)
}

/// A pack as its header tells it.
pub struct Header {
    /// The pack.
    pub pack: Pack,
    /// BLAKE3 of everything before the sealed header.
    pub body_hash: Key,
    /// Where the sealed header begins.
    pub body_end: u64,
    /// Zeros at the end of the inner part.
    pub zeros: u64,
}

fn read_at(file: &mut (impl Read + Seek), offset: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length)?];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads head, trailer and header of a pack.
pub fn header(repo: &Repo, name: Key, mut file: impl Read + Seek) -> Result<Header> {
    let size = file.seek(SeekFrom::End(0))?;
    ensure!((28 + 48..=PACK).contains(&size), "pack of a length out of range");
    let head = Head::parse(&read_at(&mut file, 0, 28)?, b"SNAPPACK")?;
    let trailer = repo.open_sealed(&head, b"trailer", &read_at(&mut file, size - 48, 48)?)?;
    let (length, zero) = trailer.split_first_chunk::<4>().context("trailer")?;
    ensure!(zero == [0; 4], "trailer of a wrong form");
    let length = u64::from(u32::from_le_bytes(*length));
    let body_end = (size - 48).checked_sub(length).filter(|end| *end >= 28).context("header too long")?;
    let signed: Signed<'_> =
        repo.inner(&head, &repo.open_sealed(&head, b"header", &read_at(&mut file, body_end, length)?)?)?;
    signed.check_writer()?;
    let mut map = Fields::decode(&signed.payload)?;
    let (domain, run_keys) = (map.need(0)?.text()?, map.need(1)?.joined()?);
    signed.check_domain(&domain)?;
    let pack = Pack::new(name, size, head.kind, domain, run_keys, &map.need(2)?.joined()?)?;
    let body_hash = map.need(3)?.fixed()?;
    map.end()?;
    ensure!(pack.end() == body_end, "blob table and body differ in length");
    Ok(Header { pack, body_hash, body_end, zeros: signed.zeros })
}

/// A repository with its index: blobs by id.
pub struct Store {
    /// The repository.
    pub repo: Repo,
    /// Its index.
    pub index: Index,
    run_keys: RefCell<HashMap<[u8; 96], Key>>,
}

impl Store {
    /// A store on `repo`, the index taken from index objects or from packs alone.
    pub fn new(repo: Repo, from_packs: bool, findings: &mut Findings) -> Result<Self> {
        let index = if from_packs { index_from_packs(&repo, findings)? } else { index(&repo, findings)? };
        Ok(Self { repo, index, run_keys: RefCell::default() })
    }

    /// Opens a sealed blob and checks its id (F14).
    pub fn open_blob(&self, pack: &Pack, row: &Row, sealed: &[u8]) -> Result<Vec<u8>> {
        let entry = &pack.run_keys[usize::from(row.run_key)];
        let known = self.run_keys.borrow().get(entry).copied();
        let run_key = known.map_or_else(|| self.repo.run_key(entry), Ok)?;
        self.run_keys.borrow_mut().insert(*entry, run_key);
        let (name, codec) = if row.codec < 2 { (row.id, row.codec) } else { ([0; 32], row.codec - 2) };
        let ad: [&[u8]; 5] = [&self.repo.id, &[pack.kind], &name, &[row.codec], &row.unit.to_le_bytes()];
        let stored = crypto::open(&run_key, &ad, sealed)?;
        let unit = decompress(codec, &stored, row.unit.into(), BLOB)?;
        let start = usize::try_from(row.start)?;
        let plain = unit[start..start + usize::try_from(row.plain)?].to_vec();
        let id = crypto::keyed(&self.repo.id_key(&pack.domain, pack.kind)?, &plain);
        ensure!(id == row.id, "blob does not match its id");
        Ok(plain)
    }

    /// A blob by its id; of several places the first that serves (F19).
    pub fn blob(&self, domain: &str, kind: u8, id: &Key) -> Result<Vec<u8>> {
        let mut failed = None;
        for (pack, row) in self.index.places(domain, kind, id) {
            let read = File::open(self.repo.path("packs", &pack.name)).map_err(Into::into);
            let read = read.and_then(|mut file| read_at(&mut file, row.offset, row.stored.into()));
            match read.and_then(|sealed| self.open_blob(pack, row, &sealed)) {
                Ok(plain) => return Ok(plain),
                Err(error) => failed = Some(error.context(format!("pack {}", hex(&pack.name)))),
            }
        }
        let what = || format!("blob {} of domain {domain:?}", hex(id));
        match failed {
            Some(error) => Err(error).with_context(what),
            None => bail!("{}: not in the index", what()),
        }
    }
}
