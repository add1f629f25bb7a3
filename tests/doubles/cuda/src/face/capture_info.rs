//! What C learns about a stream's capture.

use crate::face::Out;
use crate::model::capture::is_legacy_entangled;
use crate::model::error::{Error, Result};
use crate::model::stream::{Kind, Stream};

/// `cudaStreamCaptureStatus`
const NONE: i32 = 0;
const ACTIVE: i32 = 1;
const INVALIDATED: i32 = 2;

pub struct Info {
    pub status: i32,
    id: u64,
    graph: usize,
    nodes: *const usize,
    count: usize,
}

pub fn of(stream: &Stream) -> Result<Info> {
    if stream.kind == Kind::Legacy && is_legacy_entangled(stream.device) {
        return Err(Error::CAPTURE_IMPLICIT);
    }
    let Some(member) = stream.capture.membership() else {
        return Ok(Info { status: NONE, id: 0, graph: 0, nodes: std::ptr::null(), count: 0 });
    };
    let status = if member.capture.is_invalidated() { INVALIDATED } else { ACTIVE };
    let (nodes, count) = member.last_node();
    Ok(Info { status, id: member.capture.id, graph: member.capture.graph.handle, nodes, count })
}

impl Info {
    /// Only the status has to be asked for; the rest is told of active captures.
    pub fn tell(
        &self,
        status: Out<i32>,
        id: Out<u64>,
        graph: Out<usize>,
        nodes: Out<*const usize>,
        count: Out<usize>,
    ) -> Result<()> {
        status.set(self.status)?;
        if self.status == ACTIVE {
            id.set_if_wanted(self.id);
            graph.set_if_wanted(self.graph);
            nodes.set_if_wanted(self.nodes);
            count.set_if_wanted(self.count);
        }
        Ok(())
    }
}
