//! The archive of definitions: made by `pg_dump` beside the readers, the same bytes for the same definitions.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::settings::Settings;
use super::tools::{Running, Tools};
use crate::{DatabaseError, Stop};

/// How long `pg_dump` waits for whoever changes a definition.
const LOCK_WAIT: &str = "--lock-wait-timeout=60s";

/// An archive that is being made, in a file of its own.
#[derive(Debug)]
pub(super) struct Archive {
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Running(Running),
    Done,
    Failed(String),
}

impl Archive {
    /// Begins to dump everything but rows, as the snapshot of that name shows it; in another encoding than the
    /// database's, if one is named.
    pub(super) fn start(
        tools: &Tools,
        settings: &Settings,
        database: &str,
        snapshot: &str,
        encoding: Option<&str>,
        directory: &Path,
    ) -> Result<Self, DatabaseError> {
        let file = directory.join("schema.dump");
        let mut command = tools.command("pg_dump", settings, database)?;
        command
            .args(["--format=custom", "--compress=0", "--section=pre-data", "--section=post-data", LOCK_WAIT])
            .arg(format!("--snapshot={snapshot}"))
            .args(encoding.map(|encoding| format!("--encoding={encoding}")))
            .arg("--file")
            .arg(&file);
        Ok(Self { file, state: Mutex::new(State::Running(Running::start(command)?)) })
    }

    /// The file, once it is whole.
    pub(super) fn wait(&self, stop: &Stop) -> Result<&Path, DatabaseError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(_) = *state {
            let State::Running(running) = std::mem::replace(&mut *state, State::Done) else { unreachable!() };
            let outcome = running.finish(stop).and_then(|_| {
                let failed = |error| DatabaseError::failed("cannot keep the archive of definitions", error);
                let mut bytes = fs::read(&self.file).map_err(failed)?;
                if forget_time(&mut bytes) {
                    fs::write(&self.file, &bytes).map_err(failed)?;
                }
                Ok(())
            });
            if let Err(error) = outcome {
                *state = State::Failed(error.to_string());
                return Err(error);
            }
        }
        match &*state {
            State::Failed(why) => {
                Err(DatabaseError::failed("the definitions could not be read", why.clone()))
            }
            _ => Ok(&self.file),
        }
    }
}

/// Sets the time at which an archive was made to the beginning of 2000: only that differs between two archives of the same
/// definitions. An archive whose layout is not known stays as it is.
///
/// The head, as `ReadHead` and `WriteHead` of PostgreSQL's `pg_backup_archiver.c` have it: `PGDMP`, version in three bytes, size of
/// an integer, size of an offset, format; the compression, an integer before version 1.15 and a byte from there; then second,
/// minute, hour, day, month, year since 1900, daylight saving time. An integer is a byte for the sign, then its bytes, lowest first.
fn forget_time(archive: &mut [u8]) -> bool {
    const MAGIC: &[u8] = b"PGDMP";
    const INTEGER: usize = 4;
    const TIME: [u8; 7] = [0, 0, 0, 1, 0, 100, 0];
    let Some(&[major, minor, _, integer, _, _]) =
        archive.strip_prefix(MAGIC).and_then(|rest| rest.first_chunk::<6>())
    else {
        return false;
    };
    let compression = match (major, minor) {
        (1, 13 | 14) => 1 + INTEGER,
        (1, 15 | 16) => 1,
        _ => return false,
    };
    if usize::from(integer) != INTEGER {
        return false;
    }
    let begin = MAGIC.len() + 6 + compression;
    let Some(times) = archive.get_mut(begin..begin + TIME.len() * (1 + INTEGER)) else { return false };
    for (field, value) in times.chunks_exact_mut(1 + INTEGER).zip(TIME) {
        field.fill(0);
        field[1] = value;
    }
    true
}

/// A script without the two commands of psql's that hold a random word.
pub(super) fn without_random(script: &[u8]) -> Vec<u8> {
    let is_random = |line: &&[u8]| line.starts_with(b"\\restrict ") || line.starts_with(b"\\unrestrict ");
    let lines: Vec<&[u8]> =
        script.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_random(line)).collect();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_is_forgotten() {
        for (minor, compression) in [(14u8, 5), (15, 1)] {
            let head = [b"PGDMP\x01".as_slice(), &[minor, 0, 4, 8, 1], &vec![7; compression]].concat();
            let mut archive = [head.as_slice(), &[9; 35], b"rest"].concat();
            assert!(forget_time(&mut archive));
            let time =
                [[0; 15].as_slice(), &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0], &[0; 5]].concat();
            assert_eq!(archive, [head.as_slice(), &time, b"rest"].concat());
        }
        for strange in [&b"PGDMP\x02\x00\x00\x04\x08\x01"[..], b"PGDMP\x01\x0e", b"", b"SQL"] {
            let mut archive = [strange, &[9; 60]].concat();
            let before = archive.clone();
            assert_eq!((forget_time(&mut archive), archive), (false, before));
        }
    }

    #[test]
    fn random_words_are_left_out() {
        let script = b"--\n\\restrict abc\nSELECT 1;\n\\unrestrict abc\nend";
        assert_eq!(without_random(script), b"--\nSELECT 1;\nend");
    }
}
