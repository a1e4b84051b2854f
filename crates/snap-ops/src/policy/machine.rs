//! Evidence from this machine: which device, disk or server a directory is on. Linux: `/proc` and `/sys`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::{EvidenceKind, Whereabouts};

/// The machine, by what its kernel tells.
#[derive(Debug, Clone)]
pub struct Machine {
    mounts: PathBuf,
    devices: PathBuf,
}

/// Mappings over mappings, loops over loops: more than anybody stacks.
const MAX_DEPTH: usize = 8;

impl Default for Machine {
    fn default() -> Self {
        Self { mounts: "/proc/self/mountinfo".into(), devices: "/sys/dev/block".into() }
    }
}

impl Machine {
    /// Where the file or directory `path` is, links followed. Fails if there is none; what the kernel does not tell
    /// beyond its device is left out.
    pub fn whereabouts(&self, path: &Path) -> io::Result<Whereabouts> {
        self.look(path, MAX_DEPTH)
    }

    fn look(&self, path: &Path, depth: usize) -> io::Result<Whereabouts> {
        let path = fs::canonicalize(path)?;
        let device = fs::metadata(&path)?.dev();
        let mut out = Whereabouts::unknown();
        out.add(EvidenceKind::Device, number(device));
        if major(device) != 0 {
            self.add_disks(&number(device), &mut out, depth);
        } else if let Ok(table) = fs::read(&self.mounts)
            && let Some(mount) = mount_of(&table, &path)
        {
            // File systems that make up their device numbers: btrfs, zfs, network file systems.
            match mount.stands_for() {
                Behind::Nothing => {}
                Behind::Host(host) => out.add(EvidenceKind::Host, host),
                Behind::Pool(pool) => out.add(EvidenceKind::Disk, pool),
                Behind::Device(node) => {
                    if let Ok(metadata) = fs::metadata(node) {
                        self.add_disks(&number(metadata.rdev()), &mut out, depth);
                    }
                }
            }
        }
        Ok(out)
    }

    /// The disks below a block device: those of its parts, or of the file behind a loop.
    fn add_disks(&self, number: &str, out: &mut Whereabouts, depth: usize) {
        if let Ok(directory) = fs::canonicalize(self.devices.join(number)) {
            self.add_disks_of(&directory, out, depth);
        }
    }

    fn add_disks_of(&self, directory: &Path, out: &mut Whereabouts, depth: usize) {
        let is_partition = directory.join("partition").exists();
        let disk = if is_partition { directory.parent().unwrap_or(directory) } else { directory };
        let Some(depth) = depth.checked_sub(1) else { return };
        if let Ok(file) = fs::read(disk.join("loop/backing_file")) {
            let file = Path::new(std::ffi::OsStr::from_bytes(file.trim_ascii_end()));
            if let Ok(behind) = self.look(file, depth) {
                out.extend(behind);
            }
            return;
        }
        let parts = fs::read_dir(disk.join("slaves")).into_iter().flatten().flatten();
        let parts: BTreeSet<PathBuf> = parts.filter_map(|it| fs::canonicalize(it.path()).ok()).collect();
        if let (true, Some(name)) = (parts.is_empty(), disk.file_name()) {
            out.add(EvidenceKind::Disk, name.to_string_lossy());
        }
        for part in parts {
            self.add_disks_of(&part, out, depth);
        }
    }
}

fn number(device: u64) -> String {
    format!("{}:{}", major(device), minor(device))
}

/// A line of the table of mounts, as proc(5) has it.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    kind: String,
    source: String,
}

/// The mount on which `path` lies: the last one with the longest mount point.
fn mount_of(table: &[u8], path: &Path) -> Option<Mount> {
    let mut best: Option<(usize, Mount)> = None;
    for line in table.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let Some(dash) = fields.iter().position(|field| *field == b"-") else { continue };
        let (Some(point), Some(kind), Some(source)) =
            (fields.get(4), fields.get(dash + 1), fields.get(dash + 2))
        else {
            continue;
        };
        let point = unescape(point);
        let length = point.len();
        let is_nearer = best.as_ref().is_none_or(|(other, _)| length >= *other);
        if is_nearer && path.starts_with(Path::new(std::ffi::OsStr::from_bytes(&point))) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(&unescape(bytes)).into_owned();
            best = Some((length, Mount { kind: text(kind), source: text(source) }));
        }
    }
    best.map(|(_, mount)| mount)
}

/// `\040` is a space.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|it| std::str::from_utf8(it).ok());
        match octal.and_then(|it| u8::from_str_radix(it, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// What a mount stands for.
#[derive(Debug, PartialEq, Eq)]
enum Behind<'a> {
    Nothing,
    Host(String),
    Pool(String),
    Device(&'a str),
}

impl Mount {
    fn stands_for(&self) -> Behind<'_> {
        let host = |text: &str| Behind::Host(text.trim_matches(['[', ']']).to_ascii_lowercase());
        match self.kind.as_str() {
            // `server:/export`; an IPv6 address stands in brackets.
            "nfs" | "nfs4" | "ceph" => {
                self.source.split_once(":/").map_or(Behind::Nothing, |(server, _)| host(server))
            }
            "cifs" | "smb3" => match self.source.trim_start_matches('/').split('/').next() {
                Some(server) if !server.is_empty() => host(server),
                _ => Behind::Nothing,
            },
            "fuse.sshfs" => {
                let server = self.source.split_once(':').map(|(server, _)| server);
                server.map_or(Behind::Nothing, |it| host(it.rsplit('@').next().unwrap_or(it)))
            }
            "zfs" => Behind::Pool(format!("zfs:{}", self.source.split('/').next().unwrap_or_default())),
            _ if self.source.starts_with("/dev/") => Behind::Device(&self.source),
            _ => Behind::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A `/sys` with sda (sda1, sda2), sdb, a mapping dm-0 over sda2 and md0, which is over sdb, and a loop.
    fn machine(dir: &Path) -> Machine {
        let make = |path: &str| fs::create_dir_all(dir.join(path)).unwrap();
        for path in ["sda/sda1", "sda/sda2", "sdb", "dm-0/slaves", "md0/slaves", "loop0/loop", "dev"] {
            make(path);
        }
        for partition in ["sda/sda1", "sda/sda2"] {
            fs::write(dir.join(partition).join("partition"), "1\n").unwrap();
        }
        let link = |to: &str, from: &str| symlink(dir.join(to), dir.join(from)).unwrap();
        link("sda/sda2", "dm-0/slaves/sda2");
        link("md0", "dm-0/slaves/md0");
        link("sdb", "md0/slaves/sdb");
        fs::write(dir.join("image"), "").unwrap();
        fs::write(dir.join("loop0/loop/backing_file"), format!("{}\n", dir.join("image").display())).unwrap();
        for (number, device) in
            [("8:0", "sda"), ("8:1", "sda/sda1"), ("8:16", "sdb"), ("253:0", "dm-0"), ("7:0", "loop0")]
        {
            link(device, &format!("dev/{number}"));
        }
        Machine { mounts: dir.join("mounts"), devices: dir.join("dev") }
    }

    #[test]
    fn disks_are_found_below_partitions_mappings_and_loops() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(dir.path());
        let disks = |number: &str| {
            let mut out = Whereabouts::unknown();
            machine.add_disks(number, &mut out, MAX_DEPTH);
            out.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(disks("8:0"), ["disk (sda)"]);
        assert_eq!(disks("8:1"), ["disk (sda)"]);
        assert_eq!(disks("253:0"), ["disk (sda)", "disk (sdb)"]);
        assert_eq!(disks("9:9"), [""; 0]);
        // What is known of the file that the loop shows: its device at least.
        let device = number(fs::metadata(dir.path().join("image")).unwrap().dev());
        assert!(disks("7:0").contains(&format!("device ({device})")));
    }

    #[test]
    fn a_device_that_is_part_of_itself_ends() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(dir.path());
        symlink(dir.path().join("dm-0"), dir.path().join("md0/slaves/dm-0")).unwrap();
        machine.add_disks("253:0", &mut Whereabouts::unknown(), MAX_DEPTH);
    }

    #[test]
    fn mounts_are_found_and_read() {
        let table = b"22 1 0:21 / / rw - btrfs /dev/sda2 rw\n\
                      23 22 0:40 / /mnt rw shared:1 - nfs4 nas.local:/export rw\n\
                      24 22 0:41 / /mnt/a\\040b rw - zfs tank/backup rw\n\
                      25 22 0:42 / /mnt/a\\040b rw - cifs //Filer/share rw\n\
                      garbage\n\
                      26 22 0:43 / /ssh rw - fuse.sshfs me@host:/srv rw\n\
                      27 22 0:44 / /ram rw - tmpfs tmpfs rw\n";
        let cases = [
            ("/home/x", Behind::Device("/dev/sda2")),
            ("/mnt/x", Behind::Host("nas.local".into())),
            ("/mntx", Behind::Device("/dev/sda2")),
            ("/mnt/a b/c", Behind::Host("filer".into())),
            ("/ssh", Behind::Host("host".into())),
            ("/ram/x", Behind::Nothing),
        ];
        for (path, expected) in cases {
            assert_eq!(mount_of(table, Path::new(path)).unwrap().stands_for(), expected, "{path}");
        }
        let zfs = Mount { kind: "zfs".into(), source: "tank/backup".into() };
        assert_eq!(zfs.stands_for(), Behind::Pool("zfs:tank".into()));
    }

    #[test]
    fn two_directories_of_one_file_system_share_its_device() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        for path in [&one, &other] {
            fs::create_dir(path).unwrap();
        }
        let machine = Machine::default();
        let shared = machine.whereabouts(&one).unwrap().shared(&machine.whereabouts(&other).unwrap());
        assert_eq!(shared.len(), 1);
        assert_eq!(shared[0].kind, EvidenceKind::Device);
        assert!(machine.whereabouts(&dir.path().join("none")).is_err());
    }
}
