//! Starting ranks and waiting for them.

use crate::artifacts::{self, hollow, installed, library};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A hang is a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a program gets the library.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Linked against a libnccl that is something else, with this one in LD_PRELOAD.
    Preload,
    /// Linked against it.
    Link,
}

/// How a rank ended.
pub struct End {
    /// The exit code, if it was not killed.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// What it wrote to its standard output and error.
    pub text: String,
}

/// A compiled program and how to start it.
pub struct Program {
    way: Way,
    path: PathBuf,
}

/// Compiles a program of tests/nccl for one way of getting the library.
pub fn program(name: &str, way: Way) -> Program {
    let libraries = match way {
        Way::Preload => hollow(),
        Way::Link => installed(),
    };
    Program { way, path: artifacts::program(name, libraries) }
}

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        match self.way {
            Way::Preload => command.env("LD_LIBRARY_PATH", hollow()).env("LD_PRELOAD", library()),
            Way::Link => command.env("LD_LIBRARY_PATH", installed()),
        };
        command
    }

    /// Runs `n` ranks to their end.
    pub fn run(&self, n: usize, env: &[(&str, &str)]) -> Vec<End> {
        let meet = artifacts::folder("meet");
        let ranks: Vec<Child> = (0..n).map(|rank| self.start(rank, n, &meet, env)).collect();
        let until = Instant::now() + PATIENCE;
        let ends = ranks.into_iter().map(|child| wait(child, until)).collect();
        let _ = std::fs::remove_dir_all(meet);
        ends
    }

    fn start(&self, rank: usize, n: usize, meet: &Path, env: &[(&str, &str)]) -> Child {
        let mut command = self.command();
        command
            .env("RANK", rank.to_string())
            .env("NRANKS", n.to_string())
            .env("MEET", meet)
            .env("NCCL_SOCKET_IFNAME", "lo")
            .env("MW_BACKEND", "host")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        start(&mut command)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(folder) = self.path.parent() {
            // Leaving it behind harms nobody.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Starts a process that does not outlive this one.
pub fn start(command: &mut Command) -> Child {
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn().expect("starting a rank")
}

/// Waits for a process; one that takes too long is killed, and fails the test.
pub fn wait(mut child: Child, until: Instant) -> End {
    let (mut out, mut err) = (child.stdout.take().expect("stdout"), child.stderr.take().expect("stderr"));
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        // What is not text is a failure of the program, and seen as such.
        let _ = err.read_to_string(&mut text);
        let _ = out.read_to_string(&mut text);
        text
    });
    let status = loop {
        if let Some(status) = child.try_wait().expect("waiting for a rank") {
            break status;
        }
        if Instant::now() >= until {
            child.kill().expect("killing a rank that hangs");
            child.wait().expect("waiting for a rank");
            panic!("a rank hangs; it said '{}'", read.join().expect("its output"));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    End { code: status.code(), signal: status.signal(), text: read.join().expect("its output") }
}

/// All ranks came to the end of the program.
pub fn all_fine(ends: &[End]) {
    for (rank, end) in ends.iter().enumerate() {
        assert!(
            end.code == Some(0) && end.text.contains("fine"),
            "rank {rank} ended with {:?} {:?}: {}\nall: {}",
            end.code,
            end.signal,
            end.text,
            ends.iter().map(|e| &*e.text).collect::<String>()
        );
    }
}
