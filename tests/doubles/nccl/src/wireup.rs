//! How the ranks of a communicator find each other: each listens on an abstract Unix socket that is named by
//! the communicator's key and its rank, and connects to those below it. Nothing is left behind by a process
//! that dies.
//!
//! Nobody gives up: a rank that never comes is waited for until the abort flag is raised.

use crate::abi::{Code, INTERNAL_ERROR, SUCCESS, SYSTEM_ERROR};
use crate::key::Key;
use crate::mesh::{Mesh, Tag};
use crate::record::{lock, set_last_error};
use crate::stop::Stop;
use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The first word on a connection, so that nothing else is mistaken for one.
const HELLO: u32 = 0x6d77_6463;
/// How long a rank sleeps between two looks at the others.
const STEP: Duration = Duration::from_millis(1);
/// How long a connection may take to introduce itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// The ranks of each communicator that live in this process: how many, and how many of those are gone.
static CLIQUES: Mutex<Option<HashMap<Key, Clique>>> = Mutex::new(None);

#[derive(Default)]
struct Clique {
    ranks: Vec<usize>,
    gone: usize,
}

/// Connects the ranks. Returns when all of them are connected to each other, or a flag was raised.
pub fn connect(key: Key, rank: usize, ranks: usize, stops: &[&Stop]) -> Result<Mesh, Code> {
    let mut streams: Vec<Option<UnixStream>> = (0..ranks).map(|_| None).collect();
    let listener = listen(&key.address(rank))?;
    let missing =
        |streams: &[Option<UnixStream>]| streams.iter().filter(|stream| stream.is_none()).count() > 1;
    while missing(&streams) {
        if stops.iter().any(|stop| stop.is_raised()) {
            return Err(stopped());
        }
        for (peer, slot) in streams.iter_mut().enumerate().take(rank) {
            if slot.is_none() {
                *slot = call(&key.address(peer), rank);
            }
        }
        let mut idle = true;
        while let Some((peer, stream)) = accept(&listener, ranks) {
            idle = false;
            if let Some(slot) = streams.get_mut(peer) {
                *slot = Some(stream);
            }
        }
        if idle {
            std::thread::sleep(STEP);
        }
    }
    let mut mesh = Mesh::new(rank, streams).map_err(|error| failed(&error))?;
    lock(&CLIQUES).get_or_insert_default().entry(key).or_default().ranks.push(rank);
    // Everybody tells everybody that it is complete, so that nobody goes on before all can.
    match exchange(&mut mesh, ranks, &[], stops) {
        Ok(_) => Ok(mesh),
        Err(code) => {
            leave(key);
            Err(code)
        }
    }
}

/// Every rank's bytes, in the order of the ranks.
pub fn exchange(mesh: &mut Mesh, ranks: usize, own: &[u8], stops: &[&Stop]) -> Result<Vec<Arc<[u8]>>, Code> {
    let [first, ..] = stops else { return Err(INTERNAL_ERROR) };
    let tag = mesh.next_collective();
    (0..ranks).for_each(|peer| mesh.post(peer, tag, 0, own.into()));
    let mut answers: Vec<Option<Arc<[u8]>>> = vec![None; ranks];
    loop {
        for (peer, answer) in answers.iter_mut().enumerate() {
            if let Some(message) = mesh.take(peer, tag) {
                *answer = Some(message.payload);
            }
        }
        if answers.iter().all(Option::is_some) && mesh.is_flushed() {
            return Ok(answers.into_iter().flatten().collect());
        }
        if stops.iter().any(|stop| stop.is_raised()) {
            return Err(stopped());
        }
        // The other flags have no part in the poll, so it is a short one.
        mesh.step(first, 10);
    }
}

fn listen(name: &str) -> Result<UnixListener, Code> {
    let bound = SocketAddr::from_abstract_name(name).and_then(|address| UnixListener::bind_addr(&address));
    let listener = bound.map_err(|error| failed(&error))?;
    listener.set_nonblocking(true).map_err(|error| failed(&error))?;
    Ok(listener)
}

fn call(name: &str, rank: usize) -> Option<UnixStream> {
    let address = SocketAddr::from_abstract_name(name).ok()?;
    let stream = UnixStream::connect_addr(&address).ok()?;
    let mut hello = [0; 12];
    let fields = HELLO.to_le_bytes().into_iter().chain((rank as u64).to_le_bytes());
    hello.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    // SAFETY: the bytes of a live array. A peer that is gone gives an error instead of a signal.
    let sent =
        unsafe { libc::send(stream.as_raw_fd(), hello.as_ptr().cast(), hello.len(), libc::MSG_NOSIGNAL) };
    // A new connection takes so few bytes at once or not at all.
    (usize::try_from(sent) == Ok(hello.len())).then_some(stream)
}

fn accept(listener: &UnixListener, ranks: usize) -> Option<(usize, UnixStream)> {
    loop {
        let (mut stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        let mut hello = [0; 12];
        let heard = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| stream.read_exact(&mut hello));
        let [a, b, c, d, rank @ ..] = hello;
        let rank = usize::try_from(u64::from_le_bytes(rank)).unwrap_or(usize::MAX);
        // A connection that ends before it has said who it is was a process that died; the next one, please.
        if heard.is_ok() && u32::from_le_bytes([a, b, c, d]) == HELLO && rank < ranks {
            return Some((rank, stream));
        }
    }
}

fn failed(error: &std::io::Error) -> Code {
    let sentence = match error.kind() {
        ErrorKind::AddrInUse => String::from("this rank of the communicator exists already"),
        _ => format!("bootstrap failed: {error}"),
    };
    set_last_error(&sentence);
    SYSTEM_ERROR
}

fn stopped() -> Code {
    set_last_error("aborted while the ranks were connecting");
    INTERNAL_ERROR
}

/// Says goodbye to all others. The last rank of a process waits for those of other processes, without a
/// deadline: that is what NCCL does since 2.31, and why after an abort on one rank no other rank may destroy.
pub fn part(key: Key, mesh: &mut Mesh, rank: usize, ranks: usize, stop: &Stop, wait: bool) -> Code {
    (0..ranks).filter(|peer| *peer != rank).for_each(|peer| mesh.post(peer, Tag::Farewell, 0, Arc::new([])));
    while !mesh.is_flushed() && !stop.is_raised() {
        mesh.step(stop, -1);
    }
    let mut waited_for: Vec<usize> = match leave(key) {
        Some(local) if wait => (0..ranks).filter(|peer| !local.contains(peer)).collect(),
        _ => Vec::new(),
    };
    while !stop.is_raised() {
        waited_for.retain(|peer| mesh.peek(*peer, Tag::Farewell).is_none());
        if waited_for.is_empty() {
            break;
        }
        mesh.step(stop, -1);
    }
    SUCCESS
}

/// A rank of this process is gone. The ranks of the process when it was the last one.
pub fn leave(key: Key) -> Option<Vec<usize>> {
    let mut cliques = lock(&CLIQUES);
    let cliques = cliques.as_mut()?;
    let clique = cliques.get_mut(&key)?;
    clique.gone += 1;
    if clique.gone < clique.ranks.len() {
        return None;
    }
    cliques.remove(&key).map(|clique| clique.ranks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn meet(key: Key, ranks: usize, own: impl Fn(usize) -> Vec<u8> + Sync) -> Vec<Vec<Arc<[u8]>>> {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..ranks)
                .map(|rank| {
                    let own = &own;
                    scope.spawn(move || {
                        let stop = Stop::new().expect("a flag");
                        let mut mesh = connect(key, rank, ranks, &[&stop]).expect("a mesh");
                        exchange(&mut mesh, ranks, &own(rank), &[&stop]).expect("everybody's bytes")
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a rank")).collect()
        })
    }

    #[test]
    fn everybody_gets_everybodys_bytes() {
        let key = Key::of(&[b"everybody", &std::process::id().to_le_bytes()]);
        let answers = meet(key, 4, |rank| vec![rank as u8; 300_000 * rank]);
        for answer in answers {
            assert_eq!(answer.len(), 4);
            for (rank, bytes) in answer.iter().enumerate() {
                assert_eq!(bytes.len(), 300_000 * rank);
                assert!(bytes.iter().all(|byte| *byte == rank as u8));
            }
        }
    }

    #[test]
    fn a_lonely_rank_waits_until_it_is_stopped() {
        let key = Key::of(&[b"lonely", &std::process::id().to_le_bytes()]);
        let stop = Stop::new().expect("a flag");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| connect(key, 0, 2, &[&stop]).err());
            thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            stop.raise();
            assert_eq!(waiting.join().expect("the rank"), Some(INTERNAL_ERROR));
        });
    }
}
