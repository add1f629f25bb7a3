//! Machines out of network namespaces: each has interfaces and addresses of its own, and a cable to a switch in the
//! middle, which is a bridge in one more namespace.
//!
//! The namespaces have no names; descriptors hold them. They go with this process, however it ends, and take all that is
//! in them along. Nothing is ever done to the machine's own interfaces.

use super::cable::Cable;
use super::common::Rank;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

/// A network namespace.
pub struct Namespace(File);

/// Goes back to where the thread came from, also when it panics.
struct Back(File);

fn set(namespace: &File) {
    // SAFETY: takes no pointers; the descriptor is open.
    let rc = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(rc, 0, "setns: {}", std::io::Error::last_os_error());
}

fn own() -> File {
    File::open("/proc/thread-self/ns/net").expect("the thread's network namespace")
}

impl Drop for Back {
    fn drop(&mut self) {
        set(&self.0);
    }
}

impl Namespace {
    pub fn new() -> std::io::Result<Namespace> {
        let thread = std::thread::spawn(|| {
            // SAFETY: takes no pointers; concerns this thread only, which ends at once.
            match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
                0 => Ok(Namespace(own())),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
        thread.join().expect("no panic")
    }

    /// Does something as a thread of this namespace; processes and sockets that it makes belong there.
    pub fn inside<T>(&self, what: impl FnOnce() -> T) -> T {
        let _back = Back(own());
        set(&self.0);
        what()
    }

    /// What `ip` takes for a namespace's name.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `ip` with these commands, one per line.
    pub fn ip(&self, commands: &str) {
        if let Err(e) = self.try_ip(commands) {
            panic!("ip: {e}, in: {commands}");
        }
    }

    fn try_ip(&self, commands: &str) -> Result<(), String> {
        self.inside(|| {
            let mut c = Command::new("ip");
            c.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = c.spawn().map_err(|e| e.to_string())?;
            child.stdin.take().expect("stdin").write_all(commands.as_bytes()).map_err(|e| e.to_string())?;
            let out = child.wait_with_output().map_err(|e| e.to_string())?;
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            if out.status.success() { Ok(()) } else { Err(said) }
        })
    }

    /// A network device whose other end is the descriptor, which gives and takes whole frames.
    pub fn tap(&self, name: &str) -> OwnedFd {
        self.inside(|| super::cable::tap(name)).expect("a tap device")
    }
}

/// Why there can be no such machines here, if so.
pub fn why_not() -> Option<String> {
    let missing = |what: &str| Some(what.to_string());
    let namespace = match Namespace::new() {
        Ok(n) => n,
        Err(e) => return Some(format!("no network namespaces without more rights: {e}")),
    };
    if Command::new("ip").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return missing("ip is not installed (Debian: iproute2)");
    }
    let try_out = "link add b0 type bridge\nlink add v0 type veth peer name v1\n";
    if let Err(e) = namespace.try_ip(try_out) {
        return Some(format!("the kernel has no bridges or veth pairs: {}", e.trim()));
    }
    if !Path::new("/dev/net/tun").exists() || namespace.inside(|| super::cable::tap("t0")).is_err() {
        return missing("there is no /dev/net/tun");
    }
    None
}

/// Which kinds of addresses the machines have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// The network in the middle, with an address of its own on it.
pub struct Net {
    pub hub: Namespace,
    family: Family,
    hosts: usize,
}

/// A machine.
pub struct Host {
    pub ns: Namespace,
    pub ip: IpAddr,
    /// The other end of its interface.
    pub port: String,
    /// Between it and the switch, if that is not a plain veth pair.
    pub cable: Option<Cable>,
}

fn address(family: Family, number: usize) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 77, 0, number as u8).into(),
        Family::V6 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number as u16).into(),
    }
}

fn with_prefix(ip: IpAddr) -> String {
    // Nobody else has it: without the second in which IPv6 would find that out.
    if ip.is_ipv4() { format!("{ip}/24") } else { format!("{ip}/64 nodad") }
}

impl Net {
    pub fn new(family: Family) -> Net {
        let hub = Namespace::new().expect("a namespace");
        let ip = with_prefix(address(family, 250));
        hub.ip(&format!(
            "link set lo up\nlink add br0 type bridge stp_state 0 forward_delay 0\naddr add {ip} dev br0\n\
             link set br0 up\n"
        ));
        Net { hub, family, hosts: 0 }
    }

    /// A port on the switch for a service in the middle.
    pub fn listen(&self) -> TcpListener {
        let at = SocketAddr::new(address(self.family, 250), 0);
        self.hub.inside(|| TcpListener::bind(at)).expect("a port")
    }

    /// A machine on a veth pair.
    pub fn host(&mut self) -> Host {
        self.connect("eth0", "")
    }

    /// A machine on a veth pair, where these commands of `ip` have been run before.
    pub fn connect(&mut self, interface: &str, before: &str) -> Host {
        let (ns, ip, port) = self.place();
        ns.ip(before);
        self.hub.ip(&format!(
            "link add {port} type veth peer name {interface} netns {}\nlink set {port} master br0\n\
             link set {port} up\n",
            ns.path()
        ));
        ns.ip(&format!("addr add {} dev {interface}\nlink set {interface} up\n", with_prefix(ip)));
        Host { ns, ip, port, cable: None }
    }

    /// A machine on a cable that can be made worse.
    pub fn cabled_host(&mut self) -> Host {
        let (ns, ip, port) = self.place();
        let cable = Cable::new(ns.tap("eth0"), self.hub.tap(&port));
        self.hub.ip(&format!("link set {port} master br0\nlink set {port} up\n"));
        ns.ip(&format!("addr add {} dev eth0\nlink set eth0 up\n", with_prefix(ip)));
        Host { ns, ip, port, cable: Some(cable) }
    }

    fn place(&mut self) -> (Namespace, IpAddr, String) {
        self.hosts += 1;
        let ns = Namespace::new().expect("a namespace");
        ns.ip("link set lo up\n");
        (ns, address(self.family, self.hosts), format!("p{}", self.hosts))
    }

    /// Switches the far end of a machine's interface on or off.
    pub fn set_port(&self, host: &Host, state: &str) {
        self.hub.ip(&format!("link set {} {state}\n", host.port));
    }
}

impl Host {
    /// A process on this machine.
    pub fn start(&self, env: &[(&str, &str)]) -> Rank {
        // An empty variable is none: interfaces are found as for anybody.
        let mut all = vec![("MW_IFNAME", "")];
        all.extend(env);
        self.ns.inside(|| Rank::start("member", "member", &[], &all))
    }

    pub fn cable(&self) -> &Cable {
        self.cable.as_ref().expect("a cable")
    }
}
