//! Binds the ranks of a run to processors, as `mpirun` does: without it, two ranks that are woken together may share
//! a processor while another one idles.

use crate::api::{Failure, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Binds this thread, and all that it starts, to the processor that is its rank's among those it may use. Does
/// nothing when there are more ranks than processors: then the scheduler spreads them better.
pub fn to_own_processor() -> Result<()> {
    let (nranks, rank) = multiworld::config::ranks_from_env()?;
    let failed = |what: &str, e: rustix::io::Errno| Failure::new(format!("--pin: {what} processors: {e}"));
    let allowed = sched_getaffinity(None).map_err(|e| failed("asking for", e))?;
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let Some(cpu) = processor(&allowed, rank, nranks) else { return Ok(()) };
    let mut own = CpuSet::new();
    own.set(cpu);
    sched_setaffinity(None, &own).map_err(|e| failed("choosing among", e))
}

/// The processor of a rank, if every rank can have one.
fn processor(allowed: &[usize], rank: i32, nranks: i32) -> Option<usize> {
    if usize::try_from(nranks).ok()? > allowed.len() {
        return None;
    }
    allowed.get(usize::try_from(rank).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rank_gets_an_allowed_processor_of_its_own() {
        assert_eq!(processor(&[0, 1, 2], 1, 2), Some(1));
        assert_eq!(processor(&[4, 9], 1, 2), Some(9));
        assert_eq!(processor(&[4, 9], 0, 1), Some(4));
    }

    #[test]
    fn more_ranks_than_processors_are_left_alone() {
        assert_eq!(processor(&[0, 1], 0, 4), None);
        assert_eq!(processor(&[], 0, 1), None);
    }
}
