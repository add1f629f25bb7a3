//! Drives two endpoints by polling them in turn, as the engine does, and keeps the buffers alive meanwhile.

use crate::sync::Arc;
use crate::transport::shm::region;
use crate::transport::{Endpoint, EndpointError, Progress, RecvMsg, ReduceFn, SendMsg, Sink};
use crate::types::{Fingerprint, OpKind};
use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::time::Duration;

/// Bytes behind every receive buffer that nobody may touch.
const GUARD: usize = 64;
const UNTOUCHED: u8 = 0xee;

/// A fingerprint that differs from all others by its number.
pub fn fp(seq: u32) -> Fingerprint {
    Fingerprint {
        kind: OpKind::PointToPoint,
        dtype: 1,
        redop: Fingerprint::NO_REDOP,
        root: -1,
        seq,
        count: 7,
    }
}

/// splitmix64.
pub struct Rng(pub u64);

impl Rng {
    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Uniform enough below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.draw() % n as u64).unwrap()
    }
}

/// `len` bytes that depend on `seed` and on their place.
pub fn pattern(seed: u64, len: usize) -> Arc<Vec<u8>> {
    let mut rng = Rng(seed);
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend(rng.draw().to_le_bytes());
    }
    out.truncate(len);
    Arc::new(out)
}

/// Waits while nothing moves, and fails the test when that lasts.
#[derive(Default)]
pub struct Patience(u32);

impl Patience {
    /// To be called after every attempt.
    #[track_caller]
    pub fn after(&mut self, moved: bool) {
        self.0 = if moved { 0 } else { self.0 + 1 };
        match self.0 {
            0 => {}
            1..64 => std::thread::yield_now(),
            // Ten seconds and more: sockets with tiny buffers wait for timers now and then.
            64..100_000 => std::thread::sleep(Duration::from_micros(100)),
            _ => panic!("nothing moves any more"),
        }
    }
}

/// Whose buffers are allocated like those of `mwMemAlloc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// What is sent.
    pub outgoing: bool,
    /// What is received.
    pub incoming: bool,
}

thread_local! {
    static REGISTERED: Cell<Registered> = const { Cell::new(Registered { outgoing: false, incoming: false }) };
}

/// Runs `body`; the peers that it makes in this thread have such buffers, unless they are short.
pub fn with_registered(registered: Registered, body: impl FnOnce()) {
    REGISTERED.set(registered);
    body();
    REGISTERED.set(Registered::default());
}

/// Each of those is a file.
const SHORT: usize = 1000;

/// Memory for messages.
enum Buffer {
    Plain(Vec<u8>),
    Region(NonNull<u8>, usize),
}

// SAFETY: memory of its own.
unsafe impl Send for Buffer {}

impl Buffer {
    fn new(bytes: Vec<u8>, registered: bool) -> Buffer {
        if !registered || bytes.len() < SHORT {
            return Buffer::Plain(bytes);
        }
        // At every place within a line.
        let shift = bytes.len() % 64;
        let base = region::allocate(bytes.len() + shift, true).expect("memory");
        // SAFETY: as much as was asked for.
        unsafe {
            let start = base.add(shift);
            start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            Buffer::Region(start, bytes.len())
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Buffer::Region(start, len) = self {
            assert!(region::release(start.as_ptr().wrapping_sub(*len % 64)));
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Buffer::Plain(bytes) => bytes,
            // SAFETY: initialised by `new`, and its own until drop.
            Buffer::Region(start, len) => unsafe { std::slice::from_raw_parts(start.as_ptr(), *len) },
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Buffer::Plain(bytes) => bytes,
            // SAFETY: as above.
            Buffer::Region(start, len) => unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), *len) },
        }
    }
}

/// A receive and its buffer.
struct Receive {
    msg: RecvMsg,
    buf: Buffer,
}

/// What is being sent: the caller's bytes, and a copy where those are not to be sent themselves.
struct Outgoing {
    data: Arc<Vec<u8>>,
    staged: Option<Buffer>,
}

/// One endpoint, the messages under way and their buffers.
pub struct Peer {
    /// First, so that it is dropped before the buffers.
    pub end: Box<dyn Endpoint>,
    registered: Registered,
    sends: VecDeque<(SendMsg, Outgoing)>,
    posted: VecDeque<Outgoing>,
    recvs: VecDeque<Receive>,
    /// What has been received, oldest first.
    pub received: VecDeque<Vec<u8>>,
}

impl Peer {
    /// Nothing under way yet.
    pub fn new(end: Box<dyn Endpoint>) -> Peer {
        Peer {
            end,
            registered: REGISTERED.get(),
            sends: VecDeque::new(),
            posted: VecDeque::new(),
            recvs: VecDeque::new(),
            received: VecDeque::new(),
        }
    }

    /// Both ends of a new connection.
    pub fn pair(make: &dyn Fn() -> (Box<dyn Endpoint>, Box<dyn Endpoint>)) -> (Peer, Peer) {
        let (a, b) = make();
        (Peer::new(a), Peer::new(b))
    }

    /// Queues a message.
    pub fn send(&mut self, fp: Fingerprint, data: Arc<Vec<u8>>) {
        let copy = self.registered.outgoing && data.len() >= SHORT;
        let staged = copy.then(|| Buffer::new(data.to_vec(), true));
        let ptr = staged.as_ref().map_or(data.as_ptr(), |staged| staged.as_ptr());
        self.sends.push_back((SendMsg::new(fp, ptr, data.len()), Outgoing { data, staged }));
    }

    /// Queues a receive into a buffer of its own.
    pub fn recv(&mut self, fp: Fingerprint, len: usize) {
        let mut buf = Buffer::new(vec![UNTOUCHED; len + GUARD], self.registered.incoming);
        let sink = Sink::Copy(buf.as_mut_ptr());
        self.recvs.push_back(Receive { msg: RecvMsg::new(fp, sink, len), buf });
    }

    /// Queues a receive that is combined with `initial`.
    pub fn recv_reduce(&mut self, fp: Fingerprint, initial: &[u8], kernel: ReduceFn, elem: usize) {
        let len = initial.len();
        let mut buf = initial.to_vec();
        buf.resize(len + GUARD, UNTOUCHED);
        let mut buf = Buffer::new(buf, self.registered.incoming);
        let sink = Sink::Reduce { dst: buf.as_mut_ptr(), kernel, elem };
        self.recvs.push_back(Receive { msg: RecvMsg::new(fp, sink, len), buf });
    }

    /// Messages not done.
    pub fn pending(&self) -> (usize, usize) {
        (self.sends.len() + self.posted.len(), self.recvs.len())
    }

    /// Messages whose turn to be sent is not over, neither done nor posted.
    pub fn unsent(&self) -> usize {
        self.sends.len()
    }

    /// Bytes that the oldest receive has consumed, and its whole buffer.
    pub fn under_way(&self) -> Option<(usize, &[u8])> {
        self.recvs.front().map(|r| (r.msg.offset, &r.buf[..r.buf.len() - GUARD]))
    }

    /// Whether no receive has written to its buffer.
    pub fn untouched(&self) -> bool {
        self.recvs.iter().all(|r| r.buf.iter().all(|b| *b == UNTOUCHED))
    }

    /// Overwrites what was being sent, as the caller may after [`Endpoint::cancel`]. Nobody else may hold it.
    pub fn scribble(&mut self) {
        for out in self.sends.iter_mut().map(|(_, out)| out).chain(&mut self.posted) {
            match &mut out.staged {
                Some(staged) => staged.fill(UNTOUCHED),
                None => Arc::get_mut(&mut out.data).expect("a buffer of ours alone").fill(UNTOUCHED),
            }
        }
    }

    /// Advances the oldest send.
    pub fn poll_send(&mut self) -> Result<Progress, EndpointError> {
        let Some((msg, _)) = self.sends.front_mut() else {
            return Ok(Progress::None);
        };
        // SAFETY: the buffer is kept with the message until it is done, reaped or the endpoint is dropped.
        let progress = unsafe { self.end.send(msg) }?;
        match progress {
            Progress::Done => {
                self.sends.pop_front();
            }
            Progress::Posted => self.posted.extend(self.sends.pop_front().map(|(_, data)| data)),
            Progress::Some | Progress::None => {}
        }
        Ok(progress)
    }

    /// Shows the other end what was sent, and lets go of posted messages that are done. Whether there were any.
    pub fn poll_reap(&mut self) -> Result<bool, EndpointError> {
        self.end.flush();
        let n = self.end.reap()?;
        assert!(n <= self.posted.len(), "reaped {n} of {} posted messages", self.posted.len());
        self.posted.drain(..n);
        Ok(n > 0)
    }

    /// Advances the oldest receive.
    pub fn poll_recv(&mut self) -> Result<Progress, EndpointError> {
        let Some(recv) = self.recvs.front_mut() else {
            return Ok(Progress::None);
        };
        // SAFETY: the buffer is kept with the message until it is done or the endpoint is dropped.
        let progress = unsafe { self.end.recv(&mut recv.msg) }?;
        assert_ne!(progress, Progress::Posted, "a receive was posted");
        if progress == Progress::Done {
            let Receive { msg, buf } = self.recvs.pop_front().unwrap();
            assert_eq!(msg.offset, msg.len);
            assert!(buf[msg.len..].iter().all(|b| *b == UNTOUCHED), "wrote behind the buffer");
            self.received.push_back(buf[..msg.len].to_vec());
        }
        Ok(progress)
    }

    /// Advances everything once. Whether anything moved.
    pub fn poll(&mut self) -> Result<bool, EndpointError> {
        let sent = self.poll_send()? != Progress::None;
        let reaped = self.poll_reap()?;
        let received = self.poll_recv()? != Progress::None;
        Ok(sent || reaped || received)
    }

    /// The oldest message received.
    #[track_caller]
    pub fn take(&mut self) -> Vec<u8> {
        self.received.pop_front().expect("a message received")
    }

    /// Polls the receiving side until it fails.
    #[track_caller]
    pub fn recv_error(&mut self) -> EndpointError {
        assert!(!self.recvs.is_empty(), "nothing is posted");
        let mut patience = Patience::default();
        loop {
            match self.poll_recv() {
                Ok(progress) => patience.after(progress != Progress::None),
                Err(err) => return err,
            }
            assert!(!self.recvs.is_empty(), "the message was delivered");
        }
    }

    /// Calls everything, whatever it answers, so that a panic shows.
    pub fn provoke(&mut self) {
        for _ in 0..3 {
            let _ = self.poll_send();
            let _ = self.poll_recv();
            let _ = self.end.reap();
            let _ = self.end.poll_fd();
        }
        self.end.finish();
        self.end.finish();
        let _ = self.poll_send();
        self.end.cancel();
        self.end.cancel();
        let _ = self.poll_send();
        let _ = self.poll_recv();
        let _ = self.end.reap();
    }
}

/// Polls both in turn until nothing is under way.
#[track_caller]
pub fn drive(a: &mut Peer, b: &mut Peer) {
    let mut patience = Patience::default();
    while (a.pending(), b.pending()) != ((0, 0), (0, 0)) {
        let moved_a = a.poll().expect("one end");
        let moved_b = b.poll().expect("the other end");
        patience.after(moved_a || moved_b);
    }
}

/// Sends alone, what is held back included, until nothing moves any more or all is sent. Whether all is sent.
#[track_caller]
pub fn fill(from: &mut Peer) -> bool {
    let mut idle = 0;
    // Acknowledgements may be late: the sender has to be stuck for a while.
    while from.unsent() > 0 && idle < 200 {
        let sent = from.poll_send().expect("the sending end") != Progress::None;
        let reaped = from.poll_reap().expect("the sending end");
        if !sent && !reaped {
            idle += 1;
            std::thread::sleep(Duration::from_micros(50));
        } else {
            idle = 0;
        }
    }
    from.unsent() == 0
}
