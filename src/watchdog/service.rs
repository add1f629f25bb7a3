//! The watchdog's own thread: control links in and out, heartbeats, silence.

use super::message::Message;
use super::{Link, Watchdog};
use crate::error::{Error, Result};
use crate::fault::liveness::Lag;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::sys::poll::Interest;
use crate::sys::process;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Tick without any world and any peer.
const RELAXED: Duration = Duration::from_secs(1);
/// Tick without any world: a peer may be about to join one with us, and will not wait long for a sign of life.
const ATTENTIVE: Duration = Duration::from_millis(100);
/// Tick of a library that is built to measure what ticks cost.
const NEVER: Duration = Duration::from_secs(1 << 20);
/// Being out of touch with a peer on another machine, with which there is no world, after which the link to it goes.
const ABANDONED: Duration = Duration::from_secs(3);
/// Shortest tick.
const SHORTEST: Duration = Duration::from_millis(2);

pub(super) fn set_nonblocking(socket: &OwnedFd) -> Result<()> {
    // Works on any socket: std only passes the request on.
    let s = UnixStream::from(socket.try_clone().map_err(|e| Error::system("duplicating a socket", &e))?);
    s.set_nonblocking(true).map_err(|e| Error::system("making a socket non-blocking", &e))
}

/// How often to beat and to look.
fn period(w: &Watchdog) -> Duration {
    match w.pace().every {
        _ if cfg!(mw_without = "watchdog") => NEVER,
        Some(every) => every.max(SHORTEST),
        None if w.links.lock().by_process.is_empty() => RELAXED,
        None => ATTENTIVE,
    }
}

pub(super) fn run(w: &Arc<Watchdog>) {
    process::raise_thread_priority();
    super::for_ever("mw-watchdog", || serve(w));
}

fn serve(w: &Watchdog) {
    let mut events = Vec::new();
    let mut next = Instant::now();
    let mut lag = Lag::new(next);
    loop {
        let now = Instant::now();
        let every = period(w);
        if now >= next || next > now + every {
            next = now + every;
            let late = lag.run(now, next, every);
            tick(w, now, late);
        }
        let left = next.saturating_duration_since(Instant::now());
        if let Err(e) = w.epoll.wait(&mut events, 64, Some(left)) {
            tracing::error!("epoll_wait: {e}");
            std::thread::sleep(SHORTEST);
            continue;
        }
        for e in &events {
            if e.token == 0 {
                if let Err(e) = w.wake.drain() {
                    tracing::warn!("eventfd: {e}");
                }
                continue;
            }
            let link = w.links.lock().by_token.get(&e.token).cloned();
            let Some(link) = link else {
                w.store_lost(e.token);
                continue;
            };
            if e.writable() && !link.flush() {
                w.set_interest(&link, Interest::READ);
                if link.has_backlog() {
                    // Queued, and the interest set, between the two calls above.
                    w.set_interest(&link, Interest::READ | Interest::WRITE);
                }
            }
            if e.readable() || e.hangup() {
                w.receive(&link);
            }
        }
    }
}

fn tick(w: &Watchdog, now: Instant, late: Duration) {
    w.liveness.beat();
    let links: Vec<Arc<Link>> = w.links.lock().by_process.values().cloned().collect();
    let strictest = w.pace().silence;
    for link in links {
        if let Some(watch) = link.watch.get() {
            if watch.is_dead() {
                w.process_died(&link, "its process died", false);
                continue;
            }
            link.liveness.lock().beat(watch.heartbeat(), now);
        } else {
            w.send(&link, &Message::Heartbeat, Vec::new());
            if link.host != w.address.host {
                link.heed_answers(now);
            }
        }
        let (silence, deafness) = {
            let mut l = link.liveness.lock();
            l.excuse(late, now);
            (l.silence(now), l.deafness(now))
        };
        let deafness = if link.host == w.address.host { Duration::ZERO } else { deafness };
        let lost = silence.max(deafness);
        if lost >= strictest.map_or(ABANDONED, |limit| limit.min(ABANDONED)) {
            let reason = match silence >= deafness {
                true => format!("no sign of life for {} ms", silence.as_millis()),
                false => format!("nothing sent to it has arrived for {} ms", deafness.as_millis()),
            };
            accuse(w, &link, lost, &reason);
        }
    }
    if w.suspicions.swap(false, Ordering::AcqRel) {
        let members: Vec<_> = w.members.read().clone();
        for m in members {
            m.tick(now);
        }
    }
}

/// Worlds that do not tolerate being out of touch for so long lose the peer; others keep it. When none is left that does,
/// the connection to another machine goes as well: TCP would try again after ever longer pauses, in which a new world of
/// the same processes would find a dead link.
fn accuse(w: &Watchdog, link: &Link, lost: Duration, reason: &str) {
    let sharing = w.has_members_in(&link.peer);
    let (strict, lenient): (Vec<_>, Vec<_>) =
        sharing.into_iter().partition(|m| lost >= m.heartbeat_timeout());
    for m in &strict {
        m.process_failed(&link.peer, reason, true);
    }
    let is_over = lenient.is_empty() && (!strict.is_empty() || lost >= ABANDONED);
    if is_over && link.host != w.address.host {
        w.process_died(link, reason, true);
    }
}
