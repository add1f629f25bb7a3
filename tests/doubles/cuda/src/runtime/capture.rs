//! Stream capture.

use super::{Code, current, enter};
use crate::face::Out;
use crate::face::capture_info;
use crate::model::calls::call;
use crate::model::capture::{self, Mode};
use crate::model::order::resolve;
use crate::model::thread;
use std::ffi::{c_int, c_ulonglong};

#[unsafe(no_mangle)]
extern "C" fn cudaStreamBeginCapture(stream: usize, mode: c_int) -> Code {
    enter(call!("cudaStreamBeginCapture"), || {
        let mode = Mode::try_from(mode)?;
        capture::begin(&resolve(stream, current)?, mode)
    })
}

/// A capture that failed gives no graph.
#[unsafe(no_mangle)]
extern "C" fn cudaStreamEndCapture(stream: usize, graph: Out<usize>) -> Code {
    enter(call!("cudaStreamEndCapture"), || {
        graph.required()?.set_if_wanted(0);
        graph.set(capture::end(&resolve(stream, current)?)?.handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamIsCapturing(stream: usize, status: Out<c_int>) -> Code {
    enter(call!("cudaStreamIsCapturing"), || {
        status.set(capture_info::of(&*resolve(stream, current)?)?.status)
    })
}

/// As headers 13 have it.
#[unsafe(no_mangle)]
extern "C" fn cudaStreamGetCaptureInfo(
    stream: usize,
    status: Out<c_int>,
    id: Out<c_ulonglong>,
    graph: Out<usize>,
    nodes: Out<*const usize>,
    edge_data: Out<usize>,
    count: Out<usize>,
) -> Code {
    enter(call!("cudaStreamGetCaptureInfo"), || {
        let info = capture_info::of(&*resolve(stream, current)?)?;
        info.tell(status, id, graph, nodes, count)?;
        edge_data.set_if_wanted(0);
        Ok(())
    })
}

/// As headers 12 have it, which give `cudaStreamGetCaptureInfo` this name.
#[unsafe(no_mangle)]
extern "C" fn cudaStreamGetCaptureInfo_v2(
    stream: usize,
    status: Out<c_int>,
    id: Out<c_ulonglong>,
    graph: Out<usize>,
    nodes: Out<*const usize>,
    count: Out<usize>,
) -> Code {
    enter(call!("cudaStreamGetCaptureInfo_v2"), || {
        let info = capture_info::of(&*resolve(stream, current)?)?;
        info.tell(status, id, graph, nodes, count)
    })
}

/// What 12 calls the function that 13 calls `cudaStreamGetCaptureInfo`.
#[unsafe(no_mangle)]
extern "C" fn cudaStreamGetCaptureInfo_v3(
    stream: usize,
    status: Out<c_int>,
    id: Out<c_ulonglong>,
    graph: Out<usize>,
    nodes: Out<*const usize>,
    edge_data: Out<usize>,
    count: Out<usize>,
) -> Code {
    enter(call!("cudaStreamGetCaptureInfo_v3"), || {
        let info = capture_info::of(&*resolve(stream, current)?)?;
        info.tell(status, id, graph, nodes, count)?;
        edge_data.set_if_wanted(0);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaThreadExchangeStreamCaptureMode(mode: Out<c_int>) -> Code {
    enter(call!("cudaThreadExchangeStreamCaptureMode"), || {
        let before = thread::exchange_mode(Mode::try_from(mode.get()?)?);
        mode.set(before as c_int)
    })
}
