//! What becomes of a genuine communicator when its world ends: `MW_ON_FAILURE`.

use multiworld::backend::{Call, Device, DeviceStats};
use multiworld::error::{Error, Result};
use multiworld::nccl::Comm;
use multiworld::nccl::cuda::{Mark, Stream};
use multiworld::sync::{Arc, OnceLock};
use std::time::Instant;

/// What to do when a member has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Abort the communicator at once: its kernels leave the device, waiting streams go on.
    Abort,
    /// Only say so, and refuse further calls; the application aborts.
    Report,
}

impl Policy {
    /// The process's policy.
    pub fn get() -> Result<Policy> {
        static POLICY: OnceLock<Result<Policy>> = OnceLock::new();
        POLICY.get_or_init(|| Policy::parse(std::env::var("MW_ON_FAILURE").ok().as_deref())).clone()
    }

    fn parse(value: Option<&str>) -> Result<Policy> {
        match value {
            None | Some("" | "abort") => Ok(Policy::Abort),
            Some("report") => Ok(Policy::Report),
            Some(other) => {
                Err(Error::argument(format!("MW_ON_FAILURE: '{other}' is none of 'abort', 'report'")))
            }
        }
    }
}

/// A communicator as its world sees it: something to end. Operations do not go through the world.
pub struct Ward {
    /// The communicator.
    pub comm: Arc<Comm>,
    /// What its end comes to.
    pub policy: Policy,
}

impl Device for Ward {
    fn enqueue(&self, _calls: &[Call], _deadline: Instant) -> Result<()> {
        Err(Error::usage("world: it only watches a communicator; operations go through that"))
    }

    fn mark(&self, _stream: Stream) -> Result<Option<Mark>> {
        Ok(None)
    }

    fn end(&self, error: &Error) {
        match self.policy {
            Policy::Abort => self.comm.end(error),
            Policy::Report => self.comm.refuse(error),
        }
    }

    fn wait_over(&self) -> Result<()> {
        match self.policy {
            Policy::Abort => self.comm.wait_over(),
            Policy::Report => Ok(()),
        }
    }

    /// The communicator has been finalized by whoever finalizes the world.
    fn finalize(&self, _deadline: Instant) -> Result<()> {
        Ok(())
    }

    fn ordinal(&self) -> i32 {
        self.comm.device().unwrap_or(-1)
    }

    fn stats(&self) -> DeviceStats {
        DeviceStats {
            operations: self.comm.operations(),
            memory_bytes: self.comm.memory().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_one_of_two() {
        assert_eq!(Policy::parse(None), Ok(Policy::Abort));
        assert_eq!(Policy::parse(Some("")), Ok(Policy::Abort));
        assert_eq!(Policy::parse(Some("report")), Ok(Policy::Report));
        assert!(Policy::parse(Some("panic")).unwrap_err().text.contains("MW_ON_FAILURE"));
    }
}
