//! How long a restore will take, by how long earlier ones took on this machine.

use std::fmt::Write;
use std::time::Duration;

use snap_repo::Cache;

use crate::RestoreReport;

/// The file in the cache of a store's place.
const NAME: &str = "measured";
/// Runs that are remembered.
const RUNS: usize = 8;

/// What one run moved, and how long that took.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct Run {
    pub seconds: f64,
    pub fetched_bytes: u64,
    pub restored_bytes: u64,
    pub entries: u64,
}

impl Run {
    /// A restore.
    pub fn of_restore(report: &RestoreReport, elapsed: Duration) -> Self {
        let RestoreReport { fetched_bytes, restored_bytes, restored, skipped, .. } = *report;
        Self { seconds: elapsed.as_secs_f64(), fetched_bytes, restored_bytes, entries: restored + skipped }
    }

    /// A check that read so many bytes of packs.
    pub fn of_check(read_bytes: u64, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        Self { seconds, fetched_bytes: read_bytes, restored_bytes: 0, entries: 0 }
    }

    /// What is counted: bytes fetched, bytes written, entries.
    fn amounts(&self) -> [u64; 3] {
        [self.fetched_bytes, self.restored_bytes, self.entries]
    }
}

/// The last runs that read from one store, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured(Vec<Run>);

impl Measured {
    /// What the cache remembers of the store at `location`; nothing, if it cannot.
    pub fn load(cache: &Cache, location: &str) -> Self {
        let text = cache.place(location).read(NAME).and_then(|bytes| String::from_utf8(bytes).ok());
        Self::parse(&text.unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let run = |line: &str| {
            let mut words = line.split(' ');
            let seconds = words.next()?.parse().ok().filter(|seconds| (1e-3..1e9).contains(seconds))?;
            let mut count = || words.next()?.parse().ok();
            let (fetched_bytes, restored_bytes, entries) = (count()?, count()?, count()?);
            Some(Run { seconds, fetched_bytes, restored_bytes, entries })
        };
        Self(text.lines().filter_map(run).take(RUNS).collect())
    }

    /// Remembers one more. A failure costs an estimate.
    pub fn add(mut self, run: Run, cache: &Cache, location: &str) {
        if run.amounts() == [0; 3] {
            return;
        }
        self.0.push(run);
        let mut text = String::new();
        for run in &self.0[self.0.len().saturating_sub(RUNS)..] {
            let [fetched, restored, entries] = run.amounts();
            let _ = writeln!(text, "{:.6} {fetched} {restored} {entries}", run.seconds);
        }
        let _ = cache.place(location).write(NAME, text.as_bytes());
    }

    /// How long what a rehearsal has counted will take: each of bytes fetched, bytes written and entries at the best rate that
    /// was measured, since a run that was held up by one of them says nothing of the others; the slowest of them decides.
    /// `None` if nothing was measured yet.
    #[allow(clippy::cast_precision_loss)] // an estimate
    pub fn estimate(&self, report: &RestoreReport) -> Option<Duration> {
        let wanted = Run::of_restore(report, Duration::ZERO).amounts();
        let seconds = (0..3).filter(|at| wanted[*at] > 0).filter_map(|at| {
            let rates = self.0.iter().map(|run| run.amounts()[at] as f64 / run.seconds);
            let best = rates.fold(0.0, f64::max);
            (best > 0.0).then(|| wanted[at] as f64 / best)
        });
        seconds.reduce(f64::max).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(fetched_bytes: u64, restored_bytes: u64, restored: u64) -> RestoreReport {
        RestoreReport { fetched_bytes, restored_bytes, restored, ..RestoreReport::default() }
    }

    #[test]
    fn the_slowest_of_all_rates_decides() {
        let measured = Measured::parse("10.0 1000 4000 20\n5.0 100 100 100\nnonsense\n0 5 5 5\n");
        assert_eq!(measured.0.len(), 2);
        // 100 bytes a second fetched, 400 written, 20 entries.
        let seconds = |report: RestoreReport| measured.estimate(&report).map(|time| time.as_secs());
        assert_eq!(seconds(wants(5000, 4000, 20)), Some(50));
        assert_eq!(seconds(wants(100, 40_000, 20)), Some(100));
        assert_eq!(seconds(wants(100, 400, 60)), Some(3));
        assert_eq!(seconds(wants(0, 0, 0)), None);
        assert_eq!(Measured::default().estimate(&wants(1, 1, 1)), None);
        // Where the one that is wanted was never measured, the others do.
        let checked = Measured::parse("10.0 1000 0 0\n");
        assert_eq!(checked.estimate(&wants(500, 9999, 7)).unwrap().as_secs(), 5);
    }

    #[test]
    fn the_last_runs_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), snap_format::RepoId([7; 32]));
        for number in 1..=10 {
            let run = Run { seconds: 1.5, fetched_bytes: number, restored_bytes: 2, entries: 3 };
            Measured::load(&cache, "here").add(run, &cache, "here");
        }
        let fetched: Vec<u64> =
            Measured::load(&cache, "here").0.iter().map(|run| run.fetched_bytes).collect();
        assert_eq!(fetched, (3..=10).collect::<Vec<_>>());
        assert_eq!(Measured::load(&cache, "there"), Measured::default());
        Measured::default().add(Run::of_check(0, Duration::from_secs(1)), &cache, "there");
        assert_eq!(Measured::load(&cache, "there"), Measured::default());
    }
}
