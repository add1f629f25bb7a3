//! Times of operations under several tables: one world for each, at the same time, over the same memory.

use super::BOARD;
use super::agenda::{Case, Question, Times};
use super::text::board;
use crate::api::{Failure, Result, Settings, World};
use crate::perf::control::Control;
use crate::perf::exercise::{Exercise, Post, Setting};
use crate::perf::memory::Source;
use crate::perf::pattern::Recipe;
use crate::perf::report::Progress;
use crate::perf::size::human;
use multiworld::config::tuning::{Topology, Tuning};
use multiworld::types::{DataType, RedOp};
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

/// What is slower than the best by this factor after two rounds is not looked at any longer.
const HOPELESS: f64 = 3.0;
/// Fewest iterations that are timed, and most.
const ITERATIONS: (f64, f64) = (2.0, 10_000.0);

/// One rank with the worlds that it measures.
pub struct Lab {
    settings: Settings,
    control: Control,
    /// Those of the question in hand.
    worlds: Vec<World>,
    /// Worlds joined so far, so that each has a name of its own.
    number: u32,
    rounds: usize,
    /// Of one algorithm in one round.
    time: Duration,
    progress: Progress,
}

impl Lab {
    pub fn join(topology: Topology, quick: bool) -> Result<Lab> {
        let transport = match topology {
            Topology::SharedMemory => c"shm".to_owned(),
            Topology::Network => c"tcp".to_owned(),
        };
        let settings =
            Settings { transport: Some(transport), backend: Some(c"host".to_owned()), device: None };
        let world = World::join("mw-tune", &settings)?;
        let control = Control { world, rank: world.rank()?, nranks: world.count()? };
        let (rounds, time) = if quick { (3, 4) } else { (7, 15) };
        Ok(Lab {
            settings,
            control,
            worlds: Vec::new(),
            number: 0,
            rounds,
            time: Duration::from_millis(time),
            progress: Progress::default(),
        })
    }

    pub fn nranks(&self) -> usize {
        self.control.nranks
    }

    pub fn is_first(&self) -> bool {
        self.control.rank == 0
    }

    pub fn leave(self) -> Result<()> {
        self.control.world.destroy()
    }

    /// The others learn at once that this rank has given up. Where that fails they learn it from the end of the process.
    pub fn abort(self) {
        self.worlds.iter().chain([&self.control.world]).for_each(|world| drop(world.abort()));
    }

    /// Medians of the times of all cases; every rank has the same. `place` is the question's, for who watches.
    pub fn measure(&mut self, question: &Question, place: (usize, usize)) -> Result<Vec<Times>> {
        for table in question.tables() {
            let world = self.join_with(&table)?;
            self.worlds.push(world);
        }
        let mut times = Vec::new();
        for case in question.cases() {
            if self.is_first() {
                let (n, (at, of)) = (self.nranks(), place);
                let Case { op, size, .. } = case;
                self.progress.show(&format!("[{n} ranks, {at}/{of}] {} {} ...", op.name(), human(*size)));
            }
            times.push(self.compare(case)?);
        }
        self.progress.show("");
        while let Some(world) = self.worlds.pop() {
            world.destroy()?;
        }
        Ok(times)
    }

    /// A world of all ranks with this table.
    fn join_with(&mut self, table: &Tuning) -> Result<World> {
        // Everybody reads it before anybody has joined, and nobody reads it while it is written.
        self.control.barrier()?;
        if self.is_first() {
            let file = OpenOptions::new().write(true).truncate(true).open(BOARD);
            let written = file.and_then(|mut file| file.write_all(board(table).as_bytes()));
            written.map_err(|e| Failure::new(format!("handing out a table: {e}")))?;
        }
        self.control.barrier()?;
        self.number += 1;
        World::join(&format!("mw-tune.{}", self.number), &self.settings)
    }

    /// The medians for one case, by world.
    fn compare(&self, case: &Case) -> Result<Times> {
        let recipe = Recipe { datatype: DataType::Float32, redop: RedOp::Sum, nranks: self.nranks() };
        let setting = Setting {
            worlds: self.worlds.clone(),
            recipe,
            rank: self.control.rank,
            root: 0,
            post: Post::default(),
            source: Source::Host,
        };
        let mut exercise = Exercise::new(&setting, case.op, case.size, case.in_place)?;
        exercise.prepare(0)?;
        let all = 0..self.worlds.len();
        let mut iterations = Vec::new();
        for world in all.clone() {
            // The first one touches memory.
            exercise.run_on(world, 1)?;
            let each = self.time(&mut exercise, world, 2)?;
            let fit = (self.time.as_secs_f64() * 1e6 / each).clamp(ITERATIONS.0, ITERATIONS.1);
            iterations.push(fit as u64);
        }
        let mut samples = vec![Vec::new(); all.len()];
        for round in 0..self.rounds {
            let best = samples.iter().map(|s| median(s)).fold(f64::INFINITY, f64::min);
            let mut order: Vec<usize> = all.clone().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for world in order {
                if round < 2 || median(&samples[world]) <= HOPELESS * best {
                    samples[world].push(self.time(&mut exercise, world, iterations[world])?);
                }
            }
        }
        Ok(Times { each: samples.iter().map(|s| median(s)).collect(), noise: noise(&samples) })
    }

    /// Microseconds of one iteration on the slowest rank.
    fn time(&self, exercise: &mut Exercise<'_>, world: usize, iterations: u64) -> Result<f64> {
        self.control.barrier()?;
        let took = exercise.run_on(world, iterations)?;
        let each = took.as_secs_f64() * 1e6 / iterations.max(1) as f64;
        let all = self.control.gather([each])?;
        // Zero would have no logarithm.
        Ok(all.iter().map(|[each]| *each).fold(1e-3, f64::max))
    }
}

/// The middle one, the lower of two; infinite without any.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().saturating_sub(1) / 2;
    sorted.get(middle).copied().unwrap_or(f64::INFINITY)
}

/// How far two medians may be apart by chance, relatively: the standard error of a difference, from how far samples
/// usually are from their median.
fn noise(samples: &[Vec<f64>]) -> f64 {
    let deviation = |samples: &Vec<f64>| {
        let middle = median(samples);
        let apart: Vec<f64> = samples.iter().map(|sample| (sample / middle - 1.0).abs()).collect();
        // Of a normal distribution: standard deviation, then standard error of a median.
        1.48 * 1.25 * median(&apart) / (samples.len() as f64).sqrt()
    };
    let all: Vec<f64> = samples.iter().filter(|s| !s.is_empty()).map(deviation).collect();
    if all.is_empty() { 0.0 } else { std::f64::consts::SQRT_2 * median(&all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_samples() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.0);
        assert_eq!(median(&[]), f64::INFINITY);
    }

    #[test]
    fn noise_is_what_samples_differ_by() {
        assert_eq!(noise(&[vec![2.0; 7], vec![5.0; 7]]), 0.0);
        assert_eq!(noise(&[]), 0.0);
        let wild = vec![80.0, 90.0, 90.0, 100.0, 110.0, 110.0, 300.0];
        let found = noise(&[wild.clone(), wild]);
        assert!((0.08..0.12).contains(&found), "{found}");
    }
}
