//! The shell on a terminal.

#![allow(clippy::disallowed_methods, reason = "the terminal and the history are no files of a store")]

use crate::run::{kv, outcome, plain_command};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command};
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
    fn start(mut command: Command) -> Self {
        let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&main).unwrap();
        unlockpt(&main).unwrap();
        let name = ptsname(&main, Vec::new()).unwrap().into_string().unwrap();
        let side = || OpenOptions::new().read(true).write(true).open(&name).unwrap();
        command.stdin(side()).stdout(side()).stderr(side()).env("TERM", "xterm");
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
    typist.wait_for("restored: LSN 1, ");
    assert!(typist.child.wait().unwrap().success());
}
