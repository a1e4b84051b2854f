//! The directories above the snapshots.

use super::Bed;
use crate::common::Lab;
use crate::lists::back_up;
use crate::{all, options};

/// What stands in the file of a snapshot.
fn content(bed: &Bed, lab: &Lab, root: u64) -> String {
    let inode = bed.below(root, &lab.source("a")).inode;
    String::from_utf8(bed.read(inode, 0, 100).unwrap()).unwrap()
}

#[test]
fn each_snapshot_is_in_its_four_places() {
    let lab = Lab::new();
    let one = back_up(&lab, "files", "web1", 1_769_868_309, "one");
    let two = back_up(&lab, "files", "web1", 1_769_868_400, "two");
    let three = back_up(&lab, "orders", "../db", 1_769_868_400, "three");
    let bed = Bed::with(&lab, all, &options());
    assert_eq!(bed.names(""), ["by-dataset", "by-id", "by-time", "latest"]);
    let mut ids = vec![one.clone(), two.clone(), three.clone()];
    ids.sort();
    assert_eq!(bed.names("by-id"), ids);
    assert_eq!(bed.names("by-dataset"), ["files", "orders"]);
    assert_eq!(bed.names("by-dataset/orders"), ["..%2Fdb"]);
    assert_eq!(
        bed.names("by-dataset/files/web1"),
        ["2026-01-31T14:05:09Z", "2026-01-31T14:06:40Z", "latest"]
    );
    assert_eq!(bed.names("latest/files"), ["web1"]);
    // Two of one second: the second one listed has the digits of its id behind it.
    let by_time = bed.names("by-time");
    let of_third = by_time.iter().find_map(|name| name.strip_prefix("2026-01-31T14:06:40Z-"));
    assert!(
        by_time.len() == 3 && (two.starts_with(of_third.unwrap()) || three.starts_with(of_third.unwrap()))
    );
    for (above, expected) in [
        (format!("by-id/{one}"), "one"),
        ("by-time/2026-01-31T14:05:09Z".into(), "one"),
        ("by-dataset/files/web1/2026-01-31T14:06:40Z".into(), "two"),
        ("latest/files/web1".into(), "two"),
        ("latest/orders/..%2Fdb".into(), "three"),
    ] {
        assert_eq!(content(&bed, &lab, bed.find(&above).inode), expected, "{above}");
    }
    let target = |path: &str| bed.inside.target(bed.find(path).inode).unwrap();
    assert_eq!(target(&format!("by-id/{}", &three[..8])), three.as_bytes());
    assert_eq!(target("by-dataset/files/web1/latest"), b"2026-01-31T14:06:40Z");
    for absent in [&b"zzzz"[..], b"00", &three.as_bytes()[..3], b""] {
        assert_eq!(bed.inside.lookup(bed.find("by-id").inode, absent), Ok(None));
    }
}

#[test]
fn who_stands_in_a_snapshot_that_goes_still_reads_it() {
    let lab = Lab::new();
    let first = back_up(&lab, "files", "lab", 1_769_868_309, "one");
    let bed = Bed::with(&lab, all, &options());
    let root = bed.find("latest/files/lab").inode;
    let before = bed.find("by-id").mtime;
    let second = back_up(&lab, "files", "lab", 1_769_868_400, "two");
    let object = snap_backend::ObjectName::new(format!("snapshots/{first}")).unwrap();
    lab.backend.delete(&object).unwrap();
    bed.inside.list_anew();
    assert_eq!(bed.names("by-id"), [second]);
    // By this the kernel sees that what it has listed is no longer true.
    assert_ne!(bed.find("by-id").mtime, before);
    let new = bed.find("latest/files/lab").inode;
    assert_ne!(new, root);
    assert_eq!((content(&bed, &lab, new), content(&bed, &lab, root)), ("two".into(), "one".into()));
    assert_eq!(bed.ear.heard(), [""; 0]);
}
