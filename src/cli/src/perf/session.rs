//! One rank: joins, measures what the plan says, leaves.

use super::args::{Args, Backend, BufferKind, Transport};
use super::control::Control;
use super::exercise::{Exercise, Setting};
use super::format::Format;
use super::machine::Machine;
use super::memory::Source;
use super::op::Op;
use super::pattern::Recipe;
use super::plan::{Plan, Step};
use super::report::Report;
use super::row::{Header, Outcome, Row};
use super::stats::{Measured, Samples, Spread, slowest};
use crate::api::{Failure, Result, Settings, World};
use multiworld::nccl::cuda::{self, memory::OwnStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A rank that has joined all of its worlds.
struct Session {
    worlds: Vec<World>,
    control: Control,
    setting: Setting,
    join: Duration,
}

/// Measures as one rank of world `name`. Answers how many elements were wrong, on all ranks together.
pub fn run(args: &Args, plan: &Plan, name: &str) -> Result<u64> {
    let mut worlds = Vec::new();
    match joined(args, plan, name, &mut worlds) {
        Ok(wrong) => worlds.into_iter().rev().try_for_each(World::destroy).map(|()| wrong),
        Err(failure) => {
            // The others learn at once that this rank has given up. If that fails they learn it from the end of
            // the process, and the first failure is the one to be told.
            worlds.iter().for_each(|world| drop(world.abort()));
            Err(failure)
        }
    }
}

/// The worlds that were joined are left to the caller, also after an error.
fn joined(args: &Args, plan: &Plan, name: &str, worlds: &mut Vec<World>) -> Result<u64> {
    let session = Session::join(args, name, worlds)?;
    session.control.expect_ranks(plan.least_ranks(), "sendrecv, bw and bwd")?;
    session.control.expect_ranks(args.root as usize + 1, "--root")?;
    let mut report = session.report(args)?;
    let mut wrong = 0;
    for (at, step) in plan.steps.iter().enumerate() {
        if let Some(report) = &report {
            report.announce(at + 1, plan.steps.len(), step);
        }
        let row = session.measure(args, plan, *step)?;
        wrong += row.wrong.unwrap_or(0);
        if let Some(report) = &mut report {
            report.add(row)?;
        }
    }
    report.map_or(Ok(()), Report::end)?;
    Ok(wrong)
}

impl Session {
    fn join(args: &Args, name: &str, joined: &mut Vec<World>) -> Result<Session> {
        let on_device = args.backend == Backend::Nccl;
        let transport = args.transport.map(|transport| match transport {
            Transport::Auto => c"auto".to_owned(),
            Transport::Shm => c"shm".to_owned(),
            Transport::Tcp => c"tcp".to_owned(),
        });
        let host = Settings { transport, backend: Some(c"host".to_owned()), device: None };
        let start = Instant::now();
        let mut enter = |name: String, settings: &Settings| -> Result<World> {
            let world = World::join(&name, settings)?;
            joined.push(world);
            Ok(world)
        };
        let mut settings = host.clone();
        let mut control = None;
        if on_device {
            // Ranks agree through host memory, and which device is whose depends on the rank.
            let world = enter(format!("{name}.control"), &host)?;
            let device = world.rank()? % (cuda::devices().max(1) as usize);
            settings.backend = Some(c"nccl".to_owned());
            settings.device = Some(device as i32);
            control = Some(world);
        }
        let worlds = (0..args.worlds)
            .map(|i| enter(if i == 0 { name.to_owned() } else { format!("{name}.{i}") }, &settings))
            .collect::<Result<Vec<World>>>()?;
        let join = start.elapsed();
        let Some(&first) = worlds.first() else { return Err(Failure::new("--worlds: none was joined")) };
        let control = control.unwrap_or(first);
        let control = Control { world: control, rank: control.rank()?, nranks: control.count()? };
        let source = match first.device()? {
            None if args.buffers == BufferKind::Registered => Source::Registered,
            None => Source::Host,
            Some(device) => Source::Device { device, stream: Arc::new(OwnStream::new(device)?) },
        };
        let recipe = Recipe { datatype: args.datatype, redop: args.redop, nranks: control.nranks };
        let active = worlds.iter().copied().take(args.active as usize).collect();
        let setting = Setting {
            worlds: active,
            recipe,
            rank: control.rank,
            root: args.root as usize,
            post: args.post,
            source,
        };
        Ok(Session { worlds, control, setting, join })
    }

    fn report(&self, args: &Args) -> Result<Option<Report>> {
        if self.control.rank != 0 {
            return Ok(None);
        }
        let on_device = args.backend == Backend::Nccl;
        let transport = match self.control.world.peers()? {
            _ if on_device => "NCCL".to_owned(),
            (0, 0) => "no transport".to_owned(),
            (_, 0) => "shared memory".to_owned(),
            (0, _) => "TCP".to_owned(),
            (shm, tcp) => format!("shared memory to {shm} ranks and TCP to {tcp}"),
        };
        let header = Header {
            version: env!("CARGO_PKG_VERSION"),
            ranks: self.control.nranks,
            worlds: self.worlds.len(),
            active_worlds: self.setting.worlds.len(),
            transport,
            backend: if on_device { "nccl" } else { "host" },
            join_ms: self.join.as_secs_f64() * 1e3,
            machine: Machine::here(),
        };
        Report::begin(Format::of(&args.output), header).map(Some)
    }

    fn measure(&self, args: &Args, plan: &Plan, step: Step) -> Result<Row> {
        let Step { op, size, in_place } = step;
        let mut exercise = Exercise::new(&self.setting, op, size, in_place)?;
        exercise.prepare(0)?;
        self.control.barrier()?;
        exercise.run(u64::from(args.warmup.unwrap_or(0)))?;
        let trial = plan.limit.trial(op, size);
        let took = exercise.run(trial)?;
        let iterations = self.control.agree(plan.limit.iterations(op, size, trial, took))?;
        self.control.barrier()?;
        let mine = self.time(plan, &mut exercise, iterations)?;
        let mut wrong = 0;
        if args.check {
            // In place, what was there has been used up many times over.
            wrong += if in_place { 0 } else { exercise.wrong(0)? };
            for iteration in 1..=Plan::checked(iterations, size) {
                exercise.prepare(iteration)?;
                exercise.run(1)?;
                wrong += exercise.wrong(iteration)?;
            }
        }
        let count = exercise.view().count;
        drop(exercise);
        let (measured, wrong) = self.conclude(op, mine, wrong)?;
        Ok(Row::new(&Outcome {
            step,
            count,
            nranks: self.control.nranks,
            datatype: args.datatype,
            redop: args.redop,
            root: self.setting.root,
            iterations,
            measured,
            wrong: args.check.then_some(wrong),
        }))
    }

    /// The measurement itself, on this rank.
    fn time(&self, plan: &Plan, exercise: &mut Exercise<'_>, iterations: u64) -> Result<Measured> {
        let mut samples = Samples::new(if plan.sampled { iterations } else { 0 });
        let took = if plan.sampled {
            exercise.run_sampled(iterations, &mut samples)?
        } else {
            exercise.run(iterations)?
        };
        let average = took.as_secs_f64() * 1e6 / iterations.max(1) as f64;
        let spread = samples.spread().unwrap_or(Spread { min: average, median: average, p99: average });
        Ok(Measured { average, spread })
    }

    /// What all ranks' measurements come to: of a collective the slowest counts, else rank 0.
    fn conclude(&self, op: Op, mine: Measured, wrong: u64) -> Result<(Measured, u64)> {
        let Measured { average, spread: Spread { min, median, p99 } } = mine;
        let all = self.control.gather([average, min, median, p99, wrong as f64])?;
        let wrong = all.iter().map(|[.., wrong]| *wrong as u64).sum();
        let measured: Vec<Measured> = all
            .iter()
            .map(|&[average, min, median, p99, _]| Measured { average, spread: Spread { min, median, p99 } })
            .collect();
        let counting = if op.is_point_to_point() { measured.first().copied() } else { slowest(&measured) };
        let counting = counting.unwrap_or(mine);
        Ok((if op == Op::SendRecv { counting.halved() } else { counting }, wrong))
    }
}
