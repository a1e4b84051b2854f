use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;
use snap_engine::{BackupOptions, BackupReport, BackupSource, backup_copies};
use snap_ops::{Config, DatasetSource, did_you_mean};
use snap_source::FilterOptions;

use super::database;
use super::init::{fields, tell_created};
use super::stream::{CommandOutput, Stdin, refuse_no_command};
use super::{Done, Outcome};
use crate::app::App;
use crate::args::BackupArgs;
use crate::args::values::{self, absolute};
use crate::copies::{self, Copies};
use crate::exit::{Exit, Failure};
use crate::keys::KeySource;
use crate::render::{CliObserver, json, text};
use crate::repo::{self, Opened, Place};
use crate::{locks, select, system};

pub fn run(app: &App, mut args: BackupArgs) -> Outcome {
    let began = Instant::now();
    adopt_outer_flags(app, &mut args)?;
    adopt_configured(app, &mut args)?;
    validate(app, &args)?;
    let paths = paths(&mut args)?;
    let mut copies = open(app, &args)?;
    for opened in &copies.opened {
        opened.repository.keyring().require_writer("backup")?;
    }
    if copies.first().is_default {
        warn_of_same_disk(app, copies.first(), &paths);
    }
    let time = system::now();
    let (dataset, host) = (dataset(app, &args), args.host.clone().unwrap_or_else(system::host_name));
    let dry_run = args.dry_run;
    let options = BackupOptions {
        dataset: dataset.clone(),
        host: host.clone(),
        tags: distinct(&args.tag),
        label: args.label.clone(),
        time,
        level: args.compression,
        readers: args.readers,
        skip_if_unchanged: args.skip_if_unchanged,
        dry_run,
        source: source(app, args, paths, &copies)?,
    };
    let observer = CliObserver::new(app);
    let repositories: Vec<_> = copies.opened.iter().map(|opened| opened.repository.clone()).collect();
    let cache = copies.first().cache.clone();
    let report =
        app.engine(&observer, |context| backup_copies(&repositories, cache.as_ref(), options, context))?;
    tell(app, &report, dry_run, began);
    let states = copies.tell(app, report.lagging.clone(), report.snapshot.is_some());
    let mut summary = summary(&report, &dataset, &host, states);
    summary.insert("seconds".to_owned(), began.elapsed().as_secs_f64().into());
    summary.insert("dry_run".to_owned(), dry_run.into());
    let locks = if dry_run { serde_json::Value::Null } else { extend_locks(app, &copies) };
    summary.insert("locks".to_owned(), locks);
    let is_incomplete = report.summary.unreadable > 0 || !report.missing_sources.is_empty();
    Ok(Done { exit: if is_incomplete { Exit::Incomplete } else { Exit::Done }, summary })
}

/// The field of the summary; of several copies, those that are locked by name.
fn extend_locks(app: &App, copies: &Copies) -> serde_json::Value {
    if let [only] = copies.opened.as_slice() {
        return locks::extend_after_run(app, only);
    }
    let of_each = copies.opened.iter().map(|it| (it.copy.name.clone(), locks::extend_after_run(app, it)));
    let locked: json::Object = of_each.filter(|(_, locks)| !locks.is_null()).collect();
    if locked.is_empty() { serde_json::Value::Null } else { locked.into() }
}

/// `--host`, `--dataset` and `--tag` before the command mean here what they mean behind it.
fn adopt_outer_flags(app: &App, args: &mut BackupArgs) -> Result<(), Failure> {
    let filter = &app.filter;
    if !filter.path.is_empty() || filter.host.len() > 1 || filter.dataset.len() > 1 {
        return Err(Failure::usage(
            "--path, and several --host or --dataset, filter snapshots: backup makes one",
        )
        .hint("name what to back up behind `backup`"));
    }
    args.tag.extend_from_slice(&filter.tag);
    if args.host.is_none() {
        args.host = filter.host.first().cloned();
    }
    if let (None, Some(dataset)) = (&args.dataset, filter.dataset.first()) {
        args.dataset = Some(values::dataset(dataset).map_err(Failure::usage)?);
    }
    Ok(())
}

/// What `snap.toml` says of the dataset: what it leaves out and its tags in any case, its paths unless others are named.
fn adopt_configured(app: &App, args: &mut BackupArgs) -> Result<(), Failure> {
    let Some(name) = &args.dataset else { return Ok(()) };
    let Some(config) = app.config()? else { return Ok(()) };
    let is_stream = args.stdin.is_some() || args.command.is_some() || args.source.is_some();
    let lists = args.files_from.len() + args.files_from0.len();
    let names_nothing = args.paths.is_empty() && args.argv.is_empty() && lists == 0 && !is_stream;
    let Some(dataset) = config.dataset(name) else {
        if names_nothing {
            return Err(unknown_dataset(name, config));
        }
        return Ok(());
    };
    args.tag.splice(..0, dataset.tags.iter().cloned());
    if is_stream {
        return Ok(());
    }
    // The flags come last, so that `--exclude '!keep'` takes back what the file leaves out.
    args.exclude.splice(..0, dataset.exclude.iter().cloned());
    args.exclude_file.splice(..0, dataset.exclude_files.iter().cloned());
    args.exclude_if_present.splice(..0, dataset.exclude_if_present.iter().cloned());
    args.exclude_caches |= dataset.exclude_caches;
    args.one_file_system |= dataset.one_file_system;
    match &dataset.source {
        _ if !names_nothing => {}
        Some(DatasetSource::Paths(paths)) => args.paths.clone_from(paths),
        Some(DatasetSource::Uri(uri)) if database::is_database(uri.expose()) => {
            args.source = Some(uri.expose().to_owned());
        }
        Some(DatasetSource::Uri(uri)) => {
            return Err(Failure::usage(format!("the source of {name}, {uri}, cannot be backed up yet"))
                .hint(format!(
                    "only files and directories can, and {}; for a dump: --command NAME -- …",
                    database::KINDS
                )));
        }
        None => {
            return Err(Failure::usage(format!("the dataset {name} is configured without a source"))
                .hint(format!("add source or paths to it in {}, or name paths", config.file.display())));
        }
    }
    Ok(())
}

fn unknown_dataset(name: &str, config: &Config) -> Failure {
    let failure = Failure::usage(format!("no paths are named, and {name} is no dataset of snap.toml"));
    let known: Vec<&str> = config.datasets.keys().map(String::as_str).collect();
    match (did_you_mean(name, known.iter().copied()), &known[..]) {
        (Some(meant), _) => failure.hint(format!("did you mean {meant}?")),
        (None, []) => failure.hint(format!("{} has no [dataset.…]", config.file.display())),
        (None, known) => failure.hint(format!("there are {}", known.join(", "))),
    }
}

fn validate(app: &App, args: &BackupArgs) -> Result<(), Failure> {
    if args.command.is_some() {
        refuse_no_command(&args.argv)?;
    }
    for name in [&args.stdin, &args.command].into_iter().flatten() {
        if !values::is_file_name(name) {
            return Err(Failure::usage(format!("{name:?} is not the name of a file"))
                .hint("give one without a slash, such as shop.sql"));
        }
    }
    if let Some(uri) = args.source.as_ref().filter(|uri| !database::is_database(uri)) {
        let uri = snap_backend::redact(uri);
        return Err(Failure::usage(format!("{uri} is no source that can be backed up")).hint(format!(
            "--source takes {}; files and directories are named without it",
            database::KINDS
        )));
    }
    if let Some(host) = &args.host
        && (host.is_empty() || host.chars().any(char::is_control))
    {
        return Err(
            Failure::usage("the host name is empty or has control characters").hint("leave --host out")
        );
    }
    let is_stdin = |path: &PathBuf| path.as_os_str() == "-";
    let readers = usize::from(args.stdin.is_some())
        + args.files_from.iter().chain(&args.files_from0).filter(|path| is_stdin(path)).count()
        + usize::from(KeySource::choose(&app.global, &app.env)?.is_some_and(|source| source.reads_stdin()));
    if readers > 1 {
        return Err(Failure::usage("standard input can be read for one purpose only")
            .hint("put the others into files"));
    }
    if let Some(path) = args.as_path.as_ref().filter(|path| !path.is_absolute()) {
        return Err(Failure::usage(format!("--as-path {} is not absolute", path.display()))
            .hint("begin it with a slash"));
    }
    Ok(())
}

/// All paths that are given, wherever they stand.
fn paths(args: &mut BackupArgs) -> Result<Vec<PathBuf>, Failure> {
    if args.stdin.is_some() || args.command.is_some() || args.source.is_some() {
        if args.stdin.is_some() && !args.argv.is_empty() {
            return Err(Failure::usage("--stdin takes no command and no paths")
                .hint("for a command: --command NAME -- …"));
        }
        return Ok(Vec::new());
    }
    let mut paths = std::mem::take(&mut args.paths);
    // Behind `--` may stand paths that begin with a dash.
    paths.extend(std::mem::take(&mut args.argv).into_iter().map(PathBuf::from));
    for file in &args.files_from {
        let is_path = |line: &&[u8]| !line.is_empty() && !line.starts_with(b"#");
        let bytes = read_list(file)?;
        let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        paths.extend(lines.filter(is_path).map(|line| PathBuf::from(OsStr::from_bytes(line))));
    }
    for file in &args.files_from0 {
        let bytes = read_list(file)?;
        let names = bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        paths.extend(names.map(|name| PathBuf::from(std::ffi::OsString::from_vec(name.to_vec()))));
    }
    if paths.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(Failure::usage("an empty path").hint("the working directory is ."));
    }
    if paths.is_empty() {
        return Err(Failure::usage("nothing to back up is named")
            .hint("name files or directories, or use --stdin, --command or --files-from"));
    }
    if args.as_path.is_some() && paths.len() > 1 {
        return Err(Failure::usage("--as-path is for a single path").hint("back the paths up one by one"));
    }
    Ok(paths)
}

fn read_list(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::io(format!("cannot read the list of paths {}", path.display()), &error);
    if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(failed)?;
        return Ok(bytes);
    }
    std::fs::read(path).map_err(failed)
}

/// The copies; the embedded default is made at first use, but not by a rehearsal.
fn open(app: &App, args: &BackupArgs) -> Result<Copies, Failure> {
    if args.dry_run || Place::all(app)?.len() > 1 {
        return copies::open(app, repo::Purpose::Backup, args.dry_run);
    }
    let (opened, created) = repo::open_or_create_default(app)?;
    opened.require_current_keys()?;
    if let Some(created) = created {
        tell_created(&app.out, &created);
        let mut event = fields(&created);
        event.insert("event".to_owned(), "created".into());
        app.out.event(event);
    }
    Ok(Copies::of_one(opened))
}

fn warn_of_same_disk(app: &App, opened: &Opened, paths: &[PathBuf]) {
    let device = |path: &Path| system::identity(path).map(|(device, _)| device);
    let Some(root) = opened.repository.backend().local_root() else { return };
    let own = device(root);
    if own.is_some() && paths.iter().any(|path| device(path) == own) {
        app.out.note(&format!(
            "the repository {} lies on the same disk as the source: it does not survive the loss of that disk (--repo \
             names another place)",
            root.display()
        ));
    }
}

fn dataset(app: &App, args: &BackupArgs) -> String {
    let of_stream =
        || args.stdin.as_ref().or(args.command.as_ref()).map(|name| values::dataset_of_stream(name));
    let of_database = || database::dataset(app, args.source.as_ref()?);
    args.dataset.clone().or_else(of_stream).or_else(of_database).unwrap_or_else(|| "files".to_owned())
}

fn distinct(tags: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for tag in tags {
        if !out.contains(tag) {
            out.push(tag.clone());
        }
    }
    out
}

fn source(
    app: &App,
    args: BackupArgs,
    paths: Vec<PathBuf>,
    copies: &Copies,
) -> Result<BackupSource, Failure> {
    if let Some(name) = args.stdin {
        return Ok(BackupSource::Stream { name, stream: Box::new(Stdin::open(&app.signals)?) });
    }
    if let Some(name) = args.command {
        return Ok(BackupSource::Stream {
            name,
            stream: Box::new(CommandOutput::start(&args.argv, &app.signals)?),
        });
    }
    if let Some(uri) = args.source {
        return database::source(app, &uri);
    }
    if let Some(path) = paths.iter().find(|path| snap_mount::is_in_a_mount(path)) {
        return Err(Failure::usage(format!(
            "{} is what a `snap mount` shows",
            text::printable(path.as_os_str().as_bytes())
        ))
        .hint("snapshots are not backed up again; name the source itself"));
    }
    let working_dir = select::working_dir()?;
    let root = |path: &PathBuf| PathBuf::from(std::ffi::OsString::from_vec(absolute(path, &working_dir)));
    let filter = FilterOptions {
        roots: paths.iter().map(root).collect(),
        exclude: args.exclude,
        exclude_files: args.exclude_file,
        exclude_if_present: args.exclude_if_present,
        cachedir_tag: args.exclude_caches,
        one_file_system: args.one_file_system,
        protected: copies.opened.iter().flat_map(Opened::protected).collect(),
        only: None,
    };
    Ok(BackupSource::Paths { paths, working_dir, filter, as_path: args.as_path })
}

fn summary(report: &BackupReport, dataset: &str, host: &str, copies: serde_json::Value) -> json::Object {
    let counts = &report.summary;
    json::object(json!({
        "snapshot": report.snapshot.map(snap_format::ObjectId::to_hex),
        "parent": report.parent.map(snap_format::ObjectId::to_hex),
        "dataset": dataset,
        "host": host,
        "files": counts.files,
        "dirs": counts.dirs,
        "others": counts.others,
        "files_new": counts.files_new,
        "files_changed": counts.files_changed,
        "files_unchanged": counts.files_unchanged,
        "unreadable": counts.unreadable,
        "vanished": counts.vanished,
        "changed_while_read": counts.changed_while_read,
        "source_bytes": counts.source_bytes,
        "added_bytes": counts.added_bytes,
        "stored_bytes": counts.stored_bytes,
        "copies": copies,
    }))
}

fn tell(app: &App, report: &BackupReport, dry_run: bool, began: Instant) {
    let counts = &report.summary;
    app.out.done(&format!(
        "{} files, {}: {} new, {} changed, {} unchanged",
        text::count(counts.files),
        text::bytes(counts.source_bytes),
        text::count(counts.files_new),
        text::count(counts.files_changed),
        text::count(counts.files_unchanged),
    ));
    app.out.done(&format!(
        "added {}, {} {}; {}",
        text::bytes(counts.added_bytes),
        if dry_run { "would store" } else { "stored" },
        text::bytes(counts.stored_bytes),
        text::duration(began.elapsed())
    ));
    match &report.snapshot {
        Some(id) => app.out.done(&format!("snapshot {}", text::short(id))),
        None if dry_run => app.out.done("dry run: nothing was written"),
        None => app.out.done("nothing changed: no snapshot was made"),
    }
    let unread = counts.unreadable.max(report.missing_sources.len() as u64);
    if unread > 0 {
        app.out.warning(&format!(
            "{} could not be read, named above",
            text::counted(unread, "entry", "entries")
        ));
    }
}
