//! Stream capture: what is submitted to a capturing stream becomes part of a graph in place of running.
//!
//! A capture has one lane per stream. A lane that waits for an event which was recorded in another joins it;
//! the two steps share an edge. Each lane keeps a clock (how many tasks of each lane happen before its end),
//! by which the end of the capture knows whether all work was joined to the first lane.

use crate::model::device::Device;
use crate::model::error::{Error, Result};
use crate::model::event::Event;
use crate::model::graph::{GRAPHS, Graph, Step};
use crate::model::stream::{Kind, Stream};
use crate::model::work::Task;
use crate::model::{handle, lock, thread};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

/// Which calls a capture forbids to whom: `cudaStreamCaptureMode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Global,
    ThreadLocal,
    Relaxed,
}

impl TryFrom<i32> for Mode {
    type Error = Error;

    fn try_from(mode: i32) -> Result<Mode> {
        match mode {
            0 => Ok(Mode::Global),
            1 => Ok(Mode::ThreadLocal),
            2 => Ok(Mode::Relaxed),
            _ => Err(Error::INVALID_VALUE),
        }
    }
}

pub struct Capture {
    pub id: u64,
    pub graph: Arc<Graph>,
    mode: Mode,
    owner: ThreadId,
    invalidated: AtomicBool,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    ended: bool,
    /// By lane.
    lanes: Vec<Lane>,
    /// By edge: the clock of the lane that signals it, at that moment.
    edges: Vec<Vec<usize>>,
}

struct Lane {
    stream: Arc<Stream>,
    clock: Vec<usize>,
    /// Opaque name of the last task's node, where C can look at it.
    last_node: Box<[usize]>,
}

/// All captures under way, and how many, so that calls outside any capture need no lock.
static ACTIVE: Mutex<Vec<Arc<Capture>>> = Mutex::new(Vec::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn active() -> Vec<Arc<Capture>> {
    // Relaxed: a capture that another thread begins at this moment may as well begin later.
    if COUNT.load(Ordering::Relaxed) == 0 { Vec::new() } else { lock(&ACTIVE).clone() }
}

/// A stream's part in a capture.
#[derive(Default)]
pub struct Slot {
    taken: AtomicBool,
    member: Mutex<Option<Member>>,
}

#[derive(Clone)]
pub struct Member {
    pub capture: Arc<Capture>,
    lane: usize,
}

impl Slot {
    /// None: the stream does not capture.
    pub fn member(&self) -> Result<Option<Member>> {
        match self.membership() {
            Some(member) if member.capture.is_invalidated() => Err(Error::CAPTURE_INVALIDATED),
            member => Ok(member),
        }
    }

    /// As `member`, invalidated captures included.
    pub fn membership(&self) -> Option<Member> {
        // Relaxed, as in `active`; the member is behind a lock.
        if self.taken.load(Ordering::Relaxed) { lock(&self.member).clone() } else { None }
    }

    fn set(&self, member: Option<Member>) {
        let mut slot = lock(&self.member);
        self.taken.store(member.is_some(), Ordering::Relaxed);
        *slot = member;
    }
}

pub fn begin(stream: &Arc<Stream>, mode: Mode) -> Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    if stream.kind == Kind::Legacy {
        return Err(Error::CAPTURE_UNSUPPORTED);
    }
    if stream.capture.membership().is_some() {
        return Err(Error::ILLEGAL_STATE);
    }
    let graph = Graph::new(true);
    GRAPHS.insert(graph.handle, graph.clone());
    let capture = Arc::new(Capture {
        id: NEXT.fetch_add(1, Ordering::Relaxed),
        graph,
        mode,
        owner: std::thread::current().id(),
        invalidated: AtomicBool::new(false),
        progress: Mutex::default(),
    });
    capture.open_lane(&mut lock(&capture.progress), stream);
    let mut active = lock(&ACTIVE);
    active.push(capture);
    COUNT.store(active.len(), Ordering::Relaxed);
    Ok(())
}

/// The capture is over, whatever the result.
pub fn end(stream: &Arc<Stream>) -> Result<Arc<Graph>> {
    let member = stream.capture.membership().ok_or(Error::ILLEGAL_STATE)?;
    let capture = member.capture;
    if member.lane != 0 {
        capture.invalidate();
        return Err(Error::CAPTURE_UNMATCHED);
    }
    if capture.mode != Mode::Relaxed && capture.owner != std::thread::current().id() {
        return Err(Error::CAPTURE_WRONG_THREAD);
    }
    let joined = capture.finish();
    let result = match (capture.is_invalidated(), joined) {
        (true, _) => Err(Error::CAPTURE_INVALIDATED),
        (false, false) => Err(Error::CAPTURE_UNJOINED),
        (false, true) => Ok(capture.graph.clone()),
    };
    if result.is_err() {
        // Its user objects go with it.
        GRAPHS.remove(capture.graph.handle)?;
    }
    result
}

/// Lets a stream wait for an edge of a capture, of which it becomes part if it was not.
pub fn join(capture: &Arc<Capture>, edge: usize, stream: &Arc<Stream>, member: Option<Member>) -> Result<()> {
    if capture.is_invalidated() {
        return Err(Error::CAPTURE_INVALIDATED);
    }
    if let Some(member) = &member
        && !Arc::ptr_eq(&member.capture, capture)
    {
        member.capture.invalidate();
        capture.invalidate();
        return Err(Error::CAPTURE_MERGE);
    }
    if stream.kind == Kind::Legacy {
        capture.invalidate();
        return Err(Error::CAPTURE_IMPLICIT);
    }
    let mut progress = lock(&capture.progress);
    if progress.ended {
        return Err(Error::CAPTURED_EVENT);
    }
    let lane = match member {
        Some(member) => member.lane,
        None => capture.open_lane(&mut progress, stream),
    };
    let seen = progress.edges.get(edge).cloned().ok_or(Error::UNKNOWN)?;
    let clock = &mut progress.lanes.get_mut(lane).ok_or(Error::UNKNOWN)?.clock;
    for (at, count) in seen.into_iter().enumerate() {
        advance(clock, at, count);
    }
    capture.graph.add(lane, Step::Await(edge))
}

/// Sets a lane's entry of a clock to at least this count.
fn advance(clock: &mut Vec<usize>, lane: usize, count: usize) {
    if clock.len() <= lane {
        clock.resize(lane + 1, 0);
    }
    if let Some(entry) = clock.get_mut(lane) {
        *entry = (*entry).max(count);
    }
}

impl Capture {
    fn open_lane(self: &Arc<Self>, progress: &mut Progress, stream: &Arc<Stream>) -> usize {
        let lane = self.graph.open_lane(stream.device);
        progress.lanes.push(Lane { stream: stream.clone(), clock: Vec::new(), last_node: Box::default() });
        stream.capture.set(Some(Member { capture: self.clone(), lane }));
        lane
    }

    pub fn is_invalidated(&self) -> bool {
        self.invalidated.load(Ordering::Relaxed)
    }

    /// Something happened that a graph cannot hold. Its streams stay in it until its end.
    pub fn invalidate(&self) {
        self.invalidated.store(true, Ordering::Relaxed);
    }

    /// Ends it; whether all its work was joined to the first lane.
    fn finish(self: &Arc<Self>) -> bool {
        {
            let mut active = lock(&ACTIVE);
            active.retain(|other| !Arc::ptr_eq(other, self));
            COUNT.store(active.len(), Ordering::Relaxed);
        }
        let mut progress = lock(&self.progress);
        progress.ended = true;
        self.graph.complete();
        let lanes = std::mem::take(&mut progress.lanes);
        lanes.iter().for_each(|lane| lane.stream.capture.set(None));
        let seen = |at: usize| lanes.first().and_then(|first| first.clock.get(at)).copied().unwrap_or(0);
        lanes.iter().enumerate().all(|(at, lane)| seen(at) >= lane.clock.get(at).copied().unwrap_or(0))
    }

    fn has(&self, condition: impl Fn(&Stream) -> bool) -> bool {
        lock(&self.progress).lanes.iter().any(|lane| condition(&lane.stream))
    }
}

impl Member {
    pub fn add(&self, task: Task) -> Result<()> {
        let mut progress = lock(&self.capture.progress);
        let lane = progress.lanes.get_mut(self.lane).ok_or(Error::CAPTURE_INVALIDATED)?;
        let count = lane.clock.get(self.lane).copied().unwrap_or(0) + 1;
        advance(&mut lane.clock, self.lane, count);
        lane.last_node = Box::new([handle::fresh()]);
        self.capture.graph.add(self.lane, Step::Task(task))
    }

    /// A new edge, which begins here.
    pub fn signal(&self) -> Result<usize> {
        let mut progress = lock(&self.capture.progress);
        let clock = progress.lanes.get(self.lane).ok_or(Error::CAPTURE_INVALIDATED)?.clock.clone();
        let edge = progress.edges.len();
        progress.edges.push(clock);
        self.capture.graph.add(self.lane, Step::Signal(edge))?;
        Ok(edge)
    }

    pub fn record_external(&self, event: Arc<Event>) -> Result<()> {
        self.capture.graph.add(self.lane, Step::RecordExternal(event))
    }

    pub fn wait_external(&self, event: Arc<Event>) -> Result<()> {
        self.capture.graph.add(self.lane, Step::WaitExternal(event))
    }

    /// Where C finds the name of the last node, until the stream captures another, and how many there are: 0
    /// or 1.
    pub fn last_node(&self) -> (*const usize, usize) {
        let progress = lock(&self.capture.progress);
        let node = progress.lanes.get(self.lane).map(|lane| &lane.last_node);
        node.filter(|node| !node.is_empty()).map_or((std::ptr::null(), 0), |node| (node.as_ptr(), node.len()))
    }
}

/// For calls that are unsafe while somebody captures (allocations, synchronisation, queries).
pub fn refuse_unsafe() -> Result<()> {
    let me = std::thread::current().id();
    let mode = thread::mode();
    let forbids = |capture: &&Arc<Capture>| match mode {
        Mode::Relaxed => false,
        Mode::Global if capture.owner != me => capture.mode == Mode::Global,
        Mode::Global | Mode::ThreadLocal => capture.owner == me && capture.mode != Mode::Relaxed,
    };
    invalidate_all(active().iter().filter(forbids), Error::CAPTURE_UNSUPPORTED)
}

/// For calls that wait for a whole device.
pub fn refuse_device(device: &Device) -> Result<()> {
    refuse_unsafe()?;
    let active = active();
    let here = active.iter().filter(|capture| capture.has(|stream| stream.device.ordinal == device.ordinal));
    invalidate_all(here, Error::CAPTURE_UNSUPPORTED)
}

/// For work on the legacy stream, which would wait for blocking streams that capture.
pub fn refuse_legacy(device: &Device) -> Result<()> {
    let active = active();
    invalidate_all(active.iter().filter(|capture| entangles_legacy(capture, device)), Error::CAPTURE_IMPLICIT)
}

/// Whether work on the legacy stream would be refused.
pub fn is_legacy_entangled(device: &Device) -> bool {
    active().iter().any(|capture| entangles_legacy(capture, device))
}

fn entangles_legacy(capture: &Capture, device: &Device) -> bool {
    capture.has(|stream| stream.device.ordinal == device.ordinal && stream.is_blocking())
}

fn invalidate_all<'a>(captures: impl Iterator<Item = &'a Arc<Capture>>, error: Error) -> Result<()> {
    let mut result = Ok(());
    for capture in captures {
        capture.invalidate();
        result = Err(error);
    }
    result
}
