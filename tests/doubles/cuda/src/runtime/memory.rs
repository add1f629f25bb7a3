//! Memory.

use super::{Code, current, enter};
use crate::face::Out;
use crate::model::calls::call;
use crate::model::capture::refuse_unsafe;
use crate::model::error::{Error, Result};
use crate::model::memory::{self, Kind};
use crate::model::order::{enqueue, refuse_capture, resolve};
use crate::model::work::Op;
use std::ffi::{c_int, c_long, c_uint};

/// For all functions that allocate.
pub fn allocate(address: Out<usize>, kind: Kind, bytes: usize) -> Result<()> {
    let address = address.required()?;
    let device = current()?;
    refuse_unsafe()?;
    address.set(memory::allocate(device, kind, bytes)?)
}

#[unsafe(no_mangle)]
extern "C" fn cudaMalloc(address: Out<usize>, bytes: usize) -> Code {
    enter(call!("cudaMalloc"), || allocate(address, Kind::Device, bytes))
}

#[unsafe(no_mangle)]
extern "C" fn cudaMallocManaged(address: Out<usize>, bytes: usize, flags: c_uint) -> Code {
    enter(call!("cudaMallocManaged"), || {
        // For all streams (1) or, at first, for the host (2).
        if bytes == 0 || !matches!(flags, 1 | 2) {
            return Err(Error::INVALID_VALUE);
        }
        allocate(address, Kind::Managed, bytes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaMallocHost(address: Out<usize>, bytes: usize) -> Code {
    enter(call!("cudaMallocHost"), || allocate(address, Kind::Pinned, bytes))
}

#[unsafe(no_mangle)]
extern "C" fn cudaHostAlloc(address: Out<usize>, bytes: usize, flags: c_uint) -> Code {
    enter(call!("cudaHostAlloc"), || {
        if flags & !7 != 0 {
            return Err(Error::INVALID_VALUE);
        }
        allocate(address, Kind::Pinned, bytes)
    })
}

/// NULL is no memory, and waits for nothing.
#[unsafe(no_mangle)]
extern "C" fn cudaFree(address: usize) -> Code {
    enter(call!("cudaFree"), || {
        current()?;
        if address == 0 {
            return Ok(());
        }
        refuse_unsafe()?;
        memory::free_device(address)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaFreeHost(address: usize) -> Code {
    enter(call!("cudaFreeHost"), || {
        current()?;
        if address == 0 {
            return Ok(());
        }
        refuse_unsafe()?;
        memory::free_host(address)
    })
}

/// The memory is there at once, which no program can tell from stream order.
#[unsafe(no_mangle)]
extern "C" fn cudaMallocAsync(address: Out<usize>, bytes: usize, stream: usize) -> Code {
    enter(call!("cudaMallocAsync"), || {
        let address = address.required()?;
        let stream = resolve(stream, current)?;
        refuse_capture(&stream)?;
        address.set(memory::allocate(stream.device, Kind::Device, bytes)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaFreeAsync(address: usize, stream: usize) -> Code {
    enter(call!("cudaFreeAsync"), || {
        let stream = resolve(stream, current)?;
        refuse_capture(&stream)?;
        if address == 0 {
            return Ok(());
        }
        memory::at(address).filter(|block| block.kind == Kind::Device).ok_or(Error::INVALID_VALUE)?;
        enqueue(&stream, [Op::Free(address)])
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaHostRegister(address: usize, bytes: usize, flags: c_uint) -> Code {
    enter(call!("cudaHostRegister"), || {
        let device = current()?;
        if flags & !15 != 0 {
            return Err(Error::INVALID_VALUE);
        }
        refuse_unsafe()?;
        memory::register(device, address, bytes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaHostUnregister(address: usize) -> Code {
    enter(call!("cudaHostUnregister"), || {
        current()?;
        refuse_unsafe()?;
        memory::unregister(address)
    })
}

/// Devices and the host see memory at the same address.
#[unsafe(no_mangle)]
extern "C" fn cudaHostGetDevicePointer(address: Out<usize>, host: usize, flags: c_uint) -> Code {
    enter(call!("cudaHostGetDevicePointer"), || {
        current()?;
        let mapped = |block: &memory::Block| matches!(block.kind, Kind::Pinned | Kind::Registered);
        if flags != 0 || memory::find(host).filter(mapped).is_none() {
            return Err(Error::INVALID_VALUE);
        }
        address.set(host)
    })
}

/// The part of `cudaPointerAttributes` that all versions have. Those that follow in 13 are reserved.
#[repr(C)]
struct PointerAttributes {
    kind: c_int,
    device: c_int,
    device_address: usize,
    host_address: usize,
}

const _: () = assert!(size_of::<PointerAttributes>() == 2 * size_of::<c_int>() + 2 * size_of::<c_long>());

#[unsafe(no_mangle)]
extern "C" fn cudaPointerGetAttributes(attributes: Out<PointerAttributes>, address: usize) -> Code {
    enter(call!("cudaPointerGetAttributes"), || {
        current()?;
        attributes.set(describe(address))
    })
}

fn describe(address: usize) -> PointerAttributes {
    const UNREGISTERED: c_int = 0;
    const HOST: c_int = 1;
    const DEVICE: c_int = 2;
    const MANAGED: c_int = 3;
    const NO_DEVICE: c_int = -2;
    let Some(block) = memory::find(address) else {
        let (kind, device) = (UNREGISTERED, NO_DEVICE);
        return PointerAttributes { kind, device, device_address: 0, host_address: address };
    };
    let (kind, host_address) = match block.kind {
        Kind::Device => (DEVICE, 0),
        Kind::Managed => (MANAGED, address),
        Kind::Pinned | Kind::Registered => (HOST, address),
    };
    PointerAttributes { kind, device: block.device.ordinal, device_address: address, host_address }
}
