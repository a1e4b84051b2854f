"""The machine and the checkout, told without names or paths."""

import os
import platform
import re
import subprocess
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def describe(work):
    """Cores, memory, kernel, processor, file system of the work directory, load."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": re.sub(r"\s+", " ", cpu.group(1)) if cpu else platform.machine(),
        "memory_bytes": int(memory.group(1)) * 1024 if memory else 0,
        "kernel": re.match(r"[\d.]*\d", platform.release()).group(0),
        "file_system": _file_system(work),
        "load": os.getloadavg()[0],
    }


def _file_system(path):
    best = ("", "?")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind = line.split(" ")[:3]
        if (path == Path(place) or Path(place) in path.parents) and len(place) >= len(best[0]):
            best = (place, kind)
    return best[1]


def today():
    """The date of a run."""
    return date.today().isoformat()


def build_snap():
    """Builds the checkout and returns the program."""
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "snap-cli"], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target.absolute() / "release" / "snap"


def commit():
    """The checkout's commit, with a plus if something was changed since."""

    def git(*arguments):
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return run.stdout.strip() if run.returncode == 0 else ""

    name = git("rev-parse", "--short", "HEAD")
    return name + "+" if name and git("status", "--porcelain", "--untracked-files=no") else name
