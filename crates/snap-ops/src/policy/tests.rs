use snap_format::{ObjectId, Time};

use super::*;

/// `device=8:1 account=x`.
fn at(text: &str) -> Whereabouts {
    let kinds = [
        EvidenceKind::Device,
        EvidenceKind::Disk,
        EvidenceKind::Bucket,
        EvidenceKind::Host,
        EvidenceKind::Account,
        EvidenceKind::Region,
    ];
    let mut out = Whereabouts::unknown();
    for (name, value) in text.split_whitespace().map(|it| it.split_once('=').unwrap()) {
        out.add(*kinds.iter().find(|kind| kind.as_str() == name).unwrap(), value);
    }
    out
}

fn snapshot(id: u8, secs: i64) -> SnapshotFacts {
    SnapshotFacts {
        id: ObjectId([id; 32]),
        dataset: "orders".into(),
        host: "web1".into(),
        time: Time::new(secs, 0),
        is_from_the_future: false,
        lock: LockFacts::NotAsked,
    }
}

/// Holds the snapshots with these numbers, whose times are their numbers.
fn copy(name: &str, media: &str, location: &str, whereabouts: &str, ids: &[u8]) -> CopyFacts {
    CopyFacts {
        name: name.into(),
        media: media.into(),
        location: (!location.is_empty()).then(|| location.into()),
        is_declared_immutable: false,
        whereabouts: at(whereabouts),
        snapshots: Ok(ids.iter().map(|id| snapshot(*id, i64::from(*id))).collect()),
    }
}

fn silent(mut copy: CopyFacts) -> CopyFacts {
    copy.snapshots = Err("it is away".into());
    copy
}

fn source(location: &str, whereabouts: &str) -> SourceFacts {
    SourceFacts { media: "disk".into(), location: location.into(), whereabouts: at(whereabouts) }
}

fn judged(source: &SourceFacts, copies: &[CopyFacts]) -> DatasetPolicy {
    judge(groups(copies, ["orders"]).remove(0), source, copies)
}

/// `co-located source disk device=8:1`, one a finding.
fn told(policy: &DatasetPolicy) -> Vec<String> {
    let finding = |it: &PolicyFinding| {
        let source = it.with_source.then(|| "source".to_owned());
        let evidence = it.evidence.iter().map(|it| format!("{}={}", it.kind.as_str(), it.value));
        let parties = source.into_iter().chain(it.copies.iter().cloned()).chain(evidence);
        format!("{} {}", it.code.as_str(), parties.collect::<Vec<_>>().join(" ")).trim().to_owned()
    };
    policy.findings.iter().map(finding).collect()
}

#[test]
fn evidence_decides_what_is_apart() {
    let here = source("onsite", "device=8:1 disk=sda");
    let (nowhere, on_sda) = (source("onsite", ""), source("onsite", "disk=sda"));
    let bucket = source("aws:eu-1", "bucket=s3://shop region=aws:eu-1 account=AKIA1");
    let usb = |whereabouts| copy("usb", "disk", "onsite", whereabouts, &[1]);
    let cloud = |whereabouts| copy("cloud", "object-store", "aws:eu-1", whereabouts, &[1]);
    let far = "bucket=s3://far region=aws:eu-1 account=backup";
    // Source, copies, places, elsewhere, findings.
    type Case<'a> = (&'a SourceFacts, Vec<CopyFacts>, usize, &'a [&'a str], &'a [&'a str]);
    let cases: Vec<Case<'_>> = vec![
        (&here, vec![usb("device=8:17 disk=sdb"), cloud(far)], 3, &["cloud"], &[]),
        (
            &here,
            vec![usb("device=8:1 disk=sda"), cloud(far)],
            2,
            &["cloud"],
            &["co-located source usb device=8:1"],
        ),
        // Another partition of the same disk.
        (
            &here,
            vec![usb("device=8:2 disk=sda"), cloud(far)],
            2,
            &["cloud"],
            &["co-located source usb disk=sda"],
        ),
        // A volume over two disks, one of which is the source's.
        (
            &here,
            vec![usb("device=253:0 disk=sda disk=sdb"), cloud(far)],
            2,
            &["cloud"],
            &["co-located source usb disk=sda"],
        ),
        // The label says elsewhere, the device says here.
        (
            &here,
            vec![usb("device=8:17"), copy("cloud", "tape", "bunker", "device=8:1", &[1])],
            2,
            &[],
            &["co-located source cloud device=8:1", "none-elsewhere usb cloud"],
        ),
        // Two copies in one account: one leaked key deletes both.
        (
            &here,
            vec![
                copy("one", "object-store", "aws:eu-1", "bucket=s3://a region=aws:eu-1 account=x", &[1]),
                copy("two", "object-store", "aws:us-1", "bucket=s3://b region=aws:us-1 account=x", &[1]),
            ],
            2,
            &["one", "two"],
            &["co-located one two account=x"],
        ),
        // Two prefixes of one bucket; the host goes without saying.
        (
            &here,
            vec![
                copy("one", "object-store", "dc2", "bucket=s3://h/a host=h", &[1]),
                copy("two", "object-store", "dc2", "bucket=s3://h/a host=h", &[1]),
            ],
            2,
            &["one", "two"],
            &["co-located one two bucket=s3://h/a"],
        ),
        // Two services of one server.
        (
            &here,
            vec![
                copy("one", "object-store", "dc2", "bucket=s3://nas/a host=nas", &[1]),
                copy("two", "server", "dc2", "host=nas", &[1]),
            ],
            2,
            &["one", "two"],
            &["co-located one two host=nas"],
        ),
        // A bucket as the source: its own region and account do not count as elsewhere, this machine does.
        (
            &bucket,
            vec![usb("device=8:1"), cloud(far)],
            2,
            &["usb"],
            &["co-located source cloud region=aws:eu-1"],
        ),
        (
            &bucket,
            vec![usb("device=8:1"), copy("cloud", "object-store", "aws:us-1", "account=AKIA1", &[1])],
            2,
            &["usb"],
            &["co-located source cloud account=AKIA1"],
        ),
        // Nobody knows anything: nothing is claimed.
        (
            &nowhere,
            vec![copy("one", "disk", "", "", &[1]), copy("two", "tape", "", "", &[1])],
            3,
            &[],
            &["none-elsewhere one two"],
        ),
        // One chain: source - one - two.
        (
            &on_sda,
            vec![
                copy("one", "disk", "onsite", "disk=sda disk=sdb", &[1]),
                copy("two", "tape", "dc2", "disk=sdb", &[1]),
            ],
            1,
            &["two"],
            &["co-located source one disk=sda", "co-located one two disk=sdb"],
        ),
    ];
    for (number, (source, copies, places, elsewhere, findings)) in cases.into_iter().enumerate() {
        let policy = judged(source, &copies);
        assert_eq!(told(&policy), findings, "case {number}");
        assert_eq!(
            (policy.places, &policy.elsewhere[..]),
            (places, &elsewhere.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()[..]),
            "case {number}"
        );
    }
}

#[test]
fn three_two_one_is_counted_over_the_copies_that_hold_the_newest_snapshot() {
    let here = source("onsite", "device=8:1");
    let disk = |ids| copy("disk", "disk", "onsite", "device=8:17", ids);
    let cloud = |ids| copy("cloud", "object-store", "aws:eu-1", "region=aws:eu-1", ids);
    let policy = judged(&here, &[disk(&[1, 2]), cloud(&[1])]);
    assert_eq!(
        (policy.group.newest.as_ref().unwrap().id, &policy.holding[..]),
        (ObjectId([2; 32]), &["disk".to_owned()][..])
    );
    assert_eq!(
        (&policy.lacking[..], &policy.media[..]),
        (&["cloud".to_owned()][..], &["disk".to_owned()][..])
    );
    assert_eq!(told(&policy), ["few-copies disk", "one-medium disk", "none-elsewhere disk"]);

    // One that is away is neither counted nor held against the dataset.
    let policy = judged(&here, &[disk(&[1, 2]), silent(cloud(&[]))]);
    assert_eq!(
        (policy.holding.len(), &policy.silent[..], policy.media.len()),
        (1, &["cloud".to_owned()][..], 1)
    );
    assert_eq!(told(&policy), [""; 0]);

    let policy = judged(&here, &[disk(&[]), cloud(&[])]);
    assert_eq!((policy.group.host, policy.group.newest), (None, None));
    assert_eq!(policy.findings.iter().map(|it| it.code).collect::<Vec<_>>(), [PolicyCode::FewCopies]);
}

#[test]
fn a_declaration_is_less_than_a_proof() {
    let here = source("onsite", "");
    let mut declared = copy("cloud", "object-store", "x", "", &[1]);
    declared.is_declared_immutable = true;
    let plain = copy("disk", "disk", "onsite", "", &[1]);
    assert_eq!(judged(&here, std::slice::from_ref(&plain)).immutable, Immutable::No);
    assert_eq!(judged(&here, &[plain.clone(), declared.clone()]).immutable, Immutable::Declared);
    let mut proven = plain.clone();
    let lock = |it: &mut CopyFacts, lock| it.snapshots.as_mut().unwrap()[0].lock = lock;
    let until = |is_final| LockFacts::Until { time: Time::new(9, 0), is_final };
    lock(&mut proven, until(true));
    assert_eq!(
        judged(&here, &[proven.clone(), declared.clone()]).immutable,
        Immutable::Until(Time::new(9, 0))
    );
    lock(&mut proven, until(false));
    assert_eq!(judged(&here, &[proven, declared.clone()]).immutable, Immutable::Governed(Time::new(9, 0)));
    // What the store contradicts is a finding, and counts for nothing.
    let mut contradicted = declared.clone();
    lock(&mut contradicted, LockFacts::Open("packs/1 is not locked".into()));
    let policy = judged(&here, &[plain.clone(), contradicted.clone()]);
    assert_eq!((policy.immutable, policy.findings.len()), (Immutable::No, 1));
    assert_eq!(policy.findings[0].code, PolicyCode::NotImmutable);
    assert!(policy.findings[0].message().contains("packs/1 is not locked"));
    contradicted.is_declared_immutable = false;
    assert_eq!(judged(&here, &[plain.clone(), contradicted]).findings, []);
    // What does not hold the newest snapshot protects nothing.
    declared.snapshots = Ok(Vec::new());
    assert_eq!(judged(&here, &[plain, declared]).immutable, Immutable::No);
}

#[test]
fn datasets_are_told_apart_by_host_and_the_future_does_not_count() {
    let mut odd = copy("disk", "disk", "", "", &[1, 2, 3]);
    let snapshots = odd.snapshots.as_mut().unwrap();
    snapshots[1].is_from_the_future = true;
    snapshots[2].host = "web2".into();
    let found = groups(&[odd], ["orders", "uploads"]);
    let short: Vec<_> = found
        .iter()
        .map(|it| (it.dataset.as_str(), it.host.as_deref(), it.newest.as_ref().map(|it| it.id.0[0])))
        .collect();
    assert_eq!(
        short,
        [("orders", Some("web1"), Some(1)), ("orders", Some("web2"), Some(3)), ("uploads", None, None)]
    );
}

#[test]
fn findings_are_sentences() {
    let here = source("onsite", "device=8:1");
    let policy = judged(&here, &[copy("disk", "disk", "onsite", "device=8:1", &[1])]);
    let told: Vec<_> = policy.findings.iter().map(PolicyFinding::message).collect();
    assert_eq!(told[0], "the source and the copy disk are not apart: the same device (8:1)");
    assert_eq!(told[1], "only the copy disk holds its newest snapshot: 3-2-1 wants two beside the source");
}
