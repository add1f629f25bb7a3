"""Runs Python's clients of NCCL against the drop-in, on host memory: run.py CLIENT LIBRARY.

CLIENT is `vllm` or `nccl4py`. `run.py CLIENT` only says whether it is here: if not it prints why, and fails.
"""

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile

import nccl4py_client
import scenario
import vllm_wrapper

CLIENTS = {"vllm": vllm_wrapper, "nccl4py": nccl4py_client}


def start(name, library, rank, folder):
    settings = {"MW_BACKEND": "host", "MW_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    environment = {**os.environ, **settings, **CLIENTS[name].Client.environment(library)}
    command = [sys.executable, os.path.abspath(__file__), name, library, str(rank), folder]
    return subprocess.Popen(command, env=environment)


def mapped(library):
    """The files of this process that are some libnccl or the drop-in."""
    with open("/proc/self/maps") as maps:
        files = {line.split(maxsplit=5)[5].strip() for line in maps if len(line.split(maxsplit=5)) == 6}
    names = {file for file in files if "libnccl" in os.path.basename(file)}
    return names | {file for file in files if file == os.path.realpath(library)}


def main(name, library=None, rank=None, folder=None):
    why = CLIENTS[name].unavailable()
    if why is not None:
        print(why)
        return 1
    if library is None:
        return 0
    if rank is not None:
        # PyTorch brings an NCCL of its own, which the client must not use.
        if importlib.util.find_spec("torch") is not None:
            importlib.import_module("torch")
        before = mapped(library) - {os.path.realpath(library)}
        client = CLIENTS[name].Client()
        client.version()
        # Not another one, and not two.
        if mapped(library) - before != {os.path.realpath(library)}:
            sys.exit(f"loaded: {mapped(library)}, of which {before} before")
        scenario.play(client, int(rank), folder)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        ranks = [start(name, library, rank, folder) for rank in range(scenario.RANKS)]
        try:
            ends = [process.wait(2 * scenario.PATIENCE) for process in ranks]
        finally:
            for process in ranks:
                process.kill()
    print(f"{name}: the ranks ended with {ends}")
    return 0 if ends == [0, -signal.SIGKILL] else 1


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3, 5) or sys.argv[1] not in CLIENTS:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
