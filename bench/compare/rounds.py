"""Runs cells in interleaved rounds and appends what they print to a file of JSON lines.

Those that are compared with each other run one right after the other, in an order that changes from round to
round, so that drift of a shared machine hits all alike. The lines are those of the peers' own script, and
`set`, which names what they are to be compared within: shm, tcp, limit, or the name given by --tcp-set. The
first line, {"about": ...}, has the machine, the versions and the command.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import cells as c
import machine

PATIENCE = 300
LAST_WORDS = 10
# mpirun refuses to be root without these, and Gloo looks for an address of the host name's.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "GLOO_SOCKET_IFNAME": "lo", "MW_IFNAME": "lo",
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", required=True, help="folder with the peers' run.py")
    parser.add_argument("--mw", required=True, help="the program")
    parser.add_argument("--mpi", required=True, help="folder with mpi_collectives.NAME for every MPI library NAME")
    parser.add_argument("--ranks", default="2,4,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit-rounds", type=int, default=1, help="rounds that have the limits, too")
    parser.add_argument("--only")
    parser.add_argument("--skip")
    parser.add_argument("--tcp-set", help="only what runs over TCP, under this name")
    parser.add_argument("--list", action="store_true", help="print the cells and their commands")
    parser.add_argument("--out", required=True)
    parser.add_argument("--peers-home", required=True, help="where the peers are installed")
    parser.add_argument("--command", required=True, help="what was started, for the reader")
    return parser.parse_args()


def chosen(args):
    ranks = [int(n) for n in args.ranks.split(",")]
    listing = subprocess.run([sys.executable, os.path.join(args.peers, "run.py"), "--list"],
                             check=True, capture_output=True, text=True)
    peers = c.parse_list(listing.stdout)
    programs = [name.partition(".")[2] for name in os.listdir(args.mpi) if name.startswith("mpi_collectives.")]
    processors = len(os.sched_getaffinity(0))
    found = c.ours(args.mw, ranks, buffers(args.mw)) + peers
    found += c.mpi_collectives(peers, args.mpi, programs, ranks, processors)
    found = [cell for cell in found if cell.impl == c.LIMITS or cell.ranks in ranks]
    found = [cell for cell in found if not args.only or re.search(args.only, str(cell))]
    found = [cell for cell in found if not (args.skip and re.search(args.skip, str(cell)))]
    return [cell for cell in found if not args.tcp_set or cell.transport == "tcp"]


def buffers(mw):
    """Kinds of buffers that this build has, besides the caller's own."""
    probe = [mw, "perf", "-n", "2", "-i", "1", "--sizes", "8", "--buffers", "registered", "lat"]
    done = subprocess.run(probe, env={**os.environ, **ENVIRONMENT}, capture_output=True, timeout=PATIENCE)
    return ["registered"] if done.returncode == 0 else []


def run(cell, port):
    """Runs it once. What it came to: its exit status (None: it hung and was killed), output and errors."""
    folder = tempfile.mkdtemp()
    command = cell.command.format(op=cell.op, ranks=cell.ranks, port=port, tmp=folder)
    environment = {"BUDGET": c.BUDGET, **os.environ, **ENVIRONMENT}
    # In a session of its own, so that what it has started ends with it.
    process = subprocess.Popen(["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=environment, text=True, start_new_session=True)
    status = None
    try:
        out, err = process.communicate(timeout=PATIENCE)
        status = process.returncode
    except subprocess.TimeoutExpired:
        out, err = end(process)
    except BaseException:
        end(process)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return status, out, err


def end(process):
    """Ends it and what it has started; what they have printed. mpirun ends its ranks, which are in groups of their
    own, if it is asked to before it is killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass  # It has just ended by itself.
        try:
            return process.communicate(timeout=LAST_WORDS)
        except subprocess.TimeoutExpired:
            continue
    # Somebody outside the group holds the pipes.
    return "", ""


def results(cell, text):
    """The RESULT lines. Tests of limits say themselves what they have measured."""
    for words in (line.split() for line in text.splitlines()):
        if len(words) >= 5 and words[0] == "RESULT":
            op = words[1] if cell.impl == c.LIMITS else cell.op
            yield {"op": op, "size": int(words[2]), "value": float(words[3]), "unit": words[4]}


def main():
    args = arguments()
    # As Ctrl-C does: the cell that runs is ended, which is in a session of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    found = chosen(args)
    if args.list:
        for cell in found:
            print(f"{cell}\t{cell.command}")
        return 0
    if not found:
        print("nothing is left to be measured", file=sys.stderr)
        return 2
    port = 21000
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(args.out, "a", encoding="utf-8") as out:
        if not args.tcp_set:
            out.write(json.dumps({"about": machine.about(root, args.peers_home, args.command)}) + "\n")
        for number in range(args.rounds):
            order = [cell for group in c.groups(found) for cell in c.rotated(group, number)]
            order = [cell for cell in order if cell.impl != c.LIMITS or number < args.limit_rounds]
            for i, cell in enumerate(order):
                port = 21000 + (port - 21000 + 7) % 9000
                start = time.monotonic()
                status, text, err = run(cell, port)
                known = {"round": number, "impl": cell.impl, "ranks": cell.ranks,
                         "set": args.tcp_set or cell.transport}
                count = 0
                for count, result in enumerate(results(cell, text), 1):
                    out.write(json.dumps({**known, **result}) + "\n")
                if status != 0 or count == 0:
                    why = "hung and was killed" if status is None else f"exit status {status}"
                    error = " | ".join([why, text[-200:], err[-300:]])
                    out.write(json.dumps({**known, "op": cell.op, "error": error}) + "\n")
                out.flush()
                took = time.monotonic() - start
                well = "" if status == 0 and count else f"  FAILED ({why})"
                print(f"round {number + 1}/{args.rounds}, {i + 1}/{len(order)}: {cell} "
                      f"{count} results in {took:.1f} s{well}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
