//! Handles for callers that cannot be trusted to keep pointers straight.
//!
//! A handle is a number the size of a pointer: slot index, generation of the slot, kind of the table. Looking
//! one up takes one atomic addition and no lock, and a handle that was destroyed, belongs to another table or
//! never was one is answered with `None`, whatever other threads do meanwhile.
//!
//! Layout of a handle (64 bits): bit 63 is 0, so that it is a positive number in languages that know no other; bit 62
//! is 1, so that no handle is a user-space address; bits 34..62 generation; bits 12..34 index; bits 1..12 kind; bit 0 is 1.
//! Layout of a slot's state word: bits 34..62 generation (the handle's place), bit 33 `DEAD`, bit 32 `LIVE`,
//! bits 0..32 the number of references.
//!
//! Invariants:
//! 1. Slots live in chunks that are never moved or freed while the slab exists, so the state word of any
//!    index below the end may be touched at any time.
//! 2. Whoever adds a reference takes it away again. A reference counts from its addition, also for those who
//!    then find that the slot is not theirs; they never look at the value.
//! 3. The value is read only by holders of a reference who saw `LIVE` and not `DEAD` with their generation
//!    when they added it.
//! 4. A slot is *vacant* while neither `LIVE` nor `DEAD`. The value of a vacant slot is touched only by
//!    whoever made it vacant (until the index is on the free list) or took it from the free list (until `LIVE`
//!    is set).
//! 5. `DEAD` is set once per generation, by the one `remove` that succeeds. `LIVE | DEAD` with no references
//!    turns vacant by one compare-and-exchange, so exactly one thread takes the value out; later references of
//!    stale handles find the slot vacant and leave it alone.
//! 6. The generation changes only while the slot is vacant and grows by one. A slot that has used up its
//!    generations is retired: it stays vacant and off the free list for good. No two inserts give the same
//!    handle.

use super::atomic::{AtomicPtr, AtomicU64, Ordering};
use super::{Arc, Mutex};
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr;

const _: () = assert!(usize::BITS == 64, "handles need 64 bits");

const TAG: u64 = 1 << 62 | 1;
/// What all handles have in common.
const TAG_MASK: u64 = 1 << 63 | TAG;
const KIND_SHIFT: u32 = 1;
const KIND_MASK: u64 = (1 << 11) - 1;
const INDEX_SHIFT: u32 = 12;
const INDEX_MASK: u64 = (1 << 22) - 1;

const REFS: u64 = u32::MAX as u64;
const LIVE: u64 = 1 << 32;
const DEAD: u64 = 1 << 33;
const GENERATION_SHIFT: u32 = 34;
const LAST_GENERATION: u64 = (1 << 28) - 1;
const GENERATION: u64 = LAST_GENERATION << GENERATION_SHIFT;

/// Slots of the first chunk; every further one is twice as large as the one before.
const FIRST_CHUNK: u32 = 64;
const CHUNKS: usize = 16;
/// Slots in all chunks together.
const CAPACITY: u32 = FIRST_CHUNK * ((1 << CHUNKS) - 1);

struct Slot<T> {
    state: AtomicU64,
    value: UnsafeCell<Option<Arc<T>>>,
}

struct Free {
    /// Vacant slots that have been used before.
    vacant: Vec<u32>,
    /// Index of the first slot that has never been used.
    next: u32,
}

/// A table of shared values that are named by handles.
pub struct Slab<T> {
    kind: u16,
    last_generation: u64,
    chunks: [AtomicPtr<Slot<T>>; CHUNKS],
    free: Mutex<Free>,
    /// Makes the slab `Send` and `Sync` exactly when the values may be shared and dropped by any thread.
    values: PhantomData<Arc<T>>,
}

/// Keeps the value of a handle in place while it is used. Removing the handle does not wait for guards; the
/// slot's hold on the value ends with the last of them.
pub struct Guard<'a, T> {
    slab: &'a Slab<T>,
    slot: &'a Slot<T>,
    index: u32,
}

/// The kind of a handle, whoever issued it; `None` for numbers that cannot be a handle of any slab.
pub fn kind_of(handle: usize) -> Option<u16> {
    let raw = handle as u64;
    (raw & TAG_MASK == TAG).then_some((raw >> KIND_SHIFT & KIND_MASK) as u16)
}

/// The place of a handle in its table; any number for what is no handle.
#[inline]
pub fn index_of(handle: usize) -> usize {
    (handle as u64 >> INDEX_SHIFT & INDEX_MASK) as usize
}

/// Chunk of an index, the place in it, and the chunk's length.
fn place(index: u32) -> (usize, usize, usize) {
    let n = index + FIRST_CHUNK;
    let chunk = n.ilog2() - FIRST_CHUNK.ilog2();
    let len = FIRST_CHUNK << chunk;
    (chunk as usize, (n - len) as usize, len as usize)
}

impl<T> Slab<T> {
    /// An empty table. `kind` (below 2048) tells its handles from those of other tables.
    pub const fn new(kind: u16) -> Slab<T> {
        Slab::with_last_generation(kind, LAST_GENERATION)
    }

    const fn with_last_generation(kind: u16, last_generation: u64) -> Slab<T> {
        assert!((kind as u64) <= KIND_MASK);
        Slab {
            kind,
            last_generation,
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS],
            free: Mutex::new(Free { vacant: Vec::new(), next: 0 }),
            values: PhantomData,
        }
    }

    /// Adds a value; answers its handle, or `None` when four million handles exist already.
    pub fn insert(&self, value: Arc<T>) -> Option<usize> {
        let index = self.allocate()?;
        let slot = self.slot(index)?;
        // SAFETY: the index came from the free list or is new, so the slot is vacant and ours (invariant 4).
        unsafe { *slot.value.get() = Some(value) };
        // Release: whoever sees LIVE (Acquire in `get`) sees the value.
        let generation = slot.state.fetch_or(LIVE, Ordering::Release) & GENERATION;
        let kind = u64::from(self.kind) << KIND_SHIFT;
        Some((TAG | generation | u64::from(index) << INDEX_SHIFT | kind) as usize)
    }

    /// The value of `handle`, while it has not been removed.
    #[inline]
    pub fn get(&self, handle: usize) -> Option<Guard<'_, T>> {
        let raw = handle as u64;
        if raw & (TAG_MASK | KIND_MASK << KIND_SHIFT) != TAG | u64::from(self.kind) << KIND_SHIFT {
            return None;
        }
        let index = (raw >> INDEX_SHIFT & INDEX_MASK) as u32;
        let slot = self.slot(index)?;
        if cfg!(mw_without = "handles") {
            return Some(Guard { slab: self, slot, index });
        }
        // Acquire: pairs with the Release of `insert`, through any number of other references in between.
        let state = slot.state.fetch_add(1, Ordering::Acquire);
        let guard = Guard { slab: self, slot, index };
        // Otherwise the guard is dropped here and only gives the reference back.
        (state & !REFS == raw & GENERATION | LIVE).then_some(guard)
    }

    /// Whether the value of `handle` has not been removed: for callers who keep a value that they got before, and ask
    /// without making a reference.
    #[inline]
    pub fn is_live(&self, handle: usize) -> bool {
        let raw = handle as u64;
        let index = (raw >> INDEX_SHIFT & INDEX_MASK) as u32;
        let is_mine = raw & (TAG_MASK | KIND_MASK << KIND_SHIFT) == TAG | u64::from(self.kind) << KIND_SHIFT;
        // Relaxed: nothing is read that the bits stand for.
        let state = |slot: &Slot<T>| slot.state.load(Ordering::Relaxed);
        is_mine && self.slot(index).is_some_and(|slot| state(slot) & !REFS == raw & GENERATION | LIVE)
    }

    /// Takes the handle out of the table: afterwards no `get` finds it. Of several calls at the same time one
    /// succeeds.
    pub fn remove(&self, handle: usize) -> Option<Arc<T>> {
        let guard = self.get(handle)?;
        // Relaxed: nothing is handed over by the bit itself; a `get` that happens after this call sees it by
        // coherence. Our reference keeps the generation in place, so the bit is this handle's.
        let before = guard.slot.state.fetch_or(DEAD, Ordering::Relaxed);
        (before & DEAD == 0).then(|| Arc::clone(&guard))
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let (chunk, at, _) = place(index);
        // Acquire: pairs with the Release of `allocate`, so that the slots are seen initialised.
        let first = self.chunks.get(chunk)?.load(Ordering::Acquire);
        if first.is_null() {
            return None;
        }
        // SAFETY: a chunk that is present has more than `at` slots and stays where it is (invariant 1).
        Some(unsafe { &*first.add(at) })
    }

    /// A vacant slot for the caller alone; makes a chunk when none is left.
    fn allocate(&self) -> Option<u32> {
        let mut free = self.free.lock();
        if let Some(index) = free.vacant.pop() {
            return Some(index);
        }
        if free.next == CAPACITY {
            return None;
        }
        let index = free.next;
        let (chunk, at, len) = place(index);
        if at == 0 {
            let slots: Box<[Slot<T>]> =
                (0..len).map(|_| Slot { state: AtomicU64::new(0), value: UnsafeCell::new(None) }).collect();
            // Release: pairs with the Acquire of `slot`. The lock makes us the only writer.
            self.chunks[chunk].store(Box::into_raw(slots).cast(), Ordering::Release);
        }
        free.next += 1;
        Some(index)
    }

    /// Called after the last reference to a dead slot went away; several threads may think so of themselves.
    #[cold]
    fn recycle(&self, slot: &Slot<T>, index: u32) {
        // Relaxed: coherence alone says that this is at least as new as the caller's own subtraction.
        let state = slot.state.load(Ordering::Relaxed);
        if state & (DEAD | REFS) != DEAD {
            // Another reference came (and sees DEAD when it goes), or another thread was here first.
            return;
        }
        // Acquire: pairs with the Release of every guard's drop, so that their uses of the value are over.
        let vacant = state & !(LIVE | DEAD);
        let claimed = slot.state.compare_exchange(state, vacant, Ordering::Acquire, Ordering::Relaxed);
        if claimed.is_err() {
            return;
        }
        // SAFETY: we made the slot vacant, so its value is ours (invariants 4 and 5).
        let value = unsafe { (*slot.value.get()).take() };
        if state >> GENERATION_SHIFT & LAST_GENERATION < self.last_generation {
            // Relaxed: the free list's lock hands the slot on; stale handles only need some other generation.
            slot.state.fetch_add(1 << GENERATION_SHIFT, Ordering::Relaxed);
            self.free.lock().vacant.push(index);
        }
        // Last, because dropping a value runs foreign code.
        drop(value);
    }
}

impl<T> Drop for Slab<T> {
    fn drop(&mut self) {
        for (chunk, first) in self.chunks.iter_mut().enumerate() {
            let first = *first.get_mut();
            if !first.is_null() {
                let len = (FIRST_CHUNK as usize) << chunk;
                // SAFETY: `allocate` made this pointer from a boxed slice of this length; `&mut self` says
                // that no guard is left.
                drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(first, len)) });
            }
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        // SAFETY: guards are handed out only for live slots of the right generation, whose value is in place
        // and not written before the last reference is gone (invariants 3 to 5).
        let value = unsafe { &*self.slot.value.get() };
        match value {
            Some(value) => value,
            None => unreachable!("a live slot has a value"),
        }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if cfg!(mw_without = "handles") {
            return;
        }
        // Release: pairs with the Acquire of `recycle`.
        let before = self.slot.state.fetch_sub(1, Ordering::Release);
        if before & (DEAD | REFS) == DEAD | 1 {
            self.slab.recycle(self.slot, self.index);
        }
    }
}

#[cfg(test)]
#[path = "slab_tests.rs"]
mod tests;
