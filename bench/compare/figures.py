"""From measured lines to the figures of a table: medians, who is best, ratios. No I/O.

A ratio is ours divided by theirs. Of a time less than 1 is ahead, of a bandwidth more than 1.
"""

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass

import cells as c
import limits

# By how much a peer has to lead before its cell is named as one in which it is ahead: noise is as much.
NOISE = 0.05


@dataclass(frozen=True)
class Spread:
    """Values of one cell over the rounds."""
    median: float
    least: float
    most: float
    runs: int

    @staticmethod
    def of(values):
        return Spread(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Row:
    """One size of a table. What was not measured is None."""
    size: int
    ours: Spread
    peer: str
    best: Spread
    limit: float
    registered: Spread
    registered_limit: float
    gloo: float

    def ratio(self):
        return quotient(self.ours, self.best)

    def peer_is_ahead(self, is_time):
        ratio = self.ratio()
        return ratio is not None and (ratio > 1 + NOISE if is_time else ratio < 1 - NOISE)


@dataclass(frozen=True)
class Table:
    section: str
    transport: str
    op: str
    ranks: int
    unit: str
    rows: list
    # Spreads by implementation and size, best ones included.
    everybody: dict

    @property
    def is_time(self):
        return is_time(self.unit)

    def mean_ratio(self):
        return geometric_mean([row.ratio() for row in self.rows if row.ratio() is not None])

    def behind(self):
        return [row for row in self.rows if row.peer_is_ahead(self.is_time)]


def is_time(unit):
    return not unit.endswith("/s")


def quotient(ours, theirs):
    ours, theirs = (getattr(x, "median", x) for x in (ours, theirs))
    return ours / theirs if ours is not None and theirs else None


def geometric_mean(ratios):
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if ratios else None


def best(values, unit):
    """The key of the best of a mapping to spreads, None if there is none."""
    choose = min if is_time(unit) else max
    return choose(values, key=lambda key: values[key].median, default=None)


def tables(lines):
    """Tables from lines as rounds.py writes them, in the order of sections, ranks and operations."""
    values, units = defaultdict(list), {}
    for line in lines:
        if "value" in line:
            values[line["set"], line["op"], line["ranks"], line["impl"], line["size"]].append(line["value"])
            units[line["op"]] = line["unit"]
    spreads = defaultdict(dict)
    limit_of = {}
    for (section, op, ranks, impl, size), found in values.items():
        if impl == c.LIMITS:
            limit_of[op, size] = statistics.median(found)
        else:
            spreads[section, op, ranks].setdefault(impl, {})[size] = Spread.of(found)
    order = c.POINT_TO_POINT + c.COLLECTIVES
    place = {section: i for i, section in enumerate(dict.fromkeys(key[0] for key in spreads))}
    keys = sorted((key for key in spreads if key[1] in order),
                  key=lambda key: (key[0] != "shm", place[key[0]], key[2], order.index(key[1])))
    return [table(key, spreads[key], units[key[1]], limit_of) for key in keys]


def table(key, everybody, unit, limit_of):
    section, op, ranks = key
    transport = "shm" if section == "shm" else "tcp"
    choose = min if is_time(unit) else max
    mine = f"{c.OURS}-{transport}"
    rows = []
    for size in sorted({size for sizes in everybody.values() for size in sizes}):
        at = {impl: sizes[size] for impl, sizes in everybody.items() if size in sizes}
        peers = {impl: spread for impl, spread in at.items() if not impl.startswith(c.OURS)}
        gloo = {impl: spread for impl, spread in peers.items() if impl.startswith("gloo")}
        peer, best_gloo = best(peers, unit), best(gloo, unit)

        def limit(buffers):
            names = limits.tests(transport, op, ranks, buffers)
            return choose((limit_of[name, size] for name in names if (name, size) in limit_of), default=None)

        rows.append(Row(size, at.get(mine), peer, peers.get(peer), limit(""), at.get(f"{mine}/registered"),
                        limit("registered"), gloo[best_gloo].median if gloo else None))
    return Table(section, transport, op, ranks, unit, rows, everybody)


def failures(lines):
    """How often which cells have failed, with the last error of each."""
    found = {}
    for line in lines:
        if "error" in line:
            key = (line["set"], f"{line['impl']}:{line['op']}:{line['ranks']}")
            found[key] = (found.get(key, (0, ""))[0] + 1, line["error"])
    return found
