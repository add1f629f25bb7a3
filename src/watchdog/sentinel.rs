//! The thread that sleeps on the robust words of the peers on this machine, and whose end marks this process's own.

use super::{Link, Watchdog};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::sys::{futex, process};
use std::time::Duration;

/// How long to sleep when nothing can be missed.
const LONG: Duration = Duration::from_secs(60);
/// How often to look where the kernel cannot wait for all words at once.
const SHORT: Duration = Duration::from_millis(1);
/// The same for the peers beyond those that one call takes: looking at so many costs more than looking late.
const CROWDED: Duration = Duration::from_millis(10);

pub(super) fn run(w: &Arc<Watchdog>) {
    process::raise_thread_priority();
    super::for_ever("mw-sentinel", || watch(w));
}

fn watch(w: &Watchdog) {
    let mut waitv = w.facilities.futex_waitv;
    if !waitv {
        tracing::warn!("futex_waitv is disabled: deaths on this machine are looked for every {SHORT:?}");
    }
    loop {
        // Acquire: pairs with `kick_sentinel`; what changed before the kick is in the list below.
        let kick = w.kick.load(Ordering::Acquire);
        let links: Vec<Arc<Link>> = {
            let links = w.links.lock();
            links
                .by_process
                .values()
                .filter(|l| l.watch.get().is_some_and(|x| x.word().is_some()))
                .cloned()
                .collect()
        };
        let mut died = false;
        for link in &links {
            if link.watch.get().is_some_and(|x| x.is_dead()) {
                w.process_died(link, "its process died", false);
                died = true;
            }
        }
        if died {
            continue;
        }
        if links.is_empty() {
            futex::wait(&w.kick, kick, LONG);
            continue;
        }
        if !waitv {
            futex::wait(&w.kick, kick, SHORT);
            continue;
        }
        let mut words = vec![(&w.kick, kick)];
        for link in &links {
            if let Some(word) = link.watch.get().and_then(|x| x.word()) {
                let seen = word.load(Ordering::Acquire);
                if seen & futex::OWNER_DIED == 0 {
                    words.push((word, seen));
                }
            }
        }
        // More peers than one call takes: the rest is looked at in turn, as without futex_waitv.
        let limit = if words.len() > futex::WAIT_MANY_MAX { CROWDED } else { LONG };
        if let Err(e) = futex::wait_many(&words, limit) {
            tracing::warn!("futex_waitv: {e}; deaths on this machine are looked for every {SHORT:?}");
            waitv = false;
        }
    }
}
