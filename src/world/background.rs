//! The thread that drives asynchronous operations nobody waits for. Started by the first of them.

use super::{Request, World};
use crate::error::Code;
use crate::fault::health::News;
use crate::progress::wait::{self, Driver};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, OnceLock};
use crate::sys::sleeper::{self, Interest};
use crate::sys::{bell, process};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

struct Mailbox {
    requests: Mutex<Vec<Arc<Request>>>,
    /// Counts additions.
    version: AtomicU64,
    bell: AtomicU32,
}

static MAILBOX: OnceLock<Arc<Mailbox>> = OnceLock::new();

impl Driver for Mailbox {
    fn drive(&self) -> bool {
        false
    }

    fn tick(&self, _now: Instant) {}

    fn bell(&self) -> &AtomicU32 {
        &self.bell
    }

    fn interests(&self, _out: &mut Vec<Interest>) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// A world as this thread drives it: a panic ends the world, as at the C boundary, and not the thread.
struct Careful(Arc<World>);

impl Careful {
    fn guard<R: Default>(&self, body: impl FnOnce(&World) -> R) -> R {
        catch_unwind(AssertUnwindSafe(|| body(&self.0))).unwrap_or_else(|payload| {
            tracing::error!(world = self.0.name(), "a panic was caught, which is a bug in multiworld");
            // Dropping a payload can panic again.
            std::mem::forget(payload);
            let text = format!("a bug in multiworld ended world '{}'", self.0.name());
            let news = News::Broken { code: Code::Internal, culprit: None, text };
            if let Err(second) = catch_unwind(AssertUnwindSafe(|| {
                self.0.announce(&news);
                self.0.abort();
            })) {
                std::mem::forget(second);
            }
            R::default()
        })
    }
}

impl Driver for Careful {
    fn drive(&self) -> bool {
        self.guard(World::drive)
    }

    fn tick(&self, now: Instant) {
        self.guard(|w| w.tick(now));
    }

    fn bell(&self) -> &AtomicU32 {
        self.0.bell()
    }

    fn interests(&self, out: &mut Vec<Interest>) {
        self.0.interests(out);
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.deadline()
    }
}

/// Drives a request until it is done.
pub(super) fn drive(request: &Arc<Request>) {
    let mailbox = MAILBOX.get_or_init(|| {
        let m = Arc::new(Mailbox {
            requests: Mutex::new(Vec::new()),
            version: AtomicU64::new(0),
            bell: AtomicU32::new(0),
        });
        let mine = m.clone();
        if let Err(e) = process::spawn("mw-progress", move || run(&mine)) {
            // Operations still progress whenever somebody tests or waits.
            tracing::error!("starting the progress thread: {e}");
        }
        m
    });
    mailbox.requests.lock().push(request.clone());
    // Release: pairs with the Acquire in `run`; the request is in the list.
    mailbox.version.fetch_add(1, Ordering::Release);
    bell::ring(&mailbox.bell, sleeper::doorbell_if_any());
}

fn run(mailbox: &Mailbox) {
    loop {
        let version = mailbox.version.load(Ordering::Acquire);
        let requests = {
            let mut list = mailbox.requests.lock();
            list.retain(|r| !r.is_done());
            list.clone()
        };
        let mut worlds: Vec<Careful> = Vec::new();
        for w in requests.iter().flat_map(|r| r.worlds()) {
            if !worlds.iter().any(|x| Arc::ptr_eq(&x.0, w)) {
                worlds.push(Careful(w.clone()));
            }
        }
        let mut drivers: Vec<&dyn Driver> = vec![mailbox];
        drivers.extend(worlds.iter().map(|w| w as &dyn Driver));
        let changed =
            || mailbox.version.load(Ordering::Acquire) != version || requests.iter().any(|r| r.is_done());
        wait::until(&drivers, &changed, None);
    }
}
