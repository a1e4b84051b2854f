use std::collections::BTreeMap;

use crate::cbor::{self, Dec, Enc};
use crate::{BlobId, FormatError, ObjectId, RUN_KEY_ENTRY_LEN, RunKeyEntry, Time};

const WHAT: &str = "snapshot";

/// What every slot may know of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// When the run began.
    pub time: Time,
    /// What was protected.
    pub dataset: String,
    /// Where.
    pub host: String,
    /// Whose id keys made the BlobIds.
    pub domain: String,
    /// The snapshot before, of the same dataset, host and slot.
    pub previous: Option<ObjectId>,
    /// Given by the user.
    pub tags: Vec<String>,
    /// Given by the user.
    pub label: String,
    /// Counters.
    pub summary: Summary,
    /// Opens `body`.
    pub run_key: RunKeyEntry,
    /// A sealed [`Body`].
    pub body: Vec<u8>,
    /// Shared by the snapshots of one application run.
    pub set: Option<[u8; 16]>,
    /// Log segments that a restore needs.
    pub log_segments: Vec<String>,
}

/// What only readers may know of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Tree of the file system's root.
    pub root: BlobId,
    /// Absolute source paths.
    pub paths: Vec<Vec<u8>>,
    /// What was backed up, if it was no file system.
    pub details: Option<Details>,
}

/// What a snapshot knows of a database beyond its tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// `postgresql`, `sqlite`, ….
    pub kind: String,
    /// What was true at the moment of the snapshot, by name: the position in the log, counts.
    pub facts: BTreeMap<String, String>,
}

macro_rules! summary {
    ($($(#[$doc:meta])* $key:literal $name:ident),* $(,)?) => {
        /// Counters of a run; `*_bytes` in bytes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Summary {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Summary {
            fn put(&self, enc: &mut Enc) {
                let fields = [$(($key, self.$name)),*];
                enc.map(fields.iter().filter(|field| field.1 != 0).count());
                for (key, value) in fields.into_iter().filter(|field| field.1 != 0) {
                    enc.uint(key).uint(value);
                }
            }

            fn take(dec: &mut Dec<'_>) -> Result<Self, FormatError> {
                let mut out = Self::default();
                dec.map(|dec, key| {
                    match key {
                        $($key => out.$name = dec.uint()?,)*
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                Ok(out)
            }
        }
    };
}

summary! {
    /// Regular files.
    0 files,
    /// Directories.
    1 dirs,
    /// Everything else.
    2 others,
    /// Files that the parent did not have.
    3 files_new,
    /// Files that differ from the parent's.
    4 files_changed,
    /// Files taken over from the parent.
    5 files_unchanged,
    /// Entries that could not be read.
    6 unreadable,
    /// Entries that went away between listing and opening.
    7 vanished,
    /// Files that changed while they were read, twice.
    8 changed_while_read,
    /// Size of all files.
    9 source_bytes,
    /// Plain size of the blobs that were new.
    10 added_bytes,
    /// What was written to the repository.
    11 stored_bytes,
    /// How long the run took, milliseconds.
    12 duration_ms,
}

impl Envelope {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let optional = [
            self.previous.is_some(),
            !self.tags.is_empty(),
            !self.label.is_empty(),
            self.set.is_some(),
            !self.log_segments.is_empty(),
        ];
        let mut enc = Enc::new();
        enc.map(7 + optional.iter().filter(|present| **present).count());
        self.time.put(enc.uint(0));
        enc.uint(1).text(&self.dataset).uint(2).text(&self.host).uint(3).text(&self.domain);
        if let Some(previous) = &self.previous {
            enc.uint(4).bytes(&previous.0);
        }
        put_texts(&mut enc, 5, &self.tags);
        if !self.label.is_empty() {
            enc.uint(6).text(&self.label);
        }
        self.summary.put(enc.uint(7));
        enc.uint(8).bytes(&self.run_key.encode()).uint(9).bytes(&self.body);
        if let Some(set) = &self.set {
            enc.uint(10).bytes(set);
        }
        put_texts(&mut enc, 11, &self.log_segments);
        enc.finish()
    }

    /// Reads the payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut time, mut dataset, mut host, mut domain) = (None, None, None, None);
        let (mut previous, mut set, mut run_key, mut body, mut summary) = (None, None, None, None, None);
        let (mut tags, mut label, mut log_segments) = (Vec::new(), String::new(), Vec::new());
        let mut dec = cbor::open(bytes, WHAT)?;
        dec.map(|dec, key| {
            match key {
                0 => time = Some(Time::take(dec)?),
                1 => dataset = Some(dec.text()?.to_owned()),
                2 => host = Some(dec.text()?.to_owned()),
                3 => domain = Some(dec.text()?.to_owned()),
                4 => previous = Some(ObjectId(dec.fixed()?)),
                5 => tags = take_texts(dec)?,
                6 => label = dec.text()?.to_owned(),
                7 => summary = Some(Summary::take(dec)?),
                8 => run_key = Some(RunKeyEntry::decode(&dec.fixed::<RUN_KEY_ENTRY_LEN>()?)),
                9 => body = Some(dec.bytes()?.to_vec()),
                10 => set = Some(dec.fixed()?),
                11 => log_segments = take_texts(dec)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self {
            time: dec.required(time)?,
            dataset: dec.required(dataset)?,
            host: dec.required(host)?,
            domain: dec.required(domain)?,
            previous,
            tags,
            label,
            summary: dec.required(summary)?,
            run_key: dec.required(run_key)?,
            body: dec.required(body)?,
            set,
            log_segments,
        })
    }
}

impl Body {
    /// The plaintext of [`Envelope::body`].
    pub fn encode(&self) -> Vec<u8> {
        let mut enc = Enc::new();
        enc.map(2 + usize::from(self.details.is_some()));
        enc.uint(0).bytes(&self.root.0).uint(1).array(self.paths.len());
        self.paths.iter().for_each(|path| {
            enc.bytes(path);
        });
        if let Some(details) = &self.details {
            details.put(enc.uint(2));
        }
        enc.finish()
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut root, mut paths, mut details) = (None, None, None);
        let mut dec = cbor::open(bytes, "snapshot body")?;
        dec.map(|dec, key| {
            match key {
                0 => root = Some(BlobId(dec.fixed()?)),
                1 => paths = Some(dec.array(|dec| Ok(dec.bytes()?.to_vec()))?),
                2 => details = Some(Details::take(dec)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self { root: dec.required(root)?, paths: dec.required(paths)?, details })
    }
}

impl Details {
    fn put(&self, enc: &mut Enc) {
        enc.map(1 + usize::from(!self.facts.is_empty())).uint(0).text(&self.kind);
        if !self.facts.is_empty() {
            enc.uint(1).array(self.facts.len());
            for (name, value) in &self.facts {
                enc.array(2).text(name).text(value);
            }
        }
    }

    fn take(dec: &mut Dec<'_>) -> Result<Self, FormatError> {
        let (mut kind, mut facts) = (None, BTreeMap::new());
        dec.map(|dec, key| {
            match key {
                0 => kind = Some(dec.text()?.to_owned()),
                1 => facts = take_facts(dec)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self { kind: dec.required(kind)?, facts })
    }
}

/// Pairs whose names ascend.
fn take_facts(dec: &mut Dec<'_>) -> Result<BTreeMap<String, String>, FormatError> {
    let pairs = dec.array(|dec| {
        let pair = dec.array(|dec| Ok(dec.text()?.to_owned()))?;
        <[String; 2]>::try_from(pair).map_err(|_| dec.error("a fact that is no name and value"))
    })?;
    let count = pairs.len();
    let facts: BTreeMap<_, _> = pairs.into_iter().map(|[name, value]| (name, value)).collect();
    if facts.len() != count {
        return Err(dec.error("a fact that stands there twice"));
    }
    Ok(facts)
}

pub(crate) fn put_texts(enc: &mut Enc, key: u64, texts: &[String]) {
    if !texts.is_empty() {
        enc.uint(key).array(texts.len());
        texts.iter().for_each(|text| {
            enc.text(text);
        });
    }
}

pub(crate) fn take_texts(dec: &mut Dec<'_>) -> Result<Vec<String>, FormatError> {
    dec.array(|dec| Ok(dec.text()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EpochId;

    #[test]
    fn snapshots_survive() {
        let full = Envelope {
            time: Time::new(1, 2),
            dataset: "orders".into(),
            host: "db1".into(),
            domain: "main".into(),
            previous: Some(ObjectId([1; 32])),
            tags: vec!["a".into(), "b".into()],
            label: "before migration".into(),
            summary: Summary { files: 3, stored_bytes: 1 << 50, duration_ms: 9, ..Summary::default() },
            run_key: RunKeyEntry { epoch: EpochId([2; 16]), sealed: [3; 80] },
            body: vec![9; 100],
            set: Some([4; 16]),
            log_segments: vec!["x".into()],
        };
        assert_eq!(Envelope::decode(&full.encode()), Ok(full.clone()));
        let bare = Envelope {
            previous: None,
            tags: vec![],
            label: String::new(),
            set: None,
            log_segments: vec![],
            summary: Summary::default(),
            ..full
        };
        assert_eq!(Envelope::decode(&bare.encode()), Ok(bare));
        let body = Body { root: BlobId([7; 32]), paths: vec![b"/srv/\xff".to_vec()], details: None };
        assert_eq!(Body::decode(&body.encode()), Ok(body.clone()));
        let facts = [("position", "0/16B3748"), ("server", "15.8")];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let of_database = Body { details: Some(Details { kind: "postgresql".into(), facts }), ..body };
        assert_eq!(Body::decode(&of_database.encode()), Ok(of_database));
    }
}
