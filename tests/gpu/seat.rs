//! A rank's place at the device: memory, a stream, and the operations that the tests use.

use multiworld::config::{BackendChoice, Config};
use multiworld::error::Result;
use multiworld::nccl::cuda;
use multiworld::nccl::cuda::memory::{Buffer, OwnStream};
use multiworld::types::{DataType, OpKind, RedOp, Reduction};
use multiworld::world::{Call, Request, World};
use std::sync::Arc;
use std::time::Duration;

/// Makes the device current, and joins a world of the nccl backend.
pub fn join(name: &str, n: usize, me: usize) -> Result<Arc<World>> {
    let env = Config::from_env().expect("settings");
    cuda::bind(env.device.unwrap_or(0)).expect("the device");
    assert_eq!(env.backend, BackendChoice::Nccl);
    let limit = Duration::from_secs(30);
    let config = Config { timeout: limit, join_timeout: limit, ..env };
    World::init_named(name, n as i32, me as i32, &config)
}

/// The argument at a position, a number.
pub fn number(args: &[String], at: usize) -> usize {
    args.get(at).and_then(|a| a.parse().ok()).unwrap_or_else(|| panic!("argument {at} of {args:?}"))
}

/// A call that has nothing in it yet.
fn call(kind: OpKind, seat: &Seat, bytes: usize) -> Call {
    Call {
        kind,
        send: false,
        sendbuf: std::ptr::null(),
        recvbuf: std::ptr::null_mut(),
        count: bytes,
        dtype: DataType::Uint8,
        reduction: Reduction::Builtin(RedOp::Sum),
        peer: 0,
        stream: seat.stream.raw(),
        scalar_on_device: false,
    }
}

/// Waits for calls on the device.
pub fn finish(w: &Arc<World>, calls: &[Call]) -> Result<()> {
    let mut calls = calls.iter().map(|c| (w.clone(), *c)).collect();
    Request::submit(&mut calls, true).wait(None).expect("no limit")
}

/// Memory to give and to get, and a stream.
pub struct Seat {
    pub from: Buffer,
    pub to: Buffer,
    pub stream: OwnStream,
}

impl Seat {
    /// With buffers of so many bytes, on the device of a world.
    pub fn new(w: &World, bytes: usize) -> Seat {
        Seat::on(w.device(), bytes)
    }

    /// On a device by its number.
    pub fn on(device: i32, bytes: usize) -> Seat {
        Seat {
            from: Buffer::new(device, bytes).expect("device memory"),
            to: Buffer::new(device, bytes).expect("device memory"),
            stream: OwnStream::new(device).expect("a stream"),
        }
    }

    pub fn send(&self, bytes: usize, peer: i32) -> Call {
        let sendbuf = self.from.address().cast_const();
        Call { send: true, sendbuf, peer, ..call(OpKind::PointToPoint, self, bytes) }
    }

    pub fn recv(&self, bytes: usize, peer: i32) -> Call {
        Call { recvbuf: self.to.address(), peer, ..call(OpKind::PointToPoint, self, bytes) }
    }

    /// Of bytes.
    pub fn all_reduce(&self, bytes: usize) -> Call {
        let (sendbuf, recvbuf) = (self.from.address().cast_const(), self.to.address());
        Call { sendbuf, recvbuf, ..call(OpKind::AllReduce, self, bytes) }
    }

    /// Fills what is given with one value.
    pub fn fill(&self, value: u8) -> Result<()> {
        self.from.write(0, &vec![value; self.from.len()], &self.stream)
    }

    /// Whether so many bytes that came have this value.
    pub fn came(&self, bytes: usize, value: u8) -> Result<bool> {
        let mut got = vec![!value; bytes];
        self.to.read(0, &mut got, &self.stream)?;
        Ok(got.iter().all(|b| *b == value))
    }

    /// An all-reduce in which every rank gives its rank plus one; the sums are looked at.
    pub fn sum(&self, w: &Arc<World>, bytes: usize) -> Result<()> {
        self.fill(w.rank() as u8 + 1)?;
        finish(w, &[self.all_reduce(bytes)])?;
        let expected = (1..=w.nranks()).sum::<u32>() as u8;
        assert!(self.came(bytes, expected)?, "wrong sums of {bytes} bytes");
        Ok(())
    }
}
