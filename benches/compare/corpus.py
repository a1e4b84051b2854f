"""What is backed up: files that a machine for development has, and generated ones.

`live/` is the tree that the tools see. Its dumps exist in two versions, `versions/1` and `versions/2`, which are moved in
and out, so that each has one name and one inode. `scattered/` holds the dump for the question what a change of one row in
a thousand adds.
"""

import json
import os
import random
import shutil
import stat
import string
import sys
import tarfile
import time
from pathlib import Path

# Raise this when what is built changes: a corpus of another version is built anew.
VERSION = 1
SEED = 20_000

SMALL_FILES, SMALL_BYTES, SMALL_MAX = 79_000, 1_100_000_000, 1 << 20
PROGRAM_BYTES = 1_500_000_000
UPLOAD_BYTES = 740_000_000
BENCH_BYTES, RECORD_BYTES, SCATTERED_BYTES = 390_000_000, 57_000_000, 220_000_000

# Everything generated is of this second, so that two builds agree.
TIME = 1_700_000_000
CHANGED = 1000  # one row in so many


class Corpus:
    """The corpus in a directory."""

    def __init__(self, root, scale):
        self.root, self.scale = root, scale
        self.live, self.scattered = root / "live", root / "scattered"
        self.facts = {}

    def build(self, say):
        """Builds what is not there in this version and scale."""
        wanted = {"version": VERSION, "seed": SEED, "scale": self.scale}
        note = self.root / "corpus.json"
        if note.exists():
            found = json.loads(note.read_text())
            if {key: found.get(key) for key in wanted} == wanted:
                self.facts = found
                self.use(1)
                return
            shutil.rmtree(self.root)
        for part in (
            "live/small",
            "live/programs",
            "live/uploads",
            "live/dumps",
            "scattered",
            "versions/1",
            "versions/2",
        ):
            (self.root / part).mkdir(parents=True)
        facts = dict(wanted)
        for name, part in (
            ("small", self._small),
            ("programs", self._programs),
            ("uploads", self._uploads),
            ("dumps", self._dumps),
        ):
            say(f"corpus: {name}")
            facts[name] = part()
        self._stamp()
        note.write_text(json.dumps(facts, indent=1))
        self.facts = facts
        self.use(1)

    def use(self, version):
        """Puts the dumps of a version in place."""
        for name, directory in (
            ("bench.sql", "live/dumps"),
            ("records.txt", "live/dumps"),
            ("dump.sql", "scattered"),
        ):
            place = self.root / directory / name
            wanted, other = (self.root / "versions" / str(n) / name for n in (version, 3 - version))
            if wanted.exists():
                if place.exists():
                    place.rename(other)
                wanted.rename(place)
        self._stamp()

    def _stamp(self):
        # The newest file of all: tools that distrust what changed in the last instant of a run read this one again,
        # not the dumps. Clocks of file systems are coarse.
        time.sleep(0.05)
        (self.live / "stamp").write_text("newest\n")
        os.utime(self.live / "stamp", (TIME, TIME))

    @property
    def large_file(self):
        """The one that is written to standard output."""
        return self.live / "programs" / "programs.tar"

    def total_bytes(self):
        """Bytes of the tree that is backed up."""
        return sum(self.facts[name]["bytes"] for name in ("small", "programs", "uploads", "dumps"))

    def _small(self):
        limit_files, limit_bytes = int(SMALL_FILES * self.scale), int(SMALL_BYTES * self.scale)
        groups = [(label, group) for label, root in _small_roots() for group in sorted(root.iterdir())]
        # Whole packages, in an order that is random and the same each time.
        random.Random(SEED).shuffle(groups)
        count = total = 0
        for label, group in groups:
            for path in _walk(group):
                info = path.lstat()
                if count >= limit_files or total >= limit_bytes:
                    return {"files": count, "bytes": total}
                if info.st_size > SMALL_MAX or "__pycache__" in path.parts:
                    continue
                target = self.live / "small" / label / path.relative_to(group.parent)
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, target, follow_symlinks=False)
                except OSError:
                    continue  # not ours to read
                count += 1
                total += info.st_size
        return {"files": count, "bytes": total}

    def _programs(self):
        limit, total, count = int(PROGRAM_BYTES * self.scale), 0, 0
        found = [path for root in ("/usr/bin", "/usr/lib") for path in _walk(Path(root)) if _is_program(path)]
        random.Random(SEED + 1).shuffle(found)
        with tarfile.open(self.large_file, "w", format=tarfile.GNU_FORMAT) as tar:
            for path in found:
                if total >= limit:
                    break
                entry = tarfile.TarInfo(str(path).lstrip("/"))
                entry.size, entry.mode, entry.mtime = path.stat().st_size, 0o755, TIME
                if entry.size > max(limit // 4, 1 << 20):
                    continue
                with open(path, "rb") as content:
                    tar.addfile(entry, content)
                total += entry.size
                count += 1
        os.utime(self.large_file, (TIME, TIME))
        return {"files": 1, "bytes": self.large_file.stat().st_size, "programs": count}

    def _uploads(self):
        limit, total, count = int(UPLOAD_BYTES * self.scale), 0, 0
        source = random.Random(SEED + 2)
        while total < limit:
            size = min(source.randrange(1_000_000, 26_000_000), limit - total)
            path = self.live / "uploads" / f"u{count:04}.jpg"
            with open(path, "wb") as out:
                for at in range(0, size, 1 << 20):
                    out.write(source.randbytes(min(1 << 20, size - at)))
            os.utime(path, (TIME + count, TIME + count))
            total += size
            count += 1
        return {"files": count, "bytes": total}

    def _dumps(self):
        first = self.root / "versions" / "1"
        for seed, name, row, head, size, grows in (
            (3, "bench.sql", _bench_row, BENCH_HEAD, BENCH_BYTES, True),
            (4, "records.txt", _record, "", RECORD_BYTES, True),
            (5, "dump.sql", _order_row, ORDER_HEAD, SCATTERED_BYTES, False),
        ):
            _two_versions(
                [self.root / "versions" / n / name for n in "12"],
                seed,
                row,
                head,
                int(size * self.scale),
                grows,
            )
        sizes = {name: (first / name).stat().st_size for name in ("bench.sql", "records.txt", "dump.sql")}
        live = sizes["bench.sql"] + sizes["records.txt"]
        return {"files": 2, "bytes": live, "scattered_bytes": sizes["dump.sql"]}


def _small_roots():
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    registries = sorted((home / "registry" / "src").glob("*"))
    roots = [("crates", registry) for registry in registries]
    roots += [("doc", Path("/usr/share/doc")), ("include", Path("/usr/include"))]
    pythons = sorted({*Path("/usr/lib").glob("python3*"), Path(os.path.dirname(os.__file__)).resolve()})
    roots += [("python", python) for python in pythons]
    roots += [
        ("share", Path(path))
        for path in ("/usr/share/perl", "/usr/share/man", "/usr/share/locale", "/usr/src")
    ]
    return [(label, root) for label, root in roots if root.is_dir()]


def _walk(root):
    """Regular files and links below a path, in order of their names; a file is its own tree."""
    if root.is_symlink() or not root.is_dir():
        yield root
        return
    for directory, subdirectories, names in os.walk(root):
        subdirectories.sort()
        for name in sorted(names):
            path = Path(directory, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                yield path


def _is_program(path):
    if path.is_symlink():
        return False
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _two_versions(paths, seed, row, head, size, grows):
    """Writes a dump twice: in the second one row in a thousand is another, and some follow at the end."""
    source, other = random.Random(SEED + seed), random.Random(SEED + 100 + seed)
    with open(paths[0], "w") as first, open(paths[1], "w") as second:
        first.write(head)
        second.write(head)
        written, number = 0, 0
        while written < size:
            number += 1
            text = row(number, source)
            written += len(text)
            first.write(text)
            second.write(row(number, other) if other.randrange(CHANGED) == 0 else text)
        for extra in range(number // 500 if grows else 0):
            second.write(row(number + 1 + extra, other))
    for version, path in enumerate(paths):
        os.utime(path, (TIME + version * 86_400,) * 2)


BENCH_HEAD = "COPY public.pgbench_accounts (aid, bid, abalance, filler) FROM stdin;\n"
ORDER_HEAD = "COPY public.orders (id, customer, amount, status, created, token, note) FROM stdin;\n"
WORDS = "fast small safe shared client server library tools common headers runtime module parser format network".split()
STATES = ("open", "paid", "paid", "paid", "sent", "returned")


def _bench_row(number, source):
    return f"{number}\t{number // 100_000 + 1}\t{source.randrange(-5000, 5001)}\t{'':84}\n"


def _order_row(number, source):
    r = source.getrandbits(160)
    second, minute, hour, day = r % 60, (r >> 6) % 60, (r >> 12) % 24, 1 + (r >> 17) % 28
    return (
        f"{number}\t{(r >> 22) % 50_000}\t{(r >> 40) % 1_000_000}\t{STATES[(r >> 60) % 6]}\t"
        f"2024-03-{day:02} {hour:02}:{minute:02}:{second:02}+00\t{r & (1 << 128) - 1:032x}\tordered by the customer\n"
    )


def _record(number, source):
    r = source.getrandbits(320)
    words = [WORDS[(r >> 4 * n) % len(WORDS)] for n in range(6)]
    letters = "".join(string.ascii_lowercase[(r >> 5 * n & 31) % 26] for n in range(5))
    return (
        f"Package: lib{letters}{number}\nVersion: {r % 9}.{(r >> 8) % 40}-{(r >> 16) % 5}\n"
        f"Installed-Size: {(r >> 20) % 100_000}\nDepends: libc6, lib{words[0]}{(r >> 30) % 9}\n"
        f"Description: {' '.join(words)}\nSHA256: {r & (1 << 256) - 1:064x}\n\n"
    )


if __name__ == "__main__":
    corpus = Corpus(Path(sys.argv[1]), float(sys.argv[2]))
    corpus.build(print)
    print(json.dumps(corpus.facts, indent=1))
