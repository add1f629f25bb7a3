//! Settings of the process, from its environment, read once.

use crate::model::error::{Error, Result};
use std::sync::OnceLock;

const VARIABLE: &str = "MW_DOUBLE_CUDA";

/// More than any test needs; each device costs a little memory.
const MOST_DEVICES: u32 = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub devices: u32,
    /// Bytes of memory of each device.
    pub memory: usize,
    /// As the versions of CUDA count: 1000 times the major one plus 10 times the minor one.
    pub version: i32,
    pub triggers: Vec<Trigger>,
}

/// The nth call of a function breaks the device that it touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    pub error: i32,
    pub function: String,
    pub nth: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { devices: 2, memory: 16 << 30, version: 13000, triggers: Vec::new() }
    }
}

/// An unusable variable is said once, and then every call fails: a test must not run with other settings than
/// it asked for.
pub fn settings() -> Result<&'static Settings> {
    static SETTINGS: OnceLock<Option<Settings>> = OnceLock::new();
    let settings = SETTINGS.get_or_init(|| {
        let text = std::env::var_os(VARIABLE).unwrap_or_default();
        parse(&text.to_string_lossy()).map_err(|why| eprintln!("{VARIABLE}: {why}")).ok()
    });
    settings.as_ref().ok_or(Error::NOT_INITIALIZED)
}

fn parse(text: &str) -> std::result::Result<Settings, String> {
    let mut settings = Settings::default();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, value) = item.split_once('=').ok_or_else(|| format!("no value in '{item}'"))?;
        let wrong = || format!("cannot read '{item}'");
        match name {
            "devices" => {
                settings.devices = value.parse().ok().filter(|&n| n <= MOST_DEVICES).ok_or_else(wrong)?
            }
            "memory" => settings.memory = value.parse().map_err(|_| wrong())?,
            "version" => settings.version = value.parse().map_err(|_| wrong())?,
            "poison" => settings.triggers.push(parse_trigger(value).ok_or_else(wrong)?),
            _ => return Err(format!("no setting is called '{name}'")),
        }
    }
    Ok(settings)
}

/// `ERROR@FUNCTION:N`
fn parse_trigger(value: &str) -> Option<Trigger> {
    let (error, place) = value.split_once('@')?;
    let (function, nth) = place.split_once(':')?;
    Some(Trigger {
        error: error.parse().ok().filter(|&error| error > 0)?,
        function: (!function.is_empty()).then(|| function.to_owned())?,
        nth: nth.parse().ok().filter(|&nth| nth > 0)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_set_gives_the_defaults() {
        assert_eq!(parse(""), Ok(Settings::default()));
    }

    #[test]
    fn every_setting_is_read() {
        let settings =
            parse("devices=4, memory=1000,version=12090,poison=700@cudaLaunchHostFunc:5,poison=719@cuInit:1")
                .expect("good settings");
        assert_eq!((settings.devices, settings.memory, settings.version), (4, 1000, 12090));
        let first = Trigger { error: 700, function: "cudaLaunchHostFunc".to_owned(), nth: 5 };
        assert_eq!(settings.triggers.first(), Some(&first));
        assert_eq!(settings.triggers.len(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in
            ["devices", "devices=-1", "devices=65", "gpus=2", "poison=700", "poison=0@f:1", "poison=7@f:0"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
