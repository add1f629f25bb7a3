//! Which part of a buffer holds what before an operation, and has to hold what after it. Pure.

use super::op::Op;
use super::pattern::Content;

/// A part of a buffer, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins in the send or receive buffer.
    pub at: usize,
    pub count: usize,
    pub content: Content,
    /// At which element its pattern begins.
    pub start: usize,
}

/// One operation as one rank sees it.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub op: Op,
    pub rank: usize,
    pub nranks: usize,
    pub root: usize,
    /// As the C function has it.
    pub count: usize,
    /// Messages that are under way together.
    pub window: usize,
}

impl View {
    fn whole(&self, count: usize, content: Content) -> Vec<Part> {
        vec![Part { at: 0, count, content, start: 0 }]
    }

    /// Parts of `count` elements each.
    fn parts(&self, number: usize, content: impl Fn(usize) -> Content) -> Vec<Part> {
        let part = |i| Part { at: i * self.count, count: self.count, content: content(i), start: 0 };
        (0..number).map(part).collect()
    }

    /// What this rank sends.
    pub fn sent(&self) -> Vec<Part> {
        let &View { op, rank, nranks, root, count, .. } = self;
        let data = |to| Content::Data { from: rank, to };
        match op {
            Op::Barrier => Vec::new(),
            Op::Broadcast | Op::Scatter if rank != root => Vec::new(),
            Op::Bwd => self.parts(self.window, data),
            Op::Scatter | Op::AllToAll => self.parts(nranks, data),
            Op::AllReduce | Op::Reduce => self.whole(count, Content::Input { rank }),
            Op::ReduceScatter => self.whole(count * nranks, Content::Input { rank }),
            Op::SendRecv | Op::Bw | Op::AllGather | Op::Gather | Op::Broadcast => self.whole(count, data(0)),
        }
    }

    /// What this rank has to find in its receive buffer.
    pub fn received(&self) -> Vec<Part> {
        let &View { op, rank, nranks, root, count, .. } = self;
        let data = |from, to| Content::Data { from, to };
        match op {
            Op::Barrier => Vec::new(),
            Op::Reduce | Op::Gather if rank != root => Vec::new(),
            Op::Bw | Op::Bwd if rank != 1 => Vec::new(),
            Op::SendRecv if rank > 1 => Vec::new(),
            Op::SendRecv => self.whole(count, data(1 - rank, 0)),
            Op::Bw => self.whole(count, data(0, 0)),
            Op::Bwd => self.parts(self.window, |slot| data(0, slot)),
            Op::AllReduce | Op::Reduce => self.whole(count, Content::Reduced),
            Op::ReduceScatter => vec![Part { at: 0, count, content: Content::Reduced, start: rank * count }],
            Op::AllGather | Op::Gather => self.parts(nranks, |from| data(from, 0)),
            Op::AllToAll => self.parts(nranks, |from| data(from, rank)),
            Op::Broadcast => self.whole(count, data(root, 0)),
            Op::Scatter => self.whole(count, data(root, rank)),
        }
    }

    /// In place: where send and receive buffer begin in the one buffer, in elements.
    pub fn in_place(&self) -> (usize, usize) {
        let mine = self.rank * self.count;
        match self.op {
            Op::AllGather | Op::Gather => (mine, 0),
            Op::ReduceScatter | Op::Scatter => (0, mine),
            _ => (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(op: Op, rank: usize) -> View {
        View { op, rank, nranks: 3, root: 1, count: 10, window: op.window(40) }
    }

    #[test]
    fn what_is_received_was_sent() {
        for op in Op::ALL {
            let sent: Vec<Content> =
                (0..3).flat_map(|rank| view(op, rank).sent()).map(|part| part.content).collect();
            for part in (0..3).flat_map(|rank| view(op, rank).received()) {
                assert!(part.content == Content::Reduced || sent.contains(&part.content), "{op:?} {part:?}");
            }
        }
    }

    #[test]
    fn parts_fit_into_the_buffers() {
        for (op, rank) in Op::ALL.into_iter().flat_map(|op| [0, 1, 2].map(|rank| (op, rank))) {
            let (view, room) = (view(op, rank), op.buffers(10, 3));
            let fits = |parts: Vec<Part>, room: usize| parts.iter().all(|p| p.at + p.count <= room);
            assert!(fits(view.sent(), room.send) && fits(view.received(), room.recv), "{op:?}");
            if op.has_in_place() {
                let (send, recv) = view.in_place();
                let room = room.send.max(room.recv);
                let shifted = |parts: Vec<Part>, by| {
                    parts.into_iter().map(|p| Part { at: p.at + by, ..p }).collect::<Vec<_>>()
                };
                let together =
                    fits(shifted(view.sent(), send), room) && fits(shifted(view.received(), recv), room);
                assert!(together, "{op:?}");
            }
        }
    }

    #[test]
    fn only_the_root_receives_what_is_for_it() {
        assert_eq!(view(Op::Reduce, 0).received(), []);
        assert_eq!(view(Op::Reduce, 1).received().len(), 1);
        assert_eq!(view(Op::Scatter, 0).sent(), []);
        assert_eq!(view(Op::ReduceScatter, 2).received()[0].start, 20);
    }
}
