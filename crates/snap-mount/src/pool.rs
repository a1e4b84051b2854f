use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

/// How many jobs that nobody waits for are kept.
const MOST_LATER: usize = 256;
/// Threads for what nobody waits for.
const LATER_THREADS: usize = 2;

/// Threads for what may wait for the store, so that whatever need not wait does not. There are more as they are needed: those
/// that a stalled store holds up are not in the way of others.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    queues: Mutex<Queues>,
    work: Condvar,
    name: &'static str,
    most_threads: usize,
}

#[derive(Default)]
struct Queues {
    now: VecDeque<Job>,
    /// What will perhaps be wanted.
    later: VecDeque<Job>,
    threads: usize,
    idle: usize,
    busy_later: usize,
    stopped: bool,
}

impl Pool {
    /// One with a thread, so that there is one in any case.
    pub(crate) fn start(name: &'static str, most_threads: usize) -> std::io::Result<Self> {
        let pool =
            Self(Arc::new(Shared { queues: Mutex::default(), work: Condvar::new(), name, most_threads }));
        pool.add_thread(&mut pool.0.lock())?;
        Ok(pool)
    }

    fn add_thread(&self, queues: &mut Queues) -> std::io::Result<()> {
        let shared = Arc::clone(&self.0);
        let name = format!("{}-{}", shared.name, queues.threads);
        std::thread::Builder::new().name(name).spawn(move || shared.work())?;
        queues.threads += 1;
        Ok(())
    }

    /// Somebody waits for this.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut queues = self.0.lock();
        if queues.stopped {
            return;
        }
        queues.now.push_back(Box::new(job));
        if queues.idle < queues.now.len() && queues.threads < self.0.most_threads {
            // If there can be no more, those that are there will come to it.
            let _ = self.add_thread(&mut queues);
        }
        drop(queues);
        self.0.work.notify_one();
    }

    /// Nobody waits for this yet; it is dropped if there is too much of it.
    pub(crate) fn run_later(&self, job: impl FnOnce() + Send + 'static) {
        let mut queues = self.0.lock();
        if queues.stopped {
            return;
        }
        if queues.later.len() == MOST_LATER {
            queues.later.pop_front();
        }
        queues.later.push_back(Box::new(job));
        if queues.idle == 0 && queues.busy_later < LATER_THREADS && queues.threads < self.0.most_threads {
            let _ = self.add_thread(&mut queues);
        }
        drop(queues);
        self.0.work.notify_one();
    }

    /// The threads end when they are done with what they have begun.
    pub(crate) fn stop(&self) {
        let mut queues = self.0.lock();
        queues.stopped = true;
        let dropped = (std::mem::take(&mut queues.now), std::mem::take(&mut queues.later));
        drop(queues);
        drop(dropped);
        self.0.work.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queues = self.lock();
        while !queues.stopped {
            let is_now = !queues.now.is_empty();
            let job = match is_now {
                true => queues.now.pop_front(),
                false if queues.busy_later < LATER_THREADS => queues.later.pop_front(),
                false => None,
            };
            let Some(job) = job else {
                queues.idle += 1;
                queues = self.work.wait(queues).unwrap_or_else(PoisonError::into_inner);
                queues.idle -= 1;
                continue;
            };
            queues.busy_later += usize::from(!is_now);
            drop(queues);
            // Whatever the job had to answer is answered when it is dropped: by an error.
            let _ = catch_unwind(AssertUnwindSafe(job));
            queues = self.lock();
            queues.busy_later -= usize::from(!is_now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_waits_is_not_in_the_way() {
        let pool = Pool::start("test", 6).unwrap();
        let (open, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..5 {
            let gate = Arc::clone(&gate);
            pool.run(move || assert!(gate.lock().unwrap().recv().is_err()));
        }
        pool.run(|| panic!("of one job"));
        let (done, wait) = channel();
        let later = done.clone();
        pool.run(move || done.send("now").unwrap());
        assert_eq!(wait.recv(), Ok("now"));
        pool.run_later(move || later.send("later").unwrap());
        assert_eq!(wait.recv(), Ok("later"));
        drop(open);
        pool.stop();
        pool.run(|| unreachable!("it was stopped"));
    }
}
