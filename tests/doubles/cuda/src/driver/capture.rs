//! Stream capture.

use super::{Code, current, enter};
use crate::face::{Out, capture_info};
use crate::model::calls::call;
use crate::model::capture::{self, Mode};
use crate::model::order::resolve;
use crate::model::thread;
use std::ffi::{c_int, c_ulonglong};

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(stream: usize, mode: c_int) -> Code {
    enter(call!("cuStreamBeginCapture_v2"), || {
        let mode = Mode::try_from(mode)?;
        capture::begin(&resolve(stream, current)?, mode)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamEndCapture(stream: usize, graph: Out<usize>) -> Code {
    enter(call!("cuStreamEndCapture"), || {
        graph.required()?.set_if_wanted(0);
        graph.set(capture::end(&resolve(stream, current)?)?.handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamIsCapturing(stream: usize, status: Out<c_int>) -> Code {
    enter(call!("cuStreamIsCapturing"), || status.set(capture_info::of(&*resolve(stream, current)?)?.status))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetCaptureInfo_v2(
    stream: usize,
    status: Out<c_int>,
    id: Out<c_ulonglong>,
    graph: Out<usize>,
    nodes: Out<*const usize>,
    count: Out<usize>,
) -> Code {
    enter(call!("cuStreamGetCaptureInfo_v2"), || {
        let info = capture_info::of(&*resolve(stream, current)?)?;
        info.tell(status, id, graph, nodes, count)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetCaptureInfo_v3(
    stream: usize,
    status: Out<c_int>,
    id: Out<c_ulonglong>,
    graph: Out<usize>,
    nodes: Out<*const usize>,
    edge_data: Out<usize>,
    count: Out<usize>,
) -> Code {
    enter(call!("cuStreamGetCaptureInfo_v3"), || {
        let info = capture_info::of(&*resolve(stream, current)?)?;
        info.tell(status, id, graph, nodes, count)?;
        edge_data.set_if_wanted(0);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuThreadExchangeStreamCaptureMode(mode: Out<c_int>) -> Code {
    enter(call!("cuThreadExchangeStreamCaptureMode"), || {
        let before = thread::exchange_mode(Mode::try_from(mode.get()?)?);
        mode.set(before as c_int)
    })
}
