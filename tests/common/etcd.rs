//! etcd as it is installed, on ports of the loopback interface and with its data in a temporary directory.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// Members of a cluster; killed, and their data removed, at the end.
pub struct Cluster {
    pub members: Vec<Mutex<Option<Child>>>,
    pub ports: Vec<u16>,
    scheme: &'static str,
    folder: PathBuf,
    /// The thread that has started them waits for its end.
    _lives: Sender<()>,
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    listeners.iter().map(|l| l.local_addr().expect("its address").port()).collect()
}

/// Whether etcd can be started; says so if not.
pub fn is_installed() -> bool {
    let runs = Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if runs.is_err() {
        println!("skipped: etcd is not installed (Debian: etcd-server)");
    }
    runs.is_ok()
}

/// A cluster of one member that lives for as long as some test has it.
pub fn shared() -> Option<Arc<Cluster>> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(cluster) = shared.upgrade() {
        return Some(cluster);
    }
    let cluster = Arc::new(Cluster::start(1, &[])?);
    *shared = Arc::downgrade(&cluster);
    Some(cluster)
}

impl Cluster {
    /// `None` where etcd is not installed. With `tls`, options that name certificates.
    pub fn start(count: usize, tls: &[String]) -> Option<Cluster> {
        if !is_installed() {
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mw-etcd-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // In memory where that can be: etcd waits for the disk at every change.
        let memory = Path::new("/dev/shm");
        let temporary = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let folder = temporary.join(name);
        std::fs::create_dir_all(&folder).expect("a directory");
        let scheme = if tls.is_empty() { "http" } else { "https" };
        let ports = free_ports(2 * count);
        let (clients, peers) = ports.split_at(count);
        let all: Vec<String> =
            peers.iter().enumerate().map(|(i, port)| format!("m{i}=http://127.0.0.1:{port}")).collect();
        let commands: Vec<Command> = (0..count)
            .map(|i| {
                let mut c = Command::new("etcd");
                let client = format!("{scheme}://127.0.0.1:{}", clients[i]);
                let peer = format!("http://127.0.0.1:{}", peers[i]);
                c.args(["--name", &format!("m{i}"), "--initial-cluster", &all.join(",")]);
                c.arg("--data-dir").arg(folder.join(format!("m{i}")));
                c.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
                c.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
                c.args(["--logger", "zap", "--log-outputs"]).arg(folder.join(format!("m{i}.log")));
                c.args(tls).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                c
            })
            .collect();
        // They die with the thread that has started them, which therefore must not end with some test.
        let (children, started) = channel();
        let (lives, until) = channel::<()>();
        std::thread::spawn(move || {
            let _ = children.send(commands.into_iter().map(spawn).collect::<Vec<_>>());
            let _ = until.recv();
        });
        let members = started.recv().expect("members").into_iter().map(|c| Mutex::new(Some(c))).collect();
        let ports = clients.to_vec();
        let cluster = Cluster { members, ports, scheme, folder, _lives: lives };
        if tls.is_empty() {
            for i in 0..count {
                cluster.wait_for_a_leader(i);
            }
        } else {
            let until = Instant::now() + Duration::from_secs(30);
            while TcpStream::connect(("127.0.0.1", cluster.ports[0])).is_err() {
                assert!(Instant::now() < until, "etcd does not start");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Some(cluster)
    }

    /// As MW_STORE takes it.
    pub fn address(&self) -> String {
        let scheme = if self.scheme == "https" { "etcds" } else { "etcd" };
        let hosts: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("{scheme}://{}", hosts.join(","))
    }

    fn wait_for_a_leader(&self, member: usize) {
        let until = Instant::now() + Duration::from_secs(30);
        while self.leader_as_seen_by(member).is_none() {
            assert!(Instant::now() < until, "etcd does not start: {}", self.log(member));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self, member: usize) -> String {
        std::fs::read_to_string(self.folder.join(format!("m{member}.log"))).unwrap_or_default()
    }

    /// The member id of the leader and the member's own.
    fn leader_as_seen_by(&self, member: usize) -> Option<(String, String)> {
        let answer = post(self.ports[member], "/v3/maintenance/status", "{}")?;
        let field = |name: &str| {
            let rest = answer.split_once(&format!("\"{name}\":\""))?.1;
            Some(rest.split('"').next()?.to_string())
        };
        Some((field("leader").filter(|id| id != "0")?, field("member_id")?))
    }

    /// Which member leads.
    pub fn leader(&self) -> usize {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let leads = |i: &usize| self.leader_as_seen_by(*i).is_some_and(|(leader, own)| leader == own);
            if let Some(i) = (0..self.ports.len()).find(leads) {
                return i;
            }
            assert!(Instant::now() < until, "nobody leads");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL.
    pub fn kill(&self, member: usize) {
        let child = self.members[member].lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(mut child) = child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The directory for what a test needs beside it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|i| self.kill(i));
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn spawn(mut c: Command) -> Child {
    // SAFETY: prctl is async-signal-safe; a member never outlives its test.
    unsafe {
        use std::os::unix::process::CommandExt;
        c.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    c.spawn().expect("starting etcd")
}

/// Asks a member something; the body of its answer.
pub fn post(port: u16, path: &str, body: &str) -> Option<String> {
    let mut s = TcpStream::connect(("127.0.0.1", port)).ok()?;
    s.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let length = body.len();
    write!(s, "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .ok()?;
    let mut answer = String::new();
    s.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string())
}
