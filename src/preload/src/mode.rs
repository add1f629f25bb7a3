//! Genuine NCCL or host memory: decided once per process, by the first call that needs to know.
//!
//! `MW_BACKEND=nccl` means the genuine library, whatever comes of it; `host` means host memory; `auto`, the
//! default, means the genuine library where there are a GPU driver with a device and an NCCL, else host
//! memory.

use multiworld::config::log_level;
use multiworld::error::{Error, Result};
use multiworld::nccl::{Library, loader};
use multiworld::observe::log;
use multiworld::sync::{Arc, OnceLock};
use multiworld::sys::dylib::Dylib;
use std::cell::Cell;
use std::ffi::OsString;
use std::path::Path;

/// Who carries communicators.
#[derive(Clone, Copy)]
pub enum Mode {
    /// Worlds on host memory.
    Host,
    /// The genuine NCCL.
    Genuine(&'static Arc<Library>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Auto,
    Host,
    Nccl,
}

thread_local! {
    /// This thread is deciding. The genuine library, or the driver, could call an ncclX of ours while it is
    /// opened.
    static DECIDING: Cell<bool> = const { Cell::new(false) };
}

/// The mode of this process.
pub fn get() -> Result<Mode> {
    static MODE: OnceLock<Result<Mode>> = OnceLock::new();
    if let Some(mode) = MODE.get() {
        return mode.clone();
    }
    if DECIDING.replace(true) {
        return Err(Error::usage("libnccl: called back while it looks for the genuine NCCL"));
    }
    let _deciding = Deciding;
    MODE.get_or_init(decide).clone()
}

/// Until it is dropped, also by a panic, this thread is deciding.
struct Deciding;

impl Drop for Deciding {
    fn drop(&mut self) {
        DECIDING.set(false);
    }
}

fn decide() -> Result<Mode> {
    log_level()?.into_iter().for_each(log::init);
    let choice = choice(std::env::var_os("MW_BACKEND"))?;
    let mode = match choice {
        Choice::Host => Mode::Host,
        Choice::Nccl => Mode::Genuine(loader::get()?),
        Choice::Auto if has_gpu() => match loader::get() {
            Ok(library) => Mode::Genuine(library),
            Err(e) => {
                // The program is likely to notice.
                tracing::warn!("there is a GPU, but communicators will be on host memory: {e}");
                Mode::Host
            }
        },
        Choice::Auto => Mode::Host,
    };
    Ok(mode)
}

fn choice(value: Option<OsString>) -> Result<Choice> {
    let value = value.unwrap_or_default();
    match value.to_str() {
        Some("" | "auto") => Ok(Choice::Auto),
        Some("host") => Ok(Choice::Host),
        Some("nccl") => Ok(Choice::Nccl),
        _ => Err(Error::argument(format!(
            "MW_BACKEND: '{}' is none of 'auto', 'host', 'nccl'",
            value.to_string_lossy()
        ))),
    }
}

/// Where a device of NVIDIA's shows: on a machine, in WSL, on a Jetson.
const DEVICES: [&str; 4] = ["/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/nvhost-ctrl-gpu"];

/// Whether a driver is there and has a device. The driver is not initialised for that: a program may fork afterwards.
fn has_gpu() -> bool {
    DEVICES.iter().any(|d| Path::new(d).exists()) && Dylib::open(Path::new("libcuda.so.1")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_one_of_three() {
        assert_eq!(choice(None), Ok(Choice::Auto));
        assert_eq!(choice(Some("".into())), Ok(Choice::Auto));
        assert_eq!(choice(Some("host".into())), Ok(Choice::Host));
        assert_eq!(choice(Some("nccl".into())), Ok(Choice::Nccl));
        let e = choice(Some("cuda".into())).unwrap_err();
        assert_eq!(e.to_string(), "MW_BACKEND: 'cuda' is none of 'auto', 'host', 'nccl'");
    }
}
