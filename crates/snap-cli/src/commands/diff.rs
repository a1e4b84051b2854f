use std::io::{self, Write};

use serde_json::json;
use similar::TextDiff;
use snap_engine::EngineError;
use snap_engine::browse::Browser;
use snap_engine::look::{Change, DiffSide, Differing, diff};
use snap_format::Node;
use snap_repo::{Scratch, Snapshot};

use super::find::{exit_of, history};
use super::ls::{scratch, tell_rescued};
use super::{Done, Outcome};
use crate::app::App;
use crate::args::DiffArgs;
use crate::exit::Failure;
use crate::render::{CliObserver, json, rows, text};
use crate::{repo, select};

/// Larger files are not compared line by line.
const MAX_TEXT_BYTES: u64 = 8 << 20;
/// Where a zero byte means that a file is no text.
const LOOKED_AT: usize = 8000;
/// Patience with two files that have nothing in common.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

pub fn run(app: &App, args: &DiffArgs) -> Outcome {
    let opened = repo::open(app, repo::Purpose::Reading)?;
    opened.repository.keyring().require_reader("diff")?;
    let list = select::load(app, &opened, &args.filter, false)?.list;
    let list: Vec<&Snapshot> = list.iter().collect();
    let mut sides = Vec::new();
    for name in [&args.before.snapshot, &args.after.snapshot] {
        let id = select::among(app, &list, name)?;
        sides.extend(list.iter().find(|snapshot| snapshot.id == id).map(|snapshot| (*snapshot).clone()));
    }
    let history = history(app, &opened, &sides)?;
    let [before, after] = history.past() else {
        return Err(Failure::new(
            crate::exit::Exit::Damage,
            "a snapshot is damaged: nothing can be compared",
        )
        .hint("`snap check` lists all damage and what it touches"));
    };
    // A path that is given on one side counts for both.
    let paths = [&args.before.path, &args.after.path];
    let [old_path, new_path] =
        [paths[0].as_deref().or(paths[1].as_deref()), paths[1].as_deref().or(paths[0].as_deref())];
    let mut texts = None;
    if args.content {
        let reader = history.reader();
        let open = |snapshot| -> Result<Browser, Failure> {
            let browser = Browser::open(&opened.repository, reader.index().clone(), snapshot)?;
            Ok(match repo::other_copies(app, &opened)? {
                Some(open) => browser.with_others(open),
                None => browser,
            })
        };
        let browsers = [open(&before.snapshot)?, open(&after.snapshot)?];
        texts = Some(Texts { browsers, scratch: scratch()? });
    }
    let observer = CliObserver::new(app);
    let (old_side, new_side) =
        (DiffSide { past: before, path: old_path }, DiffSide { past: after, path: new_path });
    let done = app.engine(&observer, |context| {
        diff(&history, old_side, new_side, context, &mut |entry| {
            // Nobody reads any more.
            if app.out.is_broken() {
                return Err(EngineError::Interrupted);
            }
            let content = texts.as_mut().map_or(Ok(None), |texts| texts.compare(&entry));
            let content = match content {
                Err(error) => history.lost(&observer, after, entry.path, error).map(|()| None)?,
                Ok(content) => content,
            };
            show(app, &entry, content);
            Ok(())
        })
    });
    tell_rescued(app, &opened, history.reader());
    texts.iter().flat_map(|texts| &texts.browsers).for_each(|it| tell_rescued(app, &opened, it.reader()));
    let report = match done {
        Ok(report) => report,
        Err(failure) => return Done::unless_broken(app, failure),
    };
    app.out.done(&format!(
        "{} added, {} removed, {} modified, {} metadata, {} of another type; +{}, -{}",
        text::count(report.added),
        text::count(report.removed),
        text::count(report.modified),
        text::count(report.metadata),
        text::count(report.retyped),
        text::bytes(report.added_bytes),
        text::bytes(report.removed_bytes),
    ));
    let summary = json::object(json!({
        "before": before.snapshot.id.to_hex(),
        "after": after.snapshot.id.to_hex(),
        "added": report.added,
        "removed": report.removed,
        "modified": report.modified,
        "metadata": report.metadata,
        "type": report.retyped,
        "added_bytes": report.added_bytes,
        "removed_bytes": report.removed_bytes,
    }));
    Ok(Done { exit: exit_of(&history), summary })
}

fn show(app: &App, entry: &Differing<'_>, content: Option<Compared>) {
    let out = &app.out;
    if out.options().json {
        let mut event = json::object(json!({ "event": "change" }));
        json::put_bytes(&mut event, "path", entry.path);
        event.insert("change".into(), entry.change.as_str().into());
        for (name, node) in [("rows_before", entry.before), ("rows_after", entry.after)] {
            if let Some(rows) = node.and_then(rows::rows) {
                event.insert(name.into(), rows.into());
            }
        }
        match content {
            Some(Compared::Text(text)) => json::put_bytes(&mut event, "diff", &text),
            Some(Compared::Not(why)) => drop(event.insert("diff_left_out".into(), why.into())),
            None => {}
        }
        return out.event(event);
    }
    let mark = match entry.change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Modified => 'M',
        Change::Metadata => 'U',
        Change::Type => 'T',
    };
    let is_dir = entry.after.or(entry.before).is_some_and(|node| node.tree().is_some());
    let mut line = format!("{mark}  ").into_bytes();
    line.extend_from_slice(&out.shown(entry.path));
    line.extend_from_slice(if is_dir { b"/" } else { b"" });
    line.extend_from_slice(rows::change(entry.before, entry.after).as_bytes());
    match content {
        Some(Compared::Not(why)) => line.extend_from_slice(format!("  ({why})\n").as_bytes()),
        Some(Compared::Text(text)) => {
            line.push(b'\n');
            for row in text.split_inclusive(|byte| *byte == b'\n') {
                let (row, end) = row.strip_suffix(b"\n").map_or((row, &b""[..]), |row| (row, b"\n"));
                line.extend_from_slice(&out.shown(row));
                line.extend_from_slice(end);
            }
            if !line.ends_with(b"\n") {
                line.push(b'\n');
            }
        }
        None => line.push(b'\n'),
    }
    out.raw(&line);
}

/// What became of a comparison line by line.
enum Compared {
    /// A unified diff.
    Text(Vec<u8>),
    /// There is none.
    Not(&'static str),
}

/// The contents of both sides.
struct Texts {
    browsers: [Browser; 2],
    scratch: Scratch,
}

impl Texts {
    /// Compares the content of a file; none if it is no file, or did not change.
    fn compare(&mut self, entry: &Differing<'_>) -> Result<Option<Compared>, EngineError> {
        if entry.change == Change::Metadata {
            return Ok(None);
        }
        let file = |node: Option<&'_ Node>| node.is_some_and(|node| node.content().is_some());
        if !file(entry.before) && !file(entry.after) {
            return Ok(None);
        }
        let mut contents = [Vec::new(), Vec::new()];
        for (side, node) in [entry.before, entry.after].into_iter().enumerate() {
            let Some(node) = node.filter(|node| node.content().is_some()) else { continue };
            if node.size() > MAX_TEXT_BYTES {
                return Ok(Some(Compared::Not("too large to compare line by line")));
            }
            let mut content = Limited(Vec::new());
            self.browsers[side].cat(node, &mut content, &mut self.scratch)?;
            contents[side] = content.0;
        }
        let is_binary = |content: &Vec<u8>| content[..content.len().min(LOOKED_AT)].contains(&0);
        if contents.iter().any(is_binary) {
            return Ok(Some(Compared::Not("not text")));
        }
        let name = |side: &str, node: Option<&Node>| match node {
            Some(_) => format!("{side}{}", text::printable(entry.path)),
            None => "/dev/null".to_owned(),
        };
        let [old, new] = &contents;
        let compared = TextDiff::configure().timeout(PATIENCE).diff_lines(&old[..], &new[..]);
        let mut out = Vec::new();
        let written = compared
            .unified_diff()
            .context_radius(3)
            .header(&name("a", entry.before), &name("b", entry.after))
            .to_writer(&mut out);
        written.expect("memory takes everything");
        Ok(Some(Compared::Text(out)))
    }
}

/// A buffer that a size which is not true does not fill.
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > MAX_TEXT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
