"""What every client does: two processes add up and exchange numbers in host memory, then one is killed.

A client is an object with `version`, `unique_id`, `join`, `all_reduce`, `send`, `recv` and `abort`; memory is
given to it by address, and every call is done when it returns. Its errors are exceptions.
"""

import array
import os
import signal
import sys
import time

RANKS = 2
COUNT = 1000
# More than anything here takes; only hangs are longer.
PATIENCE = 60.0


def address(numbers):
    return numbers.buffer_info()[0]


def meet(folder, rank, client):
    """Rank 0 writes the unique id into a file."""
    path = os.path.join(folder, "id")
    if rank == 0:
        with open(path + ".draft", "wb") as file:
            file.write(client.unique_id())
        os.rename(path + ".draft", path)
    until = time.monotonic() + PATIENCE
    while not os.path.exists(path):
        if time.monotonic() > until:
            sys.exit("rank 0 left no unique id")
        time.sleep(0.01)
    with open(path, "rb") as file:
        return file.read()


def same(found, expected):
    if list(found) != list(expected):
        sys.exit(f"wrong numbers: {list(found)[:5]}... in place of {list(expected)[:5]}...")


def play(client, rank, folder):
    """One rank's part; ends the process with a message if anything is not as it should be."""
    print(f"rank {rank}: NCCL {client.version()}", flush=True)
    client.join(RANKS, meet(folder, rank, client), rank)
    other = 1 - rank

    mine = array.array("f", (rank * 1000 + i for i in range(COUNT)))
    result = array.array("f", bytes(4 * COUNT))
    client.all_reduce(address(mine), address(result), COUNT)
    same(result, (1000 + 2 * i for i in range(COUNT)))

    if rank == 0:
        client.send(address(mine), COUNT, other)
        client.recv(address(result), COUNT, other)
    else:
        client.recv(address(result), COUNT, other)
        client.send(address(mine), COUNT, other)
    same(result, (other * 1000 + i for i in range(COUNT)))

    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    begin = time.monotonic()
    try:
        client.all_reduce(address(mine), address(result), COUNT)
    except Exception as error:
        took = time.monotonic() - begin
        print(f"rank 0: {took * 1e3:.1f} ms until {type(error).__name__}: {error}", flush=True)
        if took > 10:
            sys.exit("that took too long")
    else:
        sys.exit("an all-reduce with a process that was killed succeeds")
    if "rank 1" not in client.last_error():
        sys.exit(f"the last error does not say who failed: {client.last_error()!r}")
    client.abort()
    print("fine", flush=True)
