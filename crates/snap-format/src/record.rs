use crate::cbor::{self, Enc};
use crate::{FormatError, ObjectId, Time};

/// A typed note in the repository: a forget, a check, a drill. The body's meaning depends on the type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The type.
    pub kind: String,
    /// When it was written.
    pub time: Time,
    /// One CBOR map.
    pub body: Vec<u8>,
}

impl Record {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut enc = Enc::new();
        enc.map(3).uint(0).text(&self.kind);
        self.time.put(enc.uint(1));
        enc.uint(2).raw(&self.body);
        enc.finish()
    }

    /// Reads the payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut kind, mut time, mut body) = (None, None, None);
        let mut dec = cbor::open(bytes, "record")?;
        dec.map(|dec, key| {
            match key {
                0 => kind = Some(dec.text()?.to_owned()),
                1 => time = Some(Time::take(dec)?),
                2 => body = Some(dec.skip_map()?.to_vec()),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self { kind: dec.required(kind)?, time: dec.required(time)?, body: dec.required(body)? })
    }

    /// The body of a `forget` record.
    pub fn forget_body(snapshots: &[ObjectId]) -> Vec<u8> {
        let mut enc = Enc::new();
        enc.map(1).uint(0).array(snapshots.len());
        snapshots.iter().for_each(|id| {
            enc.bytes(&id.0);
        });
        enc.finish()
    }

    /// The snapshots that a `forget` record names; none for other records.
    pub fn forgotten(&self) -> Result<Vec<ObjectId>, FormatError> {
        let mut out = Vec::new();
        if self.kind == "forget" {
            cbor::open(&self.body, "forget record")?.map(|dec, key| {
                if key == 0 {
                    out = dec.array(|dec| dec.fixed().map(ObjectId))?;
                }
                Ok(key == 0)
            })?;
        }
        Ok(out)
    }
}

/// Packs that a prune is about to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// When it was written.
    pub time: Time,
    /// The packs.
    pub packs: Vec<ObjectId>,
}

impl Mark {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut enc = Enc::new();
        self.time.put(enc.map(2).uint(0));
        enc.uint(1).array(self.packs.len());
        self.packs.iter().for_each(|id| {
            enc.bytes(&id.0);
        });
        enc.finish()
    }

    /// Reads the payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut time, mut packs) = (None, None);
        let mut dec = cbor::open(bytes, "mark")?;
        dec.map(|dec, key| {
            match key {
                0 => time = Some(Time::take(dec)?),
                1 => packs = Some(dec.array(|dec| dec.fixed().map(ObjectId))?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self { time: dec.required(time)?, packs: dec.required(packs)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_marks_survive() {
        let ids = [ObjectId([1; 32]), ObjectId([2; 32])];
        let record = Record { kind: "forget".into(), time: Time::new(5, 0), body: Record::forget_body(&ids) };
        let read = Record::decode(&record.encode()).unwrap();
        assert_eq!(read, record);
        assert_eq!(read.forgotten().unwrap(), ids);
        let mark = Mark { time: Time::new(6, 1), packs: ids.to_vec() };
        assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
    }
}
