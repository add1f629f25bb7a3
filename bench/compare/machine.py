"""What machine this is and whose versions were measured. Reads /proc and asks programs."""

import datetime
import os
import re
import subprocess

import cells as c


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def field(text, name):
    """The value of the first line `name : value`."""
    found = re.search(rf"^[ \t]*{re.escape(name)}[ \t]*:[ \t]*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def output(*command):
    """What a program prints, nothing if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def processor():
    cpus = read("/proc/cpuinfo")
    return field(cpus, "model name") or os.uname().machine


def name():
    """A name for files that says which kind of machine it was, and not which one."""
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)|@.*", "", processor().lower())).strip("-")
    return f"{slug}-{len(os.sched_getaffinity(0))}-cores"


def describe():
    """Pairs of a property and its value."""
    memory = field(read("/proc/meminfo"), "MemTotal").partition(" ")[0]
    governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    huge = re.search(r"\[(\w+)\]", read("/sys/kernel/mm/transparent_hugepage/enabled"))
    virtual = re.search(r"^flags\s*:.*\bhypervisor\b", read("/proc/cpuinfo"), re.MULTILINE)
    pairs = [
        ("processor", processor() + (" (virtual machine)" if virtual else "")),
        ("processors in use", str(len(os.sched_getaffinity(0)))),
        ("memory", f"{round(int(memory) / 2**20)} GiB" if memory.isdigit() else ""),
        ("kernel", f"{os.uname().sysname} {os.uname().release}"),
        ("TCP congestion control", read("/proc/sys/net/ipv4/tcp_congestion_control")),
        ("transparent huge pages", huge[1] if huge else ""),
        ("frequency governor", governor),
    ]
    return [pair for pair in pairs if pair[1]]


def first_version(text):
    found = re.search(r"\b\d+\.\d+[\w.]*", text)
    return found[0] if found else ""


def peers(home):
    """Pairs of a peer and its version, of those that are installed."""
    found = {
        "Open MPI 4": output("mpirun.openmpi", "--version"),
        "Open MPI 5": output(f"{home}/venv-ompi/bin/mpirun", "--version"),
        "MPICH": field(output("mpirun.mpich", "--version"), "Version"),
        "Intel MPI": re.sub(r".*Version", "", output(f"{home}/venv-intel/bin/mpiexec.hydra", "--version")),
        "UCX": output("ucx_info", "-v"),
        "Gloo": output("dpkg-query", "--show", "--showformat=${Version}", "libgloo-dev"),
    }
    found = {name: first_version(text) if name != "Gloo" else text for name, text in found.items()}
    return [(name, version) for name, version in found.items() if version]


def ours(root):
    """The commit, and whether there is more than it."""
    commit = output("git", "-C", root, "rev-parse", "--short=12", "HEAD")
    changed = output("git", "-C", root, "status", "--porcelain", "--untracked-files=no")
    return [(c.OURS, (commit or "unknown commit") + (" and changes" if changed else ""))]


def about(root, peers_home, command):
    """All of it, as pairs, for the head of a report."""
    return [("date", datetime.date.today().isoformat()), *describe(), *ours(root), *peers(peers_home),
            ("seconds for a size of a cell", os.environ.get("BUDGET", c.BUDGET)), ("command", f"`{command}`")]
