//! Initialisation and devices.

use super::{Code, enter, enter_plain};
use crate::face::{Out, write_text};
use crate::model::calls::{call, guarded};
use crate::model::device::{attribute, device, devices, mark_initialized};
use crate::model::error::Error;
use crate::model::settings::settings;
use std::ffi::{c_char, c_int, c_uint};

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: c_uint) -> Code {
    let initialize = || {
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        mark_initialized();
        Ok(())
    };
    super::report(guarded(call!("cuInit"), initialize))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDriverGetVersion(version: Out<c_int>) -> Code {
    enter_plain(call!("cuDriverGetVersion"), || version.set(settings()?.version))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetCount(count: Out<c_int>) -> Code {
    enter(call!("cuDeviceGetCount"), || count.set(devices()?.len() as c_int))
}

/// A `CUdevice` is the ordinal.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGet(handle: Out<c_int>, ordinal: c_int) -> Code {
    enter(call!("cuDeviceGet"), || handle.set(device(ordinal)?.ordinal))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetName(text: Out<c_char>, length: c_int, ordinal: c_int) -> Code {
    enter(call!("cuDeviceGetName"), || write_text(text, length, device(ordinal)?.name().to_bytes()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetAttribute(value: Out<c_int>, number: c_int, ordinal: c_int) -> Code {
    enter(call!("cuDeviceGetAttribute"), || {
        let value = value.required()?;
        value.set(attribute(device(ordinal)?, number)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, ordinal: c_int) -> Code {
    enter(call!("cuDeviceGetUuid"), || uuid.set(device(ordinal)?.uuid()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, ordinal: c_int) -> Code {
    enter(call!("cuDeviceGetUuid_v2"), || uuid.set(device(ordinal)?.uuid()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceTotalMem_v2(bytes: Out<usize>, ordinal: c_int) -> Code {
    enter(call!("cuDeviceTotalMem_v2"), || bytes.set(device(ordinal)?.memory))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetPCIBusId(text: Out<c_char>, length: c_int, ordinal: c_int) -> Code {
    enter(call!("cuDeviceGetPCIBusId"), || write_text(text, length, device(ordinal)?.pci_bus_id().as_bytes()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceCanAccessPeer(can: Out<c_int>, ordinal: c_int, peer: c_int) -> Code {
    enter(call!("cuDeviceCanAccessPeer"), || {
        let can = can.required()?;
        can.set(c_int::from(device(ordinal)?.ordinal != device(peer)?.ordinal))
    })
}
