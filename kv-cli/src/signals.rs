//! Ends a shell in order on SIGINT, SIGTERM and SIGHUP: every answered change becomes durable.
//!
//! Two threads can end a shell: the main thread at the end of the input, and the signal thread. The
//! first one to claim the end closes the store and ends the process. The other one closes nothing:
//! the main thread waits for the end of the process, and the signal thread ignores the signal. So a
//! second signal does not cut the closing short.
//!
//! A signal may come while the line editor has changed the settings of the terminal. They are
//! restored before the process dies.
//!
//! `repair`, `copy`, and `restore` from a store of the log engine ask an [`Interrupt`] between two
//! steps. They remove their unfinished work, and then die of the signal.
//!
//! Other single commands keep the default action: they answer after the close, so a signal takes no
//! answered change away.

use crate::failure::Failure;
use kv_core::Engine;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::io;
use std::panic::resume_unwind;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

/// Watches for the signals that end a shell.
#[derive(Debug)]
pub(crate) struct Watch {
    end: End,
    thread: JoinHandle<()>,
}

impl Watch {
    /// From now on a signal closes `engine` and ends the process.
    pub(crate) fn start(engine: Arc<dyn Engine>) -> io::Result<Watch> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        // nohup ignores SIGHUP, and a handler would undo that.
        if !is_ignored(SIGHUP) {
            signals.add_signal(SIGHUP)?;
        }
        let end = End::default();
        let (shared, terminal) = (end.clone(), Settings::of_input());
        let thread = thread::Builder::new().name("kv-signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                if shared.claim() {
                    end_process(&*engine, &terminal, signal);
                }
            }
        })?;
        Ok(Watch { end, thread })
    }

    /// Whether a signal ends the process. Later changes have no effect.
    pub(crate) fn is_ending(&self) -> bool {
        self.end.is_claimed()
    }

    /// Claims the end for the caller, which then closes the store: no signal does so any more. Does
    /// not return if a signal has claimed the end before.
    pub(crate) fn finish(self) {
        if self.end.claim() {
            return;
        }
        // The signal thread ends the process, or panics.
        if let Err(panic) = self.thread.join() {
            resume_unwind(panic);
        }
    }
}

/// The end of a shell, which one thread claims.
#[derive(Clone, Debug, Default)]
struct End(Arc<AtomicBool>);

impl End {
    /// Claims the end. Returns whether the caller is the first to do so.
    fn claim(&self) -> bool {
        // The flag elects one thread and publishes no other memory.
        !self.0.swap(true, Ordering::Relaxed)
    }

    fn is_claimed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Closes the store. Then the process dies of `signal`, as its parent expects; or it exits with a
/// failure if the close failed.
fn end_process(engine: &dyn Engine, terminal: &Settings, signal: i32) -> ! {
    terminal.restore();
    if let Err(error) = engine.close() {
        process::exit(Failure::Store(error).report().into());
    }
    let _ = emulate_default_handler(signal);
    process::exit(128 + signal)
}

/// The settings of the terminal that standard input is, if it is one.
#[derive(Debug)]
struct Settings(Option<Termios>);

impl Settings {
    fn of_input() -> Self {
        Settings(tcgetattr(io::stdin()).ok())
    }

    fn restore(&self) {
        if let Some(settings) = &self.0 {
            // The process ends in any case.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, settings);
        }
    }
}

/// Notes SIGINT and SIGTERM, so that a command can end its work in order. A second signal ends the
/// process at once: the command may wait for a reader of its output.
#[derive(Debug)]
pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// From now on the first of these signals does not end the process.
    pub(crate) fn watch() -> io::Result<Self> {
        let (signal_seen, is_second) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM] {
            let number = usize::try_from(signal).unwrap_or_default();
            // The system calls these in the order of their registration.
            flag::register_conditional_default(signal, Arc::clone(&is_second))?;
            flag::register(signal, Arc::clone(&is_second))?;
            flag::register_usize(signal, Arc::clone(&signal_seen), number)?;
        }
        Ok(Interrupt(signal_seen))
    }

    /// Whether a signal came.
    pub(crate) fn is_set(&self) -> bool {
        // The number publishes no other memory.
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Ends the process by the signal that came, if one did.
    pub(crate) fn die_if_set(&self) {
        let signal = i32::try_from(self.0.load(Ordering::Relaxed)).unwrap_or_default();
        if signal != 0 {
            let _ = emulate_default_handler(signal);
        }
    }
}

/// Whether the process ignores `signal`. False when the system does not tell.
fn is_ignored(signal: i32) -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status, signal))
}

/// Whether `status`, the text of `/proc/PID/status`, says that the process ignores `signal`.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_claims_the_end() {
        let end = End::default();
        assert!(!end.is_claimed());
        assert!(end.claim() && end.is_claimed());
        assert!(!end.clone().claim());
    }

    #[test]
    fn the_mask_of_ignored_signals() {
        let status = "Name:\tkv\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert!(ignores(status, 1) && ignores(status, 13));
        assert!(!ignores(status, 2) && !ignores(status, 15));
        assert!(!ignores("", 1) && !ignores("SigIgn:\tx", 1));
    }
}
