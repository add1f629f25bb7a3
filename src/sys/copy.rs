//! Copying past the caches: for large buffers that are not read again soon.
//!
//! An ordinary store reads its cache line from memory first and drives another one out. One that is marked as
//! non-temporal does neither, but it is ordered with nothing until a fence.

/// `dst = src` past the caches, fenced: whoever is told afterwards sees it.
///
/// # Safety
/// `len` readable bytes at `src` and writable ones at `dst`, which do not overlap.
pub unsafe fn copy_streaming(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: by this function's contract.
    unsafe { stream(dst, src, len) };
    fence();
}

/// The same without the fence.
///
/// # Safety
/// As for [`copy_streaming`], and [`fence`] comes before anybody is told.
#[cfg(target_arch = "x86_64")]
#[inline]
pub unsafe fn stream(mut dst: *mut u8, mut src: *const u8, mut len: usize) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};

    /// Bytes of a cache line: the unit in which such stores go to memory.
    const LINE: usize = 64;

    let head = Ord::min(dst.addr().wrapping_neg() % LINE, len);
    // SAFETY: every part is within `len`; SSE2 is in every x86-64 processor, and `dst` is aligned to a cache
    // line where the stores ask for 16 bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(src, dst, head);
        (dst, src, len) = (dst.add(head), src.add(head), len - head);
        while len >= LINE {
            let (to, from) = (dst.cast::<__m128i>(), src.cast::<__m128i>());
            let line = [
                _mm_loadu_si128(from),
                _mm_loadu_si128(from.add(1)),
                _mm_loadu_si128(from.add(2)),
                _mm_loadu_si128(from.add(3)),
            ];
            _mm_stream_si128(to, line[0]);
            _mm_stream_si128(to.add(1), line[1]);
            _mm_stream_si128(to.add(2), line[2]);
            _mm_stream_si128(to.add(3), line[3]);
            (dst, src, len) = (dst.add(LINE), src.add(LINE), len - LINE);
        }
        std::ptr::copy_nonoverlapping(src, dst, len);
    }
}

/// The same without the fence. Other processors see for themselves when whole lines are written in a row.
///
/// # Safety
/// As for [`copy_streaming`], and [`fence`] comes before anybody is told.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub unsafe fn stream(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: by this function's contract.
    unsafe { std::ptr::copy_nonoverlapping(src, dst, len) };
}

/// Orders what was streamed before everything that this thread stores later, as an ordinary store is.
#[inline]
pub fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is in every x86-64 processor.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alignment_and_length_is_copied_and_nothing_else() {
        let src: Vec<u8> = (0..1024u32).map(|i| (i * 7 % 251) as u8 + 1).collect();
        for to in 0..70 {
            for from in [0, 1, 17, 63] {
                for len in [0, 1, 15, 63, 64, 65, 127, 128, 200, 777] {
                    let mut dst = vec![0; 1024];
                    // SAFETY: both vectors are longer than the offset and the length together.
                    unsafe { copy_streaming(dst.as_mut_ptr().add(to), src.as_ptr().add(from), len) };
                    assert_eq!(dst[to..to + len], src[from..from + len]);
                    assert!(dst[..to].iter().chain(&dst[to + len..]).all(|b| *b == 0));
                }
            }
        }
    }
}
