//! Memory of this process that peers on the machine may map: what `mwMemAlloc` gives out.
//!
//! Regions belong to the process. Which of them a buffer lies in is asked for every long message, so each endpoint has
//! a [`View`] of its own, made anew when something has changed: while nothing does, a look costs a few loads, takes no
//! lock and allocates nothing.
//!
//! 1. A region's number is never used again, in this process.
//! 2. `GENERATION` changes whenever the registry does, after it has. It is 0 until there is a first region.
//! 3. Locks are taken in this order: the registry, then one of a [`Neighbour`], then what its courier needs.

use super::neighbour::Neighbour;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, Weak};
use crate::sys::memory::{Identity, SharedMemory, identity};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// Regions are whole pages.
const PAGE: usize = 4096;
/// From this size on huge pages are asked for.
const HUGE: usize = 2 << 20;

/// What a region is called between two processes.
pub type RegionId = u64;

struct Region {
    id: RegionId,
    memory: Arc<SharedMemory>,
    /// What peers map; `None` for memory that they cannot.
    file: Option<(OwnedFd, Identity)>,
}

/// What a peer needs to map a region.
pub struct Offer<'a> {
    /// Its number.
    pub id: RegionId,
    /// Its bytes.
    pub len: usize,
    /// The file that it is.
    pub fd: BorrowedFd<'a>,
    /// By which the peer knows that it was sent the right one.
    pub identity: Identity,
}

struct Registry {
    regions: BTreeMap<usize, Region>,
    neighbours: Vec<Weak<Neighbour>>,
    next: RegionId,
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { regions: BTreeMap::new(), neighbours: Vec::new(), next: 1 });
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// New zeroed memory of at least `size` bytes, page-aligned. Where no more of it can be shared, because descriptors have
/// run out, it is memory like any other.
pub fn allocate(size: usize, use_memfd: bool) -> Result<NonNull<u8>> {
    static SAID: AtomicBool = AtomicBool::new(false);
    let len = size.max(1).checked_next_multiple_of(PAGE).filter(|len| isize::try_from(*len).is_ok());
    let Some(len) = len else {
        return Err(Error::argument(format!("size: {size} bytes are more than an address space holds")));
    };
    let shared = SharedMemory::create_large(c"multiworld-memory", len, use_memfd)
        .and_then(|(memory, fd)| identity(fd.as_fd()).map(|identity| (memory, Some((fd, identity)))));
    let (memory, file) = shared.or_else(|e| {
        let memory = SharedMemory::private(len)?;
        if !SAID.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "mwMemAlloc: {e}; peers cannot map this memory, messages from it take the usual ways"
            );
        }
        Ok((memory, None))
    })?;
    if len >= HUGE {
        memory.prefer_huge_pages();
    }
    let base = memory.base();
    let mut registry = REGISTRY.lock();
    let id = registry.next;
    registry.next += 1;
    registry.regions.insert(base.addr().get(), Region { id, memory: Arc::new(memory), file });
    changed();
    Ok(base)
}

/// Gives memory from [`allocate`] back; false when this is not where some begins. What a peer reads of it just now, for
/// an operation that has been given up, stays readable for it until it notices.
pub fn release(base: *const u8) -> bool {
    let mut registry = REGISTRY.lock();
    let Some(region) = registry.regions.remove(&base.addr()) else { return false };
    changed();
    for neighbour in registry.neighbours.iter().filter_map(Weak::upgrade) {
        neighbour.withdraw(region.id);
    }
    drop(registry);
    // Unmapped here, unless a thread of this process is reading it as a peer.
    drop(region);
    true
}

/// With the registry's lock held.
fn changed() {
    // Relaxed: whoever looks for a buffer got its address from who allocated it, and with it everything before.
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// From now on a neighbour is told when a region is gone.
pub(super) fn introduce(neighbour: &Arc<Neighbour>) {
    let neighbours = &mut REGISTRY.lock().neighbours;
    neighbours.retain(|known| known.strong_count() > 0);
    neighbours.push(Arc::downgrade(neighbour));
}

/// Runs `body` with what is to be told of a region, if it is there and can be shared.
pub(super) fn with_offer<R>(id: RegionId, body: impl FnOnce(Offer<'_>) -> R) -> Option<R> {
    let registry = REGISTRY.lock();
    let region = registry.regions.values().find(|region| region.id == id)?;
    let (fd, identity) = region.file.as_ref()?;
    Some(body(Offer { id, len: region.memory.len(), fd: fd.as_fd(), identity: *identity }))
}

/// A region's memory, for peers in this process.
pub(super) fn memory(id: RegionId) -> Option<Arc<SharedMemory>> {
    REGISTRY.lock().regions.values().find(|region| region.id == id).map(|region| region.memory.clone())
}

/// Whether a neighbour can be told where in a region something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not been offered.
    Unknown,
    /// It has been, and no answer has come, or it was declined.
    Offered,
    /// It is mapped there.
    Mapped,
}

/// A place in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which region.
    pub id: RegionId,
    /// Bytes from its beginning.
    pub at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    base: usize,
    len: usize,
    id: RegionId,
    standing: Standing,
}

/// The regions as they are between one endpoint and its peer's process.
#[derive(Debug, Default)]
pub struct View {
    generation: u64,
    epoch: u64,
    spans: Vec<Span>,
    /// Where the last one was found.
    last: usize,
}

impl View {
    /// Where these bytes are, if they lie in one region and the neighbour has mapped it. If it could but has not, it is
    /// asked to.
    #[inline]
    pub fn find(&mut self, neighbour: &Neighbour, ptr: *const u8, len: usize) -> Option<Place> {
        // Relaxed: see `changed`.
        let generation = GENERATION.load(Ordering::Relaxed);
        if generation == 0 {
            return None;
        }
        if generation != self.generation || neighbour.epoch() != self.epoch {
            self.refresh(neighbour);
        }
        let span = self.span(ptr.addr(), len)?;
        match span.standing {
            Standing::Mapped => Some(Place { id: span.id, at: ptr.addr() - span.base }),
            Standing::Offered => None,
            Standing::Unknown => {
                neighbour.offer(span.id);
                None
            }
        }
    }

    #[inline]
    fn span(&mut self, begin: usize, len: usize) -> Option<Span> {
        let holds = |span: &Span| {
            begin.checked_sub(span.base).is_some_and(|at| at <= span.len && len <= span.len - at)
        };
        if let Some(span) = self.spans.get(self.last).filter(|span| holds(span)) {
            return Some(*span);
        }
        let at = self.spans.partition_point(|span| span.base <= begin).checked_sub(1)?;
        let span = self.spans.get(at).filter(|span| holds(span))?;
        self.last = at;
        Some(*span)
    }

    #[cold]
    fn refresh(&mut self, neighbour: &Neighbour) {
        let registry = REGISTRY.lock();
        self.generation = GENERATION.load(Ordering::Relaxed);
        self.spans.clear();
        self.epoch = neighbour.standing(|standing_of| {
            self.spans.extend(registry.regions.iter().filter(|(_, r)| r.file.is_some()).map(|(base, r)| {
                Span { base: *base, len: r.memory.len(), id: r.id, standing: standing_of(r.id) }
            }));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(
        view: &mut View,
        neighbour: &Neighbour,
        base: NonNull<u8>,
        at: usize,
        len: usize,
    ) -> Option<usize> {
        view.find(neighbour, base.as_ptr().wrapping_add(at), len).map(|place| place.at)
    }

    #[test]
    fn a_buffer_is_found_where_it_lies_and_nowhere_else() {
        let own = Neighbour::own();
        let mut view = View::default();
        for use_memfd in [true, false] {
            let bases = [1, PAGE, 3 * PAGE + 1].map(|size| allocate(size, use_memfd).unwrap());
            for (base, len) in bases.iter().zip([PAGE, PAGE, 4 * PAGE]) {
                for (at, bytes) in [(0, 0), (0, 1), (0, len), (7, len - 7), (len - 1, 1)] {
                    assert_eq!(place(&mut view, &own, *base, at, bytes), Some(at), "{at} {bytes}");
                }
                for (at, bytes) in [(0, len + 1), (1, len), (len - 1, 2), (0, usize::MAX), (1, usize::MAX)] {
                    assert_eq!(place(&mut view, &own, *base, at, bytes), None, "{at} {bytes}");
                }
            }
            // SAFETY: memory of its own that is as large as was asked for.
            unsafe {
                assert_eq!(bases[2].add(3 * PAGE).read(), 0);
                bases[2].add(3 * PAGE).write(1);
            }
            for base in bases {
                assert!(!release(base.as_ptr().wrapping_add(1)));
                assert!(release(base.as_ptr()));
            }
        }
        assert!(allocate(usize::MAX, true).unwrap_err().text.starts_with("size: "));
        assert!(allocate(isize::MAX as usize - PAGE, true).is_err());
    }

    #[test]
    fn what_is_being_read_outlives_its_release() {
        let base = allocate(PAGE, true).unwrap();
        // SAFETY: a page of its own.
        unsafe { base.write(42) };
        let own = Neighbour::own();
        let place = View::default().find(&own, base.as_ptr(), 1).unwrap();
        let mapping = own.mapping(place.id).unwrap();
        assert!(release(base.as_ptr()));
        assert!(own.mapping(place.id).is_none());
        // SAFETY: the mapping is held.
        assert_eq!(unsafe { mapping.base().read() }, 42);
    }
}
