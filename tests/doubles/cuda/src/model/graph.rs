//! Graphs: lanes of steps, each in order, held together by edges. Launched, every lane is a stream's work:
//! the first on the stream of the launch, the others on streams of their own.

use crate::model::device::Device;
use crate::model::error::{Error, Result};
use crate::model::event::Event;
use crate::model::handle::{self, Table};
use crate::model::lock;
use crate::model::order::{enqueue_all, refuse_capture};
use crate::model::record::Record;
use crate::model::stream::{Kind, Stream};
use crate::model::user_object::References;
use crate::model::work::{Op, Task};
use std::sync::{Arc, Mutex};

pub static GRAPHS: Table<Graph> = Table::new();
pub static EXECUTABLES: Table<Executable> = Table::new();

#[derive(Clone)]
pub enum Step {
    Task(Task),
    Signal(usize),
    Await(usize),
    RecordExternal(Arc<Event>),
    WaitExternal(Arc<Event>),
}

#[derive(Clone)]
struct Lane {
    device: &'static Device,
    steps: Vec<Step>,
}

pub struct Graph {
    pub handle: usize,
    pub references: References,
    body: Mutex<Body>,
}

#[derive(Default)]
struct Body {
    capturing: bool,
    lanes: Vec<Lane>,
    edges: usize,
}

impl Graph {
    pub fn new(capturing: bool) -> Arc<Graph> {
        let body = Mutex::new(Body { capturing, ..Body::default() });
        Arc::new(Graph { handle: handle::fresh(), references: References::default(), body })
    }

    pub fn open_lane(&self, device: &'static Device) -> usize {
        let mut body = lock(&self.body);
        body.lanes.push(Lane { device, steps: Vec::new() });
        body.lanes.len() - 1
    }

    pub fn add(&self, lane: usize, step: Step) -> Result<()> {
        let mut body = lock(&self.body);
        if let Step::Signal(edge) = step {
            body.edges = body.edges.max(edge + 1);
        }
        body.lanes.get_mut(lane).ok_or(Error::UNKNOWN)?.steps.push(step);
        Ok(())
    }

    /// Its capture is over.
    pub fn complete(&self) {
        lock(&self.body).capturing = false;
    }

    pub fn is_capturing(&self) -> bool {
        lock(&self.body).capturing
    }
}

/// Takes the handle away; executables made of it stay.
pub fn destroy(graph: usize) -> Result<()> {
    if GRAPHS.get(graph)?.is_capturing() {
        return Err(Error::ILLEGAL_STATE);
    }
    GRAPHS.remove(graph).map(drop)
}

/// A graph as it was when it was instantiated.
pub struct Executable {
    lanes: Vec<Lane>,
    edges: usize,
    /// Of all lanes but the first.
    branches: Vec<Arc<Stream>>,
    /// The end of its latest launch: launches of one executable follow each other.
    latest: Mutex<Option<Arc<Record>>>,
    /// Dropped with it.
    _references: References,
}

impl Drop for Executable {
    fn drop(&mut self) {
        self.branches.iter().for_each(Stream::close);
    }
}

pub fn instantiate(graph: usize) -> Result<usize> {
    let graph = GRAPHS.get(graph)?;
    let (lanes, edges) = {
        let body = lock(&graph.body);
        if body.capturing {
            return Err(Error::ILLEGAL_STATE);
        }
        (body.lanes.clone(), body.edges)
    };
    let branches = lanes.iter().skip(1).map(|lane| Stream::new(lane.device, Kind::Branch, 0)).collect();
    let executable = Executable {
        lanes,
        edges,
        branches,
        latest: Mutex::default(),
        _references: graph.references.duplicate()?,
    };
    let handle = handle::fresh();
    EXECUTABLES.insert(handle, Arc::new(executable));
    Ok(handle)
}

impl Executable {
    pub fn launch(self: &Arc<Self>, stream: &Arc<Stream>) -> Result<()> {
        refuse_capture(stream)?;
        self.lanes.iter().try_for_each(|lane| lane.device.touch())?;
        let mut latest = lock(&self.latest);
        let edges: Vec<Arc<Record>> = (0..self.edges).map(|_| Record::new()).collect();
        let (start, end) = (Record::new(), Record::new());
        let mut lanes = self.lanes.iter();
        let mut first: Vec<Op> = latest.iter().cloned().map(Op::Wait).collect();
        first.push(Op::mark(&start));
        if let Some(lane) = lanes.next() {
            first.extend(lane.ops(&edges));
        }
        let mut branches = Vec::new();
        for lane in lanes {
            let finished = Record::new();
            let mut ops = vec![Op::Wait(start.clone())];
            ops.extend(lane.ops(&edges));
            ops.push(Op::mark(&finished));
            first.push(Op::Wait(finished));
            branches.push(ops);
        }
        first.push(Op::mark(&end));
        first.push(Op::Release(self.clone()));
        // The first lane goes first: if it is refused, the branches' marks are dropped and nobody waits.
        enqueue_all(stream, first)?;
        for (branch, ops) in self.branches.iter().zip(branches) {
            branch.push(ops)?;
        }
        *latest = Some(end);
        Ok(())
    }
}

impl Lane {
    /// The lane's work for one launch, which has edges of its own.
    fn ops(&self, edges: &[Arc<Record>]) -> Vec<Op> {
        let edge = |at: &usize| edges.get(*at);
        let op = |step: &Step| match step {
            Step::Task(task) => Some(Op::Task(task.clone())),
            Step::Signal(at) => edge(at).map(Op::mark),
            Step::Await(at) => edge(at).cloned().map(Op::Wait),
            Step::RecordExternal(event) => Some(Op::mark(&event.renew())),
            Step::WaitExternal(event) => event.newest().map(Op::Wait),
        };
        self.steps.iter().filter_map(op).collect()
    }
}
