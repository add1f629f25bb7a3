//! User objects: counted references to something of the program, held by itself and by graphs. Its destructor
//! runs, on a thread for nothing else, when the last is gone.

use crate::model::error::{Error, Result};
use crate::model::handle::{self, Table};
use crate::model::work::{Address, HostFunction};
use crate::model::{lock, thread};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};

pub static USER_OBJECTS: Table<UserObject> = Table::new();

pub struct UserObject {
    handle: usize,
    destructor: HostFunction,
    data: Address,
    references: Mutex<u64>,
}

impl UserObject {
    pub fn create(destructor: HostFunction, data: Address, references: u32) -> Result<usize> {
        if references == 0 {
            return Err(Error::INVALID_VALUE);
        }
        let handle = handle::fresh();
        let references = Mutex::new(u64::from(references));
        USER_OBJECTS.insert(handle, Arc::new(UserObject { handle, destructor, data, references }));
        Ok(handle)
    }

    pub fn retain(&self, count: u32) -> Result<()> {
        let mut references = lock(&self.references);
        // None left: another thread is just releasing the last.
        if count == 0 || *references == 0 {
            return Err(Error::INVALID_VALUE);
        }
        *references += u64::from(count);
        Ok(())
    }

    pub fn release(&self, count: u32) -> Result<()> {
        let last = {
            let mut references = lock(&self.references);
            let left = references.checked_sub(u64::from(count)).filter(|_| count > 0);
            *references = left.ok_or(Error::INVALID_VALUE)?;
            *references == 0
        };
        if last {
            USER_OBJECTS.remove(self.handle)?;
            destroy(self.destructor, self.data);
        }
        Ok(())
    }
}

type Queue = Option<Mutex<Sender<(HostFunction, Address)>>>;

fn destroy(destructor: HostFunction, data: Address) {
    static QUEUE: OnceLock<Queue> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (sender, receiver) = channel::<(HostFunction, Address)>();
        let run = move || {
            thread::only_callbacks();
            for (destructor, data) in receiver {
                // SAFETY: the program registered this call, and vouches for the function and its data.
                unsafe { destructor(data.0) };
            }
        };
        let spawned = std::thread::Builder::new().name("mwcuda.objects".to_owned()).spawn(run);
        spawned.ok().map(|_| Mutex::new(sender))
    });
    let sent = queue.as_ref().is_some_and(|queue| lock(queue).send((destructor, data)).is_ok());
    if !sent {
        // SAFETY: as above. Without a thread for it, late is worse than here.
        unsafe { destructor(data.0) };
    }
}

/// References that a graph or an executable holds, and gives back when it goes.
#[derive(Default)]
pub struct References(Mutex<Vec<(Arc<UserObject>, u32)>>);

impl References {
    /// `moved`: the caller gives its own references away.
    pub fn add(&self, object: Arc<UserObject>, count: u32, moved: bool) -> Result<()> {
        if count == 0 {
            return Err(Error::INVALID_VALUE);
        }
        if !moved {
            object.retain(count)?;
        }
        lock(&self.0).push((object, count));
        Ok(())
    }

    /// Gives some of an object's references back.
    pub fn remove(&self, object: &Arc<UserObject>, count: u32) -> Result<()> {
        {
            let mut held = lock(&self.0);
            let mine = |entry: &&(Arc<UserObject>, u32)| Arc::ptr_eq(&entry.0, object);
            let total: u64 = held.iter().filter(mine).map(|entry| u64::from(entry.1)).sum();
            if count == 0 || total < u64::from(count) {
                return Err(Error::INVALID_VALUE);
            }
            let mut left = count;
            for entry in held.iter_mut().filter(|entry| Arc::ptr_eq(&entry.0, object)) {
                let taken = entry.1.min(left);
                entry.1 -= taken;
                left -= taken;
            }
            held.retain(|entry| entry.1 > 0);
        }
        object.release(count)
    }

    /// One more set of the same, for an executable.
    pub fn duplicate(&self) -> Result<References> {
        let copy = References::default();
        let held = lock(&self.0).clone();
        held.into_iter().try_for_each(|(object, count)| copy.add(object, count, false))?;
        Ok(copy)
    }
}

impl Drop for References {
    fn drop(&mut self) {
        let held = std::mem::take(&mut *lock(&self.0));
        for (object, count) in held {
            // It can only fail for an object that was released more often than it was held, which is gone
            // then.
            let _gone = object.release(count);
        }
    }
}
