//! Memory. A `CUdeviceptr` is an address.

use super::{Code, context, current, enter};
use crate::face::Out;
use crate::model::calls::call;
use crate::model::capture::refuse_unsafe;
use crate::model::error::{Error, Result};
use crate::model::memory::{self, Block, Kind};
use crate::model::order::{enqueue, refuse_capture, resolve};
use crate::model::work::Op;
use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

/// The driver refuses to allocate nothing.
fn allocate(address: Out<usize>, kind: Kind, bytes: usize) -> Result<()> {
    let address = address.required()?;
    let device = current()?;
    if bytes == 0 {
        return Err(Error::INVALID_VALUE);
    }
    refuse_unsafe()?;
    address.set(memory::allocate(device, kind, bytes)?)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAlloc_v2(address: Out<usize>, bytes: usize) -> Code {
    enter(call!("cuMemAlloc_v2"), || allocate(address, Kind::Device, bytes))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAllocManaged(address: Out<usize>, bytes: usize, flags: c_uint) -> Code {
    enter(call!("cuMemAllocManaged"), || {
        if !matches!(flags, 1 | 2) {
            return Err(Error::INVALID_VALUE);
        }
        allocate(address, Kind::Managed, bytes)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAllocHost_v2(address: Out<usize>, bytes: usize) -> Code {
    enter(call!("cuMemAllocHost_v2"), || allocate(address, Kind::Pinned, bytes))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostAlloc(address: Out<usize>, bytes: usize, flags: c_uint) -> Code {
    enter(call!("cuMemHostAlloc"), || {
        if flags & !7 != 0 {
            return Err(Error::INVALID_VALUE);
        }
        allocate(address, Kind::Pinned, bytes)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: usize) -> Code {
    enter(call!("cuMemFree_v2"), || {
        current()?;
        refuse_unsafe()?;
        memory::free_device(address)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(address: usize) -> Code {
    enter(call!("cuMemFreeHost"), || {
        current()?;
        refuse_unsafe()?;
        memory::free_host(address)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAllocAsync(address: Out<usize>, bytes: usize, stream: usize) -> Code {
    enter(call!("cuMemAllocAsync"), || {
        let address = address.required()?;
        let stream = resolve(stream, current)?;
        if bytes == 0 {
            return Err(Error::INVALID_VALUE);
        }
        refuse_capture(&stream)?;
        address.set(memory::allocate(stream.device, Kind::Device, bytes)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeAsync(address: usize, stream: usize) -> Code {
    enter(call!("cuMemFreeAsync"), || {
        let stream = resolve(stream, current)?;
        refuse_capture(&stream)?;
        memory::at(address).filter(|block| block.kind == Kind::Device).ok_or(Error::INVALID_VALUE)?;
        enqueue(&stream, [Op::Free(address)])
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) -> Code {
    enter(call!("cuMemGetInfo_v2"), || {
        let figures = memory::figures(current()?.ordinal)?;
        free.set_if_wanted(figures.0);
        total.set_if_wanted(figures.1);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetAddressRange_v2(base: Out<usize>, bytes: Out<usize>, address: usize) -> Code {
    enter(call!("cuMemGetAddressRange_v2"), || {
        let block = memory::find(address).ok_or(Error::NOT_FOUND)?;
        base.set_if_wanted(block.base);
        bytes.set_if_wanted(block.bytes);
        Ok(())
    })
}

/// `CUpointer_attribute` says what is at `data`.
#[unsafe(no_mangle)]
pub extern "C" fn cuPointerGetAttribute(data: Out<c_void>, number: c_int, address: usize) -> Code {
    enter(call!("cuPointerGetAttribute"), || {
        let data = data.required()?;
        describe(data, number, &memory::find(address).ok_or(Error::INVALID_VALUE)?, address)
    })
}

fn describe(data: Out<c_void>, number: c_int, block: &Block, address: usize) -> Result<()> {
    const HOST: c_uint = 1;
    const DEVICE: c_uint = 2;
    let on_host = block.kind != Kind::Device;
    match number {
        1 => data.cast().set(context::handle(Some(block.device))),
        // Managed memory counts as the device's.
        2 => data.cast().set(if matches!(block.kind, Kind::Device | Kind::Managed) { DEVICE } else { HOST }),
        3 => data.cast().set(address),
        4 if on_host => data.cast().set(address),
        4 => Err(Error::INVALID_VALUE),
        7 => data.cast::<c_ulonglong>().set(block.id),
        8 => data.cast::<c_uint>().set(c_uint::from(block.kind == Kind::Managed)),
        9 => data.cast::<c_int>().set(block.device.ordinal),
        11 => data.cast().set(block.base),
        12 => data.cast().set(block.bytes),
        13 => data.cast::<u8>().set(1),
        _ => Err(Error::NOT_SUPPORTED),
    }
}
