//! Work on many threads, each with buffers of its own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use snap_repo::Scratch;

use crate::{EngineError, Result};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one thread needs; its buffers are used again from object to object.
pub(crate) struct Worker {
    pub(crate) scratch: Scratch,
    pub(crate) plain: Vec<u8>,
    /// Grows to the largest object met and is never cleared: clearing costs as much as reading.
    pub(crate) bytes: Vec<u8>,
}

impl Worker {
    pub(crate) fn new() -> Result<Self> {
        let scratch = Scratch::new(1).map_err(|error| EngineError::io("preparing", b"zstd", error))?;
        Ok(Self { scratch, plain: Vec::new(), bytes: Vec::new() })
    }
}

/// Runs `work` on `threads` threads at once; the first error is returned when all have ended.
fn on_threads(threads: usize, work: impl Fn(&mut Worker) -> Result<()> + Sync) -> Result<()> {
    let failure = Mutex::new(None);
    let run = || {
        if let Err(error) = Worker::new().and_then(|mut worker| work(&mut worker)) {
            lock(&failure).get_or_insert(error);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(run);
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Calls `work` for each item; all threads stop early after an error.
pub(crate) fn for_each<T: Sync>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T, &mut Worker) -> Result<()> + Sync,
) -> Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    on_threads(threads.clamp(1, items.len()), |worker| {
        while !stop.load(Ordering::Relaxed) {
            let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            work(item, worker).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    })
}

struct State<T> {
    waiting: Vec<T>,
    busy: usize,
    stopped: bool,
}

/// Lets the other threads end if this one panics: they would wait for its work for ever.
struct StopOnUnwind<'a, T>(&'a Mutex<State<T>>, &'a Condvar);

impl<T> Drop for StopOnUnwind<'_, T> {
    fn drop(&mut self) {
        lock(self.0).stopped = true;
        self.1.notify_all();
    }
}

/// Calls `work` for each item and for every item that `work` adds, the last added first.
pub(crate) fn for_each_growing<T: Send>(
    first: Vec<T>,
    threads: usize,
    work: impl Fn(T, &mut Worker, &mut Vec<T>) -> Result<()> + Sync,
) -> Result<()> {
    if first.is_empty() {
        return Ok(());
    }
    let state = Mutex::new(State { waiting: first, busy: 0, stopped: false });
    let changed = Condvar::new();
    on_threads(threads.max(1), |worker| {
        let mut added = Vec::new();
        loop {
            let mut now = lock(&state);
            let item = loop {
                if now.stopped || (now.waiting.is_empty() && now.busy == 0) {
                    return Ok(());
                }
                match now.waiting.pop() {
                    Some(item) => break item,
                    None => now = changed.wait(now).unwrap_or_else(PoisonError::into_inner),
                }
            };
            now.busy += 1;
            drop(now);
            let unwinding = StopOnUnwind(&state, &changed);
            let outcome = work(item, worker, &mut added);
            std::mem::forget(unwinding);
            let mut now = lock(&state);
            now.busy -= 1;
            now.waiting.append(&mut added);
            now.stopped |= outcome.is_err();
            changed.notify_all();
            drop(now);
            outcome?;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_grows_is_all_done() {
        let sum = AtomicUsize::new(0);
        for_each_growing(vec![12usize], 3, |item, _, added| {
            sum.fetch_add(1, Ordering::Relaxed);
            if item > 0 {
                added.extend([item - 1, item - 1]);
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(sum.into_inner(), (1 << 13) - 1);
    }

    #[test]
    fn an_error_ends_all_threads() {
        let grown = for_each_growing(vec![0usize], 3, |item, _, added| {
            added.extend([item + 1, item + 1]);
            if item == 9 { Err(EngineError::Interrupted) } else { Ok(()) }
        });
        assert!(matches!(grown, Err(EngineError::Interrupted)));
        let items: Vec<usize> = (0..100).collect();
        let flat = for_each(&items, 3, |item, _| match item {
            50 => Err(EngineError::Interrupted),
            _ => Ok(()),
        });
        assert!(matches!(flat, Err(EngineError::Interrupted)));
    }
}
