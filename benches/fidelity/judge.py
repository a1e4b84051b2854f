"""What a tree holds, and what of it another tree has lost. By handles, one component at a time: neither depth nor names matter."""

import hashlib
import os
import stat

from tree import FLAGS, flags_of

# A restored file may take so much more space: the rest of a block at each end of a piece.
SLACK = 256 << 10
BLOCK = 4096


def look(top):
    """Every entry below a directory: path -> what there is to say of it."""
    found = {}
    waiting = [(b"", os.open(top, os.O_DIRECTORY | os.O_RDONLY))]
    while waiting:
        path, here = waiting.pop()
        try:
            for name in sorted(os.listdir(here)):
                name = os.fsencode(name)
                inner = os.path.join(path, name)
                found[inner] = _entry(here, name)
                if found[inner]["type"] == "directory":
                    waiting.append((inner, os.open(name, os.O_DIRECTORY | os.O_RDONLY, dir_fd=here)))
        finally:
            os.close(here)
    return found


KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFSOCK: "socket",
}


def _entry(here, name):
    info = os.stat(name, dir_fd=here, follow_symlinks=False)
    kind = KINDS[stat.S_IFMT(info.st_mode)]
    entry = {
        "type": kind,
        "mode": stat.S_IMODE(info.st_mode),
        "owner": (info.st_uid, info.st_gid),
        "time": info.st_mtime_ns,
        "time of access": info.st_atime_ns,
        "inode": (info.st_dev, info.st_ino) if info.st_nlink > 1 and kind != "directory" else None,
        "space": info.st_blocks * 512,
        "attributes": _attributes(here, name),
        "flags": 0,
        "content": None,
    }
    if kind == "symlink":
        entry["content"] = os.readlink(name, dir_fd=here)
    elif kind in ("character device", "block device"):
        entry["content"] = info.st_rdev
    elif kind in ("file", "directory"):
        fd = os.open(name, os.O_RDONLY | os.O_NOATIME, dir_fd=here)
        try:
            entry["flags"] = flags_of(fd) & FLAGS
            if kind == "file":
                entry["content"] = _digest(fd, info.st_size)
        finally:
            os.close(fd)
    return entry


def _attributes(here, name):
    path = b"/proc/self/fd/%d/%s" % (here, name)
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {it: os.getxattr(path, it, follow_symlinks=False) for it in names}


def _digest(fd, size):
    """Length and content of a file; where the system knows of a hole, nothing is read."""
    hasher, at = hashlib.blake2b(), 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA) // BLOCK * BLOCK
        except OSError:
            break
        piece = _read(fd, at, min(1 << 20, size - at))
        # Zeros that are stored and those that are not are the same content.
        for start in range(0, len(piece), BLOCK):
            block = piece[start : start + BLOCK]
            if block.count(0) != len(block):
                hasher.update((at + start).to_bytes(8, "little") + block)
        at += 1 << 20
    return size, hasher.hexdigest()


def _read(fd, at, length):
    """So many bytes, or as many as there are."""
    out = bytearray()
    while len(out) < length and (piece := os.pread(fd, length - len(out), at + len(out))):
        out += piece
    return bytes(out)


USUAL = ("type", "content", "mode", "owner", "time", "attributes")


def losses(source, restored, also=()):
    """What is lost, as words; none if nothing is."""
    out = {}
    for path, entry in source.items():
        other = restored.get(path)
        if other is None:
            out.setdefault("missing", []).append(path)
            continue
        for aspect in (*USUAL, *(it for it in also if it != "holes")):
            if entry[aspect] != other[aspect]:
                out.setdefault(aspect, []).append(path)
            if aspect == "type" and entry[aspect] != other[aspect]:
                break
        if "holes" in also and other["space"] > entry["space"] + SLACK:
            out.setdefault("holes", []).append(path)
    if torn := _groups(source) - _groups(restored):
        out["links torn"] = sorted(min(group) for group in torn)
    if extra := restored.keys() - source.keys():
        out["something that was not there"] = sorted(extra)
    return {what: f"{len(paths)} of {len(source)}" for what, paths in out.items()}


def _groups(entries):
    """Names of the same file, where it has several."""
    groups = {}
    for path, entry in entries.items():
        if entry["inode"]:
            groups.setdefault(entry["inode"], set()).add(path)
    return {frozenset(group) for group in groups.values() if len(group) > 1}
