//! Plans of every operation, run on a simulated world and compared with what the operation means.

use super::reduce::fp8::{E4m3, E5m2};
use super::simulate::{Delivery, Dice, Outcome, run};
use super::*;
use crate::types::RedOp;
use half::{bf16, f16};
use proptest::prelude::*;

const KINDS: [OpKind; 9] = [
    OpKind::Broadcast,
    OpKind::Reduce,
    OpKind::AllReduce,
    OpKind::AllGather,
    OpKind::ReduceScatter,
    OpKind::AllToAll,
    OpKind::Gather,
    OpKind::Scatter,
    OpKind::Barrier,
];

/// Reaches the algorithms for large messages with little.
const TINY: Tuning = Tuning {
    chunk: 64,
    flat_ranks: 0,
    broadcast_flat: 0,
    shared_piece: usize::MAX,
    broadcast_chain: 200,
    reduce_chain: 200,
    all_reduce_flat: 0,
    all_reduce_pair: 0,
    all_reduce_direct: usize::MAX,
    all_reduce_ring: 40,
    all_reduce_segment: 200,
    all_gather_flat: 0,
    all_gather_direct: 40,
    all_gather_ring: 100,
    reduce_scatter_flat: 0,
    reduce_scatter_direct: 40,
    reduce_scatter_pairwise: 500,
    reduce_scatter_piece: 64,
    all_to_all_pairwise: 500,
};

/// Everybody to everybody, in many rounds.
const FLAT: Tuning = Tuning {
    flat_ranks: 7,
    broadcast_flat: usize::MAX,
    shared_piece: 192,
    all_reduce_flat: 500,
    all_reduce_pair: 500,
    all_reduce_direct: 0,
    all_reduce_ring: usize::MAX,
    all_gather_direct: 0,
    reduce_scatter_direct: 0,
    reduce_scatter_pairwise: usize::MAX,
    ..TINY
};

/// Every value is this one.
fn all_are(value: usize) -> Tuning {
    Tuning::from_words(&[value as u64; Tuning::KEYS.len()])
}

/// Any table that somebody may come up with: each value is one that changes something in worlds as small as here.
fn any_table() -> impl Strategy<Value = Tuning> {
    let values = proptest::sample::select(&[0, 1, 64, 100, 300, 2000, usize::MAX as u64][..]);
    proptest::collection::vec(values, Tuning::KEYS.len()).prop_map(|values| {
        let mut words = [0; Tuning::KEYS.len()];
        words.copy_from_slice(&values);
        Tuning::from_words(&words)
    })
}

/// One operation as all ranks call it.
#[derive(Clone, Copy, Debug)]
struct Case {
    kind: OpKind,
    nranks: u32,
    root: u32,
    count: usize,
    dtype: DataType,
    /// `None` for a pre-multiplied sum.
    redop: Option<RedOp>,
    /// One bit per rank.
    in_place: u64,
    tuning: Tuning,
    delivery: Delivery,
    seed: u64,
}

/// Bytes of one element.
fn number(dtype: DataType, value: i8) -> Vec<u8> {
    let wide = f32::from(value);
    match dtype {
        DataType::Int8 | DataType::Uint8 => vec![value as u8],
        DataType::Int32 | DataType::Uint32 => i32::from(value).to_ne_bytes().to_vec(),
        DataType::Int64 | DataType::Uint64 => i64::from(value).to_ne_bytes().to_vec(),
        DataType::Float16 => f16::from_f32(wide).to_ne_bytes().to_vec(),
        DataType::Bfloat16 => bf16::from_f32(wide).to_ne_bytes().to_vec(),
        DataType::Float32 => wide.to_ne_bytes().to_vec(),
        DataType::Float64 => f64::from(wide).to_ne_bytes().to_vec(),
        DataType::Float8e4m3 => vec![E4m3::from_f32(wide).0],
        DataType::Float8e5m2 => vec![E5m2::from_f32(wide).0],
    }
}

fn is_float(dtype: DataType) -> bool {
    !matches!(
        dtype,
        DataType::Int8
            | DataType::Uint8
            | DataType::Int32
            | DataType::Uint32
            | DataType::Int64
            | DataType::Uint64
    )
}

/// The element with every NaN made the same.
fn canonical(dtype: DataType, raw: &[u8]) -> Vec<u8> {
    let nan = match dtype {
        DataType::Float16 => f16::from_ne_bytes(raw.try_into().unwrap()).is_nan(),
        DataType::Bfloat16 => bf16::from_ne_bytes(raw.try_into().unwrap()).is_nan(),
        DataType::Float32 => f32::from_ne_bytes(raw.try_into().unwrap()).is_nan(),
        DataType::Float64 => f64::from_ne_bytes(raw.try_into().unwrap()).is_nan(),
        DataType::Float8e4m3 => E4m3(raw[0]).to_f32().is_nan(),
        DataType::Float8e5m2 => E5m2(raw[0]).to_f32().is_nan(),
        _ => false,
    };
    if nan { vec![0xff; raw.len()] } else { raw.to_vec() }
}

impl Case {
    fn shapes(&self, dice: &mut Dice) -> Vec<Shape> {
        let shape = |rank| {
            let reduction = self.redop.map_or_else(
                || {
                    let scalar = if is_float(self.dtype) {
                        number(self.dtype, if dice.below(2) == 0 { 1 } else { -1 })
                    } else {
                        dice.bytes(self.dtype.size())
                    };
                    let mut raw = [0xee; 8];
                    raw[..scalar.len()].copy_from_slice(&scalar);
                    Reduction::PreMulSum(raw)
                },
                Reduction::Builtin,
            );
            Shape {
                kind: self.kind,
                nranks: self.nranks,
                rank,
                root: self.root,
                count: self.count,
                dtype: self.dtype,
                reduction,
                in_place: self.in_place >> rank & 1 == 1,
            }
        };
        (0..self.nranks).map(shape).collect()
    }

    /// Any bytes, but for sums of floats numbers whose every partial sum all types represent exactly.
    fn inputs(&self, shapes: &[Shape], exact: bool, dice: &mut Dice) -> Vec<Vec<u8>> {
        let input = |shape: &Shape| {
            let len = shape.lengths().expect("small").0;
            if !(exact && self.kind.reduces() && is_float(self.dtype)) {
                return dice.bytes(len);
            }
            let limit = if shape.rank < 8 { 1 } else { 0 };
            let one = |dice: &mut Dice| number(self.dtype, dice.below(3).min(2 * limit) as i8 - limit as i8);
            (0..len / self.dtype.size()).flat_map(|_| one(dice)).collect()
        };
        shapes.iter().map(input).collect()
    }

    /// Everybody's inputs combined in the order of ranks.
    fn reduced(&self, shapes: &[Shape], inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut total = Vec::new();
        for (shape, input) in shapes.iter().zip(inputs) {
            let mut own = input.clone();
            let elements = own.len() / self.dtype.size();
            if let Reduction::PreMulSum(scalar) = shape.reduction {
                // SAFETY: `own` and `input` hold `elements` elements.
                unsafe { reduce::premul(self.dtype)(own.as_mut_ptr(), input.as_ptr(), elements, &scalar) };
            }
            if shape.rank == 0 {
                total = own;
            } else {
                // SAFETY: `total` and `own` hold `elements` elements.
                unsafe { kernel(shape)(total.as_mut_ptr(), own.as_ptr(), elements) };
            }
        }
        if self.redop == Some(RedOp::Avg) {
            let elements = total.len() / self.dtype.size();
            // SAFETY: `total` holds `elements` elements.
            unsafe { reduce::average(self.dtype)(total.as_mut_ptr(), elements, self.nranks) };
        }
        total
    }

    /// What the operation means.
    fn expected(&self, shapes: &[Shape], inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let each = self.count * self.dtype.size();
        let root = self.root as usize;
        let part = |input: usize, index: usize| inputs[input][index * each..][..each].to_vec();
        let ranks = 0..self.nranks as usize;
        let only_root = |rank, output: Vec<u8>| if rank == root { output } else { Vec::new() };
        let sum = if self.kind.reduces() { self.reduced(shapes, inputs) } else { Vec::new() };
        let of_rank = |rank: usize| match self.kind {
            OpKind::Broadcast => inputs[root].clone(),
            OpKind::Reduce => only_root(rank, sum.clone()),
            OpKind::AllReduce => sum.clone(),
            OpKind::AllGather => inputs.concat(),
            OpKind::ReduceScatter => sum[rank * each..][..each].to_vec(),
            OpKind::AllToAll => ranks.clone().flat_map(|other| part(other, rank)).collect(),
            OpKind::Gather => only_root(rank, inputs.concat()),
            OpKind::Scatter => part(root, rank),
            OpKind::Barrier | OpKind::PointToPoint => Vec::new(),
        };
        ranks.clone().map(of_rank).collect()
    }

    fn run(&self, exact: bool) -> (Vec<Vec<u8>>, Vec<Outcome>) {
        let mut dice = Dice(self.seed);
        let shapes = self.shapes(&mut dice);
        let inputs = self.inputs(&shapes, exact, &mut dice);
        let outcomes = run(&shapes, &inputs, &self.tuning, self.delivery, None, &mut dice);
        (self.expected(&shapes, &inputs), outcomes)
    }

    fn check(&self) {
        let (expected, outcomes) = self.run(true);
        for (rank, (expected, outcome)) in expected.iter().zip(&outcomes).enumerate() {
            assert!(outcome.output == *expected, "rank {rank} of {self:?}");
        }
    }
}

fn cases(kinds: &'static [OpKind]) -> impl Strategy<Value = Case> {
    let redops = prop_oneof![4 => proptest::sample::select(&RedOp::ALL[..]).prop_map(Some), 1 => Just(None)];
    let counts = prop_oneof![1 => Just(0), 3 => 1..70usize, 3 => 70..3000usize];
    let tunings = prop_oneof![
        3 => Just(TINY),
        3 => Just(FLAT),
        1 => Just(Tuning::network()),
        1 => Just(Tuning::shared_memory()),
        1 => Just(all_are(0)),
        1 => Just(all_are(usize::MAX)),
        4 => any_table(),
    ];
    let deliveries = prop_oneof![Just(Delivery::Eager), Just(Delivery::Rendezvous)];
    let kinds = proptest::sample::select(kinds);
    let dtypes = proptest::sample::select(&DataType::ALL[..]);
    (kinds, 1..=9u32, any::<u32>(), counts, dtypes, redops, any::<u64>(), tunings, deliveries, any::<u64>())
        .prop_map(|(kind, nranks, root, count, dtype, redop, in_place, tuning, delivery, seed)| {
            let root = if kind.rooted() { root % nranks } else { 0 };
            let redop = if kind.reduces() { redop } else { Some(RedOp::Sum) };
            Case { kind, nranks, root, count, dtype, redop, in_place, tuning, delivery, seed }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn every_operation_does_what_it_means(case in cases(&KINDS)) {
        case.check();
    }

    #[test]
    fn all_ranks_get_the_same_bits(case in cases(&[OpKind::AllReduce])) {
        let (_, outcomes) = case.run(false);
        let bits = |outcome: &Outcome| -> Vec<_> {
            outcome.output.chunks(case.dtype.size()).map(|raw| canonical(case.dtype, raw)).collect()
        };
        let first = bits(&outcomes[0]);
        for outcome in &outcomes {
            prop_assert!(bits(outcome) == first);
        }
    }
}

fn case(kind: OpKind, nranks: u32, count: usize, tuning: Tuning) -> Case {
    Case {
        kind,
        nranks,
        root: if kind.rooted() { nranks - 1 } else { 0 },
        count,
        dtype: DataType::Int32,
        redop: Some(RedOp::Sum),
        in_place: 0x5555_5555_5555_5555,
        tuning,
        delivery: Delivery::Rendezvous,
        seed: 7,
    }
}

/// The extremes force every algorithm at every size.
#[test]
fn tables_with_extremes_change_no_result() {
    for extreme in [0, usize::MAX] {
        let other = usize::MAX - extreme;
        // All of them, and all but one.
        let mut tunings = vec![all_are(extreme)];
        for key in Tuning::KEYS {
            let mut tuning = all_are(extreme);
            *tuning.get_mut(key).expect("a key") = other;
            tunings.push(tuning);
        }
        for kind in KINDS {
            for nranks in [1, 2, 3, 4, 7, 8] {
                for count in [0, 1, 300] {
                    for (tuning, in_place) in tunings.iter().flat_map(|t| [(*t, 0), (*t, u64::MAX)]) {
                        for redop in [Some(RedOp::Avg), None] {
                            let redop = if kind.reduces() { redop } else { Some(RedOp::Sum) };
                            Case { redop, in_place, ..case(kind, nranks, count, tuning) }.check();
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn larger_worlds() {
    for kind in KINDS {
        for nranks in [16, 17, 33] {
            for (count, tuning) in [(0, TINY), (1, TINY), (300, TINY), (300, FLAT), (40, Tuning::network())] {
                for redop in [Some(RedOp::Sum), Some(RedOp::Avg), None] {
                    Case { redop, ..case(kind, nranks, count, tuning) }.check();
                }
            }
        }
    }
}

/// Every operation on every number of ranks, root and way of delivery, however the dice of the property fall.
#[test]
fn every_root_of_small_worlds() {
    for kind in KINDS {
        for nranks in 1..=9 {
            for root in 0..if kind.rooted() { nranks } else { 1 } {
                for delivery in [Delivery::Eager, Delivery::Rendezvous] {
                    for count in [0, 5, 130] {
                        for in_place in [0, u64::MAX] {
                            for tuning in [TINY, FLAT] {
                                Case { root, delivery, in_place, ..case(kind, nranks, count, tuning) }
                                    .check();
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What goes through others wraps around the last rank in a different way for each number of ranks.
#[test]
fn through_others_with_any_number_of_ranks() {
    let tuning = Tuning { flat_ranks: 0, ..all_are(usize::MAX) };
    for kind in [OpKind::AllGather, OpKind::ReduceScatter] {
        for nranks in 1..=17 {
            for count in [0, 1, 2, 3, 16, 129] {
                for delivery in [Delivery::Eager, Delivery::Rendezvous] {
                    for in_place in [0, u64::MAX, 0x5555_5555_5555_5555] {
                        for redop in [Some(RedOp::Sum), Some(RedOp::Avg), Some(RedOp::Max), None] {
                            let redop = if kind.reduces() { redop } else { Some(RedOp::Sum) };
                            for dtype in [DataType::Int32, DataType::Float16, DataType::Uint8] {
                                let case = case(kind, nranks, count, tuning);
                                Case { delivery, in_place, redop, dtype, ..case }.check();
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn nobody_leaves_a_barrier_before_the_last_arrives() {
    for tuning in [TINY, FLAT] {
        for nranks in 2..20 {
            for late in 0..nranks as usize {
                let mut dice = Dice(late as u64);
                let shapes = case(OpKind::Barrier, nranks, 0, tuning).shapes(&mut dice);
                let inputs = vec![Vec::new(); nranks as usize];
                let outcomes = run(&shapes, &inputs, &tuning, Delivery::Eager, Some(late), &mut dice);
                assert!(outcomes.iter().all(|outcome| !outcome.before_late));
            }
        }
    }
}

/// The costs that the heads of the files claim.
#[test]
fn costs_are_as_documented() {
    const N: usize = 8;
    // A whole number of lines per block.
    const COUNT: usize = 16 * N;
    const B: usize = COUNT * 4;
    let small = Tuning {
        broadcast_chain: usize::MAX,
        reduce_chain: usize::MAX,
        all_reduce_ring: usize::MAX,
        all_gather_ring: usize::MAX,
        reduce_scatter_pairwise: usize::MAX,
        reduce_scatter_piece: usize::MAX,
        all_to_all_pairwise: usize::MAX,
        ..TINY
    };
    let rounds = Tuning { all_gather_direct: usize::MAX, reduce_scatter_direct: usize::MAX, ..small };
    let flat = Tuning { flat_ranks: N, shared_piece: usize::MAX, all_reduce_flat: usize::MAX, ..FLAT };
    let direct = Tuning { all_reduce_flat: 0, all_reduce_segment: B, ..flat };
    let most = |kind, tuning| {
        let (_, outcomes) = Case { in_place: 0, ..case(kind, N as u32, COUNT, tuning) }.run(true);
        let sent = outcomes.iter().map(|o| o.sent).max();
        let steps = outcomes.iter().map(|o| o.steps).max();
        (sent.unwrap_or(0), steps.unwrap_or(0))
    };
    assert_eq!(most(OpKind::Broadcast, small), (3 * B, 2));
    assert_eq!(most(OpKind::Broadcast, TINY), (B, B / 64 + 1));
    assert_eq!(most(OpKind::Broadcast, flat), ((N - 1) * B, 2));
    assert_eq!(most(OpKind::Reduce, small), (B, 4));
    assert_eq!(most(OpKind::Reduce, TINY), (B, B / 64 + 1));
    assert_eq!(most(OpKind::AllReduce, small), (3 * B, 4));
    assert_eq!(most(OpKind::AllReduce, TINY), (2 * B * (N - 1) / N, 2 * (N - 1)));
    assert_eq!(most(OpKind::AllReduce, flat), ((N - 1) * B, 2));
    assert_eq!(most(OpKind::AllReduce, direct), (2 * B * (N - 1) / N, 2));
    assert_eq!(most(OpKind::AllGather, small), ((N - 1) * B, 2));
    assert_eq!(most(OpKind::AllGather, rounds), ((N - 1) * B, 3));
    assert_eq!(most(OpKind::AllGather, TINY), ((N - 1) * B, N));
    assert_eq!(most(OpKind::ReduceScatter, small), ((N - 1) * B, 2));
    assert_eq!(most(OpKind::ReduceScatter, rounds), ((N - 1) * B, 4));
    assert_eq!(most(OpKind::ReduceScatter, TINY), ((N - 1) * B, N));
    assert_eq!(most(OpKind::ReduceScatter, flat), ((N - 1) * B, B / 64 + 1));
    assert_eq!(most(OpKind::AllToAll, small), ((N - 1) * B, 2));
    assert_eq!(most(OpKind::Gather, small), (B, 2));
    assert_eq!(most(OpKind::Scatter, small), ((N - 1) * B, 2));
    assert_eq!(most(OpKind::Barrier, small), (0, 3));
    assert_eq!(most(OpKind::Barrier, flat), (0, 1));
}

#[test]
fn lengths_that_exceed_an_address_space_are_refused() {
    let shape = |kind, count| Shape { count, ..case(kind, 4, 1, TINY).shapes(&mut Dice(1))[3] };
    assert_eq!(shape(OpKind::AllReduce, usize::MAX / 2).lengths(), None);
    assert_eq!(shape(OpKind::AllGather, usize::MAX / 16).lengths(), None);
    assert_eq!(
        shape(OpKind::AllReduce, usize::MAX / 16).lengths(),
        Some((usize::MAX / 16 * 4, usize::MAX / 16 * 4))
    );
    assert_eq!(shape(OpKind::Gather, 10).lengths(), Some((40, 160)));
}
