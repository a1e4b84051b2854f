use snap_engine::{Event, Observer};

use super::Output;
use crate::app::App;
use crate::signals::Signals;

/// Hands what the engine says to the [`Output`].
pub struct CliObserver {
    out: Output,
    signals: Signals,
    /// Whether findings are told as they come; a command that tells them at its end leaves them.
    tells_findings: bool,
}

impl CliObserver {
    /// Tells everything.
    pub fn new(app: &App) -> Self {
        Self { out: app.out.clone(), signals: app.signals.clone(), tells_findings: true }
    }

    /// Tells everything but findings.
    pub fn without_findings(app: &App) -> Self {
        Self { tells_findings: false, ..Self::new(app) }
    }
}

impl Observer for CliObserver {
    fn event(&self, event: Event<'_>) {
        match event {
            // What a signal broke off is not unreadable.
            Event::Unreadable { .. } if self.signals.exit().is_some() => {}
            Event::Unreadable { path, error } => self.out.unreadable(path, &error.to_string()),
            Event::Note { path: [], text } => self.out.note(text),
            Event::Note { path, text } => self.out.entry_note(path, text),
            Event::Warning { text } => self.out.warning(text),
            Event::Finding(finding) if self.tells_findings => self.out.finding(finding),
            Event::Done { path, what } => self.out.entry_done(path, what),
            _ => {}
        }
    }

    fn wants_done(&self) -> bool {
        self.out.options().verbose
    }
}
