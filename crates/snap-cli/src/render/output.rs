use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;
use serde_json::{Value, json};
use snap_repo::Finding;

use super::json::{self, Object};
use super::text;
use crate::exit::{Exit, Failure};

/// How to write.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutputOptions {
    /// JSON lines rather than text.
    pub json: bool,
    /// Standard output carries something else: JSON lines go to standard error.
    pub stdout_is_taken: bool,
    /// No notes and no summary for people.
    pub quiet: bool,
    /// Every entry is named.
    pub verbose: bool,
    /// A bar may be drawn.
    pub progress: bool,
}

/// The two standard streams. Standard output has what was asked for; standard error what people should know. A reader
/// of standard output that went away is no failure.
#[derive(Clone)]
pub struct Output(Arc<Inner>);

struct Inner {
    options: OutputOptions,
    stdout: Mutex<Stdout>,
    bar: Mutex<Option<ProgressBar>>,
    stdout_is_terminal: bool,
}

struct Stdout {
    stream: BufWriter<io::Stdout>,
    is_broken: bool,
    error: Option<io::Error>,
}

impl Stdout {
    /// Keeps the first error; a broken pipe is none.
    fn settle(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.is_broken = true,
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Output {
    /// Over the process's streams.
    pub fn new(options: OutputOptions) -> Self {
        let stdout = Stdout { stream: BufWriter::new(io::stdout()), is_broken: false, error: None };
        Self(Arc::new(Inner {
            options,
            stdout: Mutex::new(stdout),
            bar: Mutex::new(None),
            stdout_is_terminal: io::stdout().is_terminal(),
        }))
    }

    /// How it was made.
    pub fn options(&self) -> OutputOptions {
        self.0.options
    }

    /// Whether standard output is a terminal: what is written there must not steer it.
    pub fn is_terminal(&self) -> bool {
        self.0.stdout_is_terminal
    }

    /// Whether nobody reads standard output any more.
    pub fn is_broken(&self) -> bool {
        lock(&self.0.stdout).is_broken
    }

    /// Sets or takes away the bar around which messages are written.
    pub fn set_bar(&self, bar: Option<ProgressBar>) {
        *lock(&self.0.bar) = bar;
    }

    fn around_bar(&self, write: impl FnOnce()) {
        let bar = lock(&self.0.bar).clone();
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Writes to standard output as it is.
    pub fn raw(&self, bytes: &[u8]) {
        self.around_bar(|| {
            let mut stdout = lock(&self.0.stdout);
            if !stdout.is_broken {
                let outcome = stdout.stream.write_all(bytes);
                stdout.settle(outcome);
            }
        });
    }

    /// A line of text for people on standard output; nothing with `--json`.
    pub fn line(&self, line: &str) {
        if !self.0.options.json {
            self.raw(format!("{line}\n").as_bytes());
        }
    }

    /// A line about what was done, for people; nothing with `--json` or `--quiet`.
    pub fn done(&self, line: &str) {
        if !self.0.options.quiet {
            self.line(line);
        }
    }

    /// A JSON line; nothing without `--json`.
    pub fn event(&self, event: Object) {
        if !self.0.options.json {
            return;
        }
        let line = format!("{}\n", Value::Object(event));
        if self.0.options.stdout_is_taken {
            self.stderr(&line);
        } else {
            self.raw(line.as_bytes());
        }
    }

    fn stderr(&self, text: &str) {
        // Nothing is left to be done when standard error fails.
        self.around_bar(|| drop(io::stderr().lock().write_all(text.as_bytes())));
    }

    /// A line on standard error that is shown whatever the options are.
    pub fn tell(&self, line: &str) {
        self.stderr(&format!("{line}\n"));
    }

    /// Something that people may want to know.
    pub fn note(&self, text: &str) {
        self.event(json::object(json!({ "event": "note", "message": text })));
        if !self.0.options.quiet {
            self.tell(&format!("note: {text}"));
        }
    }

    /// The same about an entry.
    pub fn entry_note(&self, path: &[u8], text: &str) {
        let mut event = json::object(json!({ "event": "note", "message": text }));
        json::put_bytes(&mut event, "path", path);
        self.event(event);
        if !self.0.options.quiet {
            self.tell(&format!("note: {}: {text}", text::printable(path)));
        }
    }

    /// Something that people should know.
    pub fn warning(&self, text: &str) {
        self.event(json::object(json!({ "event": "warning", "message": text })));
        self.tell(&format!("warning: {text}"));
    }

    /// An entry that could not be read.
    pub fn unreadable(&self, path: &[u8], message: &str) {
        let mut event = json::object(json!({ "event": "error", "message": message }));
        json::put_bytes(&mut event, "path", path);
        self.event(event);
        self.tell(&format!("error: {}: {message}", text::printable(path)));
    }

    /// An entry that was stored, restored or deleted.
    pub fn entry_done(&self, path: &[u8], what: &str) {
        let mut event = json::object(json!({ "event": "entry", "action": what }));
        json::put_bytes(&mut event, "path", path);
        self.event(event);
        self.line(&format!("{what:<9} {}", self.name(path)));
    }

    /// Damage that was met on the way.
    pub fn finding(&self, finding: &Finding) {
        self.event(json::finding(finding));
        let mut line = format!("damage: {}", text::printable(finding.to_string().as_bytes()));
        for path in &finding.paths {
            line.push_str("\n  lost: ");
            line.push_str(&text::printable(path));
        }
        self.tell(&line);
    }

    /// Bytes as standard output can take them: escaped on a terminal, else as they are.
    pub fn shown<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.is_terminal() { text::printable(bytes).into_bytes().into() } else { bytes.into() }
    }

    /// A name as standard output can take it: escaped on a terminal, else as UTF-8 as far as it goes.
    pub fn name(&self, bytes: &[u8]) -> String {
        if self.is_terminal() { text::printable(bytes) } else { String::from_utf8_lossy(bytes).into_owned() }
    }

    /// How a run failed.
    pub fn failure(&self, failure: &Failure) {
        self.event(json::failure(failure));
        let mut text =
            format!("error: {}\n", text::printable(failure.message.as_bytes()).replace("\\n", "\n  "));
        for cause in &failure.causes {
            text.push_str(&format!("cause: {}\n", text::printable(cause.as_bytes())));
        }
        if let Some(hint) = &failure.hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
        self.stderr(&text);
    }

    /// The last line of every run.
    pub fn summary(&self, command: Option<&str>, exit: Exit, mut fields: Object) {
        let mut event = json::object(json!({ "event": "summary", "command": command }));
        event.append(&mut fields);
        event.insert("exit".to_owned(), exit.code().into());
        self.event(event);
    }

    /// Writes what is buffered. The error that made output incomplete, if any.
    pub fn flush(&self) -> io::Result<()> {
        let mut stdout = lock(&self.0.stdout);
        if !stdout.is_broken {
            let outcome = stdout.stream.flush();
            stdout.settle(outcome);
        }
        stdout.error.take().map_or(Ok(()), Err)
    }

    /// Standard output for a stream of bytes.
    pub fn writer(&self) -> StdoutWriter {
        StdoutWriter(self.clone())
    }
}

/// Standard output for a stream of bytes. A broken pipe is an error here, so that the writer stops; [`Output::is_broken`]
/// tells it from a failure.
pub struct StdoutWriter(Output);

impl Write for StdoutWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = lock(&self.0.0.stdout);
        let outcome = stdout.stream.write_all(bytes);
        stdout.is_broken |= outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        outcome
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut stdout = lock(&self.0.0.stdout);
        let outcome = stdout.stream.flush();
        stdout.is_broken |= outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        outcome
    }
}
