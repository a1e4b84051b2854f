use std::collections::HashSet;
use std::path::Path;

use serde_json::json;
use snap_backend::ErrorKind;
use snap_format::{Role, SlotKind};
use snap_repo::{KeyChange, NewSlot, RepoError, Repository, Secret, SlotInfo};

use super::init::tell_recovery_key;
use super::{Done, Outcome};
use crate::app::App;
use crate::args::{KeyAddArgs, KeyCommand, RoleArg};
use crate::copies::{self, Copies};
use crate::exit::{Exit, Failure};
use crate::keys::{self, KeySource, NewKeyFile};
use crate::render::{json, text};
use crate::{prompt, repo, system};

/// Fewest digits of a slot's id.
const MIN_PREFIX: usize = 4;

pub fn run(app: &App, command: KeyCommand) -> Outcome {
    match command {
        KeyCommand::List => list(app),
        KeyCommand::Add(args) => add(app, args),
        KeyCommand::Remove { id, current } => remove(app, &id, current),
        KeyCommand::Rotate { dry_run } => rotate(app, dry_run),
        KeyCommand::Recovery => recovery(app),
        KeyCommand::VerifyRecovery => verify_recovery(app),
    }
}

/// All copies, to change their keys: the first that is open is changed, the others get what came of it.
fn open_as_owner(app: &App, verb: &'static str) -> Result<(Repository, Copies), Failure> {
    let copies = copies::open(app, repo::Purpose::Keys, false)?;
    let repository = copies.first().repository.clone();
    repository.keyring().require_owner(verb)?;
    Ok((repository, copies))
}

/// The one that is read, to look at its keys.
fn look_as_owner(app: &App, verb: &'static str) -> Result<Repository, Failure> {
    let opened = repo::open(app, repo::Purpose::Keys)?;
    opened.repository.keyring().require_owner(verb)?;
    opened.require_current_keys()?;
    Ok(opened.repository)
}

/// The summary of a change, and how the other copies took it.
fn changed(app: &App, mut copies: Copies, change: &KeyChange, summary: serde_json::Value) -> Outcome {
    let mut summary = json::object(summary);
    summary.append(&mut copies.spread_keys(app, &change.name));
    Ok(Done::with(summary))
}

/// Whether a change of the keys may have happened although it failed: its answer was lost, or the look after it failed.
fn may_be_stored(error: &RepoError) -> bool {
    use ErrorKind::{NoSpace, Permission, ReadOnly, Unauthenticated};
    match error {
        RepoError::Backend(error) => {
            !matches!(error.kind(), NoSpace | Permission | ReadOnly | Unauthenticated)
        }
        _ => false,
    }
}

/// Fails if another owner's change took the place of this one.
fn require_counts(app: &App, change: &KeyChange) -> Result<(), Failure> {
    if !change.counts {
        return Err(Failure::new(
            Exit::Failed,
            "another owner changed the keys at the same moment, and that change holds, not this one",
        )
        .hint(
            "`snap key list` shows what holds now; if that is as it should be, run the same command again",
        ));
    }
    if !change.rivals.is_empty() {
        app.out.warning(
            "another owner changed the keys at the same moment; this change holds, and that one does not: tell them to \
             look at `snap key list` and to repeat it",
        );
    }
    Ok(())
}

const fn kind(kind: SlotKind) -> &'static str {
    match kind {
        SlotKind::Password => "password",
        SlotKind::KeyFile => "key-file",
        SlotKind::Recovery => "recovery",
    }
}

fn list(app: &App) -> Outcome {
    let repository = look_as_owner(app, "listing keys")?;
    let slots = repository.slots();
    for slot in &slots {
        app.out.event(event(slot));
    }
    let safe = |text: &str| text::printable(text.as_bytes());
    let rows: Vec<Vec<String>> = slots
        .iter()
        .map(|slot| {
            let mark = if slot.current { "*" } else { "" };
            vec![
                mark.to_owned(),
                slot.id.to_hex()[..12].to_owned(),
                slot.role.to_string(),
                kind(slot.kind).to_owned(),
                safe(&slot.label),
                safe(&slot.domain),
                text::date_time(slot.created),
            ]
        })
        .collect();
    for line in text::table(&["", "id", "role", "kind", "label", "domain", "created (UTC)"], &rows) {
        app.out.line(&line);
    }
    app.out.done("* opened the repository now");
    Ok(Done::with(json::object(json!({ "keys": slots.len() }))))
}

fn event(slot: &SlotInfo) -> json::Object {
    json::object(json!({
        "event": "key",
        "id": slot.id.to_hex(),
        "role": slot.role.to_string(),
        "kind": kind(slot.kind),
        "label": slot.label,
        "domain": slot.domain,
        "created": text::rfc3339(slot.created),
        "epoch": slot.epoch,
        "current": slot.current,
    }))
}

fn add(app: &App, args: KeyAddArgs) -> Outcome {
    if args.domain.is_some() && args.role != RoleArg::Backup {
        return Err(Failure::usage("--domain is for the role backup: owners write in the domain main")
            .hint("leave --domain out"));
    }
    // A new password that cannot be used is told before anything is asked of the store.
    let password = new_password(&args)?;
    let (repository, copies) = open_as_owner(app, "adding a key")?;
    let (secret, made) = match (password, &args.new_key_file) {
        (Some(secret), _) => (secret, None),
        (None, Some(path)) => new_key_file(path).map(|(made, secret)| (secret, Some(made)))?,
        (None, None) => return Err(Failure::usage("a new key is missing").hint("give --new-key-file FILE")),
    };
    let role = Role::from(args.role);
    let new = NewSlot { role, secret: &secret, label: args.label.clone(), domain: args.domain.clone() };
    let outcome = repository.add_slot(new, system::now());
    match (&outcome, made) {
        (Ok((_, change)), Some(made)) if change.counts => made.keep(),
        (Err(error), Some(made)) if may_be_stored(error) => {
            made.keep();
            app.out
                .warning("it is not sure whether the key was added: its file is kept; `snap key list` tells");
        }
        _ => {}
    }
    let (id, change) = outcome?;
    require_counts(app, &change)?;
    app.out.done(&format!("added key {} with the role {role}", &id.to_hex()[..12]));
    let summary = json!({
        "id": id.to_hex(),
        "role": role.to_string(),
        "kind": kind(secret.kind()),
        "label": args.label,
        "epoch": change.epoch,
    });
    changed(app, copies, &change, summary)
}

fn new_password(args: &KeyAddArgs) -> Result<Option<Secret>, Failure> {
    let source = match (&args.new_password_file, &args.new_password_command) {
        (Some(path), _) => KeySource::PasswordFile(path.clone()),
        (None, Some(command)) => KeySource::PasswordCommand(command.into()),
        (None, None) => return Ok(None),
    };
    let secret = source.load()?;
    keys::refuse_empty(&secret)?;
    Ok(Some(secret))
}

fn new_key_file(path: &Path) -> Result<(NewKeyFile, Secret), Failure> {
    NewKeyFile::create(path).map_err(|error| {
        let failure = Failure::io(format!("cannot make the key file {}", path.display()), &error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                failure.hint("name a file that is not there: none is overwritten")
            }
            _ => failure,
        }
    })
}

fn remove(app: &App, prefix: &str, even_current: bool) -> Outcome {
    let prefix = prefix.to_ascii_lowercase();
    if prefix.len() < MIN_PREFIX || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!(
            "{prefix:?} is no key: give at least {MIN_PREFIX} digits of its id"
        ))
        .hint("`snap key list` shows the ids"));
    }
    let (repository, copies) = open_as_owner(app, "removing a key")?;
    let slots = repository.slots();
    let found: Vec<&SlotInfo> = slots.iter().filter(|slot| slot.id.to_hex().starts_with(&prefix)).collect();
    let slot = match found[..] {
        [slot] => slot,
        [] => {
            return Err(Failure::new(Exit::Failed, format!("no key has an id that begins with {prefix}"))
                .hint("`snap key list` shows the ids"));
        }
        _ => {
            return Err(Failure::usage(format!("several keys have an id that begins with {prefix}"))
                .hint("give more digits"));
        }
    };
    if slot.current && !even_current {
        return Err(Failure::new(
            Exit::Failed,
            "this key opens the repository now, and would open it no more",
        )
        .hint("open with another owner's key, or add --current if this one is to go all the same"));
    }
    let change = repository.remove_slot(slot.id, system::now())?;
    require_counts(app, &change)?;
    app.out.done(&format!("removed key {} ({}, {})", &slot.id.to_hex()[..12], slot.role, kind(slot.kind)));
    app.out.warning(
        "whoever kept this key and can still read the store can read what was written until now: change the store's \
         credentials too",
    );
    if slot.kind == SlotKind::Recovery {
        app.out.warning("that was a recovery key: `snap key recovery` makes a new one");
    }
    let summary = json!({ "id": slot.id.to_hex(), "role": slot.role.to_string(), "epoch": change.epoch });
    changed(app, copies, &change, summary)
}

fn rotate(app: &App, dry_run: bool) -> Outcome {
    let counted = |slots: &[SlotInfo]| text::counted(slots.len() as u64, "key", "keys");
    let summary =
        |epoch: u64, slots: &[SlotInfo]| json!({ "epoch": epoch, "keys": slots.len(), "dry_run": dry_run });
    if dry_run {
        let slots = look_as_owner(app, "rotating keys")?.slots();
        let next = slots.first().map_or(0, |slot| slot.epoch) + 1;
        let keys = counted(&slots);
        app.out.done(&format!(
            "would make epoch {next}: {keys} would open it, each as before; nothing was written"
        ));
        return Ok(Done::with(json::object(summary(next, &slots))));
    }
    let (repository, copies) = open_as_owner(app, "rotating keys")?;
    let slots = repository.slots();
    let change = repository.rotate_keys(system::now())?;
    require_counts(app, &change)?;
    app.out.done(&format!("made epoch {}: {} open it, each as before", change.epoch, counted(&slots)));
    app.out.tell(ROTATED);
    changed(app, copies, &change, summary(change.epoch, &slots))
}

/// What a rotation does, and what it does not.
const ROTATED: &str = "\
From now on everything is written under fresh keys; nothing has to be changed on any machine.
- What is stored already stays under its old keys.
- A run that is under way ends under the old keys, and can be read.
- A stolen key file, password or recovery key still opens all: take it away with `snap key remove` (a recovery key
  with `snap key recovery`), after the store's credentials.";

fn recovery(app: &App) -> Outcome {
    let (repository, copies) = open_as_owner(app, "making a recovery key")?;
    let secret = Secret::random_recovery()?;
    let key = secret.to_text().expect("recovery keys have a text");
    let (id, change) = repository.replace_recovery(&secret, system::now()).inspect_err(|error| {
        if may_be_stored(error) {
            // It may be the only owner's key by now.
            tell_recovery_key(&app.out, &key);
            app.out.warning(
                "it is not sure which recovery key holds now: keep the old one and this one until \
                 `snap key verify-recovery` has told you",
            );
        }
    })?;
    require_counts(app, &change)?;
    tell_recovery_key(&app.out, &key);
    app.out.tell("Earlier recovery keys do not open what is written from now on: destroy their copies.");
    let summary = json!({ "id": id.to_hex(), "recovery_key": key.as_str(), "epoch": change.epoch });
    changed(app, copies, &change, summary)
}

fn verify_recovery(app: &App) -> Outcome {
    let flag = KeySource::from_flags(&app.global)?;
    let source = match flag {
        Some(KeySource::RecoveryFile(path)) => Some(KeySource::RecoveryFile(path)),
        Some(_) => {
            return Err(Failure::usage("this command tries the recovery key, not another one")
                .hint("give --recovery-key-file FILE, or nothing to be asked for it"));
        }
        None => app.env.text("SNAP_RECOVERY_KEY").map(|key| KeySource::Recovery(key.into())),
    };
    let secret = match source {
        Some(source) => source.load()?,
        None if prompt::can_ask() => prompt::ask_recovery()?,
        None => {
            return Err(Failure::usage("no recovery key is given, and there is no terminal to ask for it")
                .hint("give --recovery-key-file FILE, - for standard input, or SNAP_RECOVERY_KEY"));
        }
    };
    let repository = repo::open_with_secret(app, &secret)?.repository;
    repository.keyring().require_owner("recovering")?;
    let opened = open_newest(&repository)?;
    let slots = repository.slots();
    let slot = slots.iter().find(|slot| slot.current).expect("the key in use is among the keys");
    let id = &slot.id.to_hex()[..12];
    let since = text::date_time(slot.created);
    let what = match opened {
        0 => "there is no snapshot yet to try it on".to_owned(),
        1 => "it opens the newest snapshot".to_owned(),
        epochs => format!("it opens the newest snapshot of each of {epochs} epochs"),
    };
    app.out.done(&format!(
        "recovery key {id}, made {since} UTC: it opens the repository {} as owner; {what}",
        repository.id()
    ));
    Ok(Done::with(json::object(json!({
        "repository_id": repository.id().to_hex(),
        "id": slot.id.to_hex(),
        "role": slot.role.to_string(),
        "label": slot.label,
        "created": text::rfc3339(slot.created),
        "epoch": slot.epoch,
        "snapshots_opened": opened,
    }))))
}

/// Opens the newest snapshot of each epoch; how many those are.
fn open_newest(repository: &Repository) -> Result<usize, Failure> {
    let mut epochs = HashSet::new();
    for snapshot in repository.snapshots()?.snapshots.iter().rev() {
        if epochs.insert(snapshot.envelope.run_key.epoch) {
            repository.open_body(snapshot)?;
        }
    }
    Ok(epochs.len())
}

#[cfg(test)]
mod tests {
    use snap_backend::{BackendError, Operation};

    use super::*;

    #[test]
    fn a_change_whose_answer_was_lost_may_have_happened() {
        let failed = |kind| RepoError::from(BackendError::new(kind, Operation::Put));
        for kind in [ErrorKind::Timeout, ErrorKind::Network, ErrorKind::Interrupted, ErrorKind::Other] {
            assert!(may_be_stored(&failed(kind)), "{kind:?}");
        }
        for kind in [ErrorKind::NoSpace, ErrorKind::Permission, ErrorKind::ReadOnly] {
            assert!(!may_be_stored(&failed(kind)), "{kind:?}");
        }
        assert!(!may_be_stored(&RepoError::Refused("x".into())));
    }
}
