//! What CUDA keeps per thread: the current device, the contexts below it, the last error, the capture mode.

use crate::model::capture::Mode;
use crate::model::device::{Device, device};
use crate::model::error::{Error, Result};
use crate::model::stream::{Kind, Stream};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

struct State {
    current: Cell<Option<&'static Device>>,
    last_error: Cell<i32>,
    inside_callback: Cell<bool>,
    mode: Cell<Mode>,
    /// A sticky error for the first device that the call under way touches; 0 for none.
    armed: Cell<i32>,
}

/// Closes the thread's default streams with the thread.
struct DefaultStreams(RefCell<Vec<Arc<Stream>>>);

impl Drop for DefaultStreams {
    fn drop(&mut self) {
        for stream in self.0.get_mut().drain(..) {
            stream.close();
        }
    }
}

thread_local! {
    static STATE: State = const {
        State {
            current: Cell::new(None),
            last_error: Cell::new(0),
            inside_callback: Cell::new(false),
            mode: Cell::new(Mode::Global),
            armed: Cell::new(0),
        }
    };
    static BELOW: RefCell<Vec<Option<&'static Device>>> = const { RefCell::new(Vec::new()) };
    static DEFAULT_STREAMS: DefaultStreams = const { DefaultStreams(RefCell::new(Vec::new())) };
}

/// The device of the current context.
pub fn current() -> Option<&'static Device> {
    STATE.with(|state| state.current.get())
}

pub fn set_current(device: Option<&'static Device>) {
    STATE.with(|state| state.current.set(device));
}

/// As the runtime has it: a thread that chose none is on device 0.
pub fn current_or_first() -> Result<&'static Device> {
    match current() {
        Some(device) => Ok(device),
        None => {
            let first = device(0)?;
            set_current(Some(first));
            Ok(first)
        }
    }
}

/// As the driver has it: a thread that chose none has none.
pub fn current_context() -> Result<&'static Device> {
    current().ok_or(Error::INVALID_CONTEXT)
}

pub fn push(device: Option<&'static Device>) -> Result<()> {
    BELOW.try_with(|below| below.borrow_mut().push(current())).map_err(|_| Error::UNLOADING)?;
    set_current(device);
    Ok(())
}

/// Gives the context that was current. A thread at the bottom of its stack pops what cuCtxSetCurrent set
/// there.
pub fn pop() -> Result<&'static Device> {
    let popped = current_context()?;
    let below = BELOW.try_with(|below| below.borrow_mut().pop()).map_err(|_| Error::UNLOADING)?;
    set_current(below.flatten());
    Ok(popped)
}

pub fn last_error() -> i32 {
    STATE.with(|state| state.last_error.get())
}

pub fn set_last_error(code: i32) {
    STATE.with(|state| state.last_error.set(code));
}

pub fn inside_callback() -> bool {
    STATE.with(|state| state.inside_callback.get())
}

/// For threads that run nothing but callbacks.
pub fn only_callbacks() {
    STATE.with(|state| state.inside_callback.set(true));
}

pub fn mode() -> Mode {
    STATE.with(|state| state.mode.get())
}

pub fn exchange_mode(mode: Mode) -> Mode {
    STATE.with(|state| state.mode.replace(mode))
}

pub fn arm(error: i32) {
    STATE.with(|state| state.armed.set(error));
}

/// The error that was armed; once.
pub fn disarm() -> Option<i32> {
    STATE.with(|state| match state.armed.get() {
        0 => None,
        error => {
            state.armed.set(0);
            Some(error)
        }
    })
}

/// This thread's default stream on a device.
pub fn default_stream(device: &'static Device) -> Result<Arc<Stream>> {
    DEFAULT_STREAMS
        .try_with(|streams| {
            let mut streams = streams.0.borrow_mut();
            if let Some(stream) = streams.iter().find(|stream| stream.device.ordinal == device.ordinal) {
                return stream.clone();
            }
            let stream = Stream::new(device, Kind::PerThread, 0);
            streams.push(stream.clone());
            stream
        })
        .map_err(|_| Error::UNLOADING)
}
