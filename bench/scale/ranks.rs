//! The processes that are measured, as the one sees them that measures: each gets an order in a line, and answers it in
//! one, with numbers.

use crate::calls::Result;
use multiworld::auth::KeyId;
use multiworld::store::server::Server;
use multiworld::sys::socket;
use multiworld::types::Secret;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

/// Set for a process that was started here.
pub const ROLE: &str = "MW_BENCH_SCALE_RANK";

struct Rank {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// Processes of this machine that meet at a store of their own. They are killed with this value.
pub struct Ranks {
    all: Vec<Rank>,
    _store: Server,
}

impl Ranks {
    pub fn start(number: usize) -> Result<Ranks> {
        let mut key = [0; 16];
        multiworld::auth::fill_random(&mut key).map_err(|e| e.to_string())?;
        let secret: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let shared = Secret(secret.clone().into_bytes());
        let id = KeyId::of(&shared);
        let listener = socket::listen_tcp(([127, 0, 0, 1], 0).into(), 512)
            .map_err(|e| format!("listening on the loopback interface: {e}"))?;
        let store = Server::start(listener, Arc::new(move |key| (key == id).then(|| shared.clone())))
            .map_err(|e| e.to_string())?;
        let address = format!("tcp://{}", store.addr());
        let mut ranks = Ranks { all: Vec::new(), _store: store };
        for rank in 0..number {
            let mut child = std::env::current_exe()
                .map(Command::new)
                .and_then(|mut command| {
                    command
                        .env(ROLE, "1")
                        .env("MW_RANK", rank.to_string())
                        .env("MW_NRANKS", number.to_string());
                    command.env("MW_STORE", &address).env("MW_SECRET", &secret).env_remove("MW_SECRET_FILE");
                    command.env("MW_IFNAME", "lo").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
                })
                .map_err(|e| format!("starting rank {rank}: {e}"))?;
            let pipes = child.stdin.take().zip(child.stdout.take());
            let (to, from) = pipes.ok_or_else(|| format!("starting rank {rank}: no pipes"))?;
            ranks.all.push(Rank { child, to, from: BufReader::new(from) });
        }
        Ok(ranks)
    }

    /// Has all of them do something, and answers what they say, by rank.
    pub fn all(&mut self, order: &str) -> Result<Vec<Vec<f64>>> {
        for (number, rank) in self.all.iter_mut().enumerate() {
            writeln!(rank.to, "{order}").map_err(|e| format!("rank {number} has ended: {e}"))?;
        }
        let mut answers = Vec::new();
        for (number, rank) in self.all.iter_mut().enumerate() {
            let mut line = String::new();
            rank.from.read_line(&mut line).map_err(|e| format!("rank {number}: {e}"))?;
            let answer =
                line.split_whitespace().map(str::parse).collect::<std::result::Result<Vec<f64>, _>>();
            match answer {
                Ok(numbers) if !numbers.is_empty() => answers.push(numbers),
                _ => return Err(format!("rank {number} failed in '{order}': {line}")),
            }
        }
        Ok(answers)
    }

    /// The largest of what they say first.
    pub fn most(&mut self, order: &str) -> Result<f64> {
        Ok(self.all(order)?.iter().filter_map(|answer| answer.first()).copied().fold(0.0, f64::max))
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for rank in &mut self.all {
            // Both fail only for one that has just ended.
            let _ = rank.child.kill();
            let _ = rank.child.wait();
        }
    }
}
