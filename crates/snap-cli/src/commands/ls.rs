use std::sync::Arc;

use serde_json::json;
use snap_engine::browse::{Browser, Found};
use snap_engine::{EngineError, Event, Observer};
use snap_format::{Node, NodeKind};
use snap_repo::{Index, Scratch, Snapshot};

use super::{Done, Outcome};
use crate::app::App;
use crate::args::LsArgs;
use crate::exit::Failure;
use crate::render::{CliObserver, json, text};
use crate::repo::{self, Opened};
use crate::select;

pub fn run(app: &App, args: &LsArgs) -> Outcome {
    let opened = repo::open(app, repo::Purpose::Reading)?;
    opened.repository.keyring().require_reader("ls")?;
    let snapshot = select::choose_and_tell(app, &opened, &args.filter, &args.snapshot.snapshot)?;
    let browser = browse(app, &opened, &snapshot)?;
    let lister = Lister { app, snapshot: &snapshot, is_long: args.long };
    match lister.list(&browser, args.snapshot.path.as_deref().unwrap_or_default()) {
        Ok(entries) => {
            Ok(Done::with(json::object(json!({ "snapshot": snapshot.id.to_hex(), "entries": entries }))))
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
    Ok(Browser::open(&opened.repository, Arc::new(index), snapshot)?)
}

/// Buffers for decompression.
pub fn scratch() -> Result<Scratch, Failure> {
    Scratch::new(1).map_err(|error| Failure::io("cannot decompress", &error))
}

struct Lister<'a> {
    app: &'a App,
    snapshot: &'a Snapshot,
    is_long: bool,
}

impl Lister<'_> {
    fn list(&self, browser: &Browser, path: &[u8]) -> Result<u64, Failure> {
        let mut scratch = scratch()?;
        let tree = match browser.find(path, &mut scratch)? {
            Found::Root => browser.root(),
            Found::Node(node) => match node.tree() {
                Some(tree) => tree,
                None => {
                    self.show(path, &node);
                    return Ok(1);
                }
            },
        };
        let mut entries = 0;
        browser.walk(path, tree, &mut scratch, &mut |path, node| {
            // Nobody reads any more.
            if self.app.out.is_broken() {
                return Err(EngineError::Interrupted);
            }
            entries += 1;
            self.show(path, node);
            Ok(true)
        })?;
        Ok(entries)
    }

    fn show(&self, path: &[u8], node: &Node) {
        let out = &self.app.out;
        if out.options().json {
            return out.event(json::node(&self.snapshot.id, path, node));
        }
        let mut line = Vec::new();
        if self.is_long {
            line.extend_from_slice(long(node).as_bytes());
        }
        let mut put = |bytes: &[u8]| match out.is_terminal() {
            true => line.extend_from_slice(text::printable(bytes).as_bytes()),
            false => line.extend_from_slice(bytes),
        };
        put(path);
        if let (NodeKind::Symlink { target }, true) = (&node.kind, self.is_long) {
            put(b" -> ");
            put(target);
        }
        line.push(b'\n');
        out.raw(&line);
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
