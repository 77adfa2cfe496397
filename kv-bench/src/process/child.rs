//! The parent's side of a run: starts this program again, listens to it, and kills it on request.

use super::task::{Measured, Run};
use crate::failure::Failure;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time in which a child becomes ready to be killed.
const READY_LIMIT: Duration = Duration::from_mins(2);

/// Carries out a run and returns its results. A run that takes longer than `limit` hangs.
pub(crate) fn measure(run: &Run, limit: Duration) -> Result<Measured, Failure> {
    let mut child = Running::start(run)?;
    let listener = child.listen(|out| {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    })?;
    child.wait(limit)?;
    Ok(serde_json::from_str(&heard(listener)?)?)
}

/// Starts a run, and kills it after its first line, which says that it is ready.
pub(crate) fn kill_when_ready(run: &Run) -> Result<(), Failure> {
    let mut child = Running::start(run)?;
    let (said, hear) = mpsc::channel();
    let listener = child.listen(move |out| {
        let mut line = String::new();
        let read = out.read_line(&mut line);
        let _ = said.send(());
        read.map(|_| line)
    })?;
    let _ = hear.recv_timeout(READY_LIMIT);
    child.kill()?;
    let line = heard(listener)?;
    if line.ends_with('\n') { Ok(()) } else { Err(child.complaint("it was never ready")) }
}

/// Starts a run, kills it after a while, and returns its last line, if any.
pub(crate) fn kill_after(run: &Run, after: Duration) -> Result<Option<String>, Failure> {
    let mut child = Running::start(run)?;
    let listener = child.listen(|out| {
        let mut last = None;
        for line in out.lines() {
            last = Some(line?);
        }
        Ok(last)
    })?;
    std::thread::sleep(after);
    child.kill()?;
    heard(listener)
}

/// A child process. It never outlives this value.
struct Running {
    child: Child,
    /// Collects its standard error.
    complaints: Option<JoinHandle<String>>,
    /// The run, as JSON.
    run: String,
}

impl Running {
    fn start(run: &Run) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(Failure::io("find this program"))?;
        let json = serde_json::to_string(run)?;
        let mut child = Command::new(program)
            .args(["worker", &json])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Failure::io("start a child process"))?;
        let complaints = child.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut text = String::new();
                let _ = stderr.read_to_string(&mut text);
                text
            })
        });
        Ok(Running { child, complaints, run: json })
    }

    fn listen<T: Send + 'static>(
        &mut self,
        hear: impl FnOnce(&mut BufReader<ChildStdout>) -> std::io::Result<T> + Send + 'static,
    ) -> Result<JoinHandle<std::io::Result<T>>, Failure> {
        let stdout = self.child.stdout.take();
        let stdout = stdout.ok_or_else(|| Failure::Worker("it has no standard output".to_owned()))?;
        Ok(std::thread::spawn(move || hear(&mut BufReader::new(stdout))))
    }

    /// Waits until it exits with success.
    fn wait(&mut self, limit: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            match self.child.try_wait().map_err(Failure::io("wait for a child process"))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.complaint(&status.to_string())),
                None if start.elapsed() > limit => {
                    let _ = self.child.kill();
                    return Err(self.complaint("it hangs"));
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Kills it. If it ended before, it failed.
    fn kill(&mut self) -> Result<(), Failure> {
        if let Some(status) = self.child.try_wait().map_err(Failure::io("wait for a child process"))? {
            return Err(self.complaint(&status.to_string()));
        }
        self.child.kill().map_err(Failure::io("kill a child process"))?;
        self.child.wait().map_err(Failure::io("wait for a child process"))?;
        Ok(())
    }

    fn complaint(&mut self, why: &str) -> Failure {
        let _ = self.child.wait();
        let complaints = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Failure::Worker(format!("{why}: {} ({})", complaints.trim(), self.run))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn heard<T>(listener: JoinHandle<std::io::Result<T>>) -> Result<T, Failure> {
    listener
        .join()
        .map_err(|_| Failure::Worker("the listening thread panicked".to_owned()))?
        .map_err(Failure::io("listen to a child process"))
}
