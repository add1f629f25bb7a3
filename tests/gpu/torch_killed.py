"""Two ranks of torch.distributed on one GPU, with the drop-in in the place of NCCL; one is killed.

    torch_killed.py DROP_IN [NAME=VALUE...]

The settings are for the ranks. Prints "- torch ..." lines; exits with 77 after "skipped: why" where it
cannot run.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import timedelta

# Starting Python, torch and CUDA takes long the first time.
PATIENCE = 120
# The survivor must be told within this time.
LIMIT = 10.0


def say(line):
    print(line, flush=True)


def rank(me, store, drop_in):
    import torch
    import torch.distributed as dist

    torch.cuda.set_device(0)
    dist.init_process_group(
        "nccl", init_method="file://" + store, rank=me, world_size=2, timeout=timedelta(seconds=PATIENCE)
    )
    data = torch.full((1 << 20,), float(me + 1), device="cuda")
    dist.all_reduce(data)
    torch.cuda.synchronize()
    assert bool((data == 3).all()), "wrong sums"
    with open("/proc/self/maps") as maps:
        mapped = {line.split()[-1] for line in maps if "nccl" in line and line.split()[-1].startswith("/")}
    genuine = sorted(m for m in mapped if os.path.realpath(m) != os.path.realpath(drop_in) and ".so" in m)
    say("going " + " ".join(sorted(mapped)) + (" through" if len(genuine) < len(mapped) and genuine else ""))
    try:
        while True:
            dist.all_reduce(data)
            torch.cuda.synchronize()
    except BaseException as e:
        told = time.monotonic()
        text = " ".join(str(e).split())
        say(f"told {told} {type(e).__name__}: {text[:600]}")
    # Nothing is left to be done in good order.
    os._exit(0)


class Rank:
    def __init__(self, me, store, drop_in, settings):
        env = dict(os.environ, **settings)
        env["LD_PRELOAD"] = " ".join(filter(None, [drop_in, os.environ.get("LD_PRELOAD")]))
        if env.get("NCCL_MULTI_RANK_GPU_ENABLE") != "1":
            env["NCCL_HOSTID"] = f"mw-torch-{os.getpid()}-{me}"
        # The call that waits throws; nobody else ends the process.
        env.update(TORCH_NCCL_BLOCKING_WAIT="1", TORCH_NCCL_ASYNC_ERROR_HANDLING="0")
        env.update(TORCH_NCCL_ENABLE_MONITORING="0")
        command = [sys.executable, __file__, "rank", str(me), store, drop_in]
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        self.lines, self.arrived, self.ended = [], threading.Condition(), None
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            with self.arrived:
                self.lines.append(line.rstrip())
                self.arrived.notify_all()
        self.process.wait()
        with self.arrived:
            self.ended = time.monotonic()
            self.arrived.notify_all()

    def hear(self, word):
        """The line that begins with the word, or None when the process has ended without it or time is up."""
        until = time.monotonic() + PATIENCE
        with self.arrived:
            while True:
                found = next((line for line in self.lines if line.split(" ")[0] == word), None)
                left = until - time.monotonic()
                if found is not None or self.ended is not None or left <= 0:
                    return found
                self.arrived.wait(left)


def main():
    drop_in = os.path.abspath(sys.argv[1])
    settings = dict(setting.split("=", 1) for setting in sys.argv[2:])
    try:
        import torch
        import torch.distributed as dist
    except Exception as e:
        say(f"skipped: torch cannot be imported: {e}")
        return 77
    if not torch.cuda.is_available():
        say("skipped: torch sees no GPU")
        return 77
    if not (dist.is_available() and dist.is_nccl_available()):
        say("skipped: this torch has no NCCL")
        return 77
    say(f"- torch {torch.__version__}, made for NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}")
    with tempfile.TemporaryDirectory() as folder:
        ranks = [Rank(me, os.path.join(folder, "store"), drop_in, settings) for me in range(2)]
        try:
            for me, r in enumerate(ranks):
                going = r.hear("going")
                if going is None:
                    say(f"- torch rank {me} did not come as far as its first all-reduce")
                    return 1
            if not going.endswith(" through"):
                say(f"skipped: this torch does not call the drop-in; it has mapped {going[6:]}")
                return 77
            time.sleep(0.5)
            killed = time.monotonic()
            ranks[1].process.send_signal(signal.SIGKILL)
            told = ranks[0].hear("told")
            if told is not None:
                _, at, why = told.split(" ", 2)
                took = float(at) - killed
                say(f"- torch: an exception {1e3 * took:.0f} ms after the kill: {why}")
            elif ranks[0].ended is not None:
                took = ranks[0].ended - killed
                code = ranks[0].process.returncode
                say(f"- torch: its process ended {1e3 * took:.0f} ms after the kill, code {code}")
            else:
                say(f"- torch: nothing within {PATIENCE} s of the kill")
                return 1
            return 0 if took < LIMIT else 1
        finally:
            for r in ranks:
                r.process.kill()


if __name__ == "__main__":
    if sys.argv[1] == "rank":
        rank(int(sys.argv[2]), sys.argv[3], sys.argv[4])
    else:
        sys.exit(main())
