use super::*;
use crate::{KeyRef, SecretRef};

const FILE: &str = "/etc/snap/snap.toml";

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new(FILE)).unwrap_or_else(|error| panic!("{error}"))
}

fn problems(text: &str) -> Vec<String> {
    match Config::parse(text, Path::new(FILE)) {
        Err(ConfigError::Invalid { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{text}: {other:?}"),
    }
}

/// The example with its settings switched on: a `#` with nothing behind it is a setting. The two ways to name a
/// repository exclude one another, so each is read by itself.
fn switched_on() -> [String; 2] {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    let text: String = EXAMPLE.lines().map(|it| line(it) + "\n").collect();
    let (one, several) = text.split_once("# Or several copies").unwrap();
    [one.to_owned(), format!("# {several}")]
}

#[test]
fn the_example_parses_as_it_is_and_switched_on() {
    let nothing = parse(EXAMPLE);
    assert!(nothing.copies.is_empty() && nothing.datasets.is_empty() && nothing.keys.key.is_none());
    let [one, several] = switched_on();
    assert_eq!(parse(&one).copies[0].uri.expose(), "/mnt/disk/snap");
    let config = parse(&several);
    assert_eq!(config.copies.iter().map(|copy| copy.name.as_str()).collect::<Vec<_>>(), ["disk", "cloud"]);
    assert_eq!(config.datasets["home"].retention.as_ref().unwrap().monthly, 12);
}

/// The `snap.toml` of the contract.
const FULL: &str = r#"
[repository]
key-file = "/etc/snap/backup.key"
read-key-file = "read.key"

[[repository.copies]]
name = "disk"
uri = "../backup"
media = "disk"
location = "onsite"

[[repository.copies]]
name = "cloud"
uri = "s3://acme-backup/snap?region=eu-central-1"
credentials = { access-key-id = "env:BACKUP_KEY", secret-access-key = "file:s3" }
media = "object-store"
location = "aws:eu-central-1"
account = "backup-only"
immutable = true
retention = { daily = 30, monthly = 24 }
password-file = "cloud.pw"

[dataset.orders]
source = "postgres://me:hunter2@localhost/orders"
rpo = "5m"
rto = "1h"
schedule = "hourly"
pitr = true
retention = { hourly = 48, daily = 14 }

[dataset.orders.drill]
schedule = "weekly"
assert = [{ sql = "select count(*) from orders where token = 'hunter2'", at-least = 1000 }]
smoke = ["/usr/local/bin/app", "--healthcheck"]

[dataset.uploads]
paths = ["/srv/uploads", "more"]
exclude = ["*.tmp"]
exclude-file = ["excludes"]
exclude-if-present = [".nobackup"]
exclude-caches = true
one-file-system = true
tags = ["nightly"]

[app.shop]
datasets = ["orders", "uploads"]

[alerts]
webhook = "https://example.org/hunter2"
email = { to = "oncall@example.org", smtp = "smtp://me:hunter2@example.org" }
command = ["/usr/local/bin/page", "hunter2"]
ping = "https://example.org/hunter2"
"#;

#[test]
fn all_that_can_be_said_is_understood() {
    let config = parse(FULL);
    let [disk, cloud] = &config.copies[..] else { panic!("{:?}", config.copies) };
    // `..` is the file system's affair.
    assert_eq!(disk.uri.expose(), "/etc/snap/../backup");
    assert_eq!(disk.keys, config.keys);
    assert_eq!(config.keys.key, Some(KeyRef::File("/etc/snap/backup.key".into())));
    assert_eq!(config.keys.read_key_file.as_deref(), Some(Path::new("/etc/snap/read.key")));
    assert_eq!(cloud.keys.key, Some(KeyRef::PasswordFile("/etc/snap/cloud.pw".into())));
    assert_eq!(cloud.keys.read_key_file, None);
    let credentials: Vec<_> = cloud.credentials.iter().map(|(name, it)| (name, it.clone())).collect();
    assert_eq!(
        credentials,
        [
            ("AWS_ACCESS_KEY_ID", SecretRef::Env("BACKUP_KEY".into())),
            ("AWS_SECRET_ACCESS_KEY", SecretRef::File("/etc/snap/s3".into()))
        ]
    );
    assert!(cloud.immutable && !disk.immutable);
    assert_eq!(cloud.retention, Some(Retention { daily: 30, monthly: 24, ..Retention::default() }));
    let orders = config.dataset("orders").unwrap();
    assert_eq!((orders.rpo.unwrap().seconds(), orders.rto.unwrap().seconds()), (300, 3600));
    assert!(orders.pitr && orders.schedule.as_deref() == Some("hourly"));
    assert!(orders.drill.as_ref().unwrap().0.contains_key("assert"));
    let uploads = config.dataset("uploads").unwrap();
    let paths = DatasetSource::Paths(vec!["/srv/uploads".into(), "/etc/snap/more".into()]);
    assert_eq!(uploads.source, Some(paths));
    assert_eq!(uploads.exclude_files, [Path::new("/etc/snap/excludes")]);
    assert!(uploads.exclude_caches && uploads.one_file_system && uploads.tags == ["nightly"]);
    assert_eq!(config.apps["shop"].datasets, ["orders", "uploads"]);
    assert_eq!(config.alerts.command[0].expose(), "/usr/local/bin/page");
}

#[test]
fn no_secret_is_shown() {
    let text = FULL.replace("\"env:BACKUP_KEY\"", "\"hunter2\"");
    let text = text
        .replace("\"cloud.pw\"", "\"pw\"\npassword-command = \"x\"")
        .replace("password-file = \"pw\"\n", "");
    let text = text.replace("password-command = \"x\"", "password-command = [\"echo\", \"hunter2\"]");
    let config = parse(&text);
    let shown = config.shown();
    assert!(!shown.contains("hunter2") && !format!("{config:?}").contains("hunter2"), "{shown} {config:?}");
    for kept in [
        "secret-access-key = \"file:/etc/snap/s3\"",
        "postgres://me:[redacted]@localhost/orders",
        "echo",
        "[dataset.uploads]",
    ] {
        assert!(shown.contains(kept), "{kept}: {shown}");
    }
}

#[test]
fn errors_name_the_line_and_what_is_allowed() {
    let copies = "[[repository.copies]]\nname = \"a\"\nuri = \"/a\"\n[[repository.copies]]\n";
    let cases: &[(&str, usize, &str)] = &[
        ("[repository\n", 1, "expected `]`"),
        ("[repositry]\n", 1, "did you mean `repository`?; known are repository, dataset, app, alerts"),
        ("\n[repository]\nkeyfile = \"x\"\n", 3, "unknown key `keyfile`; did you mean `key-file`?"),
        ("[repository]\nuri = 3\n", 2, "an integer is here, expected a string"),
        ("[repository]\nuri = \"\"\n", 2, "an empty path"),
        ("[repository]\nuri = \"~/x\"\n", 2, "not expanded"),
        ("[repository]\nuri = \"s4://b/x\"\n", 2, "did you mean `s3`?"),
        ("[repository]\nuri = \"/a\"\nuri = \"/b\"\n", 3, "`uri` is given twice"),
        ("[repository]\nuri = \"/a\"\npath = \"/b\"\n", 3, "give one of them"),
        ("[repository]\nmedia = \"disk\"\n", 2, "add uri or path"),
        ("[repository]\nkey-file = \"a\"\npassword-file = \"b\"\n", 3, "key-file and password-file"),
        (
            "[repository]\nuri = \"/a\"\n[[repository.copies]]\nname = \"b\"\nuri = \"/b\"\n",
            2,
            "belongs to one of",
        ),
        ("[[repository.copies]]\nuri = \"/a\"\n", 1, "`name` is missing"),
        ("[[repository.copies]]\nname = \"a\"\n", 1, "add uri or path"),
        ("[[repository.copies]]\nname = \"A b\"\nuri = \"/a\"\n", 2, "a name is a-z"),
        (&format!("{copies}name = \"a\"\nuri = \"/b\"\n"), 5, "two copies called `a`"),
        (&format!("{copies}name = \"b\"\nuri = \"file:///a/\"\n"), 6, "in the same place"),
        (&format!("{copies}name = \"b\"\npath = \"/a/.\"\n"), 6, "in the same place"),
        (
            "[repository]\nuri = \"s3://b\"\ncredentials = { key-id = \"x\" }\n",
            3,
            "unknown credential of s3:// `key-id`; did you mean `access-key-id`?",
        ),
        ("[repository]\nuri = \"/b\"\ncredentials = { key = \"x\" }\n", 3, "takes no credentials"),
        (
            "[repository]\nuri = \"s3://b\"\ncredentials = { access-key-id = \"env:\" }\n",
            3,
            "stands a variable",
        ),
        ("[dataset.Orders]\n", 1, "a dataset name is"),
        ("[dataset.latest]\n", 1, "a dataset name is"),
        ("[dataset.deadbeef]\n", 1, "a dataset name is"),
        ("[dataset.a]\nsource = \"/a\"\npaths = [\"/b\"]\n", 2, "source and paths"),
        ("[dataset.a]\npaths = []\n", 2, "paths is empty"),
        ("[dataset.a]\nrpo = \"5\"\n", 2, "\"5\": a duration is numbers with units"),
        ("[dataset.a]\nretention = {}\n", 2, "keeps nothing"),
        ("[dataset.a]\nretention = { daily = 0 }\n", 2, "keeps nothing"),
        ("[dataset.a]\nretention = { daily = -1 }\n", 2, "not negative"),
        ("[dataset.a]\nretention = { keep-daily = 1 }\n", 2, "did you mean `daily`?"),
        ("[dataset.a]\nexcludes = [\"x\"]\n", 2, "did you mean `exclude`?"),
        ("[dataset.orders]\n[app.shop]\ndatasets = [\"order\"]\n", 3, "did you mean `orders`?"),
        ("[app.shop]\ndatasets = []\n", 2, "without datasets"),
        ("[alerts]\nslack = \"x\"\n", 2, "known are webhook, email, command, ping"),
    ];
    for (text, line, message) in cases {
        let found = problems(text);
        let expected = format!("line {line}: ");
        assert!(found[0].starts_with(&expected) && found[0].contains(message), "{text}\n{found:?}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_and_in_order() {
    let text = "[dataset.Z]\nretention = {}\n[dataset.a]\nsource = \"\"\n[app.x]\ndatasets = [\"b\"]\n";
    let lines: Vec<_> = problems(text).iter().map(|it| it[..6].to_owned()).collect();
    assert_eq!(lines, ["line 1", "line 2", "line 4", "line 6"]);
    let error = Config::parse(text, Path::new(FILE)).unwrap_err();
    assert!(error.to_string().contains("\n/etc/snap/snap.toml:2: "), "{error}");
}

const GUIDE: &str = include_str!("../../../../docs/guide/config.md");

#[test]
fn the_example_of_the_guide_parses() {
    let blocks: Vec<_> =
        GUIDE.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 1);
    let config = parse(blocks[0]);
    assert_eq!((config.copies.len(), config.datasets.len(), config.apps.len()), (2, 2, 1));
}

#[test]
fn the_guide_has_every_key_and_no_other() {
    // The parser itself says what it knows.
    let known = |table: &str| -> Vec<String> {
        let found = problems(&format!("{table}\nno-such-key = 1\n"));
        let list = found[0].split("; known are ").nth(1).unwrap_or_else(|| panic!("{found:?}"));
        list.split(", ").map(str::to_owned).collect()
    };
    let section = |heading: &str| {
        let text = GUIDE.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
        // The first table of the section: the names in its first column.
        let rows = text.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
        let rows = rows.take_while(|line| line.starts_with('|'));
        let first = |row: &str| row.split('|').nth(1).unwrap_or_default().to_owned();
        rows.flat_map(|row| first(row).split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
            .collect::<std::collections::BTreeSet<_>>()
    };
    let all = |tables: &[&str]| tables.iter().flat_map(|it| known(it)).collect();
    assert_eq!(
        section("Repository and copies"),
        all(&["[repository]", "[[repository.copies]]\nname = \"a\""])
    );
    assert_eq!(section("Datasets"), all(&["[dataset.a]"]));
    assert_eq!(section("Applications and alerts"), all(&["[app.a]\ndatasets = []", "[alerts]"]));
    for key in known("[dataset.a]\n[dataset.a.retention]") {
        assert!(GUIDE.contains(&format!("`{key}`")), "{key}");
    }
    for (scheme, names) in crate::secret::KINDS {
        let row = GUIDE.lines().find(|line| line.starts_with(&format!("| `{scheme}://` |"))).unwrap();
        assert!(names.iter().all(|(name, _)| row.contains(&format!("`{name}`"))), "{scheme}");
    }
}

#[test]
fn errors_repeat_no_value() {
    for text in [
        "[repository]\nuri = \"/a\"\ncredentials = \"hunter2\"\n",
        "[repository]\ncopies = \"hunter2, expected x\"\n",
        "[repository]\nuri = \"webdav://me:hunter2@h:99999/\"\n",
        "[repository]\nuri = \"hunter2\\q\"\n",
        "[alerts]\nwebhook = hunter2\n",
        "[alerts]\nemail = { to = \"x\", smtp = [\"hunter2\"] }\n",
    ] {
        let error = Config::parse(text, Path::new(FILE)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}
