//! Everything that nobody expects of a repository, as a table: `check` names it, `repair` handles it, and what was not lost
//! comes back to the byte.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::lab::{Lab, Ran, files_below, noise};

/// What is done to the directory of a repository.
type Harm = fn(&Prepared);

struct Case {
    name: &'static str,
    harm: Harm,
    /// Codes of the findings of `check --read-data`, each once; and its exit code.
    codes: &'static [&'static str],
    check: i32,
    /// What its summary names besides, as no damage.
    notes: &'static [&'static str],
    /// What `repair` calls it, each once.
    whats: &'static [&'static str],
    /// How the repair ends: 4 if something is lost for good.
    repair: i32,
    /// The newest snapshot is whole afterwards.
    whole: bool,
}

const UNHARMED: Case =
    Case { name: "", harm: |_| {}, codes: &[], check: 0, notes: &[], whats: &[], repair: 0, whole: true };

const CASES: &[Case] = &[
    Case { name: "nothing at all", ..UNHARMED },
    Case {
        name: "the index is lost",
        harm: |at| at.all("index").iter().for_each(|path| fs::remove_file(path).unwrap()),
        codes: &["unindexed"],
        check: 4,
        whats: &["unindexed-pack"],
        ..UNHARMED
    },
    Case {
        name: "the directory of the index is lost",
        harm: |at| fs::remove_dir_all(at.repo.join("index")).unwrap(),
        codes: &["unindexed"],
        check: 4,
        whats: &["unindexed-pack"],
        ..UNHARMED
    },
    Case {
        name: "one index object is lost",
        harm: |at| fs::remove_file(&at.all("index")[0]).unwrap(),
        codes: &["unindexed"],
        check: 4,
        whats: &["unindexed-pack"],
        ..UNHARMED
    },
    Case {
        name: "an index object is rotten",
        harm: |at| flip(&at.all("index")[0], 60),
        codes: &["corrupt", "unindexed"],
        check: 4,
        whats: &["damaged-index", "unindexed-pack"],
        ..UNHARMED
    },
    Case {
        name: "an index object is empty",
        harm: |at| fs::write(&at.all("index")[1], "").unwrap(),
        codes: &["corrupt", "unindexed"],
        check: 4,
        whats: &["damaged-index", "unindexed-pack"],
        ..UNHARMED
    },
    Case {
        name: "config is lost",
        harm: |at| fs::remove_file(at.repo.join("config")).unwrap(),
        codes: &["missing"],
        check: 4,
        whats: &["config"],
        ..UNHARMED
    },
    Case {
        name: "the twin of config is cut short",
        harm: |at| cut(&at.repo.join("config.bak"), 40),
        codes: &["corrupt"],
        check: 4,
        whats: &["config"],
        ..UNHARMED
    },
    Case {
        name: "both configs are lost",
        harm: |at| {
            fs::remove_file(at.repo.join("config")).unwrap();
            fs::remove_file(at.repo.join("config.bak")).unwrap();
        },
        codes: &["missing"],
        check: 4,
        whats: &["config"],
        ..UNHARMED
    },
    Case {
        name: "both configs are empty",
        harm: |at| {
            fs::write(at.repo.join("config"), "").unwrap();
            fs::write(at.repo.join("config.bak"), "").unwrap();
        },
        codes: &["corrupt"],
        check: 4,
        whats: &["config"],
        ..UNHARMED
    },
    Case {
        name: "the first epoch is lost",
        harm: |at| fs::remove_file(&at.epochs[0]).unwrap(),
        codes: &["missing"],
        check: 4,
        whats: &["epoch"],
        ..UNHARMED
    },
    Case {
        name: "the newest epoch is rotten",
        harm: |at| flip(&at.epochs[2], 100),
        codes: &["corrupt", "forged", "missing"],
        check: 4,
        whats: &["epoch"],
        ..UNHARMED
    },
    Case {
        name: "an epoch was not written to its end",
        harm: |at| {
            let bytes = fs::read(&at.epochs[1]).unwrap();
            fs::write(at.repo.join("epochs").join("ab".repeat(32)), &bytes[..90]).unwrap();
        },
        codes: &["corrupt"],
        check: 4,
        whats: &["stray-epoch"],
        ..UNHARMED
    },
    Case {
        name: "a run died before its index",
        harm: |at| {
            for area in ["snapshots", "index"] {
                at.of_run(2, area).iter().for_each(|path| fs::remove_file(path).unwrap());
            }
        },
        notes: &["leftover_packs"],
        whats: &["unindexed-pack"],
        whole: false,
        ..UNHARMED
    },
    Case {
        name: "runs died while they wrote",
        harm: |at| {
            let pack = fs::read(&at.all("packs")[0]).unwrap();
            let stray = |area: &str, digits: &str| {
                let name = digits.repeat(32);
                let dir = at.repo.join(area);
                let dir = if area == "packs" { dir.join(digits) } else { dir };
                fs::create_dir_all(&dir).unwrap();
                dir.join(name)
            };
            fs::write(stray("packs", "aa"), &pack[..pack.len() / 2]).unwrap();
            fs::write(stray("packs", "ab"), "").unwrap();
            fs::write(stray("index", "ac"), "SNAPSBOX").unwrap();
            fs::write(stray("snapshots", "ad"), "").unwrap();
            fs::write(stray("records", "ae"), "SNAP").unwrap();
            fs::write(stray("marks", "af"), "junk").unwrap();
        },
        codes: &["corrupt"],
        check: 4,
        whats: &["damaged-index", "damaged-mark", "damaged-record", "damaged-snapshot", "half-written-pack"],
        // What the snapshot and the record said nobody knows.
        repair: 4,
        ..UNHARMED
    },
    Case {
        name: "a temporary file of long ago, and files that are none of the repository's",
        harm: |at| {
            fs::create_dir_all(at.repo.join("tmp")).unwrap();
            fs::write(at.repo.join("tmp/old"), "half").unwrap();
            fs::write(at.repo.join("packs/README"), "hands off").unwrap();
            fs::write(at.repo.join("lost+found"), "").unwrap();
        },
        ..UNHARMED
    },
    Case {
        name: "blobs are stored twice",
        harm: |at| {
            let saved = [at.save("index"), at.save("packs")].concat();
            saved.iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
            at.lab.run_with_key("elsewhere", "web.key", &["backup", "source", "--host", "twice"]).summary(0);
            saved.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        },
        notes: &["duplicate_blobs"],
        ..UNHARMED
    },
    Case {
        name: "a snapshot is rotten",
        harm: |at| flip(&at.snapshot(1), 200),
        codes: &["corrupt"],
        check: 4,
        whats: &["damaged-snapshot"],
        repair: 4,
        ..UNHARMED
    },
    Case {
        name: "a snapshot in the middle of a series is lost",
        harm: |at| fs::remove_file(at.snapshot(1)).unwrap(),
        codes: &["missing"],
        check: 4,
        whats: &["lost-snapshot"],
        repair: 4,
        ..UNHARMED
    },
    Case {
        name: "a snapshot that nobody known has signed",
        harm: |at| {
            let foreign = files_below(&at.lab.path("stranger/snapshots")).remove(0);
            fs::copy(&foreign, at.repo.join("snapshots").join(foreign.file_name().unwrap())).unwrap();
        },
        codes: &["forged"],
        check: 4,
        whats: &["damaged-snapshot"],
        repair: 4,
        ..UNHARMED
    },
    Case {
        name: "a pack has another's name",
        harm: |at| {
            fs::copy(at.data_pack(2), at.data_pack(1)).unwrap();
        },
        codes: &["misnamed"],
        check: 4,
        whats: &["damaged-pack", "lost-blobs"],
        repair: 4,
        ..UNHARMED
    },
    Case {
        name: "a pack is there twice, once under a wrong name",
        harm: |at| {
            let dir = at.repo.join("packs/aa");
            fs::create_dir_all(&dir).unwrap();
            fs::copy(at.data_pack(2), dir.join("aa".repeat(32))).unwrap();
        },
        codes: &["misnamed"],
        check: 4,
        whats: &["damaged-pack"],
        ..UNHARMED
    },
    Case {
        name: "a pack of data is lost",
        harm: |at| fs::remove_file(at.data_pack(2)).unwrap(),
        codes: &["missing"],
        check: 4,
        whats: &["lost-blobs", "missing-pack"],
        repair: 4,
        whole: false,
        ..UNHARMED
    },
    Case {
        name: "a pack is longer than it was",
        harm: |at| {
            let path = &at.data_pack(2);
            let bytes = [fs::read(path).unwrap(), vec![7; 1000]].concat();
            fs::write(path, bytes).unwrap();
        },
        codes: &["corrupt"],
        check: 4,
        // All of it is there still.
        whats: &["damaged-pack"],
        ..UNHARMED
    },
    Case {
        name: "the header of a pack is rotten",
        harm: |at| {
            let path = &at.data_pack(2);
            flip(path, fs::read(path).unwrap().len() - 60);
        },
        codes: &["corrupt"],
        check: 4,
        whats: &["damaged-pack"],
        ..UNHARMED
    },
    Case {
        name: "the header of a pack is rotten, and the index is lost",
        harm: |at| {
            let path = &at.data_pack(2);
            flip(path, fs::read(path).unwrap().len() - 60);
            at.all("index").iter().for_each(|path| fs::remove_file(path).unwrap());
        },
        codes: &["corrupt", "dangling", "unindexed"],
        check: 4,
        whats: &["half-written-pack", "lost-blobs", "unindexed-pack"],
        repair: 4,
        whole: false,
        ..UNHARMED
    },
    Case {
        name: "a pack of trees is cut short",
        harm: |at| cut(&at.tree_pack(2), 100),
        codes: &["corrupt"],
        check: 4,
        whats: &["damaged-pack", "lost-blobs"],
        repair: 4,
        whole: false,
        ..UNHARMED
    },
    Case {
        name: "marks and records are lost",
        harm: |at| {
            let _ = fs::remove_dir_all(at.repo.join("marks"));
            let _ = fs::remove_dir_all(at.repo.join("records"));
        },
        ..UNHARMED
    },
];

/// A repository that is harmed again and again, each time as it was.
struct Prepared {
    lab: Lab,
    repo: PathBuf,
    /// The oldest first.
    epochs: Vec<PathBuf>,
    /// By run of the owner, what was new then.
    runs: Vec<BTreeSet<PathBuf>>,
}

impl Prepared {
    /// Three epochs, three runs of an owner, one of a machine that only writes.
    fn new() -> Self {
        let lab = Lab::new();
        let repo = lab.path("repo");
        let mut seen = BTreeSet::new();
        let mut new = || -> BTreeSet<PathBuf> {
            files_below(&repo).into_iter().filter(|path| seen.insert(path.clone())).collect()
        };
        let key = lab.path("web.key");
        let mut epochs = Vec::new();
        for args in [
            &["init"][..],
            &["key", "add", "--role", "backup", "--new-key-file", key.to_str().unwrap()],
            &["key", "rotate"],
        ] {
            lab.run("host", args).summary(0);
            epochs.extend(new().into_iter().filter(|path| path.starts_with(repo.join("epochs"))));
        }
        fs::create_dir_all(lab.path("source/many")).unwrap();
        for number in 0..20 {
            fs::write(lab.path(&format!("source/many/{number}")), format!("{number}\n").repeat(100)).unwrap();
        }
        lab.run_with_key("web", "web.key", &["backup", "source", "--host", "web"]).summary(0);
        new();
        let mut runs = Vec::new();
        for number in 0..3 {
            fs::write(lab.path("source/noise"), noise(number, 400_000)).unwrap();
            fs::write(lab.path("source/text"), format!("version {number}\n")).unwrap();
            lab.run("host", &["backup", "source", "--host", "box"]).summary(0);
            runs.push(new());
        }
        let other = lab.path("stranger");
        let stranger = |args: &[&str]| {
            let mut command = lab.command("stranger-home", args);
            command.env("SNAP_REPO", &other).env("SNAP_KEY_FILE", lab.path("stranger.key"));
            crate::lab::finish(command.arg("--json").output().unwrap()).summary(0);
        };
        stranger(&["init"]);
        stranger(&["backup", "source/many"]);
        Self { lab, repo, epochs, runs }
    }

    fn all(&self, area: &str) -> Vec<PathBuf> {
        let mut out = files_below(&self.repo.join(area));
        out.sort();
        out
    }

    /// What a run of the owner has put into an area; the largest last.
    fn of_run(&self, run: usize, area: &str) -> Vec<PathBuf> {
        let within = |path: &&PathBuf| path.starts_with(self.repo.join(area));
        let mut out: Vec<PathBuf> = self.runs[run].iter().filter(within).cloned().collect();
        out.sort_by_key(|path| fs::metadata(path).map_or(0, |meta| meta.len()));
        out
    }

    fn data_pack(&self, run: usize) -> PathBuf {
        self.of_run(run, "packs").pop().unwrap()
    }

    fn tree_pack(&self, run: usize) -> PathBuf {
        self.of_run(run, "packs").remove(0)
    }

    fn snapshot(&self, run: usize) -> PathBuf {
        self.of_run(run, "snapshots").remove(0)
    }

    fn save(&self, area: &str) -> Vec<(PathBuf, Vec<u8>)> {
        self.all(area).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    /// Every file of the repository and of the machines' caches.
    fn state(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let dirs = ["repo", "host", "web", "stranger"].map(|name| files_below(&self.lab.path(name)));
        dirs.concat().into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    fn put_back(&self, state: &[(PathBuf, Vec<u8>)]) {
        for name in ["repo", "host", "web", "stranger", "elsewhere", "restored"] {
            let _ = fs::remove_dir_all(self.lab.path(name));
        }
        for (path, bytes) in state {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = files_below(&self.repo);
        files.sort();
        files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, length: usize) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..length]).unwrap();
}

/// A field of all events of a kind, each value once.
fn each<'a>(ran: &'a Ran, event: &str, field: &str) -> Vec<&'a str> {
    let lines = ran.lines.iter().filter(|line| line["event"] == event);
    let all: BTreeSet<&str> = lines.filter_map(|line| line[field].as_str()).collect();
    all.into_iter().collect()
}

/// What is not as the table says.
fn differences(case: &Case, prepared: &Prepared) -> Vec<String> {
    let lab = &prepared.lab;
    let mut out = Vec::new();
    let mut expect = |what: &str, got: (i32, Vec<&str>), code: i32, all: &[&str]| {
        if got != (code, all.to_vec()) {
            out.push(format!("{}: {what}: {got:?}, not {code} {all:?}", case.name));
        }
    };
    let checked = lab.run("host", &["check", "--read-data"]);
    expect("check", (checked.code, each(&checked, "finding", "code")), case.check, case.codes);
    if let Some(summary) = checked.lines.last().filter(|line| line["event"] == "summary") {
        let is_said = |note: &&str| match &summary[*note] {
            serde_json::Value::Array(names) => !names.is_empty(),
            number => number.as_u64().is_some_and(|number| number > 0),
        };
        let notes = ["leftover_packs", "duplicate_blobs"].into_iter().filter(is_said);
        expect("notes", (0, notes.collect()), 0, case.notes);
    }
    let before = prepared.files();
    let rehearsal = lab.run("host", &["repair", "--dry-run"]);
    let code = if case.whats.is_empty() { 0 } else { 4 };
    expect("rehearsal", (rehearsal.code, each(&rehearsal, "repair", "what")), code, case.whats);
    assert!(prepared.files() == before, "{}: a rehearsal changes nothing", case.name);
    let repaired = lab.run("host", &["repair"]);
    expect("repair", (repaired.code, each(&repaired, "repair", "what")), case.repair, case.whats);
    let after = lab.run("host", &["check", "--read-data"]);
    expect("check after it", (after.code, each(&after, "finding", "object")), 0, &[]);
    let again = lab.run("host", &["repair"]);
    expect("once is enough", (again.code, each(&again, "repair", "what")), 0, &[]);

    // The newest is the source, where nothing of it is lost.
    let target = lab.path("restored");
    let source = format!("latest:{}", lab.path("source").display());
    let args = ["restore", &source, "--host", "box", "--target", target.to_str().unwrap()];
    let restored = lab.run("host", &args);
    let is_same = files_below(&lab.path("source")).iter().all(|path| {
        let restored = target.join(path.strip_prefix(lab.path("source")).unwrap());
        fs::read(restored).is_ok_and(|bytes| bytes == fs::read(path).unwrap())
    });
    let is_whole = is_same && restored.code == 0;
    expect("whole", (i32::from(is_whole), Vec::new()), i32::from(case.whole), &[]);
    // And life goes on.
    for args in [&["backup", "source", "--host", "box"][..], &["prune", "--grace", "0", "--max-unused", "0"]]
    {
        let ran = lab.run("host", args);
        expect(args[0], (ran.code, each(&ran, "error", "message")), 0, &[]);
        let after = lab.run("host", &["check", "--read-data"]);
        expect("check in the end", (after.code, each(&after, "finding", "object")), 0, &[]);
    }
    out
}

#[test]
fn check_names_it_and_repair_handles_it() {
    let prepared = Prepared::new();
    let state = prepared.state();
    let wrong: Vec<String> = CASES
        .iter()
        .flat_map(|case| {
            prepared.put_back(&state);
            (case.harm)(&prepared);
            differences(case, &prepared)
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
