"""NVIDIA's nccl4py. Communicators are made by its high-level interface; operations on host memory need its
bindings, because the former asks CUDA which device a buffer is on."""

import importlib.util

# ncclFloat32 and ncclSum.
FLOAT32, SUM = 7, 0


def unavailable():
    """Why it cannot be used, or None."""
    # A package that is called nccl may be another one.
    if importlib.util.find_spec("nccl") is None or importlib.util.find_spec("nccl.core") is None:
        return "nccl4py is not installed"
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return "nccl4py needs cuda-bindings, which is not installed"
    return None


class Client:
    """A communicator of nccl4py."""

    def __init__(self):
        import nccl.bindings.nccl as bindings
        import nccl.core as core

        self.core, self.bindings = core, bindings
        self.communicator = None

    @staticmethod
    def environment(library):
        return {"LD_PRELOAD": library}

    def version(self):
        info = self.core.get_version()
        return f"{info.libnccl}, nccl4py {info.nccl4py}"

    def unique_id(self):
        return bytes(self.core.get_unique_id())

    def join(self, nranks, identity, rank):
        identity = self.core.UniqueId.from_bytes(identity)
        self.communicator = self.core.Communicator.init(nranks, rank, identity)
        if (self.communicator.nranks, self.communicator.rank) != (nranks, rank):
            raise RuntimeError(f"rank {self.communicator.rank} of {self.communicator.nranks}")

    def all_reduce(self, send, recv, count):
        self.bindings.all_reduce(send, recv, count, FLOAT32, SUM, self.communicator._comm, 0)

    def send(self, buffer, count, peer):
        self.bindings.send(buffer, count, FLOAT32, peer, self.communicator._comm, 0)

    def recv(self, buffer, count, peer):
        self.bindings.recv(buffer, count, FLOAT32, peer, self.communicator._comm, 0)

    def last_error(self):
        return self.communicator.get_last_error()

    def abort(self):
        self.communicator.abort()
