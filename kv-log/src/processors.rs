use kv_core::Background;
use std::num::NonZero;
use std::thread;

/// Carries out `work` on all processors, in inline mode on this thread alone. Returns once every
/// thread has finished. The threads share `jobs` jobs, so no more threads than jobs work.
pub(crate) fn on_all_processors(background: Background, jobs: usize, work: impl Fn() + Sync) {
    let workers = match background {
        Background::Threads => thread::available_parallelism().map_or(1, NonZero::get).min(jobs),
        Background::Inline => 1,
    };
    let work = &work;
    thread::scope(|scope| {
        // If the system refuses a thread, fewer threads do the work.
        let start = |_| thread::Builder::new().spawn_scoped(scope, work).is_ok();
        let _all_started = (1..workers).all(start);
        work();
    });
}
