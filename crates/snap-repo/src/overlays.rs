//! What owners' records say of snapshots, which are themselves never changed.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use snap_format::{ObjectId, Pin, Record, RecordBody, Replacement, Role, SlotId, Time, limits};

use crate::index::check_box_size;
use crate::{
    Area, Finding, RepoError, Repository, Result, Snapshot, SnapshotSet, for_each_parallel, object_name,
};

/// Pins, tags and forgets (`docs/format.md` §11): the last record decides.
#[derive(Debug, Clone, Default)]
pub struct Overlays {
    /// Records that were never believable: somebody wrote them so.
    pub findings: Vec<Finding>,
    /// Records that cannot be read any more, or not by this version: what they said, a pin perhaps, is not known.
    pub unreadable: Vec<Finding>,
    pins: HashMap<ObjectId, Option<Pin>>,
    tags: HashMap<ObjectId, Vec<String>>,
    forgotten: HashSet<ObjectId>,
    /// By owners who were removed since, too.
    ever_forgotten: HashSet<ObjectId>,
    /// By the new snapshot.
    replaced: HashMap<ObjectId, Replacement>,
    newest: Option<Time>,
}

/// How many times a snapshot may have been replaced, each time by another; more is a circle.
const MOST_REPLACED: usize = 10_000;

impl Overlays {
    /// The pin of a snapshot that holds at `now`.
    pub fn pin(&self, snapshot: &ObjectId, now: Time) -> Option<&Pin> {
        self.pins.get(snapshot)?.as_ref().filter(|pin| pin.is_in_force(now))
    }

    /// Every pin that was not taken away, those that have run out included.
    pub fn pins(&self) -> impl Iterator<Item = (&ObjectId, &Pin)> {
        self.pins.iter().filter_map(|(id, pin)| Some((id, pin.as_ref()?)))
    }

    /// Whether somebody who is an owner now forgot this snapshot: if it is still there, its deletion was interrupted. What an
    /// owner forgot who was removed since is not to be deleted on his word.
    pub fn was_forgotten(&self, snapshot: &ObjectId) -> bool {
        self.forgotten.contains(snapshot)
    }

    /// All that were forgotten, whether they are still there or not, by whoever was an owner then.
    pub fn ever_forgotten(&self) -> &HashSet<ObjectId> {
        &self.ever_forgotten
    }

    /// What a snapshot stands in place of, if somebody who is an owner now put it there.
    pub fn replacement(&self, snapshot: &ObjectId) -> Option<&Replacement> {
        self.replaced.get(snapshot)
    }

    /// The snapshot at the beginning, if this one stands in place of one that stood in place of it.
    pub fn origin(&self, snapshot: &ObjectId) -> ObjectId {
        let before = |id: &ObjectId| self.replaced.get(id).map(|pair| pair.old);
        std::iter::successors(Some(*snapshot), before).take(MOST_REPLACED).last().unwrap_or(*snapshot)
    }

    /// Puts the tags that it has now in place of those that it was made with.
    pub fn apply(&self, snapshot: &mut Snapshot) {
        if let Some(tags) = self.tags.get(&snapshot.id) {
            snapshot.envelope.tags.clone_from(tags);
        }
    }

    /// An error if a record cannot be read: nothing may be deleted then, for it may be a pin.
    pub fn require_complete(&self) -> Result<()> {
        match self.unreadable.first() {
            None => Ok(()),
            Some(finding) => Err(RepoError::from(finding.clone())),
        }
    }

    /// A time for a record that is to outdo those that are there, whatever clocks they were written by.
    pub fn time_after(&self, now: Time) -> Time {
        let after = |time: Time| match time.nanos {
            999_999_999 => Time::new(time.secs.saturating_add(1), 0),
            nanos => Time::new(time.secs, nanos + 1),
        };
        self.newest.map_or(now, |newest| now.max(after(newest)))
    }

    fn take(&mut self, record: &Record, body: RecordBody, by_an_owner_of_now: bool) {
        if !matches!(body, RecordBody::Forget(_) | RecordBody::Replace(..)) {
            self.newest = self.newest.max(Some(record.time));
        }
        match body {
            RecordBody::Forget(ids) => {
                self.ever_forgotten.extend(&ids);
                if by_an_owner_of_now {
                    self.forgotten.extend(ids);
                }
            }
            RecordBody::Replace(pairs, _) if by_an_owner_of_now => {
                self.replaced.extend(pairs.into_iter().map(|pair| (pair.new, pair)));
            }
            RecordBody::Replace(..) => {}
            RecordBody::Pin(ids, pin) => {
                self.pins.extend(ids.into_iter().map(|id| (id, Some(pin.clone()))));
            }
            RecordBody::Unpin(ids) => self.pins.extend(ids.into_iter().map(|id| (id, None))),
            RecordBody::Tag(ids, tags) => self.tags.extend(ids.into_iter().map(|id| (id, tags.clone()))),
        }
    }
}

/// A record about snapshots, and what became of it.
enum Read {
    Believed(SlotId, Record, RecordBody),
    Other,
    NeverBelievable(Finding),
    Unreadable(Finding),
}

impl Repository {
    /// All snapshots with the tags that they have now, and everything else that records say of them.
    pub fn snapshots_with_overlays(&self) -> Result<(SnapshotSet, Overlays)> {
        let mut set = self.snapshots()?;
        // Read last: whoever forgets must know of every pin that there is.
        let overlays = self.overlays()?;
        set.snapshots.iter_mut().for_each(|snapshot| overlays.apply(snapshot));
        Ok((set, overlays))
    }

    /// Reads what records say of snapshots.
    pub fn overlays(&self) -> Result<Overlays> {
        let names = self.list(Area::Records)?;
        let (believed, overlays) = (Mutex::new(Vec::new()), Mutex::new(Overlays::default()));
        for_each_parallel(&names, self.backend().parallelism(), |(id, size)| {
            let read = self.read_overlay(id, *size)?;
            let mut overlays = overlays.lock().unwrap_or_else(PoisonError::into_inner);
            match read {
                Read::Believed(slot, record, body) => {
                    let mut believed = believed.lock().unwrap_or_else(PoisonError::into_inner);
                    believed.push((record.time, *id, slot, record, body));
                }
                Read::Other => {}
                Read::NeverBelievable(finding) => overlays.findings.push(finding),
                Read::Unreadable(finding) => overlays.unreadable.push(finding),
            }
            Ok::<_, RepoError>(())
        })?;
        let mut believed = believed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut overlays = overlays.into_inner().unwrap_or_else(PoisonError::into_inner);
        believed.sort_by_key(|(time, id, ..)| (*time, *id));
        for (_, _, slot, record, body) in believed {
            let is_owner_now =
                self.keyring().head().members.get(&slot).is_some_and(|member| member.role == Role::Owner);
            overlays.take(&record, body, is_owner_now);
        }
        overlays.findings.sort();
        overlays.unreadable.sort();
        Ok(overlays)
    }

    fn read_overlay(&self, id: &ObjectId, size: u64) -> Result<Read> {
        let name = object_name(Area::Records, id);
        let bytes = check_box_size(&name, size).and_then(|()| Ok(self.backend().get(&name)?));
        let bytes = match bytes.map_err(RepoError::into_finding) {
            Ok(bytes) => bytes,
            Err(Ok(finding)) => return Ok(Read::Unreadable(finding)),
            Err(Err(error)) => return Err(error),
        };
        if let Some(finding) = crate::verify_object_name(&name, id, &bytes, |_| false) {
            return Ok(Read::Unreadable(finding));
        }
        let read = self.parse_signed_record(id, &bytes).and_then(|(slot, record)| {
            let body = record.about_snapshots().map_err(|error| RepoError::format(name.as_str(), error))?;
            Ok(body.map_or(Read::Other, |body| Read::Believed(slot, record, body)))
        });
        match read {
            Ok(read) => Ok(read),
            Err(error) if error.is_newer() => error.into_finding_among_many().map(Read::Unreadable),
            // Whole by its name, so it never said anything to be believed.
            Err(error) => error.into_finding().map(|finding| Read::NeverBelievable(finding.written_so())),
        }
    }

    /// Keeps snapshots from being forgotten until the pin's end. `time` is the record's, see [`Overlays::time_after`].
    pub fn pin(&self, snapshots: &[ObjectId], pin: &Pin, time: Time) -> Result<()> {
        if pin.reason.len() > limits::PIN_REASON {
            return Err(RepoError::Refused(format!("a reason has at most {} bytes", limits::PIN_REASON)));
        }
        self.put_in_parts(snapshots, time, |ids| RecordBody::Pin(ids, pin.clone()))
    }

    /// Takes pins away.
    pub fn unpin(&self, snapshots: &[ObjectId], time: Time) -> Result<()> {
        self.put_in_parts(snapshots, time, RecordBody::Unpin)
    }

    /// Gives snapshots these tags and no others.
    pub fn set_tags(&self, snapshots: &[ObjectId], tags: &[String], time: Time) -> Result<()> {
        if tags.len() > limits::ITEMS {
            return Err(RepoError::Refused(format!("a snapshot has at most {} tags", limits::ITEMS)));
        }
        self.put_in_parts(snapshots, time, |ids| RecordBody::Tag(ids, tags.to_vec()))
    }

    /// Says which snapshots stand in place of others, and why.
    pub fn put_replacements(&self, pairs: &[Replacement], reason: &str, time: Time) -> Result<()> {
        if reason.len() > limits::PIN_REASON {
            return Err(RepoError::Refused(format!("a reason has at most {} bytes", limits::PIN_REASON)));
        }
        for part in pairs.chunks(limits::ITEMS) {
            self.put_record_about(&RecordBody::Replace(part.to_vec(), reason.to_owned()), time)?;
        }
        Ok(())
    }

    fn put_in_parts(
        &self,
        snapshots: &[ObjectId],
        time: Time,
        body: impl Fn(Vec<ObjectId>) -> RecordBody,
    ) -> Result<()> {
        for part in snapshots.chunks(limits::ITEMS) {
            self.put_record_about(&body(part.to_vec()), time)?;
        }
        Ok(())
    }

    /// Writes a record about snapshots. Owners only.
    pub(crate) fn put_record_about(&self, body: &RecordBody, time: Time) -> Result<ObjectId> {
        self.keyring().require_owner("deciding what becomes of snapshots")?;
        self.put_record(body.kind(), time, body.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(secs: i64) -> Record {
        Record { kind: String::new(), time: Time::new(secs, 0), body: Vec::new() }
    }

    #[test]
    fn the_last_record_decides() {
        let (a, b) = (ObjectId([1; 32]), ObjectId([2; 32]));
        let pin = Pin { reason: "why".into(), until: Some(Time::new(100, 0)) };
        let mut overlays = Overlays::default();
        overlays.take(&record(5), RecordBody::Pin(vec![a, b], pin.clone()), true);
        overlays.take(&record(6), RecordBody::Unpin(vec![b]), true);
        overlays.take(&record(7), RecordBody::Forget(vec![a]), true);
        overlays.take(&record(7), RecordBody::Forget(vec![b]), false);
        assert_eq!(overlays.pin(&a, Time::new(99, 0)), Some(&pin));
        assert_eq!(overlays.pin(&a, Time::new(100, 0)), None);
        assert_eq!(overlays.pin(&b, Time::new(0, 0)), None);
        assert_eq!(overlays.pins().collect::<Vec<_>>(), [(&a, &pin)]);
        assert!(overlays.was_forgotten(&a) && !overlays.was_forgotten(&b));
    }

    #[test]
    fn replacements_are_followed_to_the_beginning() {
        let id = |byte| ObjectId([byte; 32]);
        let pair =
            |old, new| Replacement { old: id(old), new: id(new), slot: SlotId([9; 16]), stored_secs: None };
        let replace = |pair| RecordBody::Replace(vec![pair], String::new());
        let mut overlays = Overlays::default();
        overlays.take(&record(5), replace(pair(1, 2)), true);
        overlays.take(&record(6), replace(pair(2, 3)), true);
        overlays.take(&record(6), replace(pair(4, 5)), false);
        assert_eq!([3, 2, 1, 5].map(|byte| overlays.origin(&id(byte))), [1, 1, 1, 5].map(id));
        assert_eq!(overlays.replacement(&id(3)), Some(&pair(2, 3)));
        assert_eq!((overlays.replacement(&id(1)), overlays.replacement(&id(5))), (None, None));
        overlays.take(&record(7), replace(pair(3, 1)), true);
        assert!([1, 2, 3].map(id).contains(&overlays.origin(&id(2))), "a circle ends");
    }

    #[test]
    fn a_new_record_outdoes_one_from_the_future() {
        let mut overlays = Overlays::default();
        assert_eq!(overlays.time_after(Time::new(5, 0)), Time::new(5, 0));
        overlays.take(&record(9), RecordBody::Unpin(Vec::new()), true);
        assert_eq!(overlays.time_after(Time::new(5, 0)), Time::new(9, 1));
        assert_eq!(overlays.time_after(Time::new(9, 2)), Time::new(9, 2));
    }
}
