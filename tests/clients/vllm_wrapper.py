"""vLLM's NCCLLibrary, from its own file, without the rest of vLLM.

The file is that of an installed vllm, or the one that MW_TEST_VLLM_WRAPPER names. Of what it imports, vLLM's
own modules, and torch where it is not installed, are replaced by the few names that it takes from them.
"""

import importlib.util
import logging
import os
import sys
import types

FILE = "distributed/device_communicators/pynccl_wrapper.py"


def path():
    """Where the wrapper is; None if there is none."""
    named = os.environ.get("MW_TEST_VLLM_WRAPPER")
    if named:
        return named
    installed = importlib.util.find_spec("vllm")
    folders = installed.submodule_search_locations if installed else None
    found = [os.path.join(folder, FILE) for folder in folders or []]
    return next((file for file in found if os.path.isfile(file)), None)


def unavailable():
    """Why it cannot be used, or None."""
    if path() is None:
        return "vllm is not installed and MW_TEST_VLLM_WRAPPER not set"
    if not os.path.isfile(path()):
        return f"MW_TEST_VLLM_WRAPPER: there is no {path()}"
    return None


def module(name, **names):
    """A module that consists of these names."""
    made = types.ModuleType(name)
    made.__path__ = []
    made.__dict__.update(names)
    sys.modules[name] = made
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, made)
    return made


class Operator:
    """Stands for torch.distributed.ReduceOp."""

    SUM, PRODUCT, MAX, MIN, AVG = range(5)


class Platform:
    """Stands for the platform that vLLM has found."""

    @staticmethod
    def is_rocm():
        return False

    @staticmethod
    def fp8_dtype():
        return "float8_e4m3fn"


def stand_in():
    if importlib.util.find_spec("torch") is None:
        names = ("int8", "uint8", "int32", "int64", "float16", "float32", "float64", "bfloat16")
        module("torch", dtype=str, **{name: name for name in names})
        module("torch.distributed", ReduceOp=Operator)
    envs = types.SimpleNamespace(VLLM_USE_NCCL_SYMM_MEM=False)
    module("vllm", envs=envs)
    module("vllm.logger", init_logger=logging.getLogger)
    module("vllm.platforms", current_platform=Platform)
    module("vllm.utils")
    # VLLM_NCCL_SO_PATH comes first in the genuine one, too.
    module("vllm.utils.nccl", find_nccl_library=lambda: os.environ["VLLM_NCCL_SO_PATH"])


class Client:
    """The class of that file."""

    def __init__(self):
        stand_in()
        spec = importlib.util.spec_from_file_location("pynccl_wrapper", path())
        self.module = importlib.util.module_from_spec(spec)
        sys.modules["pynccl_wrapper"] = self.module
        spec.loader.exec_module(self.module)
        self.nccl = self.module.NCCLLibrary()
        self.comm = None

    @staticmethod
    def environment(library):
        return {"VLLM_NCCL_SO_PATH": library}

    def version(self):
        return self.nccl.ncclGetVersion()

    def unique_id(self):
        return bytes(self.nccl.ncclGetUniqueId().internal)

    def join(self, nranks, identity, rank):
        identity = self.nccl.unique_id_from_bytes(identity)
        self.comm = self.nccl.ncclCommInitRank(nranks, identity, rank)

    def all_reduce(self, send, recv, count):
        float32, plus = self.module.ncclDataTypeEnum.ncclFloat32, self.module.ncclRedOpTypeEnum.ncclSum
        self.nccl.ncclAllReduce(send, recv, count, float32, plus, self.comm, None)

    def send(self, buffer, count, peer):
        self.nccl.ncclSend(buffer, count, self.module.ncclDataTypeEnum.ncclFloat32, peer, self.comm, None)

    def recv(self, buffer, count, peer):
        self.nccl.ncclRecv(buffer, count, self.module.ncclDataTypeEnum.ncclFloat32, peer, self.comm, None)

    def last_error(self):
        return self.nccl.ncclGetLastError() or ""

    def abort(self):
        self.nccl.ncclCommAbort(self.comm)
