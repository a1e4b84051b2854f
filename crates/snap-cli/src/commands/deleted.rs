use std::path::PathBuf;

use serde_json::json;
use snap_engine::EngineError;
use snap_engine::look::{History, Vanished, deleted};
use snap_repo::Snapshot;

use super::find::{exit_of, history};
use super::ls::tell_rescued;
use super::{Done, Outcome};
use crate::app::App;
use crate::args::values::absolute;
use crate::args::{DeletedArgs, GlobalArgs};
use crate::exit::{Exit, Failure};
use crate::render::{CliObserver, json, quote, text};
use crate::{repo, select, system};

pub fn run(app: &App, args: &DeletedArgs) -> Outcome {
    let opened = repo::open(app, repo::Purpose::Reading)?;
    opened.repository.keyring().require_reader("deleted")?;
    let mut snapshots = select::load(app, &opened, &args.filter, false)?.list;
    if snapshots.is_empty() {
        return Err(EngineError::NoSnapshot("there is no snapshot that fits".into()).into());
    }
    if app.filter(&args.filter).host.is_empty() {
        of_this_host(app, &mut snapshots);
    }
    let history = history(app, &opened, &snapshots)?.with_cache(opened.cache.as_ref());
    let paths = outermost(match args.paths.is_empty() {
        true => history.past().iter().flat_map(|past| past.paths.iter().cloned()).collect(),
        false => absolute_all(&args.paths)?,
    });
    let observer = CliObserver::new(app);
    let report = app.engine(&observer, |context| deleted(&history, &paths, context));
    tell_rescued(app, &opened, history.reader());
    let report = report?;
    for path in &report.unknown {
        app.out.warning(&format!("{} is in none of the snapshots", text::printable(path)));
    }
    if !paths.is_empty() && report.unknown.len() == paths.len() && history.damaged() == 0 {
        let failure = EngineError::NoSnapshot("none of the paths is in any snapshot".into());
        return Err(
            Failure::from(failure).hint("give paths as they were backed up; `snap snapshots` shows them")
        );
    }
    let command = command_line(&app.global);
    report.vanished.iter().for_each(|gone| show(app, &history, &command, gone));
    if report.vanished.is_empty() {
        app.out.done("nothing is gone");
    } else {
        app.out.done(&text::counted(report.vanished.len() as u64, "entry is gone", "entries are gone"));
    }
    let exit = match exit_of(&history) {
        Exit::Done if report.unreadable > 0 => Exit::Incomplete,
        exit => exit,
    };
    let summary = json::object(json!({
        "snapshots": history.past().len(),
        "entries": report.vanished.len(),
        "unreadable": report.unreadable,
    }));
    Ok(Done { exit, summary })
}

/// Leaves those of this host, unless there is none: then it may have been renamed.
fn of_this_host(app: &App, snapshots: &mut Vec<Snapshot>) {
    let own = system::host_name();
    if snapshots.iter().any(|snapshot| snapshot.envelope.host == own) {
        snapshots.retain(|snapshot| snapshot.envelope.host == own);
        return;
    }
    let mut hosts: Vec<&str> = snapshots.iter().map(|snapshot| &*snapshot.envelope.host).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let (own, hosts) = (text::printable(own.as_bytes()), text::printable(hosts.join(", ").as_bytes()));
    app.out.note(&format!(
        "there is no snapshot of this host, {own}: comparing with those of {hosts} (--host chooses)"
    ));
}

fn absolute_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Failure> {
    let working_dir = select::working_dir()?;
    Ok(paths.iter().map(|path| absolute(path, &working_dir)).collect())
}

/// Paths without those that lie below others, sorted.
fn outermost(mut paths: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    // With a slash at the end, so that what lies below follows at once.
    paths.iter_mut().filter(|path| !path.ends_with(b"/")).for_each(|path| path.push(b'/'));
    paths.sort();
    let mut out: Vec<Vec<u8>> = Vec::new();
    for path in paths {
        if !out.last().is_some_and(|last| path.starts_with(last)) {
            out.push(path);
        }
    }
    for path in out.iter_mut().filter(|path| path.len() > 1) {
        path.pop();
    }
    out
}

/// The beginning of a command line that opens the same repository with the same key, as far as flags say.
fn command_line(global: &GlobalArgs) -> String {
    use std::os::unix::ffi::OsStrExt;
    let flags = [
        ("-r", global.repo.as_deref()),
        ("-c", global.config.as_deref().map(std::path::Path::as_os_str)),
        ("--copy", global.copy.as_deref().map(std::ffi::OsStr::new)),
        ("--key-file", global.key_file.as_deref().map(std::path::Path::as_os_str)),
        ("--password-file", global.password_file.as_deref().map(std::path::Path::as_os_str)),
        ("--password-command", global.password_command.as_deref().map(std::ffi::OsStr::new)),
        ("--recovery-key-file", global.recovery_key_file.as_deref().map(std::path::Path::as_os_str)),
    ];
    let mut out = String::from("snap");
    for (flag, value) in flags {
        if let Some(value) = value {
            out.push_str(&format!(" {flag} {}", quote::word(value.as_bytes())));
        }
    }
    out
}

/// The command that brings an entry back to where it was, or beside what stands there now.
fn restore_command(command: &str, history: &History, gone: &Vanished) -> String {
    let id = text::short(&history.past()[gone.last].snapshot.id);
    let from = [id.as_bytes(), b":", gone.path.as_slice()].concat();
    let target = match (gone.node.tree().is_some(), gone.replaced) {
        (true, false) => gone.path.clone(),
        (true, true) => [gone.path.as_slice(), b".restored"].concat(),
        (false, _) => {
            let parent = gone.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0).max(1);
            gone.path[..parent].to_vec()
        }
    };
    format!("{command} restore {} --target {}", quote::word(&from), quote::word(&target))
}

fn show(app: &App, history: &History, command: &str, gone: &Vanished) {
    let snapshot = &history.past()[gone.last].snapshot;
    let command = restore_command(command, history, gone);
    if app.out.options().json {
        let mut event = json::node(&snapshot.id, &gone.path, &gone.node);
        event.insert("last_seen".into(), text::rfc3339(snapshot.envelope.time).into());
        event.insert("replaced".into(), gone.replaced.into());
        event.insert("command".into(), command.into());
        return app.out.event(event);
    }
    let what = match json::type_name(&gone.node.kind) {
        "file" | "object" => text::bytes(gone.node.size()),
        other => other.to_owned(),
    };
    let replaced = if gone.replaced { ", something else stands there" } else { "" };
    app.out.line(&format!(
        "{}  ({what}, last seen {} UTC{replaced})\n    {command}",
        text::printable(&gone.path),
        text::date_time(snapshot.envelope.time),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_others_go() {
        let paths = |list: &[&str]| list.iter().map(|path| path.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(outermost(paths(&["/b", "/a-b", "/a/c", "/a", "/a"])), paths(&["/a-b", "/a", "/b"]));
        assert_eq!(outermost(paths(&["/x", "/"])), paths(&["/"]));
    }
}
