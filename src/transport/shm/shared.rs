//! An endpoint's way to the regions: where the own buffers are for the peer, and where the peer's are here.

use super::neighbour::Neighbour;
use super::region::{Place, RegionId, View};
use crate::sync::{Arc, Weak};
use crate::sys::memory::SharedMemory;
use crate::transport::protocol::Fault;

/// Regions of the peer that an endpoint remembers.
const REMEMBERED: usize = 4;

/// See the module's documentation.
pub struct Shared {
    neighbour: Arc<Neighbour>,
    view: View,
    /// What was used lately. It keeps nothing mapped.
    seen: [(RegionId, Weak<SharedMemory>); REMEMBERED],
    next: usize,
}

/// Bytes of a region of the peer, mapped as long as this exists.
pub struct Window {
    memory: Arc<SharedMemory>,
    at: usize,
    len: usize,
}

impl Shared {
    /// With nothing known yet.
    pub fn new(neighbour: Arc<Neighbour>) -> Shared {
        Shared { neighbour, view: View::default(), seen: Default::default(), next: 0 }
    }

    /// Where these bytes are for the peer, if it can reach them.
    #[inline]
    pub fn place(&mut self, ptr: *const u8, len: usize) -> Option<Place> {
        self.view.find(&self.neighbour, ptr, len)
    }

    /// Bytes of the peer's that it says are there. `Ok(None)` when the peer has freed them, or has ended.
    #[inline]
    pub fn window(&mut self, id: RegionId, at: u64, len: usize) -> Result<Option<Window>, Fault> {
        let seen = self.seen.iter().find(|(known, _)| *known == id);
        let Some(memory) = seen.and_then(|(_, memory)| memory.upgrade()).or_else(|| self.look_up(id)) else {
            return Ok(None);
        };
        let at = usize::try_from(at).ok().filter(|at| *at <= memory.len() && len <= memory.len() - *at);
        let at = at.ok_or(Fault::Corrupt("shared-memory ring: a place outside of its region"))?;
        Ok(Some(Window { memory, at, len }))
    }

    /// Whether the peer's process has ended.
    pub fn is_peer_gone(&self) -> bool {
        self.neighbour.is_gone()
    }

    #[cold]
    fn look_up(&mut self, id: RegionId) -> Option<Arc<SharedMemory>> {
        let memory = self.neighbour.mapping(id)?;
        // Its place, if it has one.
        let index = self.seen.iter().position(|(known, _)| *known == id).unwrap_or(self.next);
        if let Some(entry) = self.seen.get_mut(index) {
            *entry = (id, Arc::downgrade(&memory));
            self.next = (self.next + 1) % REMEMBERED;
        }
        Some(memory)
    }
}

impl Window {
    /// The bytes from `offset` on, `len` of them or as many as there are, and how many that is. The peer may write to
    /// them at any time.
    pub fn bytes(&self, offset: usize, len: usize) -> (*const u8, usize) {
        let offset = offset.min(self.len);
        // SAFETY: `at + len` lies within the mapping, as `window` checked, and `offset <= len`.
        let begin = unsafe { self.memory.base().as_ptr().cast_const().add(self.at + offset) };
        (begin, len.min(self.len - offset))
    }
}

#[cfg(test)]
mod tests {
    use super::super::region;
    use super::*;

    #[test]
    fn places_outside_of_a_region_and_unknown_regions_are_refused() {
        let base = region::allocate(10_000, true).unwrap();
        let mut shared = Shared::new(Neighbour::own());
        let place = shared.place(base.as_ptr().wrapping_add(100), 8).unwrap();
        for _ in 0..2 {
            let window = shared.window(place.id, place.at as u64, 8).unwrap().unwrap();
            assert_eq!(window.bytes(0, 100), (base.as_ptr().cast_const().wrapping_add(100), 8));
            assert_eq!(window.bytes(5, 2), (base.as_ptr().cast_const().wrapping_add(105), 2));
            assert_eq!(window.bytes(9, 1).1, 0);
        }
        for (at, len) in [(12_288, 1), (0, 12_289), (12_000, 300), (u64::MAX, 1), (1, usize::MAX)] {
            assert!(matches!(shared.window(place.id, at, len), Err(Fault::Corrupt(_))), "{at} {len}");
        }
        assert!(matches!(shared.window(u64::MAX, 0, 1), Ok(None)));
        assert!(region::release(base.as_ptr()));
        assert!(matches!(shared.window(place.id, 0, 1), Ok(None)), "nothing keeps it");
    }
}
