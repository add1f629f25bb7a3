//! Ranks as real processes: a test starts itself again with a role, talks to it over its standard streams, and kills
//! it like the world does.
#![allow(dead_code)]

pub mod actor;
pub mod cast;
pub mod doubles;

use multiworld::types::{DataType, OpKind, RedOp, Reduction};
use multiworld::world::Call;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A hang is a failure, long before CI's patience ends.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A rank in a process of its own.
pub struct Rank {
    pub child: Child,
    said: Receiver<String>,
    /// Heard while something else was waited for.
    stash: VecDeque<String>,
    to: ChildStdin,
    log: Arc<Mutex<String>>,
}

/// An address on loopback that nobody listens on and that the kernel gives to nobody: below the ports of connections
/// under way, and no two alike in one process.
pub fn store_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * 61 + NEXT.fetch_add(1, Ordering::Relaxed);
        let address = format!("127.0.0.1:{}", 10_000 + number % 20_000);
        if TcpListener::bind(&address).is_ok() {
            return format!("tcp://{address}");
        }
    }
}

/// CLOCK_MONOTONIC, the same on all processes of the machine.
pub fn now_ns() -> u64 {
    multiworld::sys::clock::monotonic_ns()
}

impl Rank {
    /// Starts this test binary again; its test `entry` sees `role` and `args`.
    pub fn start(entry: &str, role: &str, args: &[String], env: &[(&str, &str)]) -> Rank {
        let mut c = Command::new(std::env::current_exe().expect("own path"));
        c.args([entry, "--exact", "--nocapture", "--test-threads=1"])
            .env("MW_TEST_ROLE", role)
            .env("MW_TEST_ARGS", args.join("\n"))
            .env("MW_IFNAME", "lo")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: prctl is async-signal-safe; a rank never outlives its test.
        unsafe {
            use std::os::unix::process::CommandExt;
            c.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = c.spawn().expect("starting a rank");
        let out = BufReader::new(child.stdout.take().expect("stdout"));
        let mut err = child.stderr.take().expect("stderr");
        let to = child.stdin.take().expect("stdin");
        let (tell, said) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // The test harness prints "test name ... " without a newline in front of the first.
                if let Some(at) = line.find("MW>")
                    && tell.send(line[at + 3..].trim_end().to_string()).is_err()
                {
                    return;
                }
            }
        });
        let log: Arc<Mutex<String>> = Arc::default();
        let kept = log.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = err.read(&mut chunk) {
                let text = String::from_utf8_lossy(&chunk[..n]).into_owned();
                eprint!("{text}");
                kept.lock().expect("the log").push_str(&text);
            }
        });
        Rank { child, said, stash: VecDeque::new(), to, log }
    }

    fn next(&mut self) -> Option<String> {
        match self.said.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("a rank says nothing; unheard: {:?}", self.stash),
        }
    }

    /// The next line that the role has said with [`say`]; `None` when it has ended.
    pub fn hear(&mut self) -> Option<String> {
        self.stash.pop_front().or_else(|| self.next())
    }

    /// What the role has said next about a topic: the rest of the line that begins with that word.
    pub fn hear_of(&mut self, topic: &str) -> String {
        let about = |line: &String| line.split(' ').next() == Some(topic);
        loop {
            if let Some(at) = self.stash.iter().position(about) {
                let line = self.stash.remove(at).expect("just found");
                return line[topic.len()..].trim_start().to_string();
            }
            let line = self.next();
            self.stash.push_back(line.unwrap_or_else(|| panic!("a rank ended before it spoke of {topic}")));
        }
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// The next line, which must be this one.
    pub fn expect(&mut self, what: &str) {
        let got = self.hear();
        assert_eq!(got.as_deref(), Some(what));
    }

    /// Sends the role a line.
    pub fn tell(&mut self, line: &str) {
        // A rank that was killed cannot hear; the test finds out where it asks.
        let _ = writeln!(self.to, "{line}");
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: our own child, not reaped yet.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Kills it; answers when.
    pub fn kill(&mut self) -> u64 {
        let at = now_ns();
        self.signal(libc::SIGKILL);
        at
    }

    /// Waits for a clean end.
    pub fn finish(mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().expect("waiting for a rank") {
                Some(status) => {
                    assert!(status.success(), "a rank ended with {status}");
                    return;
                }
                None if Instant::now() > until => panic!("a rank hangs"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The role of this process and its arguments, if it is a rank.
pub fn role() -> Option<(String, Vec<String>)> {
    let role = std::env::var("MW_TEST_ROLE").ok()?;
    let args = std::env::var("MW_TEST_ARGS").unwrap_or_default();
    // A rank that hangs ends by itself.
    std::thread::spawn(|| {
        std::thread::sleep(5 * PATIENCE);
        eprintln!("rank hangs");
        std::process::exit(3);
    });
    Some((role, args.split('\n').map(str::to_string).collect()))
}

/// For ranks that do as they are told by several threads: what the library logs is seen, and a panic of any thread ends
/// the rank.
pub fn settle_in() {
    if let Ok(Some(level)) = multiworld::config::log_level() {
        multiworld::observe::log::init(level);
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        std::process::exit(101);
    }));
}

/// Says a line to the test.
pub fn say(line: &str) {
    println!("MW>{line}");
    std::io::stdout().flush().expect("stdout");
}

/// Hears a line from the test.
pub fn listen() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("stdin");
    line.trim_end().to_string()
}

fn call(kind: OpKind) -> Call {
    Call {
        kind,
        send: false,
        sendbuf: std::ptr::null(),
        recvbuf: std::ptr::null_mut(),
        count: 0,
        dtype: DataType::Uint8,
        reduction: Reduction::Builtin(RedOp::Sum),
        peer: 0,
        stream: std::ptr::null_mut(),
        scalar_on_device: false,
    }
}

pub fn send(data: &[u8], peer: u32) -> Call {
    Call {
        send: true,
        sendbuf: data.as_ptr(),
        count: data.len(),
        peer: peer as i32,
        ..call(OpKind::PointToPoint)
    }
}

pub fn recv(data: &mut [u8], peer: u32) -> Call {
    Call { recvbuf: data.as_mut_ptr(), count: data.len(), peer: peer as i32, ..call(OpKind::PointToPoint) }
}

pub fn barrier() -> Call {
    call(OpKind::Barrier)
}

/// Any collective on bytes; `count` as the operation defines it.
pub fn collective(kind: OpKind, input: &[u8], output: &mut [u8], count: usize, root: u32) -> Call {
    Call { sendbuf: input.as_ptr(), recvbuf: output.as_mut_ptr(), count, peer: root as i32, ..call(kind) }
}

/// p-th percentile of sorted values.
pub fn percentile(sorted: &[f64], p: f64) -> f64 {
    let at = ((sorted.len() as f64 - 1.0) * p / 100.0).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
