//! Graphs, which only capture makes.

use super::{Code, current, enter};
use crate::face::Out;
use crate::model::calls::call;
use crate::model::graph::{self, EXECUTABLES};
use crate::model::order::resolve;
use std::ffi::c_ulonglong;

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphInstantiateWithFlags(
    executable: Out<usize>,
    graph: usize,
    _flags: c_ulonglong,
) -> Code {
    enter(call!("cuGraphInstantiateWithFlags"), || {
        let executable = executable.required()?;
        current()?;
        executable.set(graph::instantiate(graph)?)
    })
}

/// There is nothing to prepare.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphUpload(executable: usize, stream: usize) -> Code {
    enter(call!("cuGraphUpload"), || {
        resolve(stream, current)?;
        EXECUTABLES.get(executable).map(drop)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(executable: usize, stream: usize) -> Code {
    enter(call!("cuGraphLaunch"), || {
        let stream = resolve(stream, current)?;
        EXECUTABLES.get(executable)?.launch(&stream)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(executable: usize) -> Code {
    enter(call!("cuGraphExecDestroy"), || EXECUTABLES.remove(executable).map(drop))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(graph: usize) -> Code {
    enter(call!("cuGraphDestroy"), || graph::destroy(graph))
}
