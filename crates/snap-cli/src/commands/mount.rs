use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use serde_json::json;
use snap_mount::{Ended, Mount, MountObserver, MountOptions, Shown};
use snap_repo::Finding;

use super::{Done, Outcome};
use crate::app::App;
use crate::args::MountArgs;
use crate::exit::Exit;
use crate::render::{Output, json, text};
use crate::{repo, select, system};

pub fn run(app: &App, args: &MountArgs) -> Outcome {
    let opened = repo::open(app, repo::Purpose::Reading)?;
    opened.repository.keyring().require_reader("mount")?;
    let shown = match &args.snapshot {
        Some(name) => Shown::One(Box::new(select::choose_and_tell(app, &opened, &args.filter, name)?)),
        None => Shown::All(select::lister(app, &opened, &args.filter)?),
    };
    let options = MountOptions {
        cache: opened.cache.clone(),
        threads: system::threads(),
        memory_bytes: app.memory_bytes()?,
        allow_other: args.allow_other,
        check_permissions: args.allow_other && !args.no_default_permissions,
        auto_unmount: app.env.finds_program("fusermount3"),
    };
    let observer = Arc::new(Told(app.out.clone()));
    let graceful = app.signals.graceful();
    let mount = Mount::start(&opened.repository, shown, &args.dir, &options, observer)?;
    tell(app, &mount);
    let ended = mount.wait(app.signals.stop())?;
    drop(graceful);
    let exit = match ended {
        Ended::Unmounted => Exit::Done,
        Ended::Stopped => app.signals.exit().unwrap_or(Exit::Done),
    };
    Ok(Done { exit, summary: json::Object::new() })
}

/// Says that it is there: whoever waits for it reads this.
fn tell(app: &App, mount: &Mount) {
    let path = mount.dir().as_os_str().as_bytes();
    if app.out.options().json {
        app.out.event(json::object(json!({ "event": "mounted", "path": String::from_utf8_lossy(path) })));
        // That nobody reads it is told at the end.
        let _ = app.out.flush();
    } else {
        let dir = text::printable(path);
        app.out.note(&format!("mounted on {dir}: Ctrl-C or `umount {dir}` ends it"));
    }
}

/// Hands what goes wrong to the [`Output`].
struct Told(Output);

impl MountObserver for Told {
    fn finding(&self, finding: &Finding) {
        self.0.finding(finding);
    }

    fn warning(&self, text: &str) {
        self.0.warning(text);
    }
}
