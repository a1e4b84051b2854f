use crate::cbor::{self, Dec, Enc};
use crate::snapshot::{put_texts, take_texts};
use crate::{FormatError, ObjectId, SlotId, Time, limits};

/// A typed note in the repository: a forget, a pin, a check. The body's meaning depends on the type, see [`RecordBody`].
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
        RecordBody::Forget(snapshots.to_vec()).encode()
    }

    /// The snapshots that a `forget` record names; none for other records.
    pub fn forgotten(&self) -> Result<Vec<ObjectId>, FormatError> {
        if self.kind == "forget" { decode_ids(&self.body, "forget record") } else { Ok(Vec::new()) }
    }

    /// What it says of snapshots; `None` for other records.
    pub fn about_snapshots(&self) -> Result<Option<RecordBody>, FormatError> {
        RecordBody::decode(&self.kind, &self.body)
    }
}

/// What a pin says of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Why it must stay, in somebody's words.
    pub reason: String,
    /// Until when; without, until it is taken away.
    pub until: Option<Time>,
}

impl Pin {
    /// Whether it holds at `now`.
    pub fn is_in_force(&self, now: Time) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// A snapshot that an owner wrote in place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replacement {
    /// The one that goes.
    pub old: ObjectId,
    /// The one that stands in its place.
    pub new: ObjectId,
    /// Who signed the old one; if that was a replacement itself, the one at the beginning.
    pub slot: SlotId,
    /// When the store took that one, seconds since 1970, as far as it says.
    pub stored_secs: Option<i64>,
}

/// The bodies of records about snapshots (`docs/format.md` §11). Only an owner's count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordBody {
    /// They are about to be deleted.
    Forget(Vec<ObjectId>),
    /// They must stay.
    Pin(Vec<ObjectId>, Pin),
    /// They need not stay any more.
    Unpin(Vec<ObjectId>),
    /// They have these tags from now on, and no others.
    Tag(Vec<ObjectId>, Vec<String>),
    /// Others stand in their place, for this reason.
    Replace(Vec<Replacement>, String),
}

impl RecordBody {
    /// The type of the record.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Forget(_) => "forget",
            Self::Pin(..) => "pin",
            Self::Unpin(_) => "unpin",
            Self::Tag(..) => "tag",
            Self::Replace(..) => "replace",
        }
    }

    /// Whether records of this type are for owners alone.
    pub fn is_owners(kind: &str) -> bool {
        matches!(kind, "forget" | "pin" | "unpin" | "tag" | "replace")
    }

    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        let mut enc = Enc::new();
        match self {
            Self::Forget(ids) | Self::Unpin(ids) => put_ids(enc.map(1), ids),
            Self::Pin(ids, pin) => {
                let fields = 1 + usize::from(!pin.reason.is_empty()) + usize::from(pin.until.is_some());
                put_ids(enc.map(fields), ids);
                if !pin.reason.is_empty() {
                    enc.uint(1).text(&pin.reason);
                }
                if let Some(until) = pin.until {
                    until.put(enc.uint(2));
                }
            }
            Self::Tag(ids, tags) => {
                put_ids(enc.map(1 + usize::from(!tags.is_empty())), ids);
                put_texts(&mut enc, 1, tags);
            }
            Self::Replace(pairs, reason) => {
                enc.map(1 + usize::from(!reason.is_empty())).uint(0).array(pairs.len());
                pairs.iter().for_each(|pair| pair.put(&mut enc));
                if !reason.is_empty() {
                    enc.uint(1).text(reason);
                }
            }
        }
        enc.finish()
    }

    /// Reads the body of a record of the type `kind`; `None` for a type that is not one of these.
    pub fn decode(kind: &str, body: &[u8]) -> Result<Option<Self>, FormatError> {
        Ok(Some(match kind {
            "forget" => Self::Forget(decode_ids(body, "forget record")?),
            "unpin" => Self::Unpin(decode_ids(body, "unpin record")?),
            "pin" => decode_pin(body)?,
            "tag" => decode_tag(body)?,
            "replace" => decode_replace(body)?,
            _ => return Ok(None),
        }))
    }
}

fn put_ids(enc: &mut Enc, ids: &[ObjectId]) {
    enc.uint(0).array(ids.len());
    ids.iter().for_each(|id| {
        enc.bytes(&id.0);
    });
}

fn take_ids(dec: &mut Dec<'_>) -> Result<Vec<ObjectId>, FormatError> {
    dec.array(|dec| dec.fixed().map(ObjectId))
}

fn decode_ids(body: &[u8], what: &'static str) -> Result<Vec<ObjectId>, FormatError> {
    let mut ids = Vec::new();
    cbor::open(body, what)?.map(|dec, key| {
        if key == 0 {
            ids = take_ids(dec)?;
        }
        Ok(key == 0)
    })?;
    Ok(ids)
}

fn decode_pin(body: &[u8]) -> Result<RecordBody, FormatError> {
    const WHAT: &str = "pin record";
    let (mut ids, mut reason, mut until) = (None, String::new(), None);
    let mut dec = cbor::open(body, WHAT)?;
    dec.map(|dec, key| {
        match key {
            0 => ids = Some(take_ids(dec)?),
            1 => reason = dec.text()?.to_owned(),
            2 => until = Some(Time::take(dec)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if reason.len() > limits::PIN_REASON {
        return Err(FormatError::TooLarge { what: WHAT, limit: limits::PIN_REASON as u64 });
    }
    Ok(RecordBody::Pin(dec.required(ids)?, Pin { reason, until }))
}

fn decode_tag(body: &[u8]) -> Result<RecordBody, FormatError> {
    let (mut ids, mut tags) = (None, Vec::new());
    let mut dec = cbor::open(body, "tag record")?;
    dec.map(|dec, key| {
        match key {
            0 => ids = Some(take_ids(dec)?),
            1 => tags = take_texts(dec)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(RecordBody::Tag(dec.required(ids)?, tags))
}

impl Replacement {
    fn put(&self, enc: &mut Enc) {
        enc.map(3 + usize::from(self.stored_secs.is_some())).uint(0).bytes(&self.old.0);
        enc.uint(1).bytes(&self.new.0).uint(2).bytes(&self.slot.0);
        if let Some(secs) = self.stored_secs {
            enc.uint(3).int(secs);
        }
    }

    fn take(dec: &mut Dec<'_>) -> Result<Self, FormatError> {
        let (mut old, mut new, mut slot, mut stored_secs) = (None, None, None, None);
        dec.map(|dec, key| {
            match key {
                0 => old = Some(ObjectId(dec.fixed()?)),
                1 => new = Some(ObjectId(dec.fixed()?)),
                2 => slot = Some(SlotId(dec.fixed()?)),
                3 => stored_secs = Some(dec.int()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self { old: dec.required(old)?, new: dec.required(new)?, slot: dec.required(slot)?, stored_secs })
    }
}

fn decode_replace(body: &[u8]) -> Result<RecordBody, FormatError> {
    const WHAT: &str = "replace record";
    let (mut pairs, mut reason) = (None, String::new());
    let mut dec = cbor::open(body, WHAT)?;
    dec.map(|dec, key| {
        match key {
            0 => pairs = Some(dec.array(Replacement::take)?),
            1 => reason = dec.text()?.to_owned(),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if reason.len() > limits::PIN_REASON {
        return Err(FormatError::TooLarge { what: WHAT, limit: limits::PIN_REASON as u64 });
    }
    Ok(RecordBody::Replace(dec.required(pairs)?, reason))
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

    #[test]
    fn a_pin_holds_until_its_end_and_not_at_it() {
        let pin = |until| Pin { reason: String::new(), until };
        assert!(pin(None).is_in_force(Time::new(i64::MAX, 0)));
        assert!(pin(Some(Time::new(5, 1))).is_in_force(Time::new(5, 0)));
        assert!(!pin(Some(Time::new(5, 1))).is_in_force(Time::new(5, 1)));
    }

    #[test]
    fn a_replacement_has_these_bytes() {
        let pair = Replacement {
            old: ObjectId([1; 32]),
            new: ObjectId([2; 32]),
            slot: SlotId([3; 16]),
            stored_secs: Some(-1),
        };
        let expected: Vec<u8> = [
            &[0xa2, 0x00, 0x81, 0xa4, 0x00, 0x58, 32][..], // {0: [{0: h'…',
            &[1; 32],
            &[0x01, 0x58, 32],
            &[2; 32],
            &[0x02, 0x50],
            &[3; 16],
            &[0x03, 0x20, 0x01, 0x61, b'w'], // 3: -1}], 1: "w"}
        ]
        .concat();
        assert_eq!(RecordBody::Replace(vec![pair], "w".into()).encode(), expected);
    }

    #[test]
    fn a_reason_has_a_bound() {
        let body = |len| {
            let pin = Pin { reason: "x".repeat(len), until: None };
            RecordBody::decode("pin", &RecordBody::Pin(Vec::new(), pin).encode())
        };
        assert!(body(4096).is_ok());
        assert_eq!(body(4097), Err(FormatError::TooLarge { what: "pin record", limit: 4096 }));
        let long = RecordBody::Replace(Vec::new(), "x".repeat(4097)).encode();
        assert_eq!(
            RecordBody::decode("replace", &long),
            Err(FormatError::TooLarge { what: "replace record", limit: 4096 })
        );
    }
}
