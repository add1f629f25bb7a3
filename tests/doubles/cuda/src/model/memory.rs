//! Memory of devices, and host memory that devices know. All of it is memory of the process.

use crate::model::device::{Device, device, devices};
use crate::model::error::{Error, Result};
use crate::model::{read, write};
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What genuine allocations are aligned to.
const ALIGNMENT: usize = 512;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Device,
    /// Allocated by CUDA, on the host.
    Pinned,
    Managed,
    /// The program's own, made known to CUDA.
    Registered,
}

/// A stretch of memory that CUDA knows.
#[derive(Clone, Copy)]
pub struct Block {
    pub base: usize,
    pub bytes: usize,
    pub device: &'static Device,
    pub kind: Kind,
    /// Sets an allocation apart from all others, those at the same address included.
    pub id: u64,
}

/// By base address; no two overlap.
static BLOCKS: RwLock<BTreeMap<usize, Block>> = RwLock::new(BTreeMap::new());

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn layout(bytes: usize) -> Result<Layout> {
    Layout::from_size_align(bytes, ALIGNMENT).map_err(|_| Error::OUT_OF_MEMORY)
}

/// Device and managed memory count against the device's limit. No bytes give no address.
pub fn allocate(device: &'static Device, kind: Kind, bytes: usize) -> Result<usize> {
    if bytes == 0 {
        return Ok(0);
    }
    let layout = layout(bytes)?;
    if kind != Kind::Pinned {
        let reserve = |used: usize| used.checked_add(bytes).filter(|&used| used <= device.memory);
        let reserved = device.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve);
        reserved.map_err(|_| Error::OUT_OF_MEMORY)?;
    }
    // SAFETY: the layout has a size.
    let base = unsafe { std::alloc::alloc(layout) } as usize;
    let block = Block { base, bytes, device, kind, id: next_id() };
    if base == 0 {
        uncount(&block);
        return Err(Error::OUT_OF_MEMORY);
    }
    write(&BLOCKS).insert(base, block);
    Ok(base)
}

fn uncount(block: &Block) {
    if matches!(block.kind, Kind::Device | Kind::Managed) {
        block.device.used.fetch_sub(block.bytes, Ordering::Relaxed);
    }
}

/// The block that begins here.
pub fn at(base: usize) -> Option<Block> {
    read(&BLOCKS).get(&base).copied()
}

/// The block that an address is in.
pub fn find(address: usize) -> Option<Block> {
    let blocks = read(&BLOCKS);
    let (_, block) = blocks.range(..=address).next_back()?;
    (address - block.base < block.bytes).then_some(*block)
}

/// Gives the block at this address back, whatever may still use it; no block is no error, because a reset of
/// the device may have been faster than the stream that frees it.
pub fn forget(base: usize) {
    let block = write(&BLOCKS).remove(&base);
    if let Some(block) = block {
        deallocate(&block);
    }
}

/// All blocks of a device. Registered memory is only unregistered.
pub fn forget_all(device: &Device) {
    let mut gone = Vec::new();
    write(&BLOCKS).retain(|_, block| {
        let stays = block.device.ordinal != device.ordinal;
        if !stays {
            gone.push(*block);
        }
        stays
    });
    gone.iter().for_each(deallocate);
}

fn deallocate(block: &Block) {
    uncount(block);
    if block.kind == Kind::Registered {
        return;
    }
    if let Ok(layout) = layout(block.bytes) {
        // SAFETY: it was allocated with this layout, and has left the table, so this happens once.
        unsafe { std::alloc::dealloc(block.base as *mut u8, layout) };
    }
}

/// As cudaFree: waits for all work of the memory's device.
pub fn free_device(base: usize) -> Result<()> {
    free(base, &[Kind::Device, Kind::Managed])
}

/// As cudaFreeHost.
pub fn free_host(base: usize) -> Result<()> {
    free(base, &[Kind::Pinned])
}

fn free(base: usize, kinds: &[Kind]) -> Result<()> {
    let block = at(base).filter(|block| kinds.contains(&block.kind)).ok_or(Error::INVALID_VALUE)?;
    block.device.touch()?;
    // Any device may use memory that the host shares with it.
    if block.kind != Kind::Device {
        for device in devices()?.iter().filter(|device| device.sticky().is_none()) {
            device.synchronize()?;
        }
    }
    block.device.synchronize()?;
    forget(base);
    Ok(())
}

/// Makes the program's own memory known.
pub fn register(device: &'static Device, base: usize, bytes: usize) -> Result<()> {
    let end = base.checked_add(bytes).filter(|&end| base != 0 && end > base).ok_or(Error::INVALID_VALUE)?;
    let mut blocks = write(&BLOCKS);
    let before = blocks.range(..end).next_back();
    if before.is_some_and(|(_, block)| block.base + block.bytes > base) {
        return Err(Error::ALREADY_REGISTERED);
    }
    blocks.insert(base, Block { base, bytes, device, kind: Kind::Registered, id: next_id() });
    Ok(())
}

pub fn unregister(base: usize) -> Result<()> {
    let block = at(base).filter(|block| block.kind == Kind::Registered).ok_or(Error::NOT_REGISTERED)?;
    block.device.synchronize()?;
    forget(base);
    Ok(())
}

/// Free and total bytes.
pub fn figures(ordinal: i32) -> Result<(usize, usize)> {
    let device = device(ordinal)?;
    let used = device.used.load(Ordering::Relaxed);
    Ok((device.memory.saturating_sub(used), device.memory))
}
