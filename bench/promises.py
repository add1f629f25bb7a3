"""Measures builds of the mw command in turns: as it is, and without a promise. Called by promises.sh."""

import argparse
import csv
import os
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "compare"))
import machine
import markdown

# Title, operation of mw perf, size.
OPERATIONS = [("latency, 8 B", "sendrecv", 8), ("latency, 4 KiB", "sendrecv", 4096),
              ("bandwidth, 8 B, per message", "bw", 8), ("AllReduce, 8 B", "allreduce", 8)]
SIZES = [8, 4096, 40_000, 400_000, 4_000_000, 64_000_000]
ALL_SIZES = [(f"{title}, {markdown.size(size)}", op, size)
             for title, op in (("latency", "sendrecv"), ("bandwidth", "bw"), ("AllReduce", "allreduce"))
             for size in SIZES]
HEAD = ["promise", "operation", "with, ns", "without, ns", "difference, ns", "of it, half the runs", "%"]
LIMIT = 120


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--builds", required=True, help="the folder with the programs")
    parser.add_argument("--profile", required=True, help="as their names have it")
    parser.add_argument("--promises", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", required=True)
    parser.add_argument("--all-sizes", action="store_true")
    parser.add_argument("--out")
    return parser.parse_args()


def nanoseconds(text):
    """The median time of each operation in the output of `mw perf --csv`, by operation and size."""
    found = {}
    for row in csv.DictReader(text.splitlines()):
        time, size = float(row["median_us"]), int(row["size"])
        messages = 1
        if row["op"] == "bw":
            # A time is that of a window of messages; the bandwidth tells how many that are.
            messages = max(1, round(float(row["algbw_GBs"]) * 1e3 * float(row["time_us"]) / size))
        found[row["op"].replace("_", ""), size] = time * 1e3 / messages
    return found


def measure(program, operations, seconds):
    found = {}
    for op in dict.fromkeys(op for _, op, _ in operations):
        sizes = ",".join(str(size) for _, other, size in operations if other == op)
        command = [program, "perf", "-n", "2", "--pin", "--transport", "shm", "--csv", "--seconds", seconds,
                   "--sizes", sizes, op]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
        found.update(nanoseconds(done.stdout))
    return found


def rows(pairs, operations):
    """A line for each promise and operation, from the pairs of measurements, with and without."""
    out = []
    for promise, found in pairs.items():
        for title, op, size in operations:
            with_it = [one[op, size] for one, _ in found]
            without = [one[op, size] for _, one in found]
            differences = [a - b for a, b in zip(with_it, without)]
            median = statistics.median(differences)
            low, _, high = statistics.quantiles(differences, n=4) if len(differences) > 1 else [median] * 3
            base = statistics.median(without)
            out.append([promise, title, f"{statistics.median(with_it):.0f}", f"{base:.0f}", f"{median:+.0f}",
                        f"{low:+.0f} to {high:+.0f}", f"{median / base * 100:+.1f}"])
    return out


def plain(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))]
        yield "  ".join(cells).rstrip()


def main():
    args = arguments()
    program = lambda name: os.path.join(args.builds, f"mw-{args.profile}-{name}")
    operations = ALL_SIZES if args.all_sizes else OPERATIONS
    pairs = {promise: [] for promise in args.promises.split(",")}
    try:
        for turn in range(args.rounds):
            for promise, found in pairs.items():
                both = [program("everything"), program(f"without-{promise}")]
                # Who comes first changes: a machine that gets slower would favour it.
                first = turn % 2
                times = [measure(both[i], operations, args.seconds) for i in (first, 1 - first)]
                found.append((times[first], times[1 - first]))
            if sys.stderr.isatty():
                print(f"\rround {turn + 1} of {args.rounds}", end="", file=sys.stderr, flush=True)
    except (RuntimeError, subprocess.TimeoutExpired) as e:
        print(f"bench/promises.py: {e}", file=sys.stderr)
        return 1
    if sys.stderr.isatty():
        print(file=sys.stderr)
    lines = rows(pairs, operations)
    print("\n".join(plain([HEAD, *lines])))
    if args.out:
        head = [*machine.describe(), ("rounds", str(args.rounds)), ("seconds", args.seconds)]
        text = ["# What the promises cost", "", *markdown.lines_of(["what", "which"], head), "",
                "Two ranks over shared memory, pinned. Medians of pairs that were measured one after the other.", "",
                *markdown.lines_of(HEAD, lines), ""]
        with open(args.out, "w", encoding="utf-8") as file:
            file.write("\n".join(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
