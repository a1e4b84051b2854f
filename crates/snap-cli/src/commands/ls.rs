use std::cell::RefCell;
use std::sync::Arc;

use serde_json::json;
use snap_engine::browse::{Browser, Found};
use snap_engine::{EngineError, Event, Observer};
use snap_format::{Node, NodeKind, ObjectId};
use snap_repo::{BlobReader, Index, Scratch, Snapshot};

use super::{Done, Outcome};
use crate::app::App;
use crate::args::{LsArgs, SortBy};
use crate::exit::{Exit, Failure};
use crate::render::{CliObserver, Sorted, json, rows, text};
use crate::repo::{self, Opened};
use crate::select;

pub fn run(app: &App, args: &LsArgs) -> Outcome {
    let opened = repo::open(app, repo::Purpose::Reading)?;
    opened.repository.keyring().require_reader("ls")?;
    let snapshot = select::choose_and_tell(app, &opened, &args.filter, &args.snapshot.snapshot)?;
    let browser = browse(app, &opened, &snapshot)?;
    let show = Show { app, snapshot: &snapshot.id, with_id: false, is_long: args.long };
    let dir = opened.cache_base.clone().unwrap_or_else(std::env::temp_dir);
    let sorted = args.sort.map(|_| Sorted::new(&dir, args.reverse));
    let observer = CliObserver::new(app);
    let mut lister = Lister { args, show, sorted, observer, entries: 0, damaged: 0 };
    let outcome = lister.list(&browser, args.snapshot.path.as_deref().unwrap_or_default());
    tell_rescued(app, &opened, browser.reader());
    match outcome {
        Ok(()) => {
            let summary =
                json::object(json!({ "snapshot": snapshot.id.to_hex(), "entries": lister.entries }));
            let exit = if lister.damaged > 0 { Exit::Damage } else { Exit::Done };
            Ok(Done { exit, summary })
        }
        Err(failure) => Done::unless_broken(app, failure),
    }
}

/// Opens a snapshot for reading; damage of the index is told.
pub fn browse(app: &App, opened: &Opened, snapshot: &Snapshot) -> Result<Browser, Failure> {
    let (index, findings) = Index::load(&opened.repository, opened.cache.as_ref())?;
    let observer = CliObserver::new(app);
    for finding in &findings {
        observer.event(Event::Finding(finding));
    }
    if let Some(text) = index.cache_failure() {
        observer.event(Event::Warning { text: &text });
    }
    let browser = Browser::open(&opened.repository, Arc::new(index), snapshot)?;
    Ok(match repo::other_copies(app, opened)? {
        Some(open) => browser.with_others(open),
        None => browser,
    })
}

/// Names what another copy had to give.
pub fn tell_rescued(app: &App, opened: &Opened, reader: &BlobReader) {
    let name = &opened.copy.name;
    let rescued = reader.rescued();
    for (what, copy) in &rescued.named {
        app.out.warning(&format!("the copy {name} is damaged: {what}; read from the copy {copy} instead"));
    }
    if rescued.has_more {
        app.out.warning(&format!("more of the copy {name} is damaged, and was read from others"));
    }
    if !rescued.named.is_empty() {
        app.out.warning(&format!(
            "`snap check --copy {name} --repair` looks for all damage there, and brings back what another copy has"
        ));
    }
}

/// Buffers for decompression.
pub fn scratch() -> Result<Scratch, Failure> {
    Scratch::new(1).map_err(|error| Failure::io("cannot decompress", &error))
}

struct Lister<'a> {
    args: &'a LsArgs,
    show: Show<'a>,
    sorted: Option<Sorted>,
    observer: CliObserver,
    entries: u64,
    damaged: u64,
}

impl Lister<'_> {
    fn list(&mut self, browser: &Browser, path: &[u8]) -> Result<(), Failure> {
        let mut scratch = scratch()?;
        let tree = match browser.find(path, &mut scratch)? {
            Found::Root => browser.root(),
            Found::Node(node) => match node.tree() {
                Some(tree) => tree,
                None => {
                    self.entries = 1;
                    self.show.entry(path, &node);
                    return Ok(());
                }
            },
        };
        let lister = RefCell::new(&mut *self);
        browser.walk_past(
            path,
            tree,
            &mut scratch,
            &mut |path, node| lister.borrow_mut().entry(path, node).map(|()| true),
            &mut |path, error| lister.borrow_mut().lost(browser, path, error),
        )?;
        let app = self.show.app;
        match self.sorted.take() {
            Some(sorted) => sorted
                .finish(|line| app.out.raw(line))
                .map_err(|error| Failure::io("cannot sort the entries", &error)),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &[u8], node: &Node) -> Result<(), EngineError> {
        // Nobody reads any more.
        if self.show.app.out.is_broken() {
            return Err(EngineError::Interrupted);
        }
        self.entries += 1;
        match (&mut self.sorted, self.args.sort) {
            (Some(sorted), Some(by)) => sorted
                .push(sort_key(by, path, node), self.show.line(path, node))
                .map_err(|source| EngineError::Io { what: "sorting", path: "the entries".into(), source }),
            _ => {
                self.show.entry(path, node);
                Ok(())
            }
        }
    }

    /// Damage costs what it hides, not the list.
    fn lost(&mut self, browser: &Browser, path: &[u8], error: EngineError) -> Result<(), EngineError> {
        let EngineError::Repo(error) = error else { return Err(error) };
        let mut finding = error.into_finding()?;
        finding.paths.push(if path.is_empty() { b"/".to_vec() } else { path.to_vec() });
        finding.snapshots.push(browser.snapshot().id);
        self.damaged += 1;
        self.observer.event(Event::Finding(&finding));
        Ok(())
    }
}

/// Bytes whose order is that of the entries: the largest and the newest first.
fn sort_key(by: SortBy, path: &[u8], node: &Node) -> Vec<u8> {
    let first = match by {
        SortBy::Name => Vec::new(),
        SortBy::Size => (!node.size()).to_be_bytes().to_vec(),
        SortBy::Time => {
            let secs = node.mtime.secs.cast_unsigned() ^ (1 << 63);
            [(!secs).to_be_bytes().as_slice(), &(!node.mtime.nanos).to_be_bytes()].concat()
        }
    };
    [first.as_slice(), path].concat()
}

/// How entries are shown.
pub struct Show<'a> {
    /// Where.
    pub app: &'a App,
    /// Whose they are.
    pub snapshot: &'a ObjectId,
    /// As `SNAPSHOT:PATH`.
    pub with_id: bool,
    /// With type, mode, owner, size and time.
    pub is_long: bool,
}

impl Show<'_> {
    /// Shows one.
    pub fn entry(&self, path: &[u8], node: &Node) {
        self.app.out.raw(&self.line(path, node));
    }

    fn line(&self, path: &[u8], node: &Node) -> Vec<u8> {
        let out = &self.app.out;
        if out.options().json {
            return format!("{}\n", serde_json::Value::Object(json::node(self.snapshot, path, node)))
                .into_bytes();
        }
        let mut line = Vec::new();
        if self.is_long {
            line.extend_from_slice(long(node).as_bytes());
        }
        if self.with_id {
            line.extend_from_slice(text::short(self.snapshot).as_bytes());
            line.push(b':');
        }
        line.extend_from_slice(&out.shown(path));
        if let (NodeKind::Symlink { target }, true) = (&node.kind, self.is_long) {
            line.extend_from_slice(b" -> ");
            line.extend_from_slice(&out.shown(target));
        }
        if self.is_long {
            line.extend_from_slice(rows::remark(node).as_bytes());
        }
        line.push(b'\n');
        line
    }
}

fn long(node: &Node) -> String {
    let name = |name: &Option<String>, id: u32| match name {
        Some(name) => text::printable(name.as_bytes()),
        None => id.to_string(),
    };
    let (user, group) = (name(&node.user, node.uid), name(&node.group, node.gid));
    let mode = text::mode(&node.kind, node.mode);
    let size = match node.kind {
        NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
            format!("{major}, {minor}")
        }
        _ => node.size().to_string(),
    };
    format!("{mode} {user:<8} {group:<8} {size:>12} {} ", text::date_time(node.mtime))
}
