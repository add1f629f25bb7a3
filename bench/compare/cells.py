"""What is measured: a cell is an implementation, an operation and a number of ranks. No I/O.

The peers' cells come from their own script, `run.py --list`: lines `NAME:OP:RANKS<tab>COMMAND`, where {op},
{ranks}, {port} and {tmp} in the command stand for what they say. Ours and the collectives of MPI libraries
are added here.
"""

import re
from dataclasses import dataclass, replace

POINT_TO_POINT = ("lat", "bw", "bwd")
COLLECTIVES = ("allreduce", "allgather", "reducescatter", "broadcast")
OURS = "multiworld"
LIMITS = "phys"
# Seconds that a size of a cell takes, unless BUDGET says otherwise.
BUDGET = "0.3"
# Tests of the limits that say something about an operation (see limits.py); the peers' script lists not all
# of them.
LIMIT_TESTS = ("flag_spin shm1_lat shm2_lat cma_lat shm1_bw shm2_bw cma_bw coop_bw memcold ar_shm ar_cma ar_2copy "
               "tcp_lat tcp_spin tcp_bw").split()
# What lets an MPI library start more ranks than there are processors. MPICH is none of them: it spins without
# yielding, so a single operation takes milliseconds.
MORE_RANKS = {"openmpi4": "--oversubscribe ", "openmpi5": "--map-by :OVERSUBSCRIBE ", "impi": ""}


@dataclass(frozen=True)
class Cell:
    impl: str
    op: str
    ranks: int
    command: str

    @property
    def transport(self):
        if self.impl == LIMITS:
            return "limit"
        return "tcp" if re.search(r"tcp|^torch|^gloo", self.impl) else "shm"

    def __str__(self):
        return f"{self.impl}:{self.op}:{self.ranks}"


def parse_list(text):
    """The cells that the peers' script lists; limits excepted, of which LIMIT_TESTS is what is wanted."""
    cells = []
    limit = None
    for line in text.splitlines():
        name, tab, command = line.partition("\t")
        parts = name.rsplit(":", 2)
        if not tab or len(parts) != 3 or not parts[2].isdigit():
            raise ValueError(f"not 'NAME:OP:RANKS<tab>COMMAND': {line!r}")
        cell = Cell(parts[0], parts[1], int(parts[2]), command)
        if cell.impl == LIMITS:
            limit = cell
        else:
            cells.append(cell)
    if limit:
        cells.extend(replace(limit, op=test) for test in LIMIT_TESTS)
    return cells


def ours(mw, ranks, buffers):
    """Our cells. `buffers` are the kinds that this build has, besides the caller's own."""
    cells = []
    for transport in ("shm", "tcp"):
        for kind in ("", *buffers):
            options = f" --buffers {kind}" if kind else ""
            command = f"{mw} perf --results --check --pin --transport {transport}{options} -n {{ranks}} {{op}}"
            name = f"{OURS}-{transport}" + (f"/{kind}" if kind else "")
            for n in ranks:
                ops = (POINT_TO_POINT if n == 2 else ()) + COLLECTIVES
                cells.extend(Cell(name, op, n, command) for op in ops)
    return cells


def mpi_collectives(peers, folder, programs, ranks, processors):
    """The collectives that the peers' script does not measure, by our own program, started as theirs is
    started.

    `programs` are the MPI libraries that it was compiled with, as in the ending of
    `folder`/mpi_collectives.NAME."""
    have = {(cell.impl, cell.op, cell.ranks) for cell in peers}
    cells = []
    for peer in peers:
        found = re.fullmatch(r"(.*)-np 2 \S*/mpibench\.(\S+) .*", peer.command)
        if not found or (peer.op, peer.ranks) != ("allreduce", 2) or found[2] not in programs:
            continue
        start, program = found.groups()
        for n in ranks:
            if n > processors and program not in MORE_RANKS:
                continue
            more = MORE_RANKS[program] if n > processors else ""
            command = f"{start}{more}-np {{ranks}} {folder}/mpi_collectives.{program} {{op}}"
            cells.extend(Cell(peer.impl, op, n, command) for op in COLLECTIVES if (peer.impl, op, n) not in have)
    return cells


def groups(cells):
    """Cells that are compared with each other, one group after the other, so that they run close together."""
    found = {}
    for cell in cells:
        key = (cell.transport, cell.op if cell.transport != "limit" else "", cell.ranks)
        found.setdefault(key, []).append(cell)
    order = (*POINT_TO_POINT, *COLLECTIVES, "")
    return [found[key] for key in sorted(found, key=lambda key: (key[0], key[2], order.index(key[1])))]


def rotated(group, round_number):
    """Another order in every round, so that nobody always comes after the same neighbour."""
    k = round_number % len(group)
    return group[k:] + group[:k]
