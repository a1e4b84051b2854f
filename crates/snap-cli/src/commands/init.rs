use serde_json::json;

use super::{Done, Outcome};
use crate::app::App;
use crate::args::InitArgs;
use crate::render::{Output, json};
use crate::repo::{self, Created};

pub fn run(app: &App, args: &InitArgs) -> Outcome {
    if let Some(source) = &args.copy_of {
        return run_copy(app, source);
    }
    let created = repo::create(app)?;
    tell_created(&app.out, &created);
    Ok(Done::with(fields(&created)))
}

fn run_copy(app: &App, source: &str) -> Outcome {
    let copied = repo::create_copy(app, source)?;
    app.out.tell(&format!(
        "created a copy of the repository {} at {}: the same keys open it; it holds no snapshot yet (`snap copy` brings them)",
        copied.id, copied.location
    ));
    Ok(Done::with(json::object(json!({
        "repository_id": copied.id.to_hex(),
        "location": copied.location,
        "copy_of": copied.source,
    }))))
}

/// What is told of a new repository in JSON.
pub fn fields(created: &Created) -> json::Object {
    json::object(json!({
        "repository_id": created.id.to_hex(),
        "recovery_key": created.recovery_key.as_str(),
        "location": created.location,
        "key_file": created.key_file.as_ref().map(|path| path.display().to_string()),
    }))
}

/// Tells people of a new repository. The recovery key is shown here and never again.
pub fn tell_created(out: &Output, created: &Created) {
    out.tell(&format!("created repository {} at {}", created.id, created.location));
    if let Some(path) = &created.key_file {
        out.tell(&format!("key file: {} (keep a copy of it on another machine)", path.display()));
    }
    tell_recovery_key(out, &created.recovery_key);
}

/// Shows a recovery key.
pub fn tell_recovery_key(out: &Output, key: &str) {
    out.tell(&format!(
        "\nrecovery key, shown only now:\n\n    {key}\n\nPrint it and keep it away from this machine. It opens the \
         repository as owner when every other key is\nlost (--recovery-key-file). Without any key the data cannot be \
         read by anyone.\n"
    ));
}
