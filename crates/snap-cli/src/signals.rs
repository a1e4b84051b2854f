//! SIGINT and SIGTERM. What can stop in good order is asked to; everything else, and everything at the second
//! signal, ends at once: the repository is written so that this is safe.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Incoming;

use crate::exit::Exit;

/// What the program knows of signals.
#[derive(Debug, Clone, Default)]
pub struct Signals(Arc<State>);

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    received: AtomicI32,
    graceful: AtomicBool,
    finished: AtomicBool,
}

impl Signals {
    /// Begins to listen. `leave` ends the process when nothing else does.
    pub fn listen(&self, leave: impl Fn(Exit) + Send + 'static) -> io::Result<()> {
        let mut incoming = Incoming::new([SIGINT, SIGTERM])?;
        let state = Arc::clone(&self.0);
        let listen = move || {
            for signal in incoming.forever() {
                let is_first = state.received.swap(signal, Ordering::SeqCst) == 0;
                state.stop.store(true, Ordering::SeqCst);
                let exit = exit_of(signal);
                if !is_first {
                    std::process::exit(exit.code().into());
                }
                if !state.graceful.load(Ordering::SeqCst) && !state.finished.swap(true, Ordering::SeqCst) {
                    leave(exit);
                    std::process::exit(exit.code().into());
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(listen)?;
        Ok(())
    }

    /// The flag for the engine.
    pub fn stop(&self) -> &AtomicBool {
        &self.0.stop
    }

    /// While the guard lives, the first signal only sets the flag.
    pub fn graceful(&self) -> Graceful<'_> {
        self.0.graceful.store(true, Ordering::SeqCst);
        Graceful(self)
    }

    /// How the run ends if it was asked to stop.
    pub fn exit(&self) -> Option<Exit> {
        match self.0.received.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(exit_of(signal)),
        }
    }

    /// Says that the run reports its own end. If the listener is reporting already, this never returns: the process ends.
    pub fn finish(&self) {
        while self.0.finished.swap(true, Ordering::SeqCst) {
            std::thread::park();
        }
    }
}

const fn exit_of(signal: i32) -> Exit {
    if signal == SIGTERM { Exit::Terminated } else { Exit::Interrupted }
}

/// See [`Signals::graceful`].
#[must_use = "signals end the process at once when this is dropped"]
pub struct Graceful<'a>(&'a Signals);

impl Drop for Graceful<'_> {
    fn drop(&mut self) {
        self.0.0.graceful.store(false, Ordering::SeqCst);
    }
}
