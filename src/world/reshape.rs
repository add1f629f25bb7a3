//! Worlds from worlds whose membership has changed: without some members, or with more of them.
//!
//! # Shrinking
//!
//! The parent may be broken, so nothing is asked of it but who its members are. What the child is called and
//! its secret follow from the parent's and from who is excluded, and every survivor knows that. Two things
//! they do not know: when the others are ready for connections of the child, and whether one of them has
//! shrunk in the same way before. So they meet first, in ⌈log2 n⌉ rounds: in round k each dials the one 2^k
//! places on, until it is let in, tells the largest epoch that it has heard of, and waits to be told by the
//! one 2^k places back. After the last round everybody has opened its door, and all know the same epoch.

use super::join::nobody;
use super::{Call, World};
use crate::auth;
use crate::config::{BackendChoice, Config};
use crate::error::{Code, Error, Extent, Result};
use crate::rendezvous::Membership;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex};
use crate::types::{DataType, OpKind, RedOp, Reduction, Secret, WorldId};
use crate::watchdog::Watchdog;
use crate::watchdog::message::Handout;
use crate::world::UniqueId;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Epoch of the connections over which survivors meet; no world has it.
const MEETING: u64 = u64::MAX;
/// Pause before dialling one again that is not ready.
const RETRY: Duration = Duration::from_millis(2);
/// How long a survivor listens before it looks whether there is still a reason to.
const LISTEN: Duration = Duration::from_millis(20);

/// Epochs of the children that were made by shrinking, by id: one id may be shrunk to again.
static EPOCHS: Mutex<Option<HashMap<WorldId, u64>>> = Mutex::new(None);

/// Which ranks survivors have in the world that they make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranking {
    /// Those who come after a missing one move up.
    InOrder,
    /// Everybody keeps its own where that is possible: the last ones take the places of the missing.
    Stable,
}

impl Ranking {
    /// The ranks of survivors in the parent, by their ranks in the child.
    fn rank(self, survivors: Vec<u32>) -> Vec<u32> {
        if self == Ranking::InOrder {
            return survivors;
        }
        let size = survivors.len() as u32;
        let mut movers = survivors.iter().copied().filter(|r| *r >= size);
        let place = |rank: u32| if survivors.contains(&rank) { Some(rank) } else { movers.next() };
        (0..size).filter_map(place).collect()
    }
}

impl World {
    /// A world of the members that are not excluded. Collective among those; the parent may have ended. `config` is
    /// the parent's without another.
    pub fn shrink(
        self: &Arc<World>,
        excluded: &[u32],
        ranking: Ranking,
        config: Option<&Config>,
    ) -> Result<Arc<World>> {
        let config = config.unwrap_or(&self.config);
        let deadline = Instant::now() + config.join_timeout;
        if let Some(rank) = excluded.iter().find(|r| **r >= self.nranks()) {
            return Err(Error::argument(format!(
                "excluded: {rank} is not a rank of world '{}' (0..{})",
                self.name,
                self.nranks() - 1
            )));
        }
        let survivors = ranking.rank((0..self.nranks()).filter(|r| !excluded.contains(r)).collect());
        let Some(rank) = survivors.iter().position(|r| *r == self.rank) else {
            return Err(Error::argument(format!("excluded: {} is this rank itself", self.rank)));
        };
        let rank = rank as u32;
        let mut context = self.id.0.to_vec();
        context.extend(self.epoch.to_le_bytes());
        survivors.iter().for_each(|r| context.extend(r.to_le_bytes()));
        let mut id = [0; 16];
        id.copy_from_slice(&auth::derive(&self.secret, "shrink", &context).0[..16]);
        let (id, secret) = (WorldId(id), auth::derive(&self.secret, "shrink secret", &context));
        let w = Watchdog::get(config.ifname.as_deref())?;
        w.admit(id, secret.clone());
        let before = EPOCHS.lock().get_or_insert_default().get(&id).copied().unwrap_or_default();
        let met = Meeting { parent: self, w, id, secret: &secret, survivors: &survivors, rank, deadline }
            .agree(before);
        let epoch = match met {
            Ok(largest) => largest + 1,
            Err(e) => {
                w.dismiss(id);
                return Err(e);
            }
        };
        let members = survivors.iter().map(|r| self.members[*r as usize].clone()).collect();
        let membership = Membership { world: id, epoch, members };
        let name = format!("{}-{}", self.name.chars().take(40).collect::<String>(), survivors.len());
        let world = World::connect(&name, rank, membership, secret, config, deadline, &nobody)?;
        EPOCHS.lock().get_or_insert_default().insert(id, epoch);
        Ok(world)
    }

    /// A world of `nranks` members: those here keep their ranks, and newcomers, who join by the same unique
    /// id, have the ranks behind. Exactly one member brings the id. Collective here.
    pub fn grow(
        self: &Arc<World>,
        nranks: i32,
        id: Option<&UniqueId>,
        config: Option<&Config>,
    ) -> Result<Arc<World>> {
        const ID: usize = size_of::<UniqueId>();
        /// Whether there is an id, the size, and the id.
        const CARD: usize = 1 + 4 + ID;
        let mut mine = [0u8; CARD];
        mine[1..5].copy_from_slice(&nranks.to_le_bytes());
        if let Some(id) = id {
            mine[0] = 1;
            mine[5..].copy_from_slice(id);
        }
        let all = if self.config.backend == BackendChoice::Host {
            self.gathered(&mine)?
        } else {
            self.told(&mine[..5], &mine[5..])?
        };
        // From here on all members see the same, and come to the same result.
        let mut ids = all.chunks_exact(CARD).filter(|card| card[0] == 1);
        let (Some(card), None) = (ids.next(), ids.next()) else {
            return Err(Error::argument("uniqueId: exactly one member has to bring it"));
        };
        if let Some(other) = all.chunks_exact(CARD).find(|card| card[1..5] != mine[1..5]) {
            let other = i32::from_le_bytes([other[1], other[2], other[3], other[4]]);
            return Err(Error::argument(format!("nranks: {nranks} here, but {other} on another member")));
        }
        if i64::from(nranks) <= i64::from(self.nranks()) {
            let now = self.nranks();
            return Err(Error::argument(format!("nranks: {nranks} is not more than the {now} there are")));
        }
        let mut id = [0; ID];
        id.copy_from_slice(&card[5..]);
        World::init_rank(&id, nranks, self.rank as i32, config.unwrap_or(&self.config))
    }
}

impl World {
    /// Everybody's bytes, by rank. Collective.
    fn gathered(&self, mine: &[u8]) -> Result<Vec<u8>> {
        let mut all = vec![0u8; mine.len() * self.nranks() as usize];
        self.run(&Call {
            kind: OpKind::AllGather,
            send: false,
            sendbuf: mine.as_ptr(),
            recvbuf: all.as_mut_ptr(),
            count: mine.len(),
            dtype: DataType::Uint8,
            reduction: Reduction::Builtin(RedOp::Sum),
            peer: 0,
            stream: std::ptr::null_mut(),
            scalar_on_device: false,
        })?;
        Ok(all)
    }

    /// The same over the control links, for worlds whose operations do not take host memory. Collective.
    fn told(&self, head: &[u8], tail: &[u8]) -> Result<Vec<u8>> {
        let deadline = Instant::now() + self.config.join_timeout;
        let part = |mine: &[u8]| {
            let mut word: Handout = [0; 128];
            word[..mine.len()].copy_from_slice(mine);
            self.exchange(&word, self.splits.fetch_add(1, Ordering::Relaxed), deadline)
        };
        let (heads, tails) = (part(head)?, part(tail)?);
        let cards = heads.iter().zip(&tails);
        Ok(cards.flat_map(|(h, t)| [&h[..head.len()], &t[..tail.len()]].concat()).collect())
    }
}

/// Survivors who meet to make a world.
struct Meeting<'a> {
    parent: &'a World,
    w: &'a Watchdog,
    id: WorldId,
    secret: &'a Secret,
    survivors: &'a [u32],
    /// Of this one, among them.
    rank: u32,
    deadline: Instant,
}

impl Meeting<'_> {
    /// The largest of everybody's numbers.
    fn agree(&self, mine: u64) -> Result<u64> {
        let n = self.survivors.len() as u32;
        let mut largest = mine;
        let mut step = 1;
        // Kept open until the end: who has been told need not read at once.
        let mut told = Vec::new();
        while step < n {
            let to = (self.rank + step) % n;
            let from = (self.rank + n - step) % n;
            let mut out = self.dial(to)?;
            out.write_all(&largest.to_le_bytes()).map_err(|e| self.lost(to, &format!("telling it: {e}")))?;
            told.push(out);
            let key = (self.id, MEETING, from, self.rank);
            let stream = self.w.await_data(key, self.deadline, &|| self.hope())?;
            largest = largest.max(self.listen(stream, from)?);
            step *= 2;
        }
        Ok(largest)
    }

    fn dial(&self, to: u32) -> Result<TcpStream> {
        let member = &self.parent.members[self.survivors[to as usize] as usize];
        let key = (self.id, MEETING, self.rank, to);
        loop {
            // One attempt: why it was not let in makes no difference, its owner may only be late.
            let late = || Err(Error::new(Code::InProgress, Extent::Operation, "not ready"));
            match self.w.dial_data(member, key, self.secret, self.deadline, &late) {
                Ok(stream) => return Ok(stream),
                Err(e) if e.code == Code::Remote => return Err(self.lost(to, &e.text)),
                Err(e) if e.code != Code::InProgress && e.code != Code::Timeout => return Err(e),
                Err(_) => {}
            }
            self.hope()?;
            if Instant::now() >= self.deadline {
                return Err(Error::timeout(format!(
                    "shrinking world '{}': rank {} did not come in time, or excludes others",
                    self.parent.name, self.survivors[to as usize]
                )));
            }
            std::thread::sleep(RETRY);
        }
    }

    fn listen(&self, mut stream: TcpStream, from: u32) -> Result<u64> {
        let broken = |e: std::io::Error| self.lost(from, &format!("listening to it: {e}"));
        stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(LISTEN))).map_err(broken)?;
        let mut word = [0; 8];
        let mut got = 0;
        while got < word.len() {
            match stream.read(&mut word[got..]) {
                Ok(0) => return Err(self.lost(from, "it hung up")),
                Ok(n) => got += n,
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) =>
                {
                    self.hope()?;
                    if Instant::now() >= self.deadline {
                        let rank = self.survivors[from as usize];
                        return Err(Error::timeout(format!(
                            "shrinking world '{}': rank {rank} says nothing",
                            self.parent.name
                        )));
                    }
                }
                Err(e) => return Err(broken(e)),
            }
        }
        Ok(u64::from_le_bytes(word))
    }

    /// Whether all survivors still are.
    fn hope(&self) -> Result<()> {
        let failed = self.parent.failed_ranks();
        match self.survivors.iter().position(|r| *r != self.parent.rank && failed.contains(r)) {
            Some(at) => Err(self.lost(at as u32, "it has failed")),
            None => Ok(()),
        }
    }

    fn lost(&self, survivor: u32, why: &str) -> Error {
        let rank = self.survivors[survivor as usize];
        let text = format!("shrinking world '{}': rank {rank} is lost: {why}", self.parent.name);
        Error::new(Code::Remote, Extent::Operation, text).by(rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TransportChoice;
    use crate::world::tests::{all_reduce, config};

    fn together<T: Send>(worlds: &[Arc<World>], body: impl Fn(&Arc<World>) -> T + Sync) -> Vec<T> {
        let body = &body;
        std::thread::scope(|s| {
            let threads: Vec<_> = worlds.iter().map(|w| s.spawn(move || body(w))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        })
    }

    fn works(world: &Arc<World>) -> (u32, f32) {
        let mut out = [0.0];
        world.run(&all_reduce(&[1.0], &mut out)).unwrap();
        (world.rank(), out[0])
    }

    #[test]
    fn survivors_of_a_broken_world_go_on_without_it_and_again() {
        for transport in [TransportChoice::Shm, TransportChoice::Tcp] {
            let worlds = World::init_all(5, &config(transport)).unwrap();
            worlds[1].abort();
            let rest: Vec<Arc<World>> = worlds.iter().filter(|w| w.rank() != 1).cloned().collect();
            let mut epochs = Vec::new();
            for _ in 0..2 {
                let found = together(&rest, |w| {
                    // Nobody is ready at the same time.
                    std::thread::sleep(Duration::from_millis(7 * u64::from(w.rank())));
                    let child = w.shrink(&[1], Ranking::InOrder, None).unwrap();
                    let found = (works(&child), child.epoch());
                    child.destroy().unwrap();
                    found
                });
                let ranks: Vec<u32> = found.iter().map(|((rank, _), _)| *rank).collect();
                assert_eq!(ranks, [0, 1, 2, 3]);
                assert!(found.iter().all(|((_, sum), epoch)| *sum == 4.0 && *epoch == found[0].1));
                epochs.push(found[0].1);
            }
            assert!(epochs[1] > epochs[0]);
            rest.iter().for_each(|w| w.destroy().unwrap());
        }
    }

    #[test]
    fn ranks_move_up_or_stay() {
        let survivors = || vec![0, 2, 3, 5];
        assert_eq!(Ranking::InOrder.rank(survivors()), [0, 2, 3, 5]);
        assert_eq!(Ranking::Stable.rank(survivors()), [0, 5, 2, 3]);
        assert_eq!(Ranking::Stable.rank(vec![4, 5]), [4, 5]);
        let worlds = World::init_all(4, &config(TransportChoice::Auto)).unwrap();
        worlds[1].abort();
        let rest = [worlds[0].clone(), worlds[2].clone(), worlds[3].clone()];
        let found = together(&rest, |w| {
            let child = w.shrink(&[1], Ranking::Stable, None).unwrap();
            let found = works(&child);
            child.destroy().unwrap();
            found
        });
        assert_eq!(found, [(0, 3.0), (2, 3.0), (1, 3.0)]);
        rest.iter().for_each(|w| w.destroy().unwrap());
    }

    #[test]
    fn who_excludes_itself_or_nobody_known_is_told() {
        let worlds = World::init_all(2, &config(TransportChoice::Shm)).unwrap();
        assert!(
            worlds[0].shrink(&[0], Ranking::InOrder, None).err().unwrap().text.contains("this rank itself")
        );
        assert!(worlds[0].shrink(&[2], Ranking::InOrder, None).err().unwrap().text.contains("not a rank"));
        let alone = worlds[0].shrink(&[1], Ranking::InOrder, None).unwrap();
        assert_eq!((alone.nranks(), works(&alone)), (1, (0, 1.0)));
        alone.destroy().unwrap();
        worlds.iter().for_each(|w| w.destroy().unwrap());
    }

    #[test]
    fn a_survivor_that_never_comes_is_named() {
        let c = Config { join_timeout: Duration::from_millis(300), ..config(TransportChoice::Shm) };
        let worlds = World::init_all(3, &c).unwrap();
        let e = worlds[0].shrink(&[2], Ranking::InOrder, None).err().unwrap();
        assert_eq!(e.code, Code::Timeout, "{e}");
        // One that dies meanwhile ends it early.
        let c = Config { join_timeout: Duration::from_secs(60), ..c };
        let begin = Instant::now();
        std::thread::scope(|s| {
            let waiting = s.spawn(|| worlds[0].shrink(&[2], Ranking::InOrder, Some(&c)));
            std::thread::sleep(Duration::from_millis(50));
            worlds[1].abort();
            let e = waiting.join().unwrap().err().unwrap();
            assert_eq!((e.code, e.culprit), (Code::Remote, Some(1)), "{e}");
        });
        assert!(begin.elapsed() < Duration::from_secs(20));
        worlds.iter().for_each(|w| w.destroy().unwrap());
    }

    #[test]
    fn members_and_newcomers_meet_by_the_id_that_one_brings() {
        let c = config(TransportChoice::Auto);
        let worlds = World::init_all(2, &c).unwrap();
        let id = World::unique_id(&c).unwrap();
        std::thread::scope(|s| {
            let newcomer = s.spawn(|| World::init_rank(&id, 3, 2, &c).unwrap());
            let grown = together(&worlds, |w| w.grow(3, (w.rank() == 1).then_some(&id), None).unwrap());
            let newcomer = newcomer.join().unwrap();
            let all = [grown, vec![newcomer]].concat();
            let found = together(&all, works);
            assert_eq!(found, [(0, 3.0), (1, 3.0), (2, 3.0)]);
            all.iter().for_each(|w| w.destroy().unwrap());
        });
        let refused = together(&worlds, |w| w.grow(3, None, None).err().unwrap());
        assert!(refused.iter().all(|e| e.text.contains("exactly one")));
        worlds.iter().for_each(|w| w.destroy().unwrap());
    }
}
