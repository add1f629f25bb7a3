//! What belongs to kernels of the program's own: teams are told, the rest has no meaning on a CPU.

use crate::abi::{Code, Team};
use crate::entry::{Answer, Call};
use std::ffi::c_int;

/// Everything without meaning on a CPU.
pub fn unsupported(call: &Call) -> Code {
    call.misused("the double has no device interface")
}

/// All ranks: `ncclTeamWorld`, and `ncclTeamLsa` since every rank is on this machine.
pub fn team_world(call: &Call) -> Team {
    match call.comm() {
        Ok(comm) => Team { ranks: comm.ranks as c_int, rank: comm.rank as c_int, stride: 1 },
        Err(code) => Team::from_code(code),
    }
}

/// One rank: `ncclTeamRail` and the others that need a network or a switch.
pub fn team_self(call: &Call) -> Team {
    match call.comm() {
        Ok(comm) => Team { ranks: 1, rank: 0, stride: comm.ranks as c_int },
        Err(code) => Team::from_code(code),
    }
}

/// `ncclTeamRankToWorld` and `ncclTeamRankToLsa`.
pub fn rank_to_world(call: &Call, team: Team, rank: c_int) -> c_int {
    match call.comm() {
        Ok(comm) => {
            let steps = rank.wrapping_sub(team.rank).wrapping_mul(team.stride);
            (comm.rank as c_int).wrapping_add(steps)
        }
        Err(_) => -1,
    }
}

/// `ncclLLA2ACalcSlots`: eight bytes of every slot carry data.
pub fn lla2a_slots(_: &Call, elements: c_int, size: c_int) -> c_int {
    elements.saturating_mul(size.saturating_add(7) / 8)
}
