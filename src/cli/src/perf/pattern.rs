//! What buffers hold, so that it can be told whether the right thing arrived: numbers that depend on rank, position
//! and iteration. Pure.
//!
//! What is only moved is noise. What is reduced are small whole numbers, chosen so that the result is exact in the
//! type whatever the order of the steps. Both repeat with a period that is a prime, so that no part of a buffer can
//! be taken for another of the same alignment.

use super::element::{Element, encode, largest_exact};
use multiworld::types::{DataType, RedOp};

/// Elements after which a pattern repeats.
const PERIOD: usize = 4093;
/// More factors of two would not fit into an int8.
const MOST_TWOS: usize = 6;

/// What a part of a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// What rank `from` has for rank `to`; `to` is 0 where all get the same.
    Data { from: usize, to: usize },
    /// What a rank contributes to a reduction.
    Input { rank: usize },
    /// What a reduction comes to.
    Reduced,
}

/// What patterns depend on besides rank, position and iteration.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    pub datatype: DataType,
    pub redop: RedOp,
    pub nranks: usize,
}

/// The elements of one period.
pub struct Tile {
    bytes: Vec<u8>,
    element: usize,
}

fn hash(a: usize, b: usize, c: u64) -> u64 {
    let mut x = (a as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (b as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
        ^ c.wrapping_mul(0x1656_67b1_9e37_79f9);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Recipe {
    /// The pattern for a buffer of so many elements.
    pub fn tile(&self, content: Content, elements: usize, iteration: u64) -> Tile {
        let element = self.datatype.size();
        let mut bytes = Vec::with_capacity(element * PERIOD.min(elements));
        for position in 0..PERIOD.min(elements) {
            let value = self.element(content, position, iteration);
            bytes.extend(value.iter().take(element));
        }
        Tile { bytes, element }
    }

    fn element(&self, content: Content, position: usize, iteration: u64) -> Element {
        let number = |value: u32| encode(self.datatype, value.min(127) as u8);
        match content {
            Content::Data { from, to } => hash(from << 20 | to, position, iteration).to_ne_bytes(),
            Content::Input { rank } => number(self.input(rank, position, iteration)),
            Content::Reduced => number(self.reduced(position, iteration)),
        }
    }

    /// What a rank contributes.
    fn input(&self, rank: usize, position: usize, iteration: u64) -> u32 {
        let noise = (hash(rank, position, iteration) >> 32) as u32;
        let largest = largest_exact(self.datatype);
        let share = largest / self.nranks as u32;
        // Where there are more ranks than a result can count, ranks take turns.
        let turn = (position + rank + iteration as usize) % self.nranks;
        match self.redop {
            RedOp::Max | RedOp::Min => noise % (largest + 1),
            RedOp::Sum if share > 0 => noise % (share + 1),
            RedOp::Sum => {
                if turn < largest as usize {
                    noise % 2
                } else {
                    0
                }
            }
            RedOp::Prod => {
                if turn < MOST_TWOS {
                    1 + noise % 2
                } else {
                    1
                }
            }
            RedOp::Avg => {
                // Every second rank has as much too little as the one before it has too much.
                let pair = rank / 2;
                let base = (hash(usize::MAX, position, iteration) >> 32) as u32 % (share + 1);
                let difference = (hash(pair, position, !iteration) >> 32) as u32 % (base + 1);
                match rank % 2 {
                    1 => base - difference,
                    _ if rank + 1 == self.nranks => base,
                    _ => base + difference,
                }
            }
        }
    }

    /// What the contributions come to.
    fn reduced(&self, position: usize, iteration: u64) -> u32 {
        let inputs = (0..self.nranks).map(|rank| self.input(rank, position, iteration));
        match self.redop {
            RedOp::Sum => inputs.sum(),
            RedOp::Prod => inputs.product(),
            RedOp::Max => inputs.max().unwrap_or(0),
            RedOp::Min => inputs.min().unwrap_or(0),
            RedOp::Avg => inputs.sum::<u32>() / self.nranks as u32,
        }
    }
}

impl Tile {
    /// Pieces of a buffer's length with what belongs there, when the buffer begins at element `start` of the pattern.
    fn pieces(&self, start: usize, len: usize) -> impl Iterator<Item = (std::ops::Range<usize>, &[u8])> {
        let period = self.bytes.len();
        let mut at = 0;
        std::iter::from_fn(move || {
            if at >= len || period == 0 {
                return None;
            }
            let from = (start * self.element + at) % period;
            let piece = self.bytes.get(from..(from + len - at).min(period))?;
            let range = at..at + piece.len();
            at = range.end;
            Some((range, piece))
        })
    }

    /// Writes the pattern.
    pub fn fill(&self, buffer: &mut [u8], start: usize) {
        for (range, piece) in self.pieces(start, buffer.len()) {
            if let Some(part) = buffer.get_mut(range) {
                part.copy_from_slice(piece);
            }
        }
    }

    /// Elements that are not what they should be.
    pub fn wrong(&self, buffer: &[u8], start: usize) -> u64 {
        let mut wrong = 0;
        for (range, piece) in self.pieces(start, buffer.len()) {
            let part = buffer.get(range).unwrap_or_default();
            if part != piece {
                let pairs = part.chunks(self.element).zip(piece.chunks(self.element));
                wrong += pairs.filter(|(is, should)| is != should).count() as u64;
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(datatype: DataType, redop: RedOp, nranks: usize) -> Recipe {
        Recipe { datatype, redop, nranks }
    }

    #[test]
    fn what_is_written_is_right_and_nothing_else_is() {
        let recipe = recipe(DataType::Float32, RedOp::Sum, 2);
        for elements in [1, 2, 4093, 4094, 10_000] {
            let tile = recipe.tile(Content::Data { from: 0, to: 1 }, elements, 7);
            let mut buffer = vec![0; elements * 4];
            tile.fill(&mut buffer, 0);
            assert_eq!(tile.wrong(&buffer, 0), 0);
            for other in [Content::Data { from: 1, to: 0 }, Content::Data { from: 0, to: 0 }] {
                assert_eq!(recipe.tile(other, elements, 7).wrong(&buffer, 0), elements as u64);
            }
            let later = recipe.tile(Content::Data { from: 0, to: 1 }, elements, 8);
            assert_eq!(later.wrong(&buffer, 0), elements as u64);
            buffer[elements * 4 - 1] ^= 1;
            assert_eq!(tile.wrong(&buffer, 0), 1);
        }
    }

    #[test]
    fn parts_continue_the_pattern() {
        let tile = recipe(DataType::Int8, RedOp::Sum, 3).tile(Content::Reduced, 12_000, 1);
        let mut whole = vec![0; 12_000];
        tile.fill(&mut whole, 0);
        assert_eq!(tile.wrong(&whole[4000..8000], 4000), 0);
        assert_ne!(tile.wrong(&whole[4000..8000], 0), 0);
    }

    #[test]
    fn results_are_exact_in_every_type() {
        for datatype in DataType::ALL {
            for (redop, nranks) in RedOp::ALL.into_iter().flat_map(|op| [1, 2, 3, 8, 64].map(|n| (op, n))) {
                let recipe = recipe(datatype, redop, nranks);
                for position in 0..200 {
                    let inputs: Vec<u32> = (0..nranks).map(|r| recipe.input(r, position, 3)).collect();
                    let sum: u32 = inputs.iter().sum();
                    let result = recipe.reduced(position, 3);
                    let bounded = match redop {
                        RedOp::Prod => result <= 64,
                        RedOp::Sum => sum <= largest_exact(datatype),
                        RedOp::Avg => sum == result * nranks as u32 && sum <= largest_exact(datatype),
                        RedOp::Max | RedOp::Min => result <= largest_exact(datatype),
                    };
                    assert!(bounded, "{datatype:?} {redop:?} {nranks}: {inputs:?}");
                }
            }
        }
    }

    #[test]
    fn ranks_and_iterations_make_a_difference() {
        for redop in RedOp::ALL {
            let recipe = recipe(DataType::Float32, redop, 4);
            let row =
                |rank, iteration| (0..50).map(move |p| recipe.input(rank, p, iteration)).collect::<Vec<_>>();
            assert_ne!(row(0, 1), row(1, 1), "{redop:?}");
            assert_ne!(row(0, 1), row(0, 2), "{redop:?}");
        }
    }
}
