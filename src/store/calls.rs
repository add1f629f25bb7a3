//! The calls of [`Store`] as requests and answers of the codec: whoever can carry those is a store.

use super::wire::{Answer, MAX_KEY, MAX_VALUE, Refusal, Request};
use super::{LeaseId, Revision, Snapshot, Store, Swap};
use crate::error::{Code, Error, Extent, Result};
use crate::sync::Arc;
use std::time::{Duration, Instant};

/// Carries a request to the store's state and the answer back.
pub trait Ask: Send + Sync {
    /// The answer by `deadline`, or `Code::Timeout`.
    fn ask(&self, request: Request, deadline: Instant) -> Result<Answer>;
}

impl<T: Ask> Store for T {
    fn get(&self, key: &[u8], deadline: Instant) -> Result<Option<Vec<u8>>> {
        check_key(key)?;
        match self.ask(Request::Get { key: key.to_vec() }, deadline)? {
            Answer::Value(value) => Ok(value),
            other => Err(unexpected(&other)),
        }
    }

    fn set(&self, key: &[u8], value: &[u8], lease: Option<LeaseId>, deadline: Instant) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        match self.ask(Request::Set { key: key.to_vec(), value: value.to_vec(), lease }, deadline)? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        lease: Option<LeaseId>,
        deadline: Instant,
    ) -> Result<Swap> {
        check_key(key)?;
        check_value(expected.unwrap_or_default())?;
        check_value(new.unwrap_or_default())?;
        let request = Request::CompareAndSet {
            key: key.to_vec(),
            expected: expected.map(<[u8]>::to_vec),
            new: new.map(<[u8]>::to_vec),
            lease,
        };
        match self.ask(request, deadline)? {
            Answer::Swap(swap) => Ok(swap),
            other => Err(unexpected(&other)),
        }
    }

    fn delete_prefix(&self, prefix: &[u8], deadline: Instant) -> Result<u64> {
        check_key(prefix)?;
        match self.ask(Request::DeletePrefix { prefix: prefix.to_vec() }, deadline)? {
            Answer::Count(n) => Ok(n),
            other => Err(unexpected(&other)),
        }
    }

    fn list(&self, prefix: &[u8], deadline: Instant) -> Result<Snapshot> {
        check_key(prefix)?;
        snapshot(self.ask(Request::List { prefix: prefix.to_vec() }, deadline)?)
    }

    fn watch(&self, prefix: &[u8], after: Revision, deadline: Instant) -> Result<Snapshot> {
        check_key(prefix)?;
        snapshot(self.ask(Request::Watch { prefix: prefix.to_vec(), after }, deadline)?)
    }

    fn lease(&self, ttl: Duration, deadline: Instant) -> Result<LeaseId> {
        if ttl.is_zero() {
            return Err(Error::argument("ttl: is zero"));
        }
        match self.ask(Request::Lease { ttl }, deadline)? {
            Answer::Lease(id) => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    fn revoke(&self, lease: LeaseId, deadline: Instant) -> Result<()> {
        match self.ask(Request::Revoke { lease }, deadline)? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

fn snapshot(answer: Answer) -> Result<Snapshot> {
    match answer {
        Answer::Snapshot(s) => Ok(Arc::unwrap_or_clone(s)),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &Answer) -> Error {
    match answer {
        Answer::Refused(Refusal::NoLease) => Error::new(
            Code::InvalidUsage,
            Extent::Operation,
            "store: the lease has ended or is not this client's",
        ),
        Answer::Refused(Refusal::Full) => Error::new(Code::System, Extent::Operation, "store: it is full"),
        Answer::Refused(Refusal::TooLarge) => {
            Error::usage("store: what lies under the prefix does not fit into one answer")
        }
        Answer::Refused(Refusal::TooMany) => {
            Error::usage("store: this client has too many leases or waiting watches")
        }
        other => {
            // Only the kind is named: the rest is the application's data.
            let kind = match other {
                Answer::Done => "done",
                Answer::Value(_) => "a value",
                Answer::Swap(_) => "a swap",
                Answer::Count(_) => "a count",
                Answer::Snapshot(_) => "a snapshot",
                Answer::Lease(_) => "a lease",
                Answer::Refused(_) => "a refusal",
                Answer::Welcome { .. } => "a welcome",
            };
            Error::new(
                Code::Internal,
                Extent::Operation,
                format!("store: answered {kind} to another question"),
            )
        }
    }
}

fn check_key(key: &[u8]) -> Result<()> {
    if key.len() > MAX_KEY {
        return Err(Error::argument(format!("key: has {} bytes, {MAX_KEY} are allowed", key.len())));
    }
    Ok(())
}

fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > MAX_VALUE {
        return Err(Error::argument(format!("value: has {} bytes, {MAX_VALUE} are allowed", value.len())));
    }
    Ok(())
}
