//! Reaching the store, and being it where nobody else is.

use super::id::Ticket;
use crate::auth::KeyId;
use crate::config;
use crate::error::{Code, Error, Result};
use crate::store::{self, Address, Fsync, Store, client::Client, server::Server};
use crate::sync::{Arc, Mutex, OnceLock, RwLock};
use crate::sys::socket;
use crate::types::Secret;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Stores that this process hosts; they live as long as it does.
static SERVERS: Mutex<Vec<Server>> = Mutex::new(Vec::new());
/// Clients by address and key, and how many connections they had had when that was told last.
type Clients = HashMap<(String, KeyId), (Arc<Client>, u64)>;

/// Connections in use.
fn clients() -> &'static Mutex<Clients> {
    static CLIENTS: OnceLock<Mutex<Clients>> = OnceLock::new();
    CLIENTS.get_or_init(Mutex::default)
}

/// The store at `address`, if this process has reached it and it is not known to be gone.
pub fn known(address: &str, secret: &Secret) -> Option<Arc<dyn Store>> {
    let name = (address.to_string(), KeyId::of(secret));
    let client = clients().lock().get(&name).map(|(client, _)| client.clone());
    match client {
        Some(client) => client.lost().is_none().then_some(client as Arc<dyn Store>),
        None => OPEN.lock().get(address).cloned(),
    }
}

/// Where a store is, for who wants to know which of this machine's addresses leads there. What is wrong with its address
/// is found out by whoever goes there.
pub fn whereabouts(address: &str, deadline: Instant) -> Option<IpAddr> {
    let (host, port) = match Address::parse(address).ok()? {
        Address::Tcp { host, port } => (host, port),
        Address::Etcd(cluster) => cluster.endpoints.into_iter().next()?,
        Address::File(_) => return None,
    };
    Some(socket::resolve(&host, port, deadline).ok()?.first()?.ip())
}

/// Stores of other kinds, by address.
static OPEN: Mutex<BTreeMap<String, Arc<dyn Store>>> = Mutex::new(BTreeMap::new());

/// The store at an address, with what shows that it is gone.
pub struct Reached {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Of a new connection, its descriptor; of a store without one connection that lasts, nothing.
    pub session: Option<OwnedFd>,
}

/// The store at `address`, of any kind. With `host`, this process becomes the store where that is possible and nobody
/// else is.
pub fn reach_any(address: &str, secret: &Secret, host: bool, deadline: Instant) -> Result<Reached> {
    if let Address::Tcp { .. } = Address::parse(address)? {
        let (store, new) = reach(address, secret, host, deadline)?;
        let session = new.then(|| store.session_fd()).transpose()?;
        return Ok(Reached { store, session });
    }
    if let Some(store) = OPEN.lock().get(address).cloned() {
        return Ok(Reached { store, session: None });
    }
    let store = store::open(address, KeyId::of(secret), secret, deadline)?;
    // Another thread may have been faster.
    let store = OPEN.lock().entry(address.to_string()).or_insert(store).clone();
    Ok(Reached { store, session: None })
}

/// Whether all that `address` may mean lies on this machine: loopback, or a directory.
pub fn is_local(address: &str, deadline: Instant) -> Result<bool> {
    let endpoints = match Address::parse(address)? {
        Address::File(_) => return Ok(true),
        Address::Tcp { host, port } => vec![(host, port)],
        Address::Etcd(cluster) => cluster.endpoints,
    };
    for (host, port) in endpoints {
        if !socket::resolve(&host, port, deadline)?.iter().all(|a| a.ip().is_loopback()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A connection to the store at `address` (`tcp://host:port`). With `host`, this process becomes the store when
/// nobody listens there and the address is its own; otherwise it waits until somebody does. Also answers whether the
/// connection is new, be it that the client has made it by itself.
pub fn reach(address: &str, secret: &Secret, host: bool, deadline: Instant) -> Result<(Arc<Client>, bool)> {
    let (name, port) = store::parse_address(address)?;
    let key = KeyId::of(secret);
    let known = (address.to_string(), key);
    // A store that keeps what it knows comes back, unless what it knows is this process's to bring back.
    let mut host = host;
    if let Some((c, told)) = clients().lock().get_mut(&known) {
        if c.lost().is_none() {
            offer(c, host, key, secret);
            let connections = c.connections();
            return Ok((c.clone(), std::mem::replace(told, connections) != connections));
        }
        host &= !c.returns() || config::store_dir().is_some();
    }
    let mut pause = Duration::from_millis(1);
    loop {
        let addresses = socket::resolve(&name, port, deadline)?;
        let mut last = Error::timeout(format!("store: '{address}' has no address"));
        for a in &addresses {
            match Client::connect_to(*a, key, secret, deadline) {
                Ok(c) => {
                    let c = Arc::new(c);
                    offer(&c, host, key, secret);
                    let mut clients = clients().lock();
                    // Another thread may have been faster.
                    if let Some((theirs, _)) = clients.get(&known).filter(|(c, _)| c.lost().is_none()) {
                        return Ok((theirs.clone(), false));
                    }
                    clients.insert(known, (c.clone(), c.connections()));
                    return Ok((c, true));
                }
                Err(e) if matches!(e.code, Code::Unauthorized | Code::Timeout) => return Err(e),
                Err(e) => last = e,
            }
        }
        if host && start(&addresses, key, secret)? {
            continue;
        }
        let now = Instant::now();
        if now + pause >= deadline {
            return Err(Error::timeout(format!("store: nobody answers at '{address}': {last}")));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// With `host`, this process becomes the store at the client's address when that is gone for long.
fn offer(client: &Arc<Client>, host: bool, key: KeyId, secret: &Secret) {
    if host {
        let (address, secret) = (client.addr(), secret.clone());
        client.stand_in(Box::new(move || start(&[address], key, &secret)));
    }
}

/// Becomes the store at the first of these addresses that is ours and free.
fn start(addresses: &[SocketAddr], key: KeyId, secret: &Secret) -> Result<bool> {
    for a in addresses {
        let listener = match socket::listen_tcp(*a, 512) {
            Ok(l) => l,
            // Not an address of this machine, or somebody was faster.
            Err(e) => {
                tracing::debug!("not hosting the store at {a}: {e}");
                continue;
            }
        };
        let secret = secret.clone();
        let keys = Arc::new(move |id: KeyId| (id == key).then(|| secret.clone()));
        let server = match config::store_dir() {
            Some(dir) => Server::start_kept(listener, keys, &dir, Fsync::Always)?,
            None => Server::start(listener, keys)?,
        };
        tracing::info!("hosting the store at {a}");
        SERVERS.lock().push(server);
        return Ok(true);
    }
    Ok(false)
}

/// A connection to the store of a unique id. Not kept: an id is used once.
pub fn reach_id(ticket: &Ticket, deadline: Instant) -> Result<Arc<Client>> {
    // Its store ends with the process that has made the id, and nobody can take its place.
    Client::connect_once(ticket.store, ticket.key, &ticket.secret, deadline).map(Arc::new)
}

/// The store for this process's unique ids, with the secrets of all of them.
struct IdStore {
    address: SocketAddr,
    secrets: Arc<RwLock<HashMap<KeyId, Secret>>>,
}

/// A new unique id; the first one starts this process's store on `ip`.
pub fn new_id(ip: IpAddr) -> Result<Ticket> {
    static STORE: Mutex<Option<IdStore>> = Mutex::new(None);
    let mut store = STORE.lock();
    let here = match &mut *store {
        Some(s) => s,
        none => {
            let listener = socket::listen_tcp(SocketAddr::new(ip, 0), 512)
                .map_err(|e| Error::system("listening for members of a unique id", &e))?;
            let address = listener.local_addr().map_err(|e| Error::system("getsockname", &e))?;
            let secrets: Arc<RwLock<HashMap<KeyId, Secret>>> = Arc::default();
            let known = secrets.clone();
            let server = Server::start(listener, Arc::new(move |id: KeyId| known.read().get(&id).cloned()))?;
            SERVERS.lock().push(server);
            none.insert(IdStore { address, secrets })
        }
    };
    let ticket = Ticket::fresh(here.address)?;
    here.secrets.write().insert(ticket.key, ticket.secret.clone());
    Ok(ticket)
}
