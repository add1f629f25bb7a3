"""Which tests of the machine's limits say how fast an operation can be at best. No I/O.

They are reference programs that do the least that the operation needs, not proofs: what is listed here is
taken at its best for every size. `registered` are buffers that both sides can reach from the start.
"""

LIMITS = {
    ("shm", "lat"): {"": ("flag_spin", "shm2_lat", "cma_lat"), "registered": ("flag_spin", "shm1_lat")},
    ("shm", "bw"): {"": ("shm2_bw", "cma_bw", "coop_cma_bw"), "registered": ("shm1_bw", "coop_shm_bw")},
    ("shm", "bwd"): {"": ("memcpy_cold_2thr",), "registered": ("memcpy_cold_2thr",)},
    ("shm", "allreduce"): {"": ("ar_cma", "ar_2copy"), "registered": ("ar_shm",)},
    ("tcp", "lat"): {"": ("tcp_lat", "tcp_spin_lat")},
    ("tcp", "bw"): {"": ("tcp_bw",)},
}


def tests(transport, op, ranks, buffers=""):
    """The tests that count, if any: they have two processes."""
    return LIMITS.get((transport, op), {}).get(buffers, ()) if ranks == 2 else ()
