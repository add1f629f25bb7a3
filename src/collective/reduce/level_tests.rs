//! Every kernel of every level of this machine against one element at a time, computed by other means.

use super::fp8::{E4m3, E5m2};
use super::*;
use half::{bf16, f16};
use proptest::prelude::*;

const KINDS: [Kind; 4] = [Kind::Sum, Kind::Prod, Kind::Max, Kind::Min];

fn of_float(kind: Kind, a: f64, b: f64, sum: f64, product: f64) -> f64 {
    match kind {
        Kind::Sum => sum,
        Kind::Prod => product,
        Kind::Max if b > a || a.is_nan() => b,
        Kind::Min if b < a || a.is_nan() => b,
        Kind::Max | Kind::Min => a,
    }
}

/// The same in float32, which holds every narrower float.
fn of_float32(kind: Kind, a: f32, b: f32) -> f32 {
    of_float(kind, f64::from(a), f64::from(b), f64::from(a + b), f64::from(a * b)) as f32
}

macro_rules! reference {
    ($name:ident, $t:ty, $bytes:literal, |$a:ident, $b:ident, $kind:ident| $compute:expr) => {
        fn $name(kind: Kind, a: &[u8], b: &[u8]) -> Vec<u8> {
            let element = |bytes: &[u8]| <$t>::from_ne_bytes(bytes.try_into().unwrap());
            let compute = |$a: $t, $b: $t, $kind: Kind| -> $t { $compute };
            let pairs = a.chunks_exact($bytes).zip(b.chunks_exact($bytes));
            pairs.flat_map(|(a, b)| compute(element(a), element(b), kind).to_ne_bytes()).collect()
        }
    };
}

macro_rules! integer_reference {
    ($($t:ident, $bytes:literal;)*) => {$(
        reference!($t, $t, $bytes, |a, b, kind| match kind {
            Kind::Sum => a.wrapping_add(b),
            Kind::Prod => a.wrapping_mul(b),
            Kind::Max => std::cmp::max(a, b),
            Kind::Min => std::cmp::min(a, b),
        });
    )*};
}
integer_reference!(i8, 1; u8, 1; i32, 4; u32, 4; i64, 8; u64, 8;);

reference!(float32, f32, 4, |a, b, kind| Some(of_float32(kind, a, b))
    .filter(|r| !r.is_nan())
    .unwrap_or(f32::from_bits(0x7fc0_0000)));
reference!(float64, f64, 8, |a, b, kind| Some(of_float(kind, a, b, a + b, a * b))
    .filter(|r| !r.is_nan())
    .unwrap_or(f64::from_bits(0x7ff8 << 48)));
reference!(float16, u16, 2, |a, b, kind| {
    let r = of_float32(kind, f16::from_bits(a).to_f32(), f16::from_bits(b).to_f32());
    if r.is_nan() { 0x7e00 } else { f16::from_f32(r).to_bits() }
});
reference!(bfloat16, u16, 2, |a, b, kind| {
    let r = of_float32(kind, bf16::from_bits(a).to_f32(), bf16::from_bits(b).to_f32());
    if r.is_nan() { 0x7fc0 } else { bf16::from_f32(r).to_bits() }
});
reference!(float8e4m3, u8, 1, |a, b, kind| {
    let r = of_float32(kind, E4m3(a).to_f32(), E4m3(b).to_f32());
    if r.is_nan() { 0x7f } else { E4m3::from_f32(r).0 }
});
reference!(float8e5m2, u8, 1, |a, b, kind| {
    let r = of_float32(kind, E5m2(a).to_f32(), E5m2(b).to_f32());
    if r.is_nan() { 0x7e } else { E5m2::from_f32(r).0 }
});

fn reference(dtype: DataType, kind: Kind, a: &[u8], b: &[u8]) -> Vec<u8> {
    let function = match dtype {
        DataType::Int8 => i8,
        DataType::Uint8 => u8,
        DataType::Int32 => i32,
        DataType::Uint32 => u32,
        DataType::Int64 => i64,
        DataType::Uint64 => u64,
        DataType::Float16 => float16,
        DataType::Float32 => float32,
        DataType::Float64 => float64,
        DataType::Bfloat16 => bfloat16,
        DataType::Float8e4m3 => float8e4m3,
        DataType::Float8e5m2 => float8e5m2,
    };
    function(kind, a, b)
}

/// What stands before and behind the destination, and must stay there.
const GUARD: u8 = 0xa5;

/// `bytes` at `offset` from an address divisible by 64, guards around them.
struct Placed {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Placed {
    fn new(bytes: &[u8], offset: usize) -> Placed {
        let mut memory = vec![GUARD; bytes.len() + 256];
        let start = memory.as_ptr().align_offset(64) + 64 + offset;
        memory[start..start + bytes.len()].copy_from_slice(bytes);
        Placed { memory, start, len: bytes.len() }
    }

    fn ptr(&mut self) -> *mut u8 {
        self.memory[self.start..].as_mut_ptr()
    }

    #[track_caller]
    fn check(&self, want: &[u8], size: usize, about: &dyn Fn() -> String) {
        let got = &self.memory[self.start..self.start + self.len];
        if got != want {
            let at = got.iter().zip(want).position(|(g, w)| g != w).unwrap_or(0) / size;
            let part = at * size..(at + 1) * size;
            panic!("{}: element {at} is {:x?}, not {:x?}", about(), &got[part.clone()], &want[part]);
        }
        let (before, behind) = (&self.memory[..self.start], &self.memory[self.start + self.len..]);
        assert!(before.iter().chain(behind).all(|b| *b == GUARD), "{}: wrote outside", about());
    }
}

/// Runs all kernels of all levels, `dst`, `a` and `b` at these offsets.
fn check_at(dtype: DataType, kind: Kind, a: &[u8], b: &[u8], offsets: [usize; 3]) {
    let want = reference(dtype, kind, a, b);
    let count = a.len() / dtype.size();
    for level in Level::available() {
        let about =
            |form: &str| format!("{} {dtype:?} {kind:?}, {form}, {count} at {offsets:?}", level.name());
        let size = dtype.size();
        let (mut src_a, mut src_b) = (Placed::new(a, offsets[1]), Placed::new(b, offsets[2]));
        let (a_ptr, b_ptr) = (src_a.ptr(), src_b.ptr());
        // SAFETY: all hold `count` elements and are buffers of their own, apart from the one that is `dst`.
        unsafe {
            let mut dst = Placed::new(a, offsets[0]);
            level.kernel_of(dtype, kind)(dst.ptr(), b_ptr, count);
            dst.check(&want, size, &|| about("two addresses"));
            let forms = [
                ("three addresses", level.kernel3_of(dtype, kind)),
                ("streaming", level.kernel3_streaming_of(dtype, kind)),
            ];
            for (name, kernel) in forms {
                let mut dst = Placed::new(&vec![0; a.len()], offsets[0]);
                kernel(dst.ptr(), a_ptr, b_ptr, count);
                dst.check(&want, size, &|| about(name));
                let mut dst = Placed::new(a, offsets[0]);
                let ptr = dst.ptr();
                kernel(ptr, ptr, b_ptr, count);
                dst.check(&want, size, &|| about(name) + ", dst is a");
                let mut dst = Placed::new(b, offsets[0]);
                let ptr = dst.ptr();
                kernel(ptr, a_ptr, ptr, count);
                dst.check(&want, size, &|| about(name) + ", dst is b");
            }
        }
    }
}

fn check(dtype: DataType, a: &[u8], b: &[u8]) {
    for kind in KINDS {
        check_at(dtype, kind, a, b, [0, 0, 0]);
    }
}

#[test]
fn eight_bits_in_all_pairs() {
    let (a, b): (Vec<u8>, Vec<u8>) = (0..=u16::MAX).map(|pair| (pair as u8, (pair >> 8) as u8)).unzip();
    for dtype in [DataType::Int8, DataType::Uint8, DataType::Float8e4m3, DataType::Float8e5m2] {
        check(dtype, &a, &b);
    }
}

/// Zero, subnormal, the smallest and largest of everything, infinity, NaN quiet and signalling, with
/// neighbours.
fn special_halves(infinity: u16) -> Vec<u16> {
    let quiet = infinity | (infinity >> 1 & !infinity);
    let least_normal = infinity & infinity.wrapping_neg();
    let one = (infinity >> 1) & infinity;
    let mut found = Vec::new();
    for middle in [0, 1, least_normal / 2, least_normal, one, infinity, quiet, 0x7fff] {
        for bits in [middle.wrapping_sub(1), middle, middle + 1] {
            found.extend([bits & 0x7fff, bits | 0x8000]);
        }
    }
    found
}

#[test]
fn sixteen_bits_with_all_special_values() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
    for (dtype, infinity) in [(DataType::Float16, 0x7c00), (DataType::Bfloat16, 0x7f80)] {
        for special in special_halves(infinity) {
            let other = special.to_ne_bytes().repeat(1 << 16);
            check(dtype, &all, &other);
            check(dtype, &other, &all);
        }
    }
}

/// Numbers without a pattern, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn random_bits_and_special_values_of_every_type() {
    let mut random = Random(4);
    let specials: Vec<u64> = {
        let f32s = [0.0, 1e-45, f32::MIN_POSITIVE, 1.0, f32::MAX, f32::INFINITY, f32::NAN];
        let f64s = [0.0, 5e-324, f64::MIN_POSITIVE, 1.0, f64::MAX, f64::INFINITY, f64::NAN];
        let signalling = [0x7f80_0001, 0xff80_0001, 0x7ff0_0000_0000_0001, 0xfff0_0000_0000_0001];
        let f32s = f32s.iter().flat_map(|v| [v.to_bits(), (-v).to_bits()]);
        // Both halves, for types of four bytes.
        let f32s = f32s.map(|v| u64::from(v) << 32 | u64::from(v));
        let f64s = f64s.iter().flat_map(|v| [v.to_bits(), (-v).to_bits()]);
        let integers = [1, u64::MAX, 1 << 63, (1 << 63) - 1, 0x8000_0000_8000_0000, 0x7fff_ffff_7fff_ffff];
        f32s.chain(f64s).chain(signalling).chain(integers).collect()
    };
    let (mut a, mut b) = (random.bytes(1 << 16), random.bytes(1 << 16));
    for x in &specials {
        for y in &specials {
            a.extend(x.to_ne_bytes());
            b.extend(y.to_ne_bytes());
        }
    }
    for dtype in DataType::ALL {
        check(dtype, &a, &b);
        // Numbers that are near each other, as real ones are, cancel and carry.
        let near: Vec<u8> = a.iter().zip(&b).map(|(a, b)| a ^ (b & b >> 4 & 7)).collect();
        check(dtype, &a, &near);
    }
}

#[test]
fn all_misalignments_and_tails() {
    let mut random = Random(5);
    for dtype in DataType::ALL {
        let bytes = 300 * dtype.size();
        let (a, b) = (random.bytes(bytes), random.bytes(bytes));
        for kind in KINDS {
            for count in (0..=140).chain([255, 256, 257, 300]) {
                let len = count * dtype.size();
                let offsets = [random.next() as usize % 64, count % 64, random.next() as usize % 64];
                check_at(dtype, kind, &a[..len], &b[..len], offsets);
            }
            for offset in 0..64 {
                check_at(dtype, kind, &a, &b, [offset, 0, 0]);
                check_at(dtype, kind, &a, &b, [0, offset, 64 - offset]);
            }
        }
    }
}

#[test]
fn streaming_over_several_blocks() {
    let mut random = Random(6);
    for dtype in DataType::ALL {
        let bytes = 9000 * dtype.size();
        let (a, b) = (random.bytes(bytes), random.bytes(bytes));
        for offset in [0, 1, 8, 61] {
            check_at(dtype, Kind::Sum, &a, &b, [offset, 3, 0]);
        }
    }
}

/// Every element of a float type through `divisor`.
fn quotients(dtype: DataType, a: &[u8], divisor: f64) -> Option<Vec<u8>> {
    let each = |size: usize, f: &dyn Fn(&[u8]) -> Vec<u8>| a.chunks_exact(size).flat_map(f).collect();
    let canonical = |r: f32| if r.is_nan() { f32::NAN } else { r };
    let by = divisor as f32;
    Some(match dtype {
        DataType::Float16 => each(2, &|x| {
            let r = canonical(f16::from_ne_bytes([x[0], x[1]]).to_f32() / by);
            f16::from_f32(r).to_ne_bytes().to_vec()
        }),
        DataType::Bfloat16 => each(2, &|x| {
            let r = canonical(bf16::from_ne_bytes([x[0], x[1]]).to_f32() / by);
            bf16::from_f32(r).to_ne_bytes().to_vec()
        }),
        DataType::Float8e4m3 => each(1, &|x| vec![E4m3::from_f32(canonical(E4m3(x[0]).to_f32() / by)).0]),
        DataType::Float8e5m2 => each(1, &|x| vec![E5m2::from_f32(canonical(E5m2(x[0]).to_f32() / by)).0]),
        DataType::Float32 => {
            each(4, &|x| canonical(f32::from_ne_bytes(x.try_into().unwrap()) / by).to_ne_bytes().to_vec())
        }
        DataType::Float64 => each(8, &|x| {
            let r = f64::from_ne_bytes(x.try_into().unwrap()) / divisor;
            (if r.is_nan() { f64::NAN } else { r }).to_ne_bytes().to_vec()
        }),
        _ => return None,
    })
}

fn divided(dtype: DataType, a: &[u8], n: u32) -> Vec<u8> {
    macro_rules! integer {
        ($t:ident) => {
            a.chunks_exact(size_of::<$t>())
                .flat_map(|x| {
                    let x = i128::from($t::from_ne_bytes(x.try_into().unwrap()));
                    ((x / i128::from(n)) as $t).to_ne_bytes()
                })
                .collect()
        };
    }
    match dtype {
        DataType::Int8 => integer!(i8),
        DataType::Uint8 => integer!(u8),
        DataType::Int32 => integer!(i32),
        DataType::Uint32 => integer!(u32),
        DataType::Int64 => integer!(i64),
        DataType::Uint64 => integer!(u64),
        _ => quotients(dtype, a, f64::from(n)).unwrap(),
    }
}

fn check_average(dtype: DataType, a: &[u8], n: u32) {
    let want = divided(dtype, a, n);
    for level in Level::available() {
        let mut dst = Placed::new(a, 1);
        // SAFETY: as many elements as there are.
        unsafe { level.average(dtype)(dst.ptr(), a.len() / dtype.size(), n) };
        dst.check(&want, dtype.size(), &|| format!("{} average of {dtype:?} by {n}", level.name()));
    }
}

#[test]
fn averages_of_every_type() {
    let mut random = Random(7);
    let mut a: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
    for edge in [0u64, 1, 2, 3, 1 << 31, 1 << 32, 1 << 63] {
        for x in [edge.wrapping_sub(1), edge, edge + 1] {
            a.extend(x.to_ne_bytes());
            a.extend((x << 32 | x & 0xffff_ffff).to_ne_bytes());
        }
    }
    a.extend(random.bytes(4096));
    for dtype in DataType::ALL {
        for n in [1, 2, 3, 4, 5, 7, 8, 10, 64, 100, 127, 128, 129, 255, 256, 641, 65_537, 1 << 31, u32::MAX] {
            check_average(dtype, &a, n);
        }
        for count in 0..70 {
            check_average(dtype, &a[..count * dtype.size()], 3);
        }
    }
}

#[test]
fn products_with_a_scalar() {
    let mut random = Random(8);
    let mut a: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
    a.extend(random.bytes(8 * 77));
    for dtype in DataType::ALL {
        let size = dtype.size();
        for scalar in [[0; 8], [0x3c; 8], [0x7f; 8], [0x81; 8], random.next().to_ne_bytes()] {
            for count in [a.len() / size].into_iter().chain(0..40) {
                let a = &a[..count * size];
                let want = reference(dtype, Kind::Prod, a, &scalar[..size].repeat(count));
                for level in Level::available() {
                    let about = || format!("{} {scalar:x?} times {dtype:?}", level.name());
                    let (mut src, mut dst) = (Placed::new(a, 3), Placed::new(&vec![0; a.len()], 1));
                    // SAFETY: both hold `count` elements.
                    unsafe {
                        level.premul(dtype)(dst.ptr(), src.ptr(), count, &scalar);
                        dst.check(&want, size, &about);
                        let ptr = src.ptr();
                        level.premul(dtype)(ptr, ptr, count, &scalar);
                        src.check(&want, size, &about);
                    }
                }
            }
        }
    }
}

#[test]
fn empty_buffers_may_be_null() {
    let (dst, src) = (std::ptr::null_mut(), std::ptr::null());
    for dtype in DataType::ALL {
        for level in Level::available() {
            // SAFETY: no elements.
            unsafe {
                level.kernel_of(dtype, Kind::Sum)(dst, src, 0);
                level.kernel3_of(dtype, Kind::Sum)(dst, src, src, 0);
                level.kernel3_streaming_of(dtype, Kind::Sum)(dst, src, src, 0);
                level.premul(dtype)(dst, src, 0, &[0; 8]);
                level.average(dtype)(dst, 0, 2);
            }
        }
    }
}

proptest! {
    #[test]
    fn integers_divide_by_any_number_of_ranks(x in any::<u64>(), bits in 1u32..=64, n in 1u32.., narrow in 0u32..32) {
        let bytes = (x >> (64 - bits)).to_ne_bytes();
        let n = Ord::max(n >> narrow, 1);
        for dtype in [DataType::Int32, DataType::Uint32, DataType::Int64, DataType::Uint64] {
            check_average(dtype, &bytes, n);
        }
        check_average(DataType::Int64, &x.wrapping_neg().to_ne_bytes(), n);
        // A multiple, where one off would show.
        let multiple = (x / u64::from(n)).wrapping_mul(u64::from(n));
        for x in [multiple, multiple.wrapping_sub(1)] {
            check_average(DataType::Uint64, &x.to_ne_bytes(), n);
            check_average(DataType::Int64, &x.to_ne_bytes(), n);
        }
    }
}
