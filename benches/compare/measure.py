"""Running programs, warming the page cache, sizes of trees, and the comparison of a restored tree with its source."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Failed(Exception):
    """A program said no; the text is the end of what it wrote to standard error."""


@dataclass
class Command:
    """A program to run. `stdout` is kept only if asked for: most write a file's content or nothing of interest."""

    argv: list
    env: dict = field(default_factory=dict)
    directory: Path = Path("/")
    keeps_stdout: bool = False
    # Exit codes that mean success; borg returns 1 with a warning.
    fine: tuple = (0,)


@dataclass
class Cost:
    """What a run took."""

    code: int
    seconds: float
    user: float
    system: float
    peak_bytes: int
    stdout: str
    stderr: str


def run(command, scratch, sync=False):
    """Runs a command and measures it. Raises [`Failed`] unless its exit code is fine."""
    paths = {name: scratch / f"last-{name}" for name in ("result", "stdout", "stderr")}
    paths["result"].unlink(missing_ok=True)
    stdout = paths["stdout"] if command.keeps_stdout else os.devnull
    argv = [sys.executable, "-I", "-S", HERE / "timed.py", paths["result"], stdout, paths["stderr"]]
    argv += [command.directory, "1" if sync else "0", *command.argv]
    subprocess.run([os.fspath(part) for part in argv], env=command.env, check=True)
    code, *numbers = paths["result"].read_text().split()
    seconds, user, system, peak = map(float, numbers)
    text = {name: path.read_text(errors="replace") for name, path in paths.items() if path.exists()}
    stdout = text.get("stdout", "") if command.keeps_stdout else ""
    cost = Cost(int(code), seconds, user, system, int(peak), stdout, text.get("stderr", ""))
    if cost.code not in command.fine:
        raise Failed(f"exit code {cost.code}: {tail(cost.stderr)}")
    return cost


def tail(text, lines=3):
    """The last lines of a text, as one."""
    return " / ".join(line.strip() for line in text.strip().splitlines()[-lines:])


def read_all(*roots):
    """Reads every file below, so that the page cache holds what it can."""
    buffer = bytearray(1 << 20)
    for root in roots:
        for path in files(root):
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def files(root):
    """Every regular file below a directory."""
    waiting = [os.fspath(root)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield entry.path


def size_of(root):
    """The sum of the lengths of all files below."""
    return sum(os.lstat(path).st_size for path in files(root)) if root.exists() else 0


def remove(path):
    """Deletes a tree, read-only directories included."""
    if not path.exists():
        return
    if os.geteuid() != 0:
        subprocess.run(["chmod", "-R", "u+rwX", path], check=False)
    shutil.rmtree(path)


def digest_file(path):
    """BLAKE2 of a file's content."""
    hasher, buffer = hashlib.blake2b(), bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while length := file.readinto(buffer):
            hasher.update(memoryview(buffer)[:length])
    return hasher.hexdigest()


def manifest(root):
    """Every entry below a directory, not itself: kind, mode, owner, mtime in nanoseconds, content."""
    out = {}
    waiting = [root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                kind, content = stat.S_IFMT(info.st_mode), None
                if stat.S_ISDIR(kind):
                    waiting.append(entry.path)
                elif stat.S_ISREG(kind):
                    content = digest_file(entry.path)
                elif stat.S_ISLNK(kind):
                    content = os.readlink(entry.path)
                owner = (info.st_uid, info.st_gid)
                relative = os.path.relpath(entry.path, root)
                out[relative] = (kind, stat.S_IMODE(info.st_mode), owner, info.st_mtime_ns, content)
    return out


def differences(source, restored):
    """How many entries differ, by what differs in them."""
    found = {
        "missing": len(source.keys() - restored.keys()),
        "not in the source": len(restored.keys() - source.keys()),
    }
    for path in source.keys() & restored.keys():
        (kind, mode, owner, mtime, content), other = source[path], restored[path]
        what = {stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}.get(kind, "file")
        differs = {
            "type": kind != other[0],
            "content": content != other[4],
            "mode": mode != other[1],
            "owner": owner != other[2],
            f"mtime of a {what}": mtime != other[3],
        }
        for name in (name for name, is_other in differs.items() if is_other):
            found[name] = found.get(name, 0) + 1
    return {name: count for name, count in found.items() if count}
