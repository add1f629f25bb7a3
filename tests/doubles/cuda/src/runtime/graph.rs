//! Graphs and user objects.

use super::{Code, current, enter};
use crate::face::Out;
use crate::model::calls::call;
use crate::model::error::{Error, Result};
use crate::model::graph::{self, EXECUTABLES, GRAPHS, Graph};
use crate::model::order::resolve;
use crate::model::user_object::{USER_OBJECTS, UserObject};
use crate::model::work::{Address, HostFunction};
use std::ffi::{c_uint, c_ulonglong, c_void};

/// An empty one; only capture adds to a graph.
#[unsafe(no_mangle)]
extern "C" fn cudaGraphCreate(handle: Out<usize>, flags: c_uint) -> Code {
    enter(call!("cudaGraphCreate"), || {
        let handle = handle.required()?;
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        let graph = Graph::new(false);
        GRAPHS.insert(graph.handle, graph.clone());
        handle.set(graph.handle)
    })
}

fn instantiate(executable: Out<usize>, graph: usize) -> Result<()> {
    let executable = executable.required()?;
    current()?;
    executable.set(graph::instantiate(graph)?)
}

/// The flags choose optimisations that change no result.
#[unsafe(no_mangle)]
extern "C" fn cudaGraphInstantiate(executable: Out<usize>, graph: usize, _flags: c_ulonglong) -> Code {
    enter(call!("cudaGraphInstantiate"), || instantiate(executable, graph))
}

#[unsafe(no_mangle)]
extern "C" fn cudaGraphInstantiateWithFlags(
    executable: Out<usize>,
    graph: usize,
    _flags: c_ulonglong,
) -> Code {
    enter(call!("cudaGraphInstantiateWithFlags"), || instantiate(executable, graph))
}

#[unsafe(no_mangle)]
extern "C" fn cudaGraphLaunch(executable: usize, stream: usize) -> Code {
    enter(call!("cudaGraphLaunch"), || {
        let stream = resolve(stream, current)?;
        EXECUTABLES.get(executable)?.launch(&stream)
    })
}

/// Launches that are under way finish.
#[unsafe(no_mangle)]
extern "C" fn cudaGraphExecDestroy(executable: usize) -> Code {
    enter(call!("cudaGraphExecDestroy"), || EXECUTABLES.remove(executable).map(drop))
}

#[unsafe(no_mangle)]
extern "C" fn cudaGraphDestroy(graph: usize) -> Code {
    enter(call!("cudaGraphDestroy"), || graph::destroy(graph))
}

/// `cudaUserObjectNoDestructorSync`, which there is no other way than.
const NO_DESTRUCTOR_SYNC: c_uint = 1;
/// `cudaGraphUserObjectMove`
const MOVE: c_uint = 1;

#[unsafe(no_mangle)]
extern "C" fn cudaUserObjectCreate(
    object: Out<usize>,
    data: *mut c_void,
    destructor: Option<HostFunction>,
    references: c_uint,
    flags: c_uint,
) -> Code {
    enter(call!("cudaUserObjectCreate"), || {
        let object = object.required()?;
        let destructor = destructor.filter(|_| flags == NO_DESTRUCTOR_SYNC).ok_or(Error::INVALID_VALUE)?;
        object.set(UserObject::create(destructor, Address(data), references)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaUserObjectRetain(object: usize, count: c_uint) -> Code {
    enter(call!("cudaUserObjectRetain"), || USER_OBJECTS.get(object)?.retain(count))
}

#[unsafe(no_mangle)]
extern "C" fn cudaUserObjectRelease(object: usize, count: c_uint) -> Code {
    enter(call!("cudaUserObjectRelease"), || USER_OBJECTS.get(object)?.release(count))
}

#[unsafe(no_mangle)]
extern "C" fn cudaGraphRetainUserObject(graph: usize, object: usize, count: c_uint, flags: c_uint) -> Code {
    enter(call!("cudaGraphRetainUserObject"), || {
        if flags & !MOVE != 0 {
            return Err(Error::INVALID_VALUE);
        }
        GRAPHS.get(graph)?.references.add(USER_OBJECTS.get(object)?, count, flags == MOVE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaGraphReleaseUserObject(graph: usize, object: usize, count: c_uint) -> Code {
    enter(call!("cudaGraphReleaseUserObject"), || {
        GRAPHS.get(graph)?.references.remove(&USER_OBJECTS.get(object)?, count)
    })
}
