//! An event: a name for the newest of the records made with it.

use crate::model::capture::{self, Capture};
use crate::model::device::Device;
use crate::model::error::{Error, Result};
use crate::model::handle::{self, Table};
use crate::model::lock;
use crate::model::order::enqueue;
use crate::model::record::Record;
use crate::model::stream::Stream;
use crate::model::work::Op;
use std::sync::{Arc, Mutex};

pub static EVENTS: Table<Event> = Table::new();

pub struct Event {
    pub handle: usize,
    pub device: &'static Device,
    timed: bool,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
enum State {
    #[default]
    Never,
    Recorded(Arc<Record>),
    /// It stands for a place in a capture, and for nothing outside.
    Captured {
        capture: Arc<Capture>,
        edge: usize,
    },
}

/// `cudaEventDisableTiming`; the other flags (blocking waits, use between processes) make no difference here.
const DISABLE_TIMING: u32 = 2;
const FLAGS: u32 = 7;

impl Event {
    pub fn create(device: &'static Device, flags: u32) -> Result<usize> {
        // An event for several processes cannot keep time.
        if flags & !FLAGS != 0 || flags & (4 | DISABLE_TIMING) == 4 {
            return Err(Error::INVALID_VALUE);
        }
        device.touch()?;
        let timed = flags & DISABLE_TIMING == 0;
        let event = Event { handle: handle::fresh(), device, timed, state: Mutex::default() };
        let handle = event.handle;
        EVENTS.insert(handle, Arc::new(event));
        Ok(handle)
    }

    /// The event, if its device works.
    pub fn get(handle: usize) -> Result<Arc<Event>> {
        let event = EVENTS.get(handle)?;
        event.device.touch()?;
        Ok(event)
    }

    fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// `external`: in a captured stream, the graph records the event itself each time it is launched.
    pub fn record(self: &Arc<Self>, stream: &Arc<Stream>, external: bool) -> Result<()> {
        if self.device.ordinal != stream.device.ordinal {
            return Err(Error::INVALID_HANDLE);
        }
        match stream.capture.member()? {
            Some(member) if external => member.record_external(self.clone()),
            Some(member) => {
                let edge = member.signal()?;
                *lock(&self.state) = State::Captured { capture: member.capture, edge };
                Ok(())
            }
            None => {
                let record = Record::new();
                enqueue(stream, [Op::mark(&record)])?;
                *lock(&self.state) = State::Recorded(record);
                Ok(())
            }
        }
    }

    /// A new record that the caller puts into a queue.
    pub fn renew(&self) -> Arc<Record> {
        let record = Record::new();
        *lock(&self.state) = State::Recorded(record.clone());
        record
    }

    /// What a stream would wait for; none before the first record and for a captured event.
    pub fn newest(&self) -> Option<Arc<Record>> {
        match self.state() {
            State::Recorded(record) => Some(record),
            State::Never | State::Captured { .. } => None,
        }
    }

    /// Lets a stream wait for the newest record.
    pub fn hold(self: &Arc<Self>, stream: &Arc<Stream>, external: bool) -> Result<()> {
        let member = stream.capture.member()?;
        match (self.state(), member) {
            (_, Some(member)) if external => member.wait_external(self.clone()),
            (State::Never, _) => Ok(()),
            (State::Captured { capture, edge }, member) => capture::join(&capture, edge, stream, member),
            (State::Recorded(_), Some(member)) => {
                member.capture.invalidate();
                Err(Error::CAPTURE_ISOLATION)
            }
            (State::Recorded(record), None) if record.is_done() => Ok(()),
            (State::Recorded(record), None) => enqueue(stream, [Op::Wait(record)]),
        }
    }

    /// The record that a thread can ask or wait for.
    fn observable(&self) -> Result<Option<Arc<Record>>> {
        match self.state() {
            State::Never => Ok(None),
            State::Recorded(record) => Ok(Some(record)),
            State::Captured { capture, .. } => {
                capture.invalidate();
                Err(Error::CAPTURED_EVENT)
            }
        }
    }

    pub fn query(&self) -> Result<()> {
        match self.observable()? {
            Some(record) if !record.is_done() => Err(Error::NOT_READY),
            Some(record) => record.wait(),
            None => Ok(()),
        }
    }

    pub fn synchronize(&self) -> Result<()> {
        self.observable()?.map_or(Ok(()), |record| record.wait())
    }

    /// Milliseconds from one event to another.
    pub fn elapsed(&self, later: &Event) -> Result<f32> {
        if !self.timed || !later.timed {
            return Err(Error::INVALID_HANDLE);
        }
        let times = (self.observable()?, later.observable()?);
        let (Some(from), Some(to)) = times else { return Err(Error::INVALID_HANDLE) };
        let (from, to) = (from.time()?, to.time()?);
        let forward = to.checked_duration_since(from).map(|time| time.as_secs_f32());
        let seconds = forward.unwrap_or_else(|| -from.duration_since(to).as_secs_f32());
        Ok(seconds * 1e3)
    }
}
