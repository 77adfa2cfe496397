//! Resident memory of this process: now, at rest, and at its peak.

use crate::failure::Failure;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Memory that changes by less than a hundredth for so long has settled.
const STILL: Duration = Duration::from_millis(200);
/// After this time memory counts even if it has not settled.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// Time between two looks for the peak.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Resident memory of this process, bytes. `/proc/self/statm` counts pages of 4 KiB.
pub(crate) fn resident_bytes() -> Result<f64, Failure> {
    let path = "/proc/self/statm";
    let text = std::fs::read_to_string(path).map_err(Failure::io(format!("read {path}")))?;
    let pages = text.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok());
    pages
        .map(|pages| pages * 4096.0)
        .ok_or_else(|| Failure::Worker(format!("{path} holds no resident size: {text}")))
}

/// Resident memory once background work no longer changes it, bytes.
pub(crate) fn settled_bytes() -> Result<f64, Failure> {
    let start = Instant::now();
    let (mut since, mut still) = (start, resident_bytes()?);
    while since.elapsed() < STILL && start.elapsed() < SETTLE_LIMIT {
        thread::sleep(Duration::from_millis(20));
        let now = resident_bytes()?;
        if (now - still).abs() > still / 100.0 {
            (since, still) = (Instant::now(), now);
        }
    }
    resident_bytes()
}

/// Carries out `work`, and returns its result and the most resident memory meanwhile, bytes.
/// Another thread looks at it every 2 ms.
pub(crate) fn with_peak<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<(T, f64), Failure> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = resident_bytes()?;
            while !done.load(Ordering::Relaxed) {
                thread::sleep(LOOK_INTERVAL);
                peak = peak.max(resident_bytes()?);
            }
            Ok::<_, Failure>(peak)
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let peak = watcher.join().map_err(|_| Failure::Wrong("a thread panicked".to_owned()))?;
        Ok((result?, peak?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_counts_memory_that_is_gone_at_the_end() {
        let before = resident_bytes().unwrap();
        let work = || {
            let pages = vec![1_u8; 64 << 20];
            thread::sleep(LOOK_INTERVAL * 20);
            Ok(pages.len())
        };
        let (len, peak) = with_peak(work).unwrap();
        assert!(len == 64 << 20 && peak - before > 60e6, "{before} {peak}");
    }

    #[test]
    fn work_that_fails_fails_the_measurement() {
        let result = with_peak(|| Err::<(), _>(Failure::Wrong("no".to_owned())));
        assert!(matches!(result, Err(Failure::Wrong(_))));
    }
}
