//! `cudaDeviceProp`. CUDA 13 took fields out of it, so what programs for 12 and for 13 pass differs, and each
//! set of headers calls a function of its own.

use super::{Code, enter};
use crate::face::Out;
use crate::model::calls::call;
use crate::model::device::{Device, attribute, device};
use crate::model::error::Result;
use std::ffi::c_int;

/// Where fields are in the structure of one version. Its first 368 bytes are the same in both.
struct Layout {
    size: usize,
    /// Field offset and the number of the device attribute that is the same value.
    attributes: [(usize, c_int); 16],
    shared_memory_per_multiprocessor: usize,
    shared_memory_per_block_optin: usize,
}

const LAYOUT_13: Layout = Layout {
    size: 1008,
    attributes: [
        (384, 16),
        (388, 18),
        (392, 19),
        (560, 31),
        (568, 33),
        (572, 34),
        (576, 50),
        (584, 40),
        (588, 41),
        (592, 37),
        (596, 38),
        (604, 39),
        (608, 78),
        (632, 82),
        (636, 83),
        (704, 99),
    ],
    shared_memory_per_multiprocessor: 624,
    shared_memory_per_block_optin: 672,
};

const LAYOUT_12: Layout = Layout {
    size: 1032,
    attributes: [
        (388, 16),
        (396, 18),
        (400, 19),
        (576, 31),
        (584, 33),
        (588, 34),
        (592, 50),
        (600, 40),
        (604, 41),
        (612, 37),
        (616, 38),
        (624, 39),
        (628, 78),
        (648, 82),
        (652, 83),
        (728, 99),
    ],
    shared_memory_per_multiprocessor: 640,
    shared_memory_per_block_optin: 696,
};

/// Of the part that both versions share: integers that are also attributes.
const COMMON: [(usize, c_int); 11] = [
    (304, 12),
    (308, 10),
    (320, 1),
    (324, 2),
    (328, 3),
    (332, 4),
    (336, 5),
    (340, 6),
    (344, 7),
    (360, 75),
    (364, 76),
];
const UUID: usize = 256;
const TOTAL_MEMORY: usize = 288;
const SHARED_MEMORY_PER_BLOCK: usize = 296;
const PITCH: usize = 312;
const CONSTANT_MEMORY: usize = 352;

impl Layout {
    fn fill(&self, device: &Device) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.size];
        let mut put = |at: usize, value: &[u8]| {
            if let Some(field) = bytes.get_mut(at..at + value.len()) {
                field.copy_from_slice(value);
            }
        };
        put(0, device.name().to_bytes_with_nul());
        put(UUID, &device.uuid());
        put(TOTAL_MEMORY, &device.memory.to_ne_bytes());
        for &(at, number) in COMMON.iter().chain(&self.attributes) {
            put(at, &attribute(device, number)?.to_ne_bytes());
        }
        let sizes = [
            (SHARED_MEMORY_PER_BLOCK, 8),
            (PITCH, 11),
            (CONSTANT_MEMORY, 9),
            (self.shared_memory_per_multiprocessor, 81),
            (self.shared_memory_per_block_optin, 97),
        ];
        for (at, number) in sizes {
            put(at, &(attribute(device, number)? as usize).to_ne_bytes());
        }
        Ok(bytes)
    }

    fn write(&self, to: Out<u8>, ordinal: c_int) -> Result<()> {
        let to = to.required()?.address();
        let bytes = self.fill(device(ordinal)?)?;
        // SAFETY: C passes the structure of the headers it was compiled with, which has this size.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }
}

/// Of programs for CUDA 13.
#[unsafe(no_mangle)]
extern "C" fn cudaGetDeviceProperties(properties: Out<u8>, ordinal: c_int) -> Code {
    enter(call!("cudaGetDeviceProperties"), || LAYOUT_13.write(properties, ordinal))
}

/// Of programs for CUDA 12, whose headers give `cudaGetDeviceProperties` this name.
#[unsafe(no_mangle)]
extern "C" fn cudaGetDeviceProperties_v2(properties: Out<u8>, ordinal: c_int) -> Code {
    enter(call!("cudaGetDeviceProperties_v2"), || LAYOUT_12.write(properties, ordinal))
}
