//! The rules one by one, and then all of them together: every interleaving of a few candidates that look, propose,
//! connect and die, and random ones of more.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

const WORLD: WorldId = WorldId([7; 16]);
const LATER: Duration = Duration::from_secs(1000);

fn terms(min: u32, max: u32) -> Terms {
    Terms { min, max, newcomers: Duration::from_millis(100), stragglers: Duration::from_millis(400) }
}

fn view(epoch: u64, members: &[u8]) -> View<u8> {
    View { world: WORLD, epoch, members: members.to_vec() }
}

fn survivor(member: u8, epoch: u64, rank: u32) -> Candidate<u8> {
    Candidate { member, claim: Some(Claim { epoch, rank }), order: 0 }
}

fn newcomer(member: u8, order: u64) -> Candidate<u8> {
    Candidate { member, claim: None, order }
}

fn members(view: &View<u8>, candidates: &[Candidate<u8>], min: u32, max: u32) -> Option<Vec<u8>> {
    let next = successor(view, candidates, &terms(min, max))?;
    assert_eq!((next.world, next.epoch), (view.world, view.epoch + 1));
    Some(next.members)
}

#[test]
fn survivors_keep_their_ranks_and_newcomers_take_the_holes() {
    let old = view(3, &[10, 11, 12, 13]);
    let of = |rank: u32| survivor(10 + rank as u8, 3, rank);
    assert_eq!(
        members(&old, &[newcomer(21, 5), of(3), of(0), newcomer(20, 4), of(2)], 1, 4),
        Some(vec![10, 20, 12, 13])
    );
    // No newcomer: the last one moves up, nobody else.
    assert_eq!(members(&old, &[of(3), of(0), of(2)], 1, 4), Some(vec![10, 13, 12]));
    assert_eq!(members(&old, &[of(3)], 1, 4), Some(vec![13]));
    // More than there were.
    let six = members(&old, &[of(0), of(1), of(2), of(3), newcomer(20, 1), newcomer(21, 2)], 1, 6);
    assert_eq!(six, Some(vec![10, 11, 12, 13, 20, 21]));
    // Fewer than there may be at least, and more than there may be at most.
    assert_eq!(members(&old, &[of(0), of(1)], 3, 4), None);
    assert_eq!(members(&old, &[of(0), of(2), of(3)], 1, 2), Some(vec![10, 12]));
}

#[test]
fn a_claim_counts_for_whom_the_view_names_there_only() {
    let old = view(3, &[10, 11]);
    let claims =
        [survivor(10, 3, 0), survivor(99, 3, 1), survivor(11, 2, 1), survivor(11, 3, 0), survivor(11, 3, 9)];
    assert_eq!(members(&old, &claims, 1, 2), Some(vec![10]));
    // Newcomers alone are another world.
    assert_eq!(members(&old, &[newcomer(20, 1), newcomer(21, 2)], 1, 2), None);
    // Nobody is in twice.
    let twice = [survivor(10, 3, 0), survivor(10, 3, 0), newcomer(11, 0)];
    assert_eq!(members(&old, &twice, 1, 4), Some(vec![10]));
}

#[test]
fn it_begins_when_nobody_is_missing() {
    let old = view(1, &[10, 11, 12]);
    let me = survivor(10, 1, 0);
    let look = |candidates: &[Candidate<u8>], gone: &[u8], ms: u64| {
        let quiet = Duration::from_millis(ms);
        next(&me, WORLD, &Sight { view: &old, candidates, gone, quiet }, &terms(2, 3))
    };
    let wait = |ms| Next::Wait(Some(Duration::from_millis(ms)));
    // Too few, however long it takes.
    assert_eq!(look(std::slice::from_ref(&me), &[11, 12], 100_000), Next::Wait(None));
    // All.
    let all = [me.clone(), survivor(11, 1, 1), survivor(12, 1, 2)];
    assert_eq!(look(&all, &[], 0), Next::Propose(view(2, &[10, 11, 12])));
    // One is gone: somebody may come in its place, or not.
    assert_eq!(look(&all[..2], &[12], 0), wait(100));
    assert_eq!(look(&all[..2], &[12], 60), wait(40));
    assert_eq!(look(&all[..2], &[12], 100), Next::Propose(view(2, &[10, 11])));
    let full = [all[0].clone(), all[1].clone(), newcomer(20, 1)];
    assert_eq!(look(&full, &[12], 0), Next::Propose(view(2, &[10, 11, 20])));
    // One is alive and does not come: it is not thrown out at once, not even for a newcomer.
    assert_eq!(look(&all[..2], &[], 100), wait(300));
    assert_eq!(look(&full, &[], 0), wait(400));
    assert_eq!(look(&full, &[], 400), Next::Propose(view(2, &[10, 11, 20])));
}

#[test]
fn what_comes_out_of_it() {
    let now = view(5, &[10, 20]);
    let look = |me: &Candidate<u8>, world| {
        let sight = Sight { view: &now, candidates: std::slice::from_ref(me), gone: &[], quiet: LATER };
        next(me, world, &sight, &terms(1, 2))
    };
    assert_eq!(look(&survivor(10, 4, 3), WORLD), Next::Join { view: now.clone(), rank: 0 });
    assert_eq!(look(&newcomer(20, 0), WORLD), Next::Join { view: now.clone(), rank: 1 });
    // It did not come in time, and an epoch that it was in is long over.
    assert_eq!(look(&survivor(11, 4, 1), WORLD), Next::LeftOut { epoch: 5 });
    assert_eq!(look(&survivor(10, 4, 0), WorldId([8; 16])), Next::Replaced);
    // Comes from this one and wants the next.
    assert_eq!(look(&survivor(10, 5, 0), WORLD), Next::Propose(view(6, &[10])));
    // Two propose one after the other, not together.
    let two = [survivor(10, 5, 0), survivor(20, 5, 1)];
    let sight = Sight { view: &now, candidates: &two, gone: &[], quiet: Duration::ZERO };
    assert_eq!(next(&two[1], WORLD, &sight, &terms(1, 2)), Next::Wait(Some(STAGGER)));
}

/// What a process is doing in the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Has not called yet.
    Idle,
    /// Has registered; with what it is about to put in the place of an epoch's record.
    Candidate(Option<View<u8>>),
    /// In an epoch, not connected to all.
    Connecting,
    /// Has come out of the call as a member of an epoch.
    Out,
    /// Has come out of it without an epoch.
    LeftOut,
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    phase: Phase,
    /// The epoch it is, or was, in: its members and its own rank.
    epoch: Option<(View<u8>, u32)>,
    /// Whom it has waited for in vain.
    gone: BTreeSet<u8>,
}

/// All there is: the store, and the processes by member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Model {
    view: View<u8>,
    /// Candidates in the store; a dead one's stays until its lease ends.
    cards: BTreeMap<u8, Candidate<u8>>,
    processes: BTreeMap<u8, Process>,
    deaths: u32,
    terms: Terms,
}

impl Model {
    fn new(old: u8, new: u8, deaths: u32, terms: Terms) -> Model {
        let first = view(1, &(0..old).collect::<Vec<u8>>());
        let process = |member: u8| Process {
            phase: Phase::Idle,
            epoch: (member < old).then(|| (first.clone(), u32::from(member))),
            gone: BTreeSet::new(),
        };
        let processes = (0..old + new).map(|m| (m, process(m))).collect();
        Model { view: first, cards: BTreeMap::new(), processes, deaths, terms }
    }

    fn is_dead(&self, member: u8) -> bool {
        self.processes[&member].phase == Phase::Dead
    }

    /// Whether a process is in an epoch, or may still come to be: nobody who waits for it waits in vain.
    fn is_coming(&self, member: u8, epoch: u64) -> bool {
        let p = &self.processes[&member];
        let current = p.epoch.as_ref().map_or(0, |(view, _)| view.epoch);
        match p.phase {
            Phase::Dead | Phase::LeftOut => false,
            Phase::Connecting | Phase::Out => current <= epoch,
            Phase::Idle | Phase::Candidate(_) => current < epoch,
        }
    }

    fn register(&mut self, member: u8) {
        let Some(p) = self.processes.get_mut(&member) else { return };
        let claim = p.epoch.as_ref().map(|(view, rank)| Claim { epoch: view.epoch, rank: *rank });
        p.phase = Phase::Candidate(None);
        self.cards.insert(member, Candidate { member, claim, order: u64::from(member) });
    }

    /// One that sees a state of the store acts on it: `late` says that nothing has changed for long, `informed` that it
    /// knows of all deaths.
    fn look(&self, member: u8, late: bool, informed: bool) -> Option<Model> {
        let mut after = self.clone();
        let candidates: Vec<Candidate<u8>> = self.cards.values().cloned().collect();
        let is_known = |m: &&u8| self.is_dead(**m) && (informed || self.processes[&member].gone.contains(*m));
        let gone: Vec<u8> = self.processes.keys().filter(is_known).copied().collect();
        let quiet = if late { LATER } else { Duration::ZERO };
        let sight = Sight { view: &self.view, candidates: &candidates, gone: &gone, quiet };
        let me = self.cards.get(&member)?;
        let p = after.processes.get_mut(&member)?;
        match next(me, WORLD, &sight, &self.terms) {
            Next::Wait(_) => return None,
            Next::Replaced => panic!("there is one world"),
            Next::Propose(new) => p.phase = Phase::Candidate(Some(new)),
            Next::LeftOut { .. } => {
                // What it was in before makes no difference any more.
                (p.phase, p.epoch) = (Phase::LeftOut, None);
                p.gone.clear();
                after.cards.remove(&member);
            }
            Next::Join { view, rank } => {
                let before = p.epoch.as_ref().map_or(0, |(view, _)| view.epoch);
                assert!(view.epoch > before);
                (p.phase, p.epoch) = (Phase::Connecting, Some((view, rank)));
            }
        }
        Some(after)
    }

    /// Everything that can happen next. What is not somebody's death comes first.
    fn steps(&self) -> Vec<(bool, Model)> {
        let mut steps = Vec::new();
        for (&member, p) in &self.processes {
            let mut with = |change: &dyn Fn(&mut Model)| {
                let mut after = self.clone();
                change(&mut after);
                steps.push((false, after));
            };
            let of_epoch = |m: &Model| m.processes[&member].epoch.clone().unwrap().0;
            match &p.phase {
                Phase::Idle => with(&|m| m.register(member)),
                Phase::Candidate(Some(new)) => with(&|m| {
                    // Compare and set: epochs are never used twice.
                    if m.view.epoch + 1 == new.epoch {
                        m.view = new.clone();
                    }
                    m.processes.get_mut(&member).unwrap().phase = Phase::Candidate(None);
                }),
                Phase::Candidate(None) => {
                    for (late, informed) in [(false, false), (false, true), (true, false), (true, true)] {
                        steps.extend(self.look(member, late, informed).map(|m| (false, m)));
                    }
                }
                Phase::Connecting | Phase::Out => {
                    let epoch = of_epoch(self);
                    let in_it = |m: &u8| {
                        let p = &self.processes[m];
                        matches!(p.phase, Phase::Connecting | Phase::Out)
                            && p.epoch.as_ref().unwrap().0 == epoch
                    };
                    if p.phase == Phase::Connecting && epoch.members.iter().all(in_it) {
                        with(&|m| {
                            m.processes.get_mut(&member).unwrap().phase = Phase::Out;
                            m.cards.remove(&member);
                        });
                    }
                    // The epoch is broken, before or after it had come out.
                    if !epoch.members.iter().all(|m| self.is_coming(*m, epoch.epoch)) {
                        with(&|m| {
                            m.register(member);
                            let dead: Vec<u8> =
                                epoch.members.iter().copied().filter(|x| m.is_dead(*x)).collect();
                            m.processes.get_mut(&member).unwrap().gone.extend(dead);
                        });
                    }
                }
                Phase::LeftOut | Phase::Dead => {}
            }
            if p.phase == Phase::Dead && self.cards.contains_key(&member) {
                steps.push((false, {
                    let mut after = self.clone();
                    after.cards.remove(&member);
                    after
                }));
            }
            if self.deaths > 0 && p.phase != Phase::Dead {
                let mut after = self.clone();
                after.deaths -= 1;
                after
                    .processes
                    .insert(member, Process { phase: Phase::Dead, epoch: None, gone: BTreeSet::new() });
                steps.push((true, after));
            }
        }
        steps
    }

    /// What must never be.
    fn check(&self) {
        let mut epochs: HashMap<u64, &View<u8>> = HashMap::new();
        for p in self.processes.values() {
            if let (Phase::Connecting | Phase::Out, Some((view, rank))) = (&p.phase, &p.epoch) {
                assert_eq!(
                    epochs.entry(view.epoch).or_insert(view),
                    &view,
                    "two lists of one epoch: {self:?}"
                );
                assert!(view.epoch <= self.view.epoch && (*rank as usize) < view.members.len(), "{self:?}");
            }
        }
        let mut unique = self.view.members.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), self.view.members.len(), "one member twice: {self:?}");
        assert!((self.terms.min..=self.terms.max).contains(&(unique.len() as u32)) || self.view.epoch == 1);
    }

    /// Nobody waits for anything any more that could be had.
    fn is_settled(&self) -> bool {
        let living: Vec<u8> = self.processes.keys().copied().filter(|m| !self.is_dead(*m)).collect();
        let fit = living.iter().filter(|m| self.processes[*m].phase != Phase::LeftOut).count();
        let all_out = self.view.epoch > 1
            && self.view.members.iter().all(|m| {
                let p = &self.processes[m];
                p.phase == Phase::Out && p.epoch.as_ref().unwrap().0 == self.view
            });
        // The last epoch died out. Whoever is left has no world to come back to.
        let died_out = self.view.members.iter().all(|m| self.is_dead(*m));
        all_out || died_out || fit < self.terms.min as usize
    }
}

/// What a state is known by. Hundreds of thousands of them would fill the memory.
fn digest(model: &Model) -> (u64, u64) {
    let one = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, model).hash(&mut hasher);
        hasher.finish()
    };
    (one(1), one(2))
}

/// Goes through everything that can happen. Answers how many states there are, or the number of one that leads nowhere;
/// prints the state of that number.
fn explore(first: Model, shown: Option<usize>) -> Result<usize, usize> {
    let mut numbers = HashMap::from([(digest(&first), 0)]);
    let mut queue = VecDeque::from([first]);
    let mut before: Vec<Vec<usize>> = vec![Vec::new()];
    let mut good = Vec::new();
    let mut at = 0;
    while let Some(model) = queue.pop_front() {
        if shown == Some(at) {
            println!("{model:#?}");
        }
        model.check();
        if model.is_settled() {
            good.push(at);
        }
        for (is_death, after) in model.steps() {
            let number = *numbers.entry(digest(&after)).or_insert_with(|| {
                queue.push_back(after);
                before.push(Vec::new());
                before.len() - 1
            });
            if !is_death {
                before[number].push(at);
            }
        }
        at += 1;
        assert!(at < 3_000_000, "too many states");
    }
    // From everywhere there is a way to the end on which nobody dies any more.
    let mut reaches = vec![false; at];
    while let Some(state) = good.pop() {
        if !std::mem::replace(&mut reaches[state], true) {
            good.extend(&before[state]);
        }
    }
    reaches.iter().position(|reaches| !reaches).map_or(Ok(at), Err)
}

#[test]
fn no_order_of_events_parts_the_survivors_or_leaves_them_waiting() {
    let mut states = 0;
    // Members, newcomers, deaths, fewest and most members.
    let worlds = [
        (2, 0, 1, 1, 2),
        (2, 1, 2, 1, 2),
        (2, 1, 1, 2, 2),
        (2, 2, 2, 1, 2),
        (2, 2, 2, 2, 2),
        (3, 0, 2, 1, 3),
        (3, 1, 2, 1, 3),
        (3, 1, 2, 3, 3),
        (4, 0, 2, 1, 4),
        (4, 0, 2, 3, 4),
    ];
    for (old, new, deaths, min, max) in worlds {
        let first = Model::new(old, new, deaths, terms(min, max));
        let found = explore(first.clone(), None).unwrap_or_else(|stuck| {
            let _shown = explore(first, Some(stuck));
            panic!("stuck: the state above");
        });
        println!("{old} members, {new} newcomers, {deaths} deaths, {min} to {max} members: {found} states");
        states += found;
    }
    println!("{states} states");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn neither_does_any_that_was_drawn(old in 2u8..9, new in 0u8..5, deaths in 0u32..6, choices in prop::collection::vec(any::<u16>(), 400)) {
        let max = u32::from(old);
        let mut model = Model::new(old, new, deaths, terms(1, max));
        for choice in choices {
            model.check();
            let steps = model.steps();
            if steps.is_empty() {
                break;
            }
            model = steps[choice as usize % steps.len()].1.clone();
        }
        // Left alone, it comes to an end.
        for round in 0.. {
            model.check();
            if model.is_settled() {
                break;
            }
            let steps: Vec<Model> = model.steps().into_iter().filter(|(death, _)| !death).map(|(_, m)| m).collect();
            prop_assert!(!steps.is_empty() && round < 10_000, "stuck: {:#?}", model);
            model = steps[round * 7919 % steps.len()].clone();
        }
    }
}
