//! Devices: their streams, their memory's limit, and the sticky error of a broken one.

use crate::model::capture;
use crate::model::error::{Error, Result};
use crate::model::event::EVENTS;
use crate::model::lock;
use crate::model::memory;
use crate::model::settings::settings;
use crate::model::stream::{Kind, STREAMS, Stream};
use crate::model::thread;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

pub struct Device {
    pub ordinal: i32,
    pub memory: usize,
    /// Bytes that are allocated.
    pub used: AtomicUsize,
    /// How often the driver's primary context is held.
    pub retains: AtomicU64,
    /// Devices whose memory this one was allowed to reach.
    pub peers: Mutex<BTreeSet<i32>>,
    sticky: AtomicI32,
    /// The last sticky error, which stays when the device is healed.
    last_sticky: AtomicI32,
    /// How often it broke. Release, after both errors, pairs with the acquire of its readers.
    breakdowns: AtomicU64,
    legacy: OnceLock<Arc<Stream>>,
    /// All that have or may get work, those of which the program holds no handle any more included.
    streams: Mutex<Vec<Arc<Stream>>>,
}

/// All of the machine. With none, the error that says so.
pub fn devices() -> Result<&'static [Device]> {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    let settings = settings()?;
    let devices = DEVICES.get_or_init(|| {
        (0..settings.devices).map(|ordinal| Device::new(ordinal as i32, settings.memory)).collect()
    });
    if devices.is_empty() { Err(Error::NO_DEVICE) } else { Ok(devices) }
}

pub fn device(ordinal: i32) -> Result<&'static Device> {
    let index = usize::try_from(ordinal).map_err(|_| Error::INVALID_DEVICE);
    devices()?.get(index?).ok_or(Error::INVALID_DEVICE)
}

impl Device {
    fn new(ordinal: i32, memory: usize) -> Device {
        Device {
            ordinal,
            memory,
            used: AtomicUsize::new(0),
            retains: AtomicU64::new(0),
            peers: Mutex::default(),
            sticky: AtomicI32::new(0),
            last_sticky: AtomicI32::new(0),
            breakdowns: AtomicU64::new(0),
            legacy: OnceLock::new(),
            streams: Mutex::default(),
        }
    }

    /// Every call that uses the device asks this first. It is also where an armed fault goes off.
    pub fn touch(&self) -> Result<()> {
        if let Some(error) = thread::disarm() {
            self.poison(error);
        }
        self.sticky().map_or(Ok(()), Err)
    }

    pub fn sticky(&self) -> Option<Error> {
        match self.sticky.load(Ordering::Acquire) {
            0 => None,
            error => Some(Error(error)),
        }
    }

    pub fn breakdowns(&self) -> u64 {
        self.breakdowns.load(Ordering::Acquire)
    }

    /// The error, if it broke after there had been so many breakdowns, healed or not.
    pub fn unbroken_since(&self, breakdowns: u64) -> Result<()> {
        if self.breakdowns() == breakdowns {
            return self.sticky().map_or(Ok(()), Err);
        }
        Err(Error(self.last_sticky.load(Ordering::Relaxed)))
    }

    /// Breaks the device.
    pub fn poison(&self, error: i32) {
        self.last_sticky.store(error, Ordering::Relaxed);
        self.sticky.store(error, Ordering::Release);
        self.breakdowns.fetch_add(1, Ordering::Release);
        for stream in self.streams() {
            stream.discard(Error(error));
        }
    }

    pub fn heal(&self) {
        self.sticky.store(0, Ordering::Release);
    }

    pub fn legacy(&'static self) -> &'static Arc<Stream> {
        self.legacy.get_or_init(|| Stream::new(self, Kind::Legacy, 0))
    }

    /// The legacy stream, if anybody ever used it.
    pub fn existing_legacy(&self) -> Option<&Arc<Stream>> {
        self.legacy.get()
    }

    pub fn adopt(&self, stream: &Arc<Stream>) {
        lock(&self.streams).push(stream.clone());
    }

    pub fn disown(&self, stream: &Arc<Stream>) {
        lock(&self.streams).retain(|other| !Arc::ptr_eq(other, stream));
    }

    pub fn streams(&self) -> Vec<Arc<Stream>> {
        lock(&self.streams).clone()
    }

    /// Blocks the calling thread until all work of the device that was submitted before is done.
    pub fn synchronize(&self) -> Result<()> {
        let breakdowns = self.breakdowns();
        self.touch()?;
        let goals: Vec<(Arc<Stream>, u64)> =
            self.streams().into_iter().map(|stream| (stream.clone(), stream.latest())).collect();
        goals.iter().try_for_each(|(stream, entry)| stream.wait(*entry, breakdowns))
    }

    /// As if the process had never used it: its streams, events and memory go, after their work is done.
    pub fn reset(&self) -> Result<()> {
        capture::refuse_device(self)?;
        self.synchronize()?;
        for stream in STREAMS.take(|stream| stream.device.ordinal == self.ordinal) {
            stream.close();
        }
        EVENTS.take(|event| event.device.ordinal == self.ordinal);
        memory::forget_all(self);
        lock(&self.peers).clear();
        Ok(())
    }

    /// Two hexadecimal digits of its place on the bus; devices sit on buses 1, 2 and so on.
    pub fn bus(&self) -> i32 {
        self.ordinal + 1
    }

    pub fn pci_bus_id(&self) -> String {
        format!("0000:{:02X}:00.0", self.bus())
    }

    pub fn name(&self) -> &'static std::ffi::CStr {
        c"multiworld CUDA double"
    }

    /// Sixteen bytes, distinct per device and the same in all processes of a machine.
    pub fn uuid(&self) -> [u8; 16] {
        let mut uuid = *b"mw-cuda-double\0\0";
        if let Some(last) = uuid.last_mut() {
            *last = self.ordinal as u8;
        }
        uuid
    }
}

static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// The driver may be used from here on.
pub fn mark_initialized() {
    // Asked first: a store would take the cache line from other threads on every call.
    if !INITIALIZED.load(Ordering::Relaxed) {
        INITIALIZED.store(true, Ordering::Relaxed);
    }
}

pub fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::Relaxed)
}

/// The highest attribute that any version knows.
const LAST_ATTRIBUTE: i32 = 200;

/// A device attribute, which has the same number for the runtime and the driver. The values are those of a
/// large current device; what is not listed is a feature that the double lacks.
pub fn attribute(device: &Device, number: i32) -> Result<i32> {
    let value = match number {
        // Threads of a block, and its extent.
        1..=3 => 1024,
        4 => 64,
        // Extent of the grid.
        5 => i32::MAX,
        6 | 7 => 65535,
        // Shared and constant memory of a block, in bytes.
        8 => 48 << 10,
        9 => 64 << 10,
        // Threads of a warp.
        10 => 32,
        // Pitch of a copy.
        11 => i32::MAX,
        // Registers of a block.
        12 => 65536,
        13 => 1_980_000,
        14 => 512,
        // Copies beside kernels.
        15 => 1,
        // Multiprocessors.
        16 => 132,
        // Host memory can be mapped.
        19 => 1,
        // Concurrent kernels.
        31 => 1,
        33 => device.bus(),
        36 => 2_619_000,
        // Width of the memory bus, in bits, and the second cache, in bytes.
        37 => 5120,
        38 => 50 << 20,
        // Threads of a multiprocessor.
        39 => 2048,
        // Copy engines.
        40 => 3,
        // One address space.
        41 => 1,
        75 => 9,
        76 => 0,
        // Stream priorities.
        78 => 1,
        // Shared memory and registers of a multiprocessor.
        81 => 228 << 10,
        82 => 65536,
        // Managed memory.
        83 => 1,
        // The program's own memory can be used by devices: pageable, managed concurrently, registered.
        88 | 89 | 91 => 1,
        // Shared memory that a block can ask for.
        97 => 227 << 10,
        99 => 1,
        106 => 32,
        // Stream-ordered allocation.
        115 => 1,
        _ if (1..=LAST_ATTRIBUTE).contains(&number) => 0,
        _ => return Err(Error::INVALID_VALUE),
    };
    Ok(value)
}
