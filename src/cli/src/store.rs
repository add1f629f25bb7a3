//! `mw store`: the built-in store in a process of its own.

use crate::api::{Failure, Result};
use clap::ValueEnum;
use multiworld::auth::{self, KeyId};
use multiworld::config::{self, Config};
use multiworld::observe::log;
use multiworld::store;
use multiworld::store::Server;
use multiworld::sys::{signal, socket};
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether the store still serves.
const LOOK: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
#[command(after_long_help = MANUAL)]
pub struct Args {
    /// Where to listen, as HOST:PORT; port 0 lets the kernel choose
    #[arg(long, value_name = "ADDR")]
    pub listen: String,

    /// Keep what the store knows in this folder, which is made if it is not there, and go on from what is in it
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// When changes are brought to the disk
    #[arg(long, value_enum, requires = "data_dir", default_value_t)]
    pub fsync: Fsync,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Fsync {
    /// Before they are answered: they survive the death of the machine
    #[default]
    Always,
    /// 50 ms later at most: they survive the death of the process
    Batch,
    /// When the kernel sees fit: they survive the death of the process
    Never,
}

impl From<Fsync> for store::Fsync {
    fn from(fsync: Fsync) -> store::Fsync {
        match fsync {
            Fsync::Always => store::Fsync::Always,
            Fsync::Batch => store::Fsync::Batch,
            Fsync::Never => store::Fsync::Never,
        }
    }
}

const MANUAL: &str = "\
Worlds that are joined by name meet here: MW_STORE=tcp://HOST:PORT. The secret is that of the worlds, MW_SECRET or
MW_SECRET_FILE. Without one, whoever reaches the port may join: then only addresses of the loopback interface are
listened at, unless MW_INSECURE=1 asks for others.

Without --data-dir a store that ends has forgotten everything: who is joining a world begins anew with the next one
at the same address. With it, a store that is started again goes on where it was, however it ended, and who is
joining does not notice. Worlds that exist need no store.

One line on the standard output says where it listens. SIGINT and SIGTERM end it.

Exit status: 0; 1 when it could not start or go on; 2 for wrong arguments.

Example:
  mw store --listen 10.0.0.1:29400 --data-dir /var/lib/mw
";

/// Serves until a signal asks for the end.
pub fn run(args: &Args) -> Result<ExitCode> {
    // Before any thread is started, so that all of them leave these signals to this one.
    signal::block_endings().map_err(|e| Failure::new(format!("blocking signals: {e}")))?;
    log::init(config::log_level()?.unwrap_or(tracing::Level::WARN));
    let config = Config::from_env()?;
    let is_open = config.secret.is_none();
    let secret = config.secret.unwrap_or_else(auth::no_secret);
    let addresses = addresses(&args.listen)?;
    if let Some(beyond) = addresses.iter().find(|a| is_open && !config.insecure && !a.ip().is_loopback()) {
        return Err(Failure::new(format!(
            "--listen: without a secret, whoever reaches {beyond} could join; set MW_SECRET or MW_SECRET_FILE, or \
             MW_INSECURE=1 to let everybody in"
        )));
    }
    let listener = addresses
        .iter()
        .map(|address| socket::listen_tcp(*address, 512))
        .reduce(|first, next| first.or(next))
        .unwrap_or_else(|| Err(std::io::ErrorKind::AddrNotAvailable.into()))
        .map_err(|e| Failure::new(format!("--listen: '{}': {e}", args.listen)))?;
    let key = KeyId::of(&secret);
    let keys: store::Keys = Arc::new(move |id| (id == key).then(|| secret.clone()));
    let server = match &args.data_dir {
        Some(dir) => Server::start_kept(listener, keys, dir, args.fsync.into())?,
        None => Server::start_alone(listener, keys)?,
    };
    if is_open && !server.addr().ip().is_loopback() {
        eprintln!("mw store: MW_INSECURE=1 and no MW_SECRET: whoever reaches {} may join", server.addr());
    }
    println!("listening at tcp://{}", server.addr());
    // Who reads it through a pipe waits for it. If nobody does, that is no reason to end.
    let _ = std::io::stdout().flush();
    loop {
        let ending =
            signal::wait_ending(LOOK).map_err(|e| Failure::new(format!("waiting for signals: {e}")))?;
        if let Some(e) = server.failed() {
            return Err(e.into());
        }
        if ending {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn addresses(listen: &str) -> Result<Vec<SocketAddr>> {
    let wrong = |why: &dyn std::fmt::Display| Failure::new(format!("--listen: '{listen}': {why}"));
    let found: Vec<SocketAddr> = listen.to_socket_addrs().map_err(|e| wrong(&e))?.collect();
    if found.is_empty() { Err(wrong(&"it has no address")) } else { Ok(found) }
}
