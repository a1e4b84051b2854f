//! The command line of the independent reader.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use snap_reader::crypto::{Secret, hex};
use snap_reader::pack::Store;
use snap_reader::repo::{Findings, Repo};
use snap_reader::restore::restore;
use snap_reader::snapshot::snapshots;
use snap_reader::verify::verify;

const USAGE: &str = "usage: snap-reader REPO_DIR (--key-file F | --password-file F | --recovery-key-file F)
                   [--from-packs] (list | verify | restore SNAPSHOT TARGET_DIR)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut findings = Findings::new();
    let done = run(&args, &mut findings);
    let verifying = args.iter().any(|arg| arg == "verify");
    for finding in &findings {
        if verifying { println!("{finding}") } else { eprintln!("warning: {finding}") }
    }
    match done {
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
        Ok(()) if verifying && !findings.is_empty() => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn secret(flag: &str, file: &str) -> Result<Secret> {
    let bytes = fs::read(file).with_context(|| file.to_owned())?;
    match flag {
        "--password-file" => {
            let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            Ok(Secret::Password(line.strip_suffix(b"\r").unwrap_or(line).to_vec()))
        }
        "--key-file" => Secret::from_key_file(str::from_utf8(&bytes)?),
        "--recovery-key-file" => Secret::from_recovery_key(str::from_utf8(&bytes)?),
        _ => bail!(USAGE),
    }
}

fn run(args: &[String], findings: &mut Findings) -> Result<()> {
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    let all = args.len();
    args.retain(|arg| *arg != "--from-packs");
    let from_packs = args.len() < all;
    let [dir, flag, file, command @ ..] = args.as_slice() else { bail!(USAGE) };
    let repo = Repo::open(Path::new(dir), &secret(flag, file)?, findings)?;
    match command {
        ["list"] => {
            for snapshot in snapshots(&repo, findings)? {
                let (id, seconds) = (hex(&snapshot.id), snapshot.time.0);
                println!("{id} {seconds} {} {}", snapshot.dataset, snapshot.host);
            }
        }
        ["verify"] => verify(&Store::new(repo, from_packs, findings)?, findings)?,
        ["restore", id, target] => {
            let mut found = snapshots(&repo, findings)?;
            found.retain(|snapshot| hex(&snapshot.id).starts_with(&id.to_lowercase()));
            ensure!(found.len() < 2, "several snapshots begin with {id}");
            let snapshot = found.pop().with_context(|| format!("no snapshot {id}"))?;
            restore(&Store::new(repo, from_packs, findings)?, &snapshot, Path::new(target), findings)?;
        }
        _ => bail!(USAGE),
    }
    Ok(())
}
