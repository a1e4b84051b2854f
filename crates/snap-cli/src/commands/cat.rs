use snap_engine::browse::Found;
use snap_engine::{RestoreOptions, RestoreTarget, restore};
use snap_format::NodeKind;

use super::ls::{browse, scratch, tell_rescued};
use super::restore::exit_of;
use super::{Done, Outcome};
use crate::app::App;
use crate::args::CatArgs;
use crate::exit::{Exit, Failure};
use crate::render::json::Object;
use crate::render::{CliObserver, text};
use crate::repo;
use crate::select;
use crate::system;

pub fn run(app: &App, args: &CatArgs) -> Outcome {
    let opened = repo::open(app, repo::Purpose::Reading)?;
    opened.repository.keyring().require_reader("cat")?;
    let snapshot = select::choose_and_tell(app, &opened, &args.filter, &args.snapshot.snapshot)?;
    let browser = browse(app, &opened, &snapshot)?;
    let path = args.snapshot.path.as_deref();
    let mut scratch = scratch()?;
    let node = match browser.find(path.unwrap_or_default(), &mut scratch)? {
        Found::Node(node) if node.tree().is_none() => node,
        _ => {
            refuse_terminal(app)?;
            let observer = CliObserver::new(app);
            let target = RestoreTarget::Tar(Box::new(app.out.writer()));
            let options = RestoreOptions::default();
            let outcome = app.engine(&observer, |context| restore(&browser, path, target, &options, context));
            tell_rescued(app, &opened, browser.reader());
            return match outcome {
                Ok(report) => Ok(Done { exit: exit_of(&report), summary: Object::new() }),
                Err(failure) => Done::unless_broken(app, failure),
            };
        }
    };
    if node.content().is_none() {
        let path = text::printable(path.unwrap_or_default());
        let hint = match &node.kind {
            NodeKind::Symlink { target } => format!("it is a symlink to {}", text::printable(target)),
            _ => "`snap ls -l` shows what it is".to_owned(),
        };
        return Err(Failure::new(Exit::Failed, format!("{path} is not a file")).hint(hint));
    }
    let (threads, memory_bytes) = (system::threads(), app.memory_bytes()?);
    let outcome = browser.cat_with_threads(&node, &mut app.out.writer(), &mut scratch, threads, memory_bytes);
    tell_rescued(app, &opened, browser.reader());
    match outcome {
        Ok(()) => Ok(Done::plain()),
        Err(error) => Done::unless_broken(app, error.into()),
    }
}

/// A tar is nothing for a terminal.
pub fn refuse_terminal(app: &App) -> Result<(), Failure> {
    if app.out.is_terminal() {
        return Err(Failure::usage("a tar is not written to a terminal").hint("pipe it: | tar -t"));
    }
    Ok(())
}
