//! The shell on a terminal.

#![allow(clippy::disallowed_methods, reason = "the terminal and the history are no files of a store")]

use crate::run::{kv, outcome, plain_command};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// A process with a terminal of its own, which the test types on.
struct Typist {
    keyboard: File,
    /// What the process writes.
    screen: Receiver<String>,
    seen: String,
    child: Child,
}

impl Typist {
    fn start(command: Command) -> Self {
        Typist::with_output(command, None)
    }

    /// With standard output elsewhere, if `output` says where.
    fn with_output(mut command: Command, output: Option<Stdio>) -> Self {
        let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&main).unwrap();
        unlockpt(&main).unwrap();
        let name = ptsname(&main, Vec::new()).unwrap().into_string().unwrap();
        let side = || OpenOptions::new().read(true).write(true).open(&name).unwrap();
        let output = output.unwrap_or_else(|| side().into());
        command.stdin(side()).stdout(output).stderr(side()).env("TERM", "xterm");
        let child = command.spawn().unwrap();
        drop(command);
        let keyboard = File::from(main);
        let (mut output, (sender, screen)) = (keyboard.try_clone().unwrap(), channel());
        thread::spawn(move || {
            let mut part = [0; 1024];
            while let Ok(len @ 1..) = output.read(&mut part) {
                if sender.send(String::from_utf8_lossy(&part[..len]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Typist { keyboard, screen, seen: String::new(), child }
    }

    /// Waits until `text` is on the screen, behind what was waited for before.
    fn wait_for(&mut self, text: &str) {
        while !self.seen.contains(text) {
            match self.screen.recv_timeout(Duration::from_secs(20)) {
                Ok(part) => self.seen.push_str(&part),
                Err(error) => panic!("{text:?} is not on the screen: {:?}: {error}", self.seen),
            }
        }
        let end = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..end);
    }

    /// Waits for the end of the process. Returns what it wrote since.
    fn rest(mut self) -> String {
        self.child.wait().unwrap();
        while let Ok(part) = self.screen.recv_timeout(Duration::from_millis(500)) {
            self.seen.push_str(&part);
        }
        self.seen
    }

    fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }
}

fn shell(dir: &Path, history: &Path) -> Typist {
    let mut command = plain_command();
    command.args(["shell", "--dir"]).arg(dir).env("KV_HISTORY", history);
    Typist::start(command)
}

#[test]
fn lines_are_edited_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, history) = (dir.path().join("s"), dir.path().join("history"));
    let mut typist = shell(&store, &history);
    typist.wait_for("> ");
    // Backspace.
    typist.type_keys("put kx\x7f 1\r");
    typist.wait_for("\nk\r\n");
    typist.wait_for("> ");
    // Ctrl-C discards the line, and the shell goes on.
    typist.type_keys("put k 2");
    typist.wait_for("put k 2");
    typist.type_keys("\x03");
    typist.wait_for("> ");
    // The arrow up, and another digit.
    typist.type_keys("\x1b[A\x7f3\r");
    typist.wait_for("\nk\r\n");
    typist.wait_for("> ");
    typist.type_keys("get k\r");
    typist.wait_for("\n3\r\n");
    typist.wait_for("> ");
    typist.type_keys("\x04");
    assert!(typist.child.wait().unwrap().success());
    assert_eq!(outcome(&kv("log", &store, &["get", "k"], b"")).1, "3\n");
    let kept = fs::read_to_string(&history).unwrap();
    assert!(kept.contains("put k 1") && kept.contains("get k"), "{kept}");

    let mut typist = shell(&store, &history);
    typist.wait_for("> ");
    typist.type_keys("\x1b[A\r");
    typist.wait_for("\n3\r\n");
    typist.wait_for("> ");
    typist.type_keys("quit\r");
    assert!(typist.child.wait().unwrap().success());
}

#[test]
fn a_signal_restores_the_terminal_and_keeps_the_changes() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("s");
    let mut typist = shell(&store, &dir.path().join("history"));
    let edits_lines = |typist: &Typist| {
        let modes = tcgetattr(&typist.keyboard).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    };
    typist.wait_for("> ");
    typist.type_keys("put k 1\r");
    typist.wait_for("\nk\r\n");
    typist.wait_for("> ");
    assert!(!edits_lines(&typist), "the shell reads single keys");
    let kill = format!("kill -TERM {}", typist.child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert_eq!(typist.child.wait().unwrap().signal(), Some(15));
    assert!(edits_lines(&typist));
    assert_eq!(outcome(&kv("log", &store, &["get", "k"], b"")).1, "1\n");
}

#[test]
fn a_bar_and_colours_are_for_a_terminal_only() {
    let dir = tempfile::tempdir().unwrap();
    kv("log", dir.path(), &["put", "k", "v"], b"");
    let verify = || {
        let mut command = plain_command();
        command.arg("verify").arg(dir.path());
        command
    };
    let mut typist = Typist::start(verify());
    typist.wait_for("\x1b[32msound\x1b[0m");
    assert!(typist.child.wait().unwrap().success());
    let mut command = verify();
    command.env("NO_COLOR", "1");
    let mut typist = Typist::start(command);
    typist.wait_for(": sound;");
    assert!(typist.child.wait().unwrap().success());
    let output = verify().output().unwrap();
    let (_, answer, complaint) = outcome(&output);
    assert!(answer.contains(": sound;") && complaint.is_empty() && !answer.contains('\x1b'), "{answer}");
    let (mut restore, elsewhere) = (plain_command(), tempfile::tempdir().unwrap());
    restore.arg("restore").args([dir.path(), &elsewhere.path().join("restored")]).args(["--to", "1"]);
    let mut typist = Typist::start(restore);
    typist.wait_for("restoring");
    let screen = typist.rest();
    assert!(screen.contains("restored: LSN 1, "), "{screen}");
    assert!(!screen.contains("█ 0 B/0 B"), "the bar is full at the beginning: {screen}");
}

/// `kv` with these words. `S` stands for the directory.
fn command_on(dir: &Path, words: &str) -> Command {
    let mut command = plain_command();
    command.args(words.split(' ').map(|word| if word == "S" { dir.to_str().unwrap() } else { word }));
    command
}

fn two_pairs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    assert!(kv("log", dir.path(), &["shell"], b"put a 1\nput b 2\n").status.success());
    dir
}

#[test]
fn a_command_that_may_take_long_shows_its_progress_on_a_terminal_only() {
    let dir = two_pairs();
    for (words, shown) in [
        ("diff S S", "compared"),
        ("diff S --at 2", "reading the past state"),
        ("diff S --at 2", "compared"),
        ("get a --at 2 --dir S", "reading the past state"),
        ("history a --dir S", "reading the history"),
        ("revert a --to 2 --dir S", "reading the past state"),
        ("bigkeys --dir S", "looked at"),
        ("compact S", "compacting"),
        ("checkpoint S", "writing the checkpoint"),
    ] {
        let mut typist = Typist::start(command_on(dir.path(), words));
        typist.wait_for(shown);
        typist.rest();
        let output = command_on(dir.path(), words).output().unwrap();
        let (code, answer, complaint) = outcome(&output);
        assert!(code == 0 && complaint.is_empty() && !answer.contains(shown), "{words}: {complaint}");
    }
}

#[test]
fn lines_on_their_way_to_a_file_are_counted_and_lines_on_the_terminal_are_not() {
    let dir = two_pairs();
    for (words, shown) in [
        ("scan --dir S", "printed"),
        ("export --dir S", "exported"),
        ("dump S", "read"),
        ("tail S --no-follow", "printed"),
    ] {
        let mut typist = Typist::with_output(command_on(dir.path(), words), Some(Stdio::null()));
        typist.wait_for(shown);
        typist.rest();
        let screen = Typist::start(command_on(dir.path(), words)).rest();
        assert!(screen.contains('b') && !screen.contains(shown) && !screen.contains('\x1b'), "{screen:?}");
    }
}

/// The bar is cleared from its own line, so the lines of the answer stay whole.
#[test]
fn a_bar_makes_room_for_the_lines_of_a_diff() {
    let (first, second) = (two_pairs(), two_pairs());
    assert!(kv("log", second.path(), &["put", "a", "3"], b"").status.success());
    let mut command = command_on(first.path(), "diff S");
    command.arg(second.path());
    let mut typist = Typist::start(command);
    typist.wait_for("compared");
    let screen = typist.rest();
    let lines = ["- a\t1\r\n", "+ a\t3\r\n"];
    let starts = lines.map(|line| screen.find(line).unwrap());
    for start in starts {
        let before = &screen[..start];
        assert!(before.ends_with("\x1b[2K") || before.ends_with('\n'), "{screen:?}");
    }
}
