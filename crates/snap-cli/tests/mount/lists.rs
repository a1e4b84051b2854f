//! The directories above the snapshots.

use std::path::Path;
use std::time::{Duration, Instant};

use snap_format::Time;
use snap_mount::{Ended, MountError, PointProblem};

use crate::common::Lab;
use crate::{all, can_mount, mount_latest, mount_over, options, unmount};

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn back_up(lab: &Lab, dataset: &str, host: &str, second: i64, content: &str) -> String {
    std::fs::write(lab.source("a"), content).unwrap();
    let mut options = lab.options();
    (options.dataset, options.host, options.time) = (dataset.into(), host.into(), Time::new(second, 5));
    lab.backup_with(options).unwrap().snapshot.unwrap().to_hex()
}

#[test]
fn snapshots_are_found_by_id_time_dataset_and_host() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    let ids = [
        back_up(&lab, "files", "web1", 1_769_868_309, "one"),
        back_up(&lab, "files", "web1", 1_769_868_400, "two"),
        back_up(&lab, "files", "web2", 1_769_868_309, "three"),
        back_up(&lab, "orders", "../db", 1_769_868_500, "four"),
    ];
    let dir = lab.dir.path().join("mnt");
    let _mounted = mount_over(&lab.backend, &lab.secret, &dir, all);
    let source = lab.source("a");
    let read =
        |at: &str| std::fs::read_to_string(dir.join(at).join(source.strip_prefix("/").unwrap())).unwrap();
    assert_eq!(names(&dir), ["by-dataset", "by-id", "by-time", "latest"]);
    let mut sorted = ids.to_vec();
    sorted.sort();
    assert_eq!(names(&dir.join("by-id")), sorted);
    assert_eq!(
        names(&dir.join("by-time")),
        [
            "2026-01-31T14:05:09Z".to_owned(),
            format!("2026-01-31T14:05:09Z-{}", &names(&dir.join("by-time"))[1][21..]),
            "2026-01-31T14:06:40Z".to_owned(),
            "2026-01-31T14:08:20Z".to_owned()
        ]
    );
    assert_eq!(names(&dir.join("by-dataset")), ["files", "orders"]);
    assert_eq!(names(&dir.join("by-dataset/orders")), ["..%2Fdb"]);
    assert_eq!(
        names(&dir.join("by-dataset/files/web1")),
        ["2026-01-31T14:05:09Z", "2026-01-31T14:06:40Z", "latest"]
    );
    assert_eq!(names(&dir.join("latest/files")), ["web1", "web2"]);
    for (at, content) in [
        (format!("by-id/{}", ids[0]), "one"),
        (format!("by-id/{}", &ids[2][..8]), "three"),
        ("by-time/2026-01-31T14:08:20Z".to_owned(), "four"),
        ("by-dataset/files/web1/2026-01-31T14:05:09Z".to_owned(), "one"),
        ("by-dataset/files/web1/latest".to_owned(), "two"),
        ("latest/files/web1".to_owned(), "two"),
        ("latest/files/web2".to_owned(), "three"),
        ("latest/orders/..%2Fdb".to_owned(), "four"),
    ] {
        assert_eq!(read(&at), content, "{at}");
    }
    for absent in ["by-id/zzzz", "by-id/00", "latest/files/web3", "x"] {
        assert!(!dir.join(absent).exists(), "{absent}");
    }
}

#[test]
fn snapshots_come_and_go_while_it_is_mounted() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    let first = back_up(&lab, "files", "lab", 1_769_868_309, "one");
    let dir = lab.dir.path().join("mnt");
    let mounted = mount_over(&lab.backend, &lab.secret, &dir, all);
    let source = lab.source("a");
    let old = dir.join("latest/files/lab").join(source.strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "one");
    let here = std::fs::File::open(dir.join("latest/files/lab")).unwrap();
    let second = back_up(&lab, "files", "lab", 1_769_868_400, "two");
    let began = Instant::now();
    let shows = |expected: &[&String]| loop {
        let found = names(&dir.join("by-id"));
        if found.len() == expected.len() && expected.iter().all(|id| found.contains(id)) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{found:?}");
        std::thread::sleep(Duration::from_millis(100));
    };
    shows(&[&first, &second]);
    assert_eq!(
        std::fs::read_to_string(dir.join("by-id").join(&second).join(source.strip_prefix("/").unwrap()))
            .unwrap(),
        "two"
    );
    while std::fs::read_to_string(&old).unwrap() != "two" {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(100));
    }
    // Whoever stands in the older one still does.
    let path = format!(
        "/proc/self/fd/{}/{}",
        std::os::fd::AsRawFd::as_raw_fd(&here),
        source.strip_prefix("/").unwrap().display()
    );
    assert_eq!(std::fs::read_to_string(path).unwrap(), "one");
    // One that is deleted is no longer listed.
    let object = snap_backend::ObjectName::new(format!("snapshots/{first}")).unwrap();
    lab.backend.delete(&object).unwrap();
    shows(&[&second]);
    assert!(!dir.join("by-time/2026-01-31T14:05:09Z").exists());
    drop(mounted);
}

#[test]
fn what_cannot_be_mounted_on_is_refused() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    back_up(&lab, "files", "lab", 1_769_868_309, "one");
    let (mounted, _) = mount_latest(&lab);
    let at = |name: &str| lab.dir.path().join(name);
    std::fs::write(at("file"), b"").unwrap();
    std::fs::create_dir_all(at("full/of")).unwrap();
    let refused = |name: &str| {
        let repository = lab.repository();
        let shown = all(&repository);
        match snap_mount::Mount::start(&repository, shown, &at(name), &options(), mounted.ear.clone() as _) {
            Err(MountError::Point { why, .. }) => why,
            other => panic!("{name}: {other:?}"),
        }
    };
    assert!(matches!(refused("nothing"), PointProblem::Missing));
    assert!(matches!(refused("file"), PointProblem::NotADirectory));
    assert!(matches!(refused("full"), PointProblem::NotEmpty));
    assert!(matches!(refused("mnt"), PointProblem::Mounted));
    // Known by device and inode, without being touched.
    let found = std::os::unix::fs::MetadataExt::dev(&at("mnt").metadata().unwrap());
    assert!(snap_mount::mounted().contains(&(found, 1)));
    assert!(snap_mount::is_in_a_mount(&at("mnt")) && !snap_mount::is_in_a_mount(&at("full")));
}

#[test]
fn it_ends_when_it_is_unmounted_or_asked_to() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    back_up(&lab, "files", "lab", 1_769_868_309, "one");
    let never = std::sync::atomic::AtomicBool::new(false);
    let (mounted, _) = mount_latest(&lab);
    let dir = mounted.mount.dir().to_owned();
    unmount(&dir);
    assert_eq!(mounted.mount.wait(&never).unwrap(), Ended::Unmounted);

    let (mounted, top) = mount_latest(&lab);
    let open = std::fs::File::open(top.join("a")).unwrap();
    never.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(mounted.mount.wait(&never).unwrap(), Ended::Stopped);
    assert_eq!(names(&dir), [""; 0]);
    drop(open);
}
