use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use snap_engine::{Phase, Progress};

use super::{Output, text};

const TICK: Duration = Duration::from_millis(100);
const BAR_STEPS: u64 = 1000;

/// Draws a bar from the engine's counters until it is dropped; on a terminal only.
pub struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    out: Output,
}

impl Ticker {
    /// Begins to draw.
    pub fn start(out: &Output, progress: &Arc<Progress>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let wanted = out.options().progress && io::stderr().is_terminal();
        let thread = wanted.then(|| spawn(out, progress, &stop)).flatten();
        Self { stop, thread, out: out.clone() }
    }
}

fn spawn(out: &Output, progress: &Arc<Progress>, stop: &Arc<AtomicBool>) -> Option<JoinHandle<()>> {
    let bar = ProgressBar::with_draw_target(Some(BAR_STEPS), ProgressDrawTarget::stderr());
    out.set_bar(Some(bar.clone()));
    let (progress, stop) = (Arc::clone(progress), Arc::clone(stop));
    let draw = move || {
        let mut view = View::new();
        while !stop.load(Ordering::Relaxed) {
            view.draw(&bar, &progress);
            std::thread::park_timeout(TICK);
        }
        bar.finish_and_clear();
    };
    std::thread::Builder::new().name("progress".into()).spawn(draw).ok()
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        self.out.set_bar(None);
    }
}

struct View {
    phase: Phase,
    since: Instant,
    /// Whether the end is in sight: a bar, not a spinner.
    is_bar: Option<bool>,
    open: ProgressStyle,
    known: ProgressStyle,
}

impl View {
    fn new() -> Self {
        let style = |template| {
            ProgressStyle::with_template(template).expect("the templates are constants").progress_chars("=> ")
        };
        let (open, known) = (style("{spinner} {wide_msg}"), style("[{bar:24}] {wide_msg}"));
        Self { phase: Phase::Opening, since: Instant::now(), is_bar: None, open, known }
    }

    fn draw(&mut self, bar: &ProgressBar, progress: &Progress) {
        let phase = progress.phase();
        if phase != self.phase {
            (self.phase, self.since) = (phase, Instant::now());
        }
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = Counters {
            items: (load(&progress.items), load(&progress.items_total)),
            bytes: (load(&progress.bytes), load(&progress.bytes_total)),
        };
        let permille = counters.permille();
        if self.is_bar.replace(permille.is_some()) != Some(permille.is_some()) {
            bar.set_style(if permille.is_some() { self.known.clone() } else { self.open.clone() });
        }
        if let Some(permille) = permille {
            bar.set_position(permille);
        }
        bar.set_message(counters.message(phase, self.since.elapsed()));
        bar.tick();
    }
}

/// Done and total; a total of 0 is unknown.
struct Counters {
    items: (u64, u64),
    bytes: (u64, u64),
}

impl Counters {
    fn permille(&self) -> Option<u64> {
        let (done, total) = if self.bytes.1 > 0 { self.bytes } else { self.items };
        let permille = u128::from(done.min(total)) * u128::from(BAR_STEPS);
        u64::try_from(permille.checked_div(total.into())?).ok()
    }

    fn message(&self, phase: Phase, elapsed: Duration) -> String {
        let mut parts = Vec::new();
        match self.items {
            (0, 0) => {}
            (done, 0) => parts.push(text::count(done)),
            (done, total) => parts.push(format!("{} of {}", text::count(done), text::count(total))),
        }
        match self.bytes {
            (0, 0) => {}
            (done, 0) => parts.push(text::bytes(done)),
            (done, total) => parts.push(format!("{} of {}", text::bytes(done), text::bytes(total))),
        }
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if self.bytes.0 > 0 && millis >= 500 {
            parts.push(format!("{}/s", text::bytes(self.bytes.0.saturating_mul(1000) / millis)));
        }
        if let Some(permille) = self.permille()
            && permille > 0
            && millis >= 2000
        {
            let left = millis.saturating_mul(BAR_STEPS - permille) / permille;
            let secs = left.div_ceil(1000);
            parts.push(format!("{}:{:02} left", secs / 60, secs % 60));
        }
        format!("{}  {}", label(phase), parts.join("  "))
    }
}

const fn label(phase: Phase) -> &'static str {
    match phase {
        Phase::Opening => "opening",
        Phase::Scanning => "looking",
        Phase::Storing => "storing",
        Phase::Finishing => "finishing",
        Phase::Planning => "comparing",
        Phase::Restoring => "restoring",
        Phase::Checking => "checking",
        Phase::ReadingData => "reading data",
        Phase::Moving => "moving",
        Phase::Deleting => "deleting",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_is_known() {
        let counters = Counters { items: (1234, 0), bytes: (0, 0) };
        assert_eq!(counters.message(Phase::Storing, Duration::from_secs(9)), "storing  1,234");
        let counters = Counters { items: (1, 4), bytes: (1 << 20, 4 << 20) };
        assert_eq!(
            counters.message(Phase::Restoring, Duration::from_secs(10)),
            "restoring  1 of 4  1.0 MiB of 4.0 MiB  102.4 KiB/s  0:30 left"
        );
        assert_eq!(Counters { items: (5, 0), bytes: (5, 0) }.permille(), None);
        assert_eq!(Counters { items: (0, 0), bytes: (9, 3) }.permille(), Some(BAR_STEPS));
    }
}
