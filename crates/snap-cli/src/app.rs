//! One run, from arguments to exit code.

use std::ffi::OsString;
use std::sync::{Arc, OnceLock};

use clap::Parser;
use clap::error::ErrorKind;
use snap_crypto::CryptoError;
use snap_engine::{Context, EngineError, Observer, Progress};

use crate::args::values::Size;
use crate::args::{Cli, FilterArgs, Glimpse, GlobalArgs};
use crate::commands::{self, Done};
use crate::config;
use crate::exit::{AGAIN, Exit, Failure};
use crate::prompt;
use crate::render::{Output, OutputOptions, Ticker};
use crate::signals::Signals;
use crate::system::{self, Env};

/// Budget of the pipeline unless another is given.
const DEFAULT_MEMORY_BYTES: u64 = 160 << 20;

/// With less, a run cannot hold its packs.
const MIN_MEMORY_BYTES: u64 = 32 << 20;

/// What every command has at hand.
pub struct App {
    /// Flags of every command.
    pub global: GlobalArgs,
    /// Filters that were given before the command.
    pub filter: FilterArgs,
    /// The environment.
    pub env: Env,
    /// The standard streams.
    pub out: Output,
    /// SIGINT and SIGTERM.
    pub signals: Signals,
    /// The command reads stored data.
    pub reads_content: bool,
    /// `snap.toml`, once it was needed.
    config: OnceLock<Option<snap_ops::Config>>,
}

/// Runs the program.
pub fn run(args: &[OsString], env: Env) -> Exit {
    match Cli::try_parse_from(args) {
        Ok(cli) => run_command(cli, env),
        Err(error) => refuse(&error, &Glimpse::of(args)),
    }
}

/// What clap does not take, or answers itself: help and version.
fn refuse(error: &clap::Error, glimpse: &Glimpse) -> Exit {
    let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if is_answer || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && !glimpse.json {
        // Help of a command that lacks arguments goes to standard error.
        return match error.print() {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Failed,
            _ if is_answer => Exit::Done,
            _ => Exit::Usage,
        };
    }
    let out = Output::new(OutputOptions { json: glimpse.json, ..OutputOptions::default() });
    out.failure(&usage_failure(error, glimpse));
    end(&out, glimpse.command.as_deref(), Exit::Usage, serde_json::Map::new())
}

fn usage_failure(error: &clap::Error, glimpse: &Glimpse) -> Failure {
    let command = glimpse.command.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
    let hint = format!("`snap{command} --help` shows what it takes");
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
    ) {
        return Failure::usage("a command is missing").hint(hint);
    }
    let text = error.render().to_string();
    let told = text.split("\n\nUsage:").next().unwrap_or_default();
    let told = told.split("\n\nFor more information").next().unwrap_or_default();
    let message: Vec<&str> = told.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let message = message.join("\n");
    Failure::usage(message.strip_prefix("error: ").unwrap_or(&message)).hint(hint)
}

fn run_command(cli: Cli, env: Env) -> Exit {
    let Cli { global, filter, command } = cli;
    let out = Output::new(OutputOptions {
        json: global.json,
        stdout_is_taken: command.owns_stdout(),
        quiet: global.quiet,
        verbose: global.verbose,
        progress: !(global.no_progress || global.quiet || global.json),
    });
    let (name, signals) = (command.name(), Signals::default());
    let leave = {
        let out = out.clone();
        move |exit| {
            prompt::restore_settings();
            // Nothing was under way that could be continued.
            out.failure(&interrupted(exit).hint("run the command again"));
            end(&out, Some(name), exit, serde_json::Map::new());
        }
    };
    let reads_content = command.reads_content();
    let app = App {
        global,
        filter,
        env,
        out: out.clone(),
        signals: signals.clone(),
        reads_content,
        config: OnceLock::new(),
    };
    let outcome = prepare(&app, leave).and_then(|()| commands::run(&app, command));
    signals.finish();
    match outcome {
        Ok(Done { exit, summary }) => end(&out, Some(name), exit, summary),
        Err(failure) => {
            // Whatever a signal broke off: the signal is why.
            let failure = signals.exit().map_or(failure, interrupted);
            out.failure(&failure);
            end(&out, Some(name), failure.exit, serde_json::Map::new())
        }
    }
}

fn interrupted(exit: Exit) -> Failure {
    Failure::new(exit, "interrupted").hint(AGAIN)
}

/// Nothing is read or written by a program that computes wrong results.
fn prepare(app: &App, leave: impl Fn(Exit) + Send + 'static) -> Result<(), Failure> {
    system::raise_open_files();
    app.signals.listen(leave).map_err(|error| Failure::io("cannot listen to signals", &error))?;
    snap_crypto::self_test()?;
    if !snap_chunker::self_test() {
        return Err(CryptoError::SelfTest("the chunker").into());
    }
    Ok(())
}

/// Writes the summary and what is buffered.
fn end(out: &Output, command: Option<&str>, exit: Exit, summary: crate::render::json::Object) -> Exit {
    out.summary(command, exit, summary);
    match out.flush() {
        Ok(()) => exit,
        Err(error) => {
            out.tell(&format!("error: cannot write to standard output\ncause: {error}"));
            if exit == Exit::Done { Exit::Failed } else { exit }
        }
    }
}

impl App {
    /// Both places' filters.
    pub fn filter(&self, own: &FilterArgs) -> FilterArgs {
        self.filter.and(own)
    }

    /// Refuses filters before a command that names no snapshot.
    pub fn refuse_filters(&self) -> Result<(), Failure> {
        match self.filter.first_flag() {
            None => Ok(()),
            Some(flag) => {
                Err(Failure::usage(format!("{flag} before the command filters snapshots, and none is named"))
                    .hint("put the flags of a command behind it"))
            }
        }
    }

    /// The configuration, read when it is first needed: what needs none is not hindered by a broken one.
    pub fn config(&self) -> Result<Option<&snap_ops::Config>, Failure> {
        if self.config.get().is_none() {
            let _ = self.config.set(config::load(self)?);
        }
        Ok(self.config.get().and_then(Option::as_ref))
    }

    pub fn memory_bytes(&self) -> Result<u64, Failure> {
        let bytes = match (self.global.memory, self.env.text("SNAP_MEMORY")) {
            (Some(Size(bytes)), _) => bytes,
            (None, Some(text)) => {
                let size: Result<Size, String> = text.parse();
                size.map_err(|why| {
                    Failure::usage(format!("SNAP_MEMORY={text}: {why}")).hint("such as 160MiB")
                })?
                .0
            }
            (None, None) => DEFAULT_MEMORY_BYTES,
        };
        if bytes < MIN_MEMORY_BYTES {
            return Err(Failure::usage("the memory is too small").hint("give at least 32MiB"));
        }
        Ok(bytes)
    }

    /// Calls the engine: with a progress bar, and stopped in good order by a signal.
    pub fn engine<T>(
        &self,
        observer: &dyn Observer,
        call: impl FnOnce(Context<'_>) -> Result<T, EngineError>,
    ) -> Result<T, Failure> {
        let memory_bytes = self.memory_bytes()?;
        let progress = Arc::new(Progress::default());
        let _graceful = self.signals.graceful();
        let _ticker = Ticker::start(&self.out, &progress);
        let stop = self.signals.stop();
        let context =
            Context { observer, progress: &progress, stop, threads: system::threads(), memory_bytes };
        Ok(call(context)?)
    }
}
