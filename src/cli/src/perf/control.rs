//! What the ranks tell each other between measurements.

use crate::api::{Elements, Failure, Result, World};
use multiworld::types::DataType;
use std::ptr;

/// A world on the host through which ranks agree; on the host backend it is the one that is measured.
#[derive(Clone, Copy)]
pub struct Control {
    pub world: World,
    pub rank: usize,
    pub nranks: usize,
}

impl Control {
    /// What rank 0 has chosen, on every rank.
    pub fn agree(&self, mine: u64) -> Result<u64> {
        let mut number = mine;
        let at = (&raw mut number).cast::<u8>();
        let e = Elements { send: at, recv: at, count: 1, datatype: DataType::Uint64 as i32 };
        // SAFETY: one element, in place, that lives until the call is through.
        unsafe { self.world.broadcast(&e, 0, ptr::null_mut()) }?;
        Ok(number)
    }

    /// What every rank has, in the order of the ranks.
    pub fn gather<const N: usize>(&self, mine: [f64; N]) -> Result<Vec<[f64; N]>> {
        let mut all = vec![[0.0; N]; self.nranks];
        let e = Elements {
            send: mine.as_ptr().cast(),
            recv: all.as_mut_ptr().cast(),
            count: N,
            datatype: DataType::Float64 as i32,
        };
        // SAFETY: `mine` has N elements and `all` N for every rank; both live until the call is through.
        unsafe { self.world.all_gather(&e, ptr::null_mut()) }?;
        Ok(all)
    }

    pub fn barrier(&self) -> Result<()> {
        self.world.barrier(ptr::null_mut())
    }

    /// An error, on every rank, when there are fewer ranks than `what` takes.
    pub fn expect_ranks(&self, least: usize, what: &str) -> Result<()> {
        if self.nranks >= least {
            return Ok(());
        }
        Err(Failure::new(format!("{what} needs {least} ranks, this world has {}", self.nranks)))
    }
}
