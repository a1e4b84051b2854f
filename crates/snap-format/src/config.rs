use crate::cbor::{self, Enc};
use crate::frame::check_version;
use crate::snapshot::take_texts;
use crate::{FormatError, ObjectId, RepoId, Time, VERSION};

const MAGIC: &[u8; 8] = b"SNAPCONF";
/// Length of the checksum at the end of a stored config, bytes.
pub const CONFIG_CHECKSUM_LEN: usize = 32;

/// What a repository is; written once (F6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Shared by the copies of a repository.
    pub repository: RepoId,
    /// This copy's own.
    pub copy: [u8; 16],
    /// When it was made.
    pub created: Time,
    /// The epoch that began it.
    pub first_epoch: ObjectId,
    /// Features that a reader must understand.
    pub required: Vec<String>,
    /// Features that a reader may ignore.
    pub optional: Vec<String>,
}

impl Config {
    /// All of the stored bytes but the checksum, which is the hash of what this returns.
    pub fn encode(&self) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&VERSION.to_le_bytes());
        let mut enc = Enc::with_buffer(head);
        let lists = [(4, &self.required), (5, &self.optional)];
        enc.map(4 + lists.iter().filter(|list| !list.1.is_empty()).count());
        enc.uint(0).bytes(&self.repository.0).uint(1).bytes(&self.copy);
        self.created.put(enc.uint(2));
        enc.uint(3).bytes(&self.first_epoch.0);
        for (key, list) in lists.into_iter().filter(|list| !list.1.is_empty()) {
            enc.uint(key).array(list.len());
            list.iter().for_each(|text| {
                enc.text(text);
            });
        }
        enc.finish()
    }

    /// Reads the stored bytes without their checksum, which the caller has compared. A required feature is refused:
    /// there are none yet (F7).
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let bad = |why| FormatError::malformed("config", why);
        let rest = bytes.strip_prefix(MAGIC).ok_or(bad("not a snap config"))?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or(bad("ends early"))?;
        check_version("config", u16::from_le_bytes(*version))?;
        let (mut repository, mut copy, mut created, mut first_epoch) = (None, None, None, None);
        let (mut required, mut optional) = (Vec::new(), Vec::new());
        let mut dec = cbor::open(rest, "config")?;
        dec.map(|dec, key| {
            match key {
                0 => repository = Some(RepoId(dec.fixed()?)),
                1 => copy = Some(dec.fixed()?),
                2 => created = Some(Time::take(dec)?),
                3 => first_epoch = Some(ObjectId(dec.fixed()?)),
                4 => required = take_texts(dec)?,
                5 => optional = take_texts(dec)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if !required.is_empty() {
            return Err(FormatError::Features(required.join(", ")));
        }
        Ok(Self {
            repository: dec.required(repository)?,
            copy: dec.required(copy)?,
            created: dec.required(created)?,
            first_epoch: dec.required(first_epoch)?,
            required,
            optional,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_survive_and_unknown_features_stop() {
        let mut config = Config {
            repository: RepoId([1; 32]),
            copy: [2; 16],
            created: Time::new(3, 4),
            first_epoch: ObjectId([5; 32]),
            required: vec![],
            optional: vec!["nice".into()],
        };
        assert_eq!(Config::decode(&config.encode()), Ok(config.clone()));
        config.required.push("essential".into());
        assert_eq!(Config::decode(&config.encode()), Err(FormatError::Features("essential".into())));
        let mut newer = config.encode();
        newer[8] = 9;
        assert_eq!(Config::decode(&newer), Err(FormatError::Newer { what: "config", found: 9 }));
    }
}
