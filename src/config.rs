//! Settings of a world: what the caller's `mwConfig_t` says, else the environment, else the default.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `MW_STORE` | address of the store: `tcp://host:port`, `file:///directory`, `etcd://host:port,...` | none |
//! | `MW_STORE_DIR` | folder where a store that this process hosts keeps what it knows | it is forgotten with the process |
//! | `MW_ETCD_CACERT` | file with the certificates that an `etcds://` store is checked against | the system's |
//! | `MW_ETCD_CERT`, `MW_ETCD_KEY` | files with the certificate and the key that are shown to it | none |
//! | `MW_BACKEND` | `host` or `nccl` (`auto` is `host`) | `host` |
//! | `MW_TRANSPORT` | `auto`, `shm` or `tcp` | `auto` |
//! | `MW_IFNAME` | interfaces, in the syntax of `NCCL_SOCKET_IFNAME`; of these the one that leads to the store | every one that is up |
//! | `MW_TCP_CONGESTION` | congestion control of data connections, such as `cubic` | the system's |
//! | `MW_SECRET` | secret of named worlds, at least 16 bytes | none |
//! | `MW_SECRET_FILE` | file that holds it; one newline at its end is not part of it | none |
//! | `MW_INSECURE` | `1`: named worlds without a secret may reach beyond this machine | `0` |
//! | `MW_TIMEOUT_MS` | deadline of every operation | 600000 |
//! | `MW_JOIN_TIMEOUT_MS` | deadline of joining | 60000 |
//! | `MW_REFORM_WAIT_MS` | how long a reform waits for more members when there are enough | 500 |
//! | `MW_NCCL_ABORT_TIMEOUT_MS` | how long NCCL may take to abort a communicator before it is leaked | 10000 |
//! | `MW_HEARTBEAT_INTERVAL_MS` | how often a sign of life is given | 200 |
//! | `MW_HEARTBEAT_TIMEOUT_MS` | silence after which a peer is taken for failed, at least two intervals | 1000 |
//! | `MW_NRANKS`, `MW_RANK` | size and rank for calls that pass -1 for both | what the launcher set |
//! | `MW_TUNING` | file with a [`table`] of where one algorithm takes over from another | what is built in |
//! | `MW_DEBUG` | log lines on stderr: `warn`, `info`, `debug` or `trace` | none |
//! | `MW_DISABLE` | facilities to do without: `futex_waitv`, `robust`, `cma`, `memfd`, separated by commas | none |
//!
//! A variable that is empty counts as not set. A value that cannot be understood is an error that names it;
//! nothing is guessed.

pub mod table;
pub mod tuning;

use crate::error::{Error, Result};
use crate::sync::{Arc, OnceLock};
use crate::types::Secret;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use table::Table;
use tracing::Level;

/// Shortest secret that is accepted, in bytes.
pub const MIN_SECRET: usize = 16;

/// Which transports a world may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportChoice {
    /// Shared memory where two members can share it, else TCP.
    Auto,
    /// Shared memory only; joining fails where it does not reach.
    Shm,
    /// TCP only.
    Tcp,
}

/// Who carries out a world's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendChoice {
    /// Host memory, by the library itself.
    Host,
    /// Device memory, by NCCL.
    Nccl,
    /// Nobody: the world only watches its members, for operations that go another way.
    Watch,
}

/// Settings of one world.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the store, if one is configured.
    pub store: Option<String>,
    /// Who carries out operations.
    pub backend: BackendChoice,
    /// The CUDA device, if it is not the calling thread's current one.
    pub device: Option<i32>,
    /// Transports allowed.
    pub transport: TransportChoice,
    /// Interface choice, in the syntax of `NCCL_SOCKET_IFNAME`.
    pub ifname: Option<String>,
    /// Congestion control of data connections, if not the system's.
    pub congestion: Option<String>,
    /// The secret of named worlds.
    pub secret: Option<Secret>,
    /// Whether named worlds without a secret may reach beyond this machine.
    pub insecure: bool,
    /// Deadline of every operation.
    pub timeout: Duration,
    /// Deadline of joining.
    pub join_timeout: Duration,
    /// How long a reform waits for more members when there are enough, and none is missing.
    pub reform_wait: Duration,
    /// How long NCCL may take to abort a communicator before that is given up and leaked; half as long for each of the
    /// steps before.
    pub abort_timeout: Duration,
    /// How often a sign of life is given.
    pub heartbeat_interval: Duration,
    /// Silence after which a peer is taken for failed.
    pub heartbeat_timeout: Duration,
    /// Where one algorithm takes over from another, if not as built in. Of the members of a world, rank 0's counts.
    pub tuning: Option<Arc<Table>>,
}

/// What a caller set; the rest comes from the environment. Errors name the fields as C does.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `store`.
    pub store: Option<String>,
    /// `backend`.
    pub backend: Option<String>,
    /// `device`.
    pub device: Option<i32>,
    /// `transport`.
    pub transport: Option<String>,
    /// `ifname`.
    pub ifname: Option<String>,
    /// `secret`.
    pub secret: Option<Secret>,
    /// `timeoutMs`.
    pub timeout_ms: Option<i32>,
    /// `joinTimeoutMs`.
    pub join_timeout_ms: Option<i32>,
    /// `heartbeatIntervalMs`.
    pub heartbeat_interval_ms: Option<i32>,
    /// `heartbeatTimeoutMs`.
    pub heartbeat_timeout_ms: Option<i32>,
    /// `reformWaitMs`.
    pub reform_wait_ms: Option<i32>,
}

/// Where a variable's value comes from; a plain map in tests.
type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Facilities of the kernel that the process may use; `MW_DISABLE` takes them away, so that what replaces
/// them is tested, and where a sandbox forbids them in a way that probing does not notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facilities {
    /// `futex_waitv(2)`.
    pub futex_waitv: bool,
    /// Robust futexes as a sign of death.
    pub robust: bool,
    /// Cross-memory attach: `process_vm_readv(2)`.
    pub cma: bool,
    /// `memfd_create(2)`.
    pub memfd: bool,
}

impl Config {
    /// Environment and defaults.
    pub fn from_env() -> Result<Config> {
        Config::load(&Overrides::default())
    }

    /// What the caller set, then the environment, then the defaults.
    pub fn load(overrides: &Overrides) -> Result<Config> {
        Facilities::parsed()?;
        Config::resolve(overrides, &process_env)
    }

    fn resolve(over: &Overrides, env: Env) -> Result<Config> {
        let text = |set: &Option<String>, name| match set {
            Some(value) => Ok(Some(value.clone())),
            None => variable(env, name),
        };
        let transport = match &over.transport {
            Some(value) => transport("config.transport", value)?,
            None => match variable(env, "MW_TRANSPORT")? {
                Some(value) => transport("MW_TRANSPORT", &value)?,
                None => TransportChoice::Auto,
            },
        };
        let backend = match &over.backend {
            Some(value) => backend("config.backend", value)?,
            None => match variable(env, "MW_BACKEND")? {
                Some(value) => backend("MW_BACKEND", &value)?,
                None => BackendChoice::Host,
            },
        };
        let device = over.device.filter(|d| *d != -1);
        if let Some(device) = device
            && (device < 0 || backend == BackendChoice::Host)
        {
            return Err(Error::argument(format!("config.device: {device} is not -1, the host backend's")));
        }
        let interval = Setting { field: "config.heartbeatIntervalMs", variable: "MW_HEARTBEAT_INTERVAL_MS" };
        let silence = Setting { field: "config.heartbeatTimeoutMs", variable: "MW_HEARTBEAT_TIMEOUT_MS" };
        let timeout = Setting { field: "config.timeoutMs", variable: "MW_TIMEOUT_MS" };
        let join = Setting { field: "config.joinTimeoutMs", variable: "MW_JOIN_TIMEOUT_MS" };
        let reform = Setting { field: "config.reformWaitMs", variable: "MW_REFORM_WAIT_MS" };
        let abort = Setting { field: "abort timeout", variable: "MW_NCCL_ABORT_TIMEOUT_MS" };
        let (heartbeat_interval, _) = interval.resolve(over.heartbeat_interval_ms, 200, env)?;
        let (heartbeat_timeout, name) = silence.resolve(over.heartbeat_timeout_ms, 1000, env)?;
        if heartbeat_timeout < 2 * heartbeat_interval {
            return Err(Error::argument(format!(
                "{name}: {} ms is less than two heartbeat intervals of {} ms",
                heartbeat_timeout.as_millis(),
                heartbeat_interval.as_millis()
            )));
        }
        Ok(Config {
            store: text(&over.store, "MW_STORE")?,
            backend,
            device,
            transport,
            ifname: text(&over.ifname, "MW_IFNAME")?,
            congestion: variable(env, "MW_TCP_CONGESTION")?,
            secret: match &over.secret {
                Some(secret) => Some(long_enough("config.secret", secret.clone())?),
                None => secret(env)?,
            },
            insecure: insecure(env)?,
            timeout: timeout.resolve(over.timeout_ms, 600_000, env)?.0,
            join_timeout: join.resolve(over.join_timeout_ms, 60_000, env)?.0,
            reform_wait: reform.resolve(over.reform_wait_ms, 500, env)?.0,
            abort_timeout: abort.resolve(None, 10_000, env)?.0,
            heartbeat_interval,
            heartbeat_timeout,
            tuning: tuning(env)?,
        })
    }
}

impl Facilities {
    /// What this process may use; read once. A mistake in `MW_DISABLE` is reported by the first
    /// [`Config::load`], before any of this matters.
    pub fn get() -> Facilities {
        Facilities::parsed().unwrap_or(Facilities::ALL)
    }

    const ALL: Facilities = Facilities { futex_waitv: true, robust: true, cma: true, memfd: true };

    fn parsed() -> Result<Facilities> {
        static PARSED: OnceLock<Result<Facilities>> = OnceLock::new();
        PARSED.get_or_init(|| Facilities::parse(&process_env)).clone()
    }

    fn parse(env: Env) -> Result<Facilities> {
        let mut facilities = Facilities::ALL;
        let list = variable(env, "MW_DISABLE")?.unwrap_or_default();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "futex_waitv" => facilities.futex_waitv = false,
                "robust" => facilities.robust = false,
                "cma" => facilities.cma = false,
                "memfd" => facilities.memfd = false,
                _ => {
                    let text =
                        format!("MW_DISABLE: '{name}' is none of 'futex_waitv', 'robust', 'cma', 'memfd'");
                    return Err(Error::argument(text));
                }
            }
        }
        Ok(facilities)
    }
}

/// Size and rank as `MW_NRANKS` and `MW_RANK`, or else the launcher (torchrun, Open MPI, Slurm) set them.
pub fn ranks_from_env() -> Result<(i32, i32)> {
    ranks(&process_env)
}

/// How much `MW_DEBUG` wants to be printed; `None` is nothing.
pub fn log_level() -> Result<Option<Level>> {
    level(&process_env)
}

/// `MW_STORE_DIR`.
pub fn store_dir() -> Option<PathBuf> {
    process_env("MW_STORE_DIR").filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Files in PEM form for stores that are reached through TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// Whom to believe; if not set, whom the system believes.
    pub authorities: Option<PathBuf>,
    /// The certificate to show, and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl Certificates {
    /// The variable that names `authorities`.
    pub const AUTHORITIES: &str = "MW_ETCD_CACERT";
    /// The variable that names the first of `own`.
    pub const OWN: &str = "MW_ETCD_CERT";
    /// The variable that names the second.
    pub const KEY: &str = "MW_ETCD_KEY";
}

/// What `MW_ETCD_CACERT`, `MW_ETCD_CERT` and `MW_ETCD_KEY` say.
pub fn etcd_certificates() -> Result<Certificates> {
    certificates(&process_env)
}

fn certificates(env: Env) -> Result<Certificates> {
    let path = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let missing = |name, other| Error::argument(format!("{name}: not set, but {other} is"));
    let own = match (path(Certificates::OWN), path(Certificates::KEY)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (None, Some(_)) => return Err(missing(Certificates::OWN, Certificates::KEY)),
        (Some(_), None) => return Err(missing(Certificates::KEY, Certificates::OWN)),
    };
    Ok(Certificates { authorities: path(Certificates::AUTHORITIES), own })
}

fn process_env(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The text of a variable; empty counts as not set.
fn variable(env: Env, name: &str) -> Result<Option<String>> {
    match env(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) if value.is_empty() => Ok(None),
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(_)) => Err(Error::argument(format!("{name}: not valid UTF-8"))),
    }
}

fn transport(name: &str, value: &str) -> Result<TransportChoice> {
    match value {
        "auto" => Ok(TransportChoice::Auto),
        "shm" => Ok(TransportChoice::Shm),
        "tcp" => Ok(TransportChoice::Tcp),
        _ => Err(Error::argument(format!("{name}: '{value}' is none of 'auto', 'shm', 'tcp'"))),
    }
}

fn backend(name: &str, value: &str) -> Result<BackendChoice> {
    match value {
        "host" | "auto" => Ok(BackendChoice::Host),
        "nccl" => Ok(BackendChoice::Nccl),
        _ => Err(Error::argument(format!("{name}: '{value}' is none of 'host', 'nccl', 'auto'"))),
    }
}

/// A number of milliseconds that has two names.
struct Setting {
    field: &'static str,
    variable: &'static str,
}

impl Setting {
    /// The value, and the name of who set it.
    fn resolve(&self, set: Option<i32>, default: i32, env: Env) -> Result<(Duration, &'static str)> {
        let (name, ms) = match set {
            Some(ms) => (self.field, ms),
            None => match variable(env, self.variable)? {
                None => (self.variable, default),
                Some(text) => {
                    let ms = text.parse().map_err(|_| {
                        let name = self.variable;
                        Error::argument(format!("{name}: '{text}' is not a number of milliseconds"))
                    })?;
                    (self.variable, ms)
                }
            },
        };
        match u64::try_from(ms) {
            Ok(ms) if ms > 0 => Ok((Duration::from_millis(ms), name)),
            _ => Err(Error::argument(format!("{name}: {ms} ms is not greater than 0"))),
        }
    }
}

fn long_enough(name: &str, secret: Secret) -> Result<Secret> {
    if secret.0.len() < MIN_SECRET {
        let len = secret.0.len();
        return Err(Error::argument(format!("{name}: {len} bytes are too few, a secret has {MIN_SECRET}")));
    }
    Ok(secret)
}

fn secret(env: Env) -> Result<Option<Secret>> {
    let given = env("MW_SECRET").filter(|value| !value.is_empty()).map(OsString::into_vec);
    let file = env("MW_SECRET_FILE").filter(|value| !value.is_empty());
    match (given, file) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Error::argument("MW_SECRET_FILE: MW_SECRET is set, too; only one may be")),
        (Some(bytes), None) => long_enough("MW_SECRET", Secret(bytes)).map(Some),
        (None, Some(path)) => {
            let mut bytes = std::fs::read(&path)
                .map_err(|err| Error::argument(format!("MW_SECRET_FILE: {}: {err}", path.display())))?;
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            long_enough("MW_SECRET_FILE", Secret(bytes)).map(Some)
        }
    }
}

fn insecure(env: Env) -> Result<bool> {
    match variable(env, "MW_INSECURE")?.as_deref() {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(Error::argument(format!("MW_INSECURE: '{other}' is neither '0' nor '1'"))),
    }
}

fn tuning(env: Env) -> Result<Option<Arc<Table>>> {
    let Some(path) = env("MW_TUNING").filter(|value| !value.is_empty()) else { return Ok(None) };
    match Table::read(Path::new(&path)) {
        Ok(table) => Ok(Some(Arc::new(table))),
        Err(mistake) => Err(Error::argument(format!("MW_TUNING: {mistake}"))),
    }
}

fn ranks(env: Env) -> Result<(i32, i32)> {
    const LAUNCHERS: [(&str, &str); 4] = [
        ("MW_NRANKS", "MW_RANK"),
        ("WORLD_SIZE", "RANK"),
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
        ("SLURM_NTASKS", "SLURM_PROCID"),
    ];
    let number = |name: &str, text: String| {
        text.parse().map_err(|_| Error::argument(format!("{name}: '{text}' is not a number")))
    };
    for (size, rank) in LAUNCHERS {
        match (variable(env, size)?, variable(env, rank)?) {
            (Some(n), Some(r)) => return Ok((number(size, n)?, number(rank, r)?)),
            (None, None) => {}
            // Ours come in pairs; a foreign half may be there for another reason.
            (None, Some(_)) if size == "MW_NRANKS" => {
                return Err(Error::argument("MW_NRANKS: not set, but MW_RANK is"));
            }
            (Some(_), None) if size == "MW_NRANKS" => {
                return Err(Error::argument("MW_RANK: not set, but MW_NRANKS is"));
            }
            _ => {}
        }
    }
    Err(Error::argument(
        "nranks, rank: both are -1, and the environment has neither MW_NRANKS and MW_RANK nor those of a launcher",
    ))
}

fn level(env: Env) -> Result<Option<Level>> {
    let Some(value) = variable(env, "MW_DEBUG")? else { return Ok(None) };
    match value.to_ascii_lowercase().as_str() {
        "warn" => Ok(Some(Level::WARN)),
        "info" => Ok(Some(Level::INFO)),
        "debug" => Ok(Some(Level::DEBUG)),
        "trace" => Ok(Some(Level::TRACE)),
        _ => Err(Error::argument(format!("MW_DEBUG: '{value}' is none of 'warn', 'info', 'debug', 'trace'"))),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
