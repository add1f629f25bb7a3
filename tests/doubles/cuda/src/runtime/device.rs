//! Devices.

use super::{Code, current, enter, enter_plain};
use crate::driver::entries;
use crate::face::{Out, Text, write_text};
use crate::model::calls::call;
use crate::model::capture::refuse_device;
use crate::model::device::{Device, attribute, device, devices};
use crate::model::error::{Error, Result};
use crate::model::settings::settings;
use crate::model::{lock, memory, stream, thread};
use std::ffi::{c_char, c_int, c_uint, c_ulonglong};

#[unsafe(no_mangle)]
extern "C" fn cudaGetDeviceCount(count: Out<c_int>) -> Code {
    enter_plain(call!("cudaGetDeviceCount"), || {
        count.required()?.set_if_wanted(0);
        count.set(devices()?.len() as c_int)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaSetDevice(ordinal: c_int) -> Code {
    enter(call!("cudaSetDevice"), || {
        let device = device(ordinal)?;
        // A broken device becomes the current one, too, so that who ignores the error meets it again.
        thread::set_current(Some(device));
        device.touch()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaInitDevice(ordinal: c_int, _device_flags: c_uint, _flags: c_uint) -> Code {
    enter(call!("cudaInitDevice"), || device(ordinal)?.touch())
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetDevice(ordinal: Out<c_int>) -> Code {
    enter(call!("cudaGetDevice"), || {
        // Asking does not choose.
        ordinal.set(thread::current().map_or(0, |device| device.ordinal))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaSetDeviceFlags(_flags: c_uint) -> Code {
    enter(call!("cudaSetDeviceFlags"), || current().map(drop))
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetDeviceFlags(flags: Out<c_uint>) -> Code {
    enter(call!("cudaGetDeviceFlags"), || {
        current()?;
        flags.set(0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaDeviceSynchronize() -> Code {
    enter(call!("cudaDeviceSynchronize"), || {
        let device = current()?;
        refuse_device(device)?;
        device.synchronize()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaDeviceReset() -> Code {
    enter(call!("cudaDeviceReset"), || current()?.reset())
}

#[unsafe(no_mangle)]
extern "C" fn cudaDeviceGetAttribute(value: Out<c_int>, number: c_int, ordinal: c_int) -> Code {
    enter(call!("cudaDeviceGetAttribute"), || {
        let value = value.required()?;
        value.set(attribute(device(ordinal)?, number)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaDeviceGetPCIBusId(text: Out<c_char>, length: c_int, ordinal: c_int) -> Code {
    enter(call!("cudaDeviceGetPCIBusId"), || {
        write_text(text, length, device(ordinal)?.pci_bus_id().as_bytes())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaDeviceGetByPCIBusId(ordinal: Out<c_int>, text: Text) -> Code {
    enter(call!("cudaDeviceGetByPCIBusId"), || {
        let text = text.get()?;
        let named = |device: &&Device| device.pci_bus_id().eq_ignore_ascii_case(text);
        ordinal.set(devices()?.iter().find(named).ok_or(Error::INVALID_DEVICE)?.ordinal)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaDeviceGetStreamPriorityRange(least: Out<c_int>, greatest: Out<c_int>) -> Code {
    enter(call!("cudaDeviceGetStreamPriorityRange"), || {
        current()?;
        least.set_if_wanted(stream::LEAST_PRIORITY);
        greatest.set_if_wanted(stream::GREATEST_PRIORITY);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaDeviceCanAccessPeer(can: Out<c_int>, ordinal: c_int, peer: c_int) -> Code {
    enter(call!("cudaDeviceCanAccessPeer"), || {
        let can = can.required()?;
        can.set(c_int::from(device(ordinal)?.ordinal != device(peer)?.ordinal))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaDeviceEnablePeerAccess(peer: c_int, flags: c_uint) -> Code {
    enter(call!("cudaDeviceEnablePeerAccess"), || {
        let (here, peer) = (current()?, device(peer)?);
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        enable_peer(here, peer)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaDeviceDisablePeerAccess(peer: c_int) -> Code {
    enter(call!("cudaDeviceDisablePeerAccess"), || {
        let (here, peer) = (current()?, device(peer)?);
        let was_enabled = lock(&here.peers).remove(&peer.ordinal);
        if was_enabled { Ok(()) } else { Err(Error::PEER_ACCESS_NOT_ENABLED) }
    })
}

fn enable_peer(device: &Device, peer: &Device) -> Result<()> {
    if device.ordinal == peer.ordinal {
        return Err(Error::INVALID_DEVICE);
    }
    let is_new = lock(&device.peers).insert(peer.ordinal);
    if is_new { Ok(()) } else { Err(Error::PEER_ACCESS_ALREADY_ENABLED) }
}

#[unsafe(no_mangle)]
extern "C" fn cudaMemGetInfo(free: Out<usize>, total: Out<usize>) -> Code {
    enter(call!("cudaMemGetInfo"), || {
        let figures = memory::figures(current()?.ordinal)?;
        free.set_if_wanted(figures.0);
        total.set_if_wanted(figures.1);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaRuntimeGetVersion(version: Out<c_int>) -> Code {
    enter_plain(call!("cudaRuntimeGetVersion"), || version.set(settings()?.version))
}

#[unsafe(no_mangle)]
extern "C" fn cudaDriverGetVersion(version: Out<c_int>) -> Code {
    enter_plain(call!("cudaDriverGetVersion"), || version.set(settings()?.version))
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetDriverEntryPoint(
    symbol: Text,
    address: Out<usize>,
    _flags: c_ulonglong,
    status: Out<c_int>,
) -> Code {
    enter_plain(call!("cudaGetDriverEntryPoint"), || {
        entries::find_for_runtime(symbol, settings()?.version, address, status)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetDriverEntryPointByVersion(
    symbol: Text,
    address: Out<usize>,
    version: c_uint,
    _flags: c_ulonglong,
    status: Out<c_int>,
) -> Code {
    enter_plain(call!("cudaGetDriverEntryPointByVersion"), || {
        let version = c_int::try_from(version).map_err(|_| Error::INVALID_VALUE)?;
        entries::find_for_runtime(symbol, version, address, status)
    })
}
