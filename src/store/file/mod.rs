//! A store in a directory, for the processes of one user on one machine: `file:///dir`. No server.
//!
//! | module | provides |
//! |---|---|
//! | `log` | the log's records as bytes |
//! | `place` | the directory, the files in it |
//! | `state` | what the records amount to |
//!
//! Everything that happens is a record appended to one log. Every process reads it all, in the same order, and
//! so comes to the same state; what its own request has come to it learns when it reads that request back. No
//! lock is waited for, and so a process that is stopped or killed in the middle of anything stands in nobody's
//! way.
//!
//! A process that has died is noticed by the lock that the kernel has given back for it, a silent one by the
//! clock of the machine; whoever waits looks after both, and writes down whose leases are over.

mod log;
mod place;
mod state;

use super::calls::Ask;
use super::wire::{Answer, Request};
use crate::auth;
use crate::error::{Code, Error, Extent, Result};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard};
use crate::sys::clock::monotonic_ns;
use crate::sys::file::{self, About, News};
use crate::sys::poll::{Interest, wait_fd};
use crate::sys::process;
use log::Record;
use place::{Log, Place};
use state::{ClientId, State};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often whoever waits looks whether others still live, and whether a change has come without a sound: its
/// writer may have been killed before it rang.
const LOOK: Duration = Duration::from_millis(50);
/// The same where there is nothing that rings.
const POLL: Duration = Duration::from_millis(2);
/// When to look again after somebody has closed its files: the kernel tells so before it gives back the locks.
const SOON: Duration = Duration::from_millis(1);
/// Whom one looks after; with more clients each has some others'.
const NEIGHBOURS: usize = 8;
/// Bytes of a log from which on it is followed by a new one, if most of them are of the past.
const LONG: u64 = 1024 * 1024;
/// Logs that may be sealed during one call before something must be wrong.
const ATTEMPTS: usize = 1000;

/// One client of a store in a directory. When the directory is removed, its leases are gone, and the next call
/// begins anew.
pub struct Directory {
    path: PathBuf,
    inner: Mutex<Inner>,
    /// Somebody has looked.
    looked: Condvar,
}

struct Inner {
    session: Option<Session>,
    /// Whether a thread sleeps until something happens; it looks for all.
    looking: bool,
}

impl Directory {
    /// A client of the store in the directory at `path`, which is made if it is not there.
    pub fn open(path: &Path) -> Result<Directory> {
        let session = Session::begin(path)?;
        let inner = Mutex::new(Inner { session: Some(session), looking: false });
        Ok(Directory { path: path.to_path_buf(), inner, looked: Condvar::new() })
    }

    fn late(&self) -> Error {
        Error::timeout(format!("store in '{}': no answer in time", self.path.display()))
    }

    /// One step of a call: the answer, or when to look again and what may ring before.
    fn step(&self, inner: &mut Inner, request: &Request) -> Result<Step> {
        if inner.session.as_ref().is_none_or(|s| s.broken) {
            inner.session = None;
            inner.session = Some(Session::begin(&self.path)?);
        }
        let Some(session) = &mut inner.session else { return Err(Error::internal("store: no session")) };
        session.step(request)
    }

    /// Sleeps until something has happened, or `until`. Of many threads one sleeps for all.
    fn sleep(
        &self,
        inner: &mut MutexGuard<'_, Inner>,
        bell: Option<Arc<News>>,
        until: Instant,
    ) -> Result<()> {
        if inner.looking {
            self.looked.wait_until(inner, until);
            return Ok(());
        }
        inner.looking = true;
        let rung = MutexGuard::unlocked(inner, || match &bell {
            Some(news) => wait_fd(&**news, Interest::READ, until).and_then(|_| news.take()),
            None => {
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
                Ok(false)
            }
        });
        inner.looking = false;
        self.looked.notify_all();
        let closed = rung.map_err(|e| Error::system("store: waiting for a change", &e))?;
        if closed && let Some(session) = &mut inner.session {
            session.suspect();
        }
        Ok(())
    }
}

enum Step {
    Answer(Answer),
    Wait(Option<Arc<News>>, Duration),
}

impl Ask for Directory {
    fn ask(&self, request: Request, deadline: Instant) -> Result<Answer> {
        let mut inner = self.inner.try_lock_until(deadline).ok_or_else(|| self.late())?;
        loop {
            match self.step(&mut inner, &request)? {
                Step::Answer(answer) => return Ok(answer),
                Step::Wait(bell, pause) => {
                    let now = Instant::now();
                    if now >= deadline {
                        return Err(self.late());
                    }
                    self.sleep(&mut inner, bell, deadline.min(now + pause))?;
                }
            }
        }
    }
}

/// What a client knows and holds, for as long as nothing goes wrong.
struct Session {
    place: Place,
    log: Log,
    state: State,
    me: ClientId,
    process: u32,
    /// Holds the lock on this client's byte.
    clients: File,
    bell: File,
    news: Option<Arc<News>>,
    last_number: u64,
    /// When to look whether others live.
    next_look: Instant,
    /// How many more times to look at all of them.
    suspicions: u32,
    /// What is known does not follow the log any more: it was removed or altered.
    broken: bool,
}

impl Session {
    fn begin(path: &Path) -> Result<Session> {
        let place = Place::prepare(path)?;
        let clients = place.shared("clients")?;
        let bell = place.shared("bell")?;
        let mut id = [0; 8];
        auth::fill_random(&mut id)?;
        // A place in a file: not negative, and not so close to the end that a byte does not fit.
        let me = u64::from_le_bytes(id) >> 2;
        let locked = file::lock_byte(&clients, me);
        if !locked.map_err(|e| place.failed("locking a byte of clients", &e))? {
            return Err(Error::internal("store: two clients drew the same number"));
        }
        // Before the log is looked at, so that no change is missed between the two.
        let news = news(&place);
        let (log, state) = enter(&place, 0, &State::default())?;
        let mut session = Session {
            place,
            log,
            state,
            me,
            process: process::pid(),
            clients,
            bell,
            news,
            last_number: 0,
            next_look: Instant::now(),
            suspicions: 1,
            broken: false,
        };
        session.catch_up(0)?;
        session.tend()?;
        Ok(session)
    }

    fn step(&mut self, request: &Request) -> Result<Step> {
        self.catch_up(0)?;
        self.tend()?;
        let waits = matches!(request, Request::Watch { .. });
        let answer = match self.state.foresee(self.me, request) {
            None if waits => return Ok(Step::Wait(self.news.clone(), self.pause())),
            None => self.submit(request)?,
            Some(answer) => answer,
        };
        Ok(Step::Answer(answer))
    }

    /// Appends a request and reads back what has come of it.
    fn submit(&mut self, request: &Request) -> Result<Answer> {
        let before = self.state.revision();
        for _ in 0..ATTEMPTS {
            self.last_number += 1;
            let (number, log) = (self.last_number, self.log.number());
            let (client, time) = (self.me, monotonic_ns());
            self.log.append(&Record::Request { client, time, number, request: request.clone() })?;
            if let Some(answer) = self.catch_up(number)? {
                self.announce(before);
                self.shorten()?;
                return Ok(answer);
            }
            if self.log.number() == log {
                break;
            }
            // It was sealed before: as if nothing had been written. Things may be different now.
            if let Some(answer) = self.state.foresee(self.me, request) {
                return Ok(answer);
            }
        }
        self.broken = true;
        Err(self.log.damaged("does not keep what is appended"))
    }

    /// Takes in all that has been written; answers what has come of this client's request `number`.
    fn catch_up(&mut self, number: u64) -> Result<Option<Answer>> {
        let caught_up = self.read_all(number);
        self.broken |= caught_up.is_err();
        caught_up
    }

    fn read_all(&mut self, number: u64) -> Result<Option<Answer>> {
        let mut mine = None;
        for _ in 0..ATTEMPTS {
            let is_there = self.log.read_on()?;
            let mut sealed = false;
            while let Some(record) = self.log.next()? {
                if record == Record::Seal {
                    sealed = true;
                    break;
                }
                let (client, n) = record.request().unwrap_or_default();
                let answer = self.state.apply(record);
                if client == self.me && n == number {
                    mine = answer;
                }
            }
            if sealed {
                (self.log, self.state) = enter(&self.place, self.log.number(), &self.state)?;
            } else if is_there {
                return Ok(mine);
            } else {
                let text = format!("store: {} was removed", self.place);
                return Err(Error::new(Code::System, Extent::Operation, text));
            }
        }
        Err(self.log.damaged("is followed by another all the time"))
    }

    /// Ends the leases of the dead and of the silent, and gives a sign of life when one is due.
    fn tend(&mut self) -> Result<()> {
        let now = monotonic_ns();
        // This client's own leases are no exception: it may have been silent for too long.
        let mut due = self.state.overdue(now);
        if self.state.next_alive(self.me).is_some_and(|at| at <= now) {
            due.push(Record::Alive { client: self.me, time: now });
        }
        if Instant::now() >= self.next_look {
            let whom = if self.suspicions > 0 { usize::MAX } else { NEIGHBOURS };
            self.suspicions = self.suspicions.saturating_sub(1);
            self.next_look = Instant::now() + if self.suspicions > 0 { 5 * SOON } else { LOOK };
            for client in self.state.neighbours(self.me, whom) {
                let lives = file::is_locked(&self.clients, client);
                if !lives.map_err(|e| self.place.failed("testing a lock on clients", &e))? {
                    due.push(Record::Gone { client });
                }
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        let before = self.state.revision();
        due.iter().try_for_each(|record| self.log.append(record))?;
        self.catch_up(0)?;
        self.announce(before);
        self.shorten()
    }

    /// Somebody has closed its files: its lock will be gone in a moment.
    fn suspect(&mut self) {
        self.suspicions = 3;
        self.next_look = Instant::now() + SOON;
    }

    /// How long nothing is due.
    fn pause(&self) -> Duration {
        let now = monotonic_ns();
        let due = [self.state.next_alive(self.me), self.state.next_end()].into_iter().flatten().min();
        let due = due.map_or(LOOK, |at| Duration::from_nanos(at.saturating_sub(now)));
        let look = self.next_look.saturating_duration_since(Instant::now()).max(SOON);
        let limit = if self.news.is_some() { LOOK } else { POLL };
        due.max(SOON).min(look).min(limit)
    }

    /// Wakes those who wait, if anything has changed.
    fn announce(&self, before: u64) {
        // Without it they look a little later.
        if self.state.revision() != before
            && let Err(e) = self.bell.write_all_at(&[1], 0)
        {
            tracing::debug!("store: ringing the bell: {e}");
        }
    }

    /// Begins a new log when most of this one is of the past.
    fn shorten(&mut self) -> Result<()> {
        if self.log.len() < LONG + 4 * self.state.bytes() as u64 {
            return Ok(());
        }
        self.log.append(&Record::Seal)?;
        self.catch_up(0).map(drop)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A forked process must not end what is its parent's.
        if !self.broken && self.process == process::pid() && self.state.next_alive(self.me).is_some() {
            let before = self.state.revision();
            let gone = self.log.append(&Record::Gone { client: self.me });
            // Otherwise the others find out by the lock.
            if gone.and_then(|()| self.catch_up(0)).is_ok() {
                self.announce(before);
            }
        }
    }
}

/// What rings after changes and when a client ends. Without it, as where the user has too many already, one has
/// to look again and again.
fn news(place: &Place) -> Option<Arc<News>> {
    let open = || {
        let news = News::new()?;
        news.of(&place.at("bell"), About::Written)?;
        news.of(&place.at("clients"), About::Closed)?;
        std::io::Result::Ok(news)
    };
    match open() {
        Ok(news) => Some(Arc::new(news)),
        Err(e) => {
            tracing::info!("store: {place} is looked at every {POLL:?}: no inotify ({e})");
            None
        }
    }
}

/// Opens the log that is in use, which comes after the one of number `sealed`, and is made if need be, to begin
/// with `state`.
fn enter(place: &Place, sealed: u64, state: &State) -> Result<(Log, State)> {
    for _ in 0..ATTEMPTS {
        let Some(newest) = place.newest()?.filter(|n| *n > sealed) else {
            place.publish(sealed.saturating_add(1), state.image())?;
            continue;
        };
        let Some(mut log) = place.open(newest)? else { continue };
        if place.newest()? != Some(newest) {
            continue;
        }
        log.read_on()?;
        let Some(Record::Image(image)) = log.next()? else {
            return Err(log.damaged("does not begin with an image"));
        };
        let state = State::load(&image).map_err(|why| log.damaged(&format!("begins with {}", why.0)))?;
        return Ok((log, state));
    }
    Err(Error::new(
        Code::System,
        Extent::Operation,
        format!("store: the log in {place} changes all the time"),
    ))
}

#[cfg(test)]
mod tests;
