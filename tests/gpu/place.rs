//! Where the tests run: the GPU that was found, or the doubles, and how several ranks come onto one device.

use super::common::{PATIENCE, Rank, doubles, role, say, store_address};
use super::figures::note;
use super::seat::{self, number};
use multiworld::nccl::{Library, cuda, loader};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// First version that lets ranks share a device when it is told to.
const MULTI_RANK: u32 = 23_000;

/// How ranks share a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// NCCL allows it: NCCL_MULTI_RANK_GPU_ENABLE.
    Multi,
    /// To NCCL, every process is a host of its own and is reached by sockets: NCCL_HOSTID.
    HostId,
}

/// What all ranks are started with.
pub struct Place {
    pub doubles: bool,
    env: Vec<(&'static str, String)>,
    way: Option<Way>,
}

/// A test's turn: one after the other, since two ranks are all that a device is sure to take.
pub struct Turn {
    place: &'static Place,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Turn {
    type Target = Place;

    fn deref(&self) -> &Place {
        self.place
    }
}

/// The place, or nothing where there is none; that is said, unless this process is a rank.
pub fn ready() -> Option<Turn> {
    static ONE: OnceLock<Result<Place, String>> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    if role().is_some() {
        return None;
    }
    // A test that failed is over, too.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    match ONE.get_or_init(find) {
        Ok(place) => Some(Turn { place, _turn: turn }),
        Err(why) => {
            note(&format!("skipped: {why}"));
            None
        }
    }
}

fn find() -> Result<Place, String> {
    match std::env::var("MW_GPU_TEST_DOUBLES") {
        Ok(given) if !given.is_empty() && given != "0" => return Ok(over_doubles(&given)),
        _ => {}
    }
    if !cuda::is_usable() {
        return Err("no CUDA device: the driver is missing or has none".into());
    }
    let library = loader::get().map_err(|e| e.text.to_string())?;
    if library.symbol(c"mwDoubleNcclCalls").is_some() {
        return Err(format!(
            "'{}' is the double of NCCL; MW_GPU_TEST_DOUBLES=1 tests over it",
            library.path.display()
        ));
    }
    let env = vec![
        ("MW_BACKEND", "nccl".to_string()),
        ("MW_NCCL_LIB", library.path.to_string_lossy().into_owned()),
        ("NCCL_SOCKET_IFNAME", "lo".into()),
    ];
    let mut place = Place { doubles: false, env, way: None };
    let wanted = std::env::var("MW_GPU_RANKS").unwrap_or_default();
    let ways: &[Way] = match &*wanted {
        "multi" => &[Way::Multi],
        "hostid" => &[Way::HostId],
        _ if library.version >= MULTI_RANK => &[Way::Multi, Way::HostId],
        _ => &[Way::HostId],
    };
    if let [way] = ways
        && !wanted.is_empty()
    {
        // Somebody has tried it, and told what the device is.
        place.way = Some(*way);
        return Ok(place);
    }
    note(&describe(library).map_err(|e| e.text.to_string())?);
    for way in ways {
        place.way = Some(*way);
        if place.works() {
            return Ok(place);
        }
        note(&format!("- two ranks cannot share the device by {}", place.how()));
    }
    // There is a GPU and it was not tested: that is no reason to pass.
    panic!("no way to bring two ranks onto one device");
}

/// What is tested.
fn describe(library: &Library) -> multiworld::error::Result<String> {
    let (free, total) = cuda::memory::memory(0)?;
    Ok(format!(
        "- {} ({} of {} MiB free), driver for CUDA {}\n- NCCL {} at '{}'",
        cuda::memory::name(0)?,
        free >> 20,
        total >> 20,
        cuda::memory::driver_version()?,
        library.version_text(),
        library.path.display()
    ))
}

fn over_doubles(given: &str) -> Place {
    let (folder, nccl) = match given {
        "1" => (doubles::get().folder.clone(), doubles::get().nccl.clone()),
        folder => (PathBuf::from(folder), PathBuf::from(folder).join("libnccl.so.2")),
    };
    let env = vec![
        ("LD_LIBRARY_PATH", folder.to_string_lossy().into_owned()),
        ("MW_NCCL_LIB", nccl.to_string_lossy().into_owned()),
        ("MW_BACKEND", "nccl".into()),
    ];
    Place { doubles: true, env, way: None }
}

impl Place {
    fn how(&self) -> &'static str {
        match self.way {
            Some(Way::Multi) => "NCCL_MULTI_RANK_GPU_ENABLE",
            Some(Way::HostId) => "NCCL_HOSTID, over sockets",
            None => "the doubles",
        }
    }

    /// One of two numbers: over the doubles, what is repeated or waited for is cut short.
    pub fn pick(&self, gpu: usize, doubles: usize) -> usize {
        if self.doubles { doubles } else { gpu }
    }

    /// Starts a rank of this place.
    pub fn start(&self, role: &str, args: &[String], env: &[(&str, &str)]) -> Rank {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let host = format!("mw-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let way: &[(&str, &str)] = match self.way {
            Some(Way::Multi) => &[("NCCL_MULTI_RANK_GPU_ENABLE", "1"), ("NCCL_NVLS_ENABLE", "0")],
            Some(Way::HostId) => &[("NCCL_HOSTID", &host), ("NCCL_NET", "Socket"), ("NCCL_IB_DISABLE", "1")],
            None => &[],
        };
        let ours: Vec<(&str, &str)> = self.env.iter().map(|(k, v)| (*k, &**v)).collect();
        Rank::start("rank", role, args, &[&ours[..], way, env].concat())
    }

    /// Whether a world of two can be made and used at all.
    fn works(&self) -> bool {
        let store = store_address();
        let env = [("MW_STORE", &*store)];
        let mut ranks: Vec<Rank> = (0..2).map(|me| self.start("probe", &[me.to_string()], &env)).collect();
        ranks.iter_mut().all(|r| r.hear().as_deref() == Some("works"))
    }
}

/// Tries a world of two. What does not work may hang.
pub fn probe(args: &[String]) {
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE * 3 / 4);
        eprintln!("two ranks do not come together");
        std::process::exit(1);
    });
    let w = seat::join("probe", 2, number(args, 0)).expect("joining");
    let seat = seat::Seat::new(&w, 1 << 20);
    seat.sum(&w, 1 << 20).expect("an all-reduce");
    w.destroy().expect("destroying");
    say("works");
}

/// Says what is tested, or why nothing is.
#[test]
fn where_it_runs() {
    if let Some(place) = ready() {
        note(&format!("- ranks share the device by {}", place.how()));
    }
}
