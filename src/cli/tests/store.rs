//! `mw store` as users start it.

use multiworld::auth::KeyId;
use multiworld::store::{Client, Store};
use multiworld::types::Secret;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "a secret of some length";

fn mw(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mw"));
    command.arg("store").args(words).env("MW_SECRET", SECRET);
    for name in ["MW_SECRET_FILE", "MW_STORE_DIR", "MW_DEBUG", "MW_INSECURE"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A folder that is deleted in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        Folder(std::env::temp_dir().join(format!("mw-store-{}-{name}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A store that is killed when the test is over.
struct Running {
    child: Child,
    address: String,
}

impl Running {
    fn start(words: &[&str]) -> Running {
        let mut child = mw(words).stderr(Stdio::inherit()).spawn().expect("mw");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening at ").expect("an address").to_owned();
        Running { child, address }
    }

    fn client(&self) -> Client {
        let secret = Secret(SECRET.as_bytes().to_vec());
        Client::connect(&self.address, KeyId::of(&secret), &secret, far()).expect("the store")
    }

    /// The exit status, if there is one.
    fn end(mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process");
        kill_process(pid, signal).expect("a signal");
        let begin = Instant::now();
        loop {
            match self.child.try_wait().expect("waiting") {
                Some(status) => return status.code(),
                None if begin.elapsed() > PATIENCE => panic!("it does not end"),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn far() -> Instant {
    Instant::now() + PATIENCE
}

#[test]
fn signals_end_it_and_it_goes_on_from_its_folder() {
    let folder = Folder::new("goes-on");
    let endings =
        [(Signal::TERM, "always", Some(0)), (Signal::INT, "batch", Some(0)), (Signal::KILL, "never", None)];
    for (n, (signal, fsync, code)) in endings.into_iter().enumerate() {
        let words = ["--listen", "127.0.0.1:0", "--data-dir", folder.path(), "--fsync", fsync];
        let store = Running::start(&words);
        let client = store.client();
        assert_eq!(client.list(b"k", far()).expect("listing").entries.len(), n);
        client.set(format!("k{n}").as_bytes(), b"v", None, far()).expect("setting");
        let begin = Instant::now();
        assert_eq!(store.end(signal), code);
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
    // Without a folder nothing is kept, and nothing is needed.
    let store = Running::start(&["--listen", "localhost:0"]);
    store.client().set(b"k", b"v", None, far()).expect("setting");
    assert_eq!(store.end(Signal::TERM), Some(0));
}

fn refused(words: &[&str], code: i32, expected: &str) {
    let Output { status, stderr, .. } = mw(words).output().expect("mw");
    let text = String::from_utf8_lossy(&stderr);
    assert!(status.code() == Some(code) && text.contains(expected), "{words:?}: {status}: {text}");
}

#[test]
fn what_is_wrong_is_named() {
    refused(&[], 2, "--listen <ADDR>");
    refused(&["--listen", "127.0.0.1:0", "--fsync", "never"], 2, "--data-dir <DIR>");
    refused(&["--listen", "127.0.0.1:0", "--data-dir", "x", "--fsync", "often"], 2, "always, batch, never");
    refused(&["--listen", "127.0.0.1"], 1, "--listen: '127.0.0.1'");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|a| (taken, a.to_string())).expect("an address");
    refused(&["--listen", &taken.1], 1, "in use");
    let folder = Folder::new("named");
    std::fs::create_dir_all(&folder.0).expect("a folder");
    let file = folder.0.join("file");
    std::fs::write(&file, b"").expect("a file");
    let file = file.to_str().expect("a path");
    refused(&["--listen", "127.0.0.1:0", "--data-dir", file], 1, "data-dir: ");
    let words = ["--listen", "127.0.0.1:0", "--data-dir", folder.path()];
    let store = Running::start(&words);
    refused(&words, 1, "in use by another store");
    drop(store);
    std::fs::write(folder.0.join("snapshot.9"), b"something else").expect("a file");
    refused(&words, 1, "snapshot.9");
    for address in ["0.0.0.0:0", "[::]:0"] {
        let out = mw(&["--listen", address]).env("MW_SECRET", "").output().expect("mw");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            out.status.code() == Some(1) && said.contains("--listen") && said.contains("MW_SECRET"),
            "{said}"
        );
        assert!(said.contains("MW_INSECURE=1"), "{said}");
    }
    let out = mw(&words).env("MW_SECRET", "short").output().expect("mw");
    assert!(out.status.code() == Some(1) && String::from_utf8_lossy(&out.stderr).contains("MW_SECRET"));
}
