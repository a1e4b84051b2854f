"""The tree: one directory for each row of the table, made by a function that says what is in it."""

import errno
import fcntl
import os
import socket
import stat
import struct
from contextlib import contextmanager
from dataclasses import dataclass, field

# ioctl_iflags(2), on machines with 64 bits.
GET_FLAGS, SET_FLAGS = 0x80086601, 0x40086602
IMMUTABLE, APPEND, NODUMP, NOATIME = 0x10, 0x20, 0x40, 0x80
# Those that people set, and not those that a file system keeps for itself.
FLAGS = IMMUTABLE | APPEND | NODUMP | NOATIME

# A user and a group that no machine has a name for.
USER, GROUP = 44_242, 44_343


class Impossible(Exception):
    """This machine or file system has no such thing."""


@dataclass
class Row:
    """A line of the table."""

    title: str
    section: str
    build: object
    # What is compared beside the usual.
    also: tuple = ()
    # Options of backup and of restore that a program has for it: what is lost without is tried again with them.
    options: dict = field(default_factory=dict)


ROWS = []


def row(section, title, **more):
    """Takes a function in as a row."""

    def add(build):
        ROWS.append(Row(title, section, build, **more))
        return build

    return add


@contextmanager
def possible():
    """What the system does not have is left out, and the page says so."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPERM, errno.ENOTTY, errno.ENOSPC, errno.EINVAL):
            raise Impossible(os.strerror(error.errno)) from error
        raise


def write(path, content=b"content\n"):
    """A new file."""
    with open(path, "wb") as file:
        file.write(content)
    return path


def noise(length, seed=1):
    """Bytes that no compressor shrinks; the same for the same seed."""
    out, state = bytearray(), seed
    while len(out) < length:
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        out += struct.pack("<Q", state ^ (state >> 29))
    return bytes(out[:length])


def set_time(path, nanoseconds):
    """The time of modification; that of access as well."""
    os.utime(path, ns=(nanoseconds, nanoseconds), follow_symlinks=False)


def seconds(whole, nanoseconds=0):
    """A time in nanoseconds."""
    return whole * 1_000_000_000 + nanoseconds


def xattr(path, name, value):
    """An extended attribute, of a link itself too."""
    with possible():
        os.setxattr(path, name, value, follow_symlinks=False)


def acl(*entries):
    """Entries (tag, permissions, id) as the kernel has them (linux/posix_acl_xattr.h)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
# user::rw-, user:USER:r--, group::r--, mask::r--, other::---
FILE_ACL = acl((1, 6, NOBODY), (2, 4, USER), (4, 4, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY))
DIR_ACL = acl((1, 7, NOBODY), (2, 5, USER), (4, 5, NOBODY), (8, 7, GROUP), (0x10, 7, NOBODY), (0x20, 0, NOBODY))


def flags_of(fd):
    """The flags of an open file, as chattr(1) sets them; 0 where there are none."""
    try:
        return struct.unpack("l", fcntl.ioctl(fd, GET_FLAGS, struct.pack("l", 0)))[0]
    except OSError:
        return 0


def set_flags(path, flags):
    """Sets flags, and leaves the file system's own."""
    fd = os.open(path, os.O_RDONLY)
    try:
        with possible():
            value = flags_of(fd) & ~FLAGS | flags
            fcntl.ioctl(fd, SET_FLAGS, struct.pack("l", value))
    finally:
        os.close(fd)


def node(path, kind, mode, device=0):
    """A special file, with just this mode."""
    with possible():
        os.mknod(path, kind | mode, device)
    os.chmod(path, mode)


# Types


@row("Types", "files: empty, one byte, large")
def _(top):
    for length in (0, 1, 100_000, 20 << 20):
        write(top / f"of {length}", noise(length))


@row("Types", "directories: empty, within each other")
def _(top):
    (top / "empty").mkdir()
    (top / "a/b/c/d").mkdir(parents=True)


@row("Types", "symlinks: dangling, absolute, upwards, 4,000 bytes, not UTF-8")
def _(top):
    targets = [b"nowhere/at/all", b"/etc/hostname", b"../..", b"x" * 4000, b"\xff\xfe\n"]
    for number, target in enumerate(targets):
        os.symlink(target, os.fsencode(top / f"link {number}"))


@row("Types", "pipes")
def _(top):
    node(top / "pipe", stat.S_IFIFO, 0o640)


@row("Types", "character and block devices")
def _(top):
    node(top / "null", stat.S_IFCHR, 0o666, os.makedev(1, 3))
    node(top / "disk", stat.S_IFBLK, 0o660, os.makedev(259, 70_000))


@row("Types", "sockets")
def _(top):
    os.chdir(top)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    os.chdir("/")


# Names


@row("Names", "newline, tab, escape, quotes, backslash, only a space")
def _(top):
    for name in (b"a\nb", b"tab\t", b"\x1b[31mred", b"'\"`$(x)", b"back\\slash", b" ", b"-rf", b"*?[a]", b"..."):
        write(os.path.join(os.fsencode(top), name))


@row("Names", "not UTF-8; two forms of one letter")
def _(top):
    for name in (b"\xff\xfe", b"caf\xe9", "caf\u00e9".encode(), "cafe\u0301".encode(), b"\xf0\x28\x8c\xbc"):
        write(os.path.join(os.fsencode(top), name))


@row("Names", "255 bytes")
def _(top):
    write(top / ("n" * 255))
    (top / ("d" * 255)).mkdir()


@row("Names", "a path of 6,000 bytes")
def _(top):
    here = os.open(top, os.O_DIRECTORY)
    for _ in range(24):
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    end = os.open("at the end", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=here)
    os.write(end, b"deep")
    os.close(end)
    os.close(here)


# Owners and modes


@row("Owners and modes", "owners that have no name, large numbers")
def _(top):
    with possible():
        for number, (user, group) in enumerate([(USER, GROUP), (4_294_967_000, 3_000_000_000)]):
            os.chown(write(top / f"file {number}"), user, group)
        (top / "directory").mkdir()
        os.chown(top / "directory", USER, GROUP)


@row("Owners and modes", "the owner of a symlink")
def _(top):
    os.symlink("nowhere", top / "link")
    with possible():
        os.chown(top / "link", USER, GROUP, follow_symlinks=False)


@row("Owners and modes", "set-user-id, set-group-id, sticky, of another owner")
def _(top):
    for mode in (0o4755, 0o2755, 0o6711, 0o1777):
        os.chown(write(top / f"file {mode:o}"), USER, GROUP)
        os.chmod(top / f"file {mode:o}", mode)
    for mode in (0o2775, 0o1777):
        (top / f"directory {mode:o}").mkdir()
        os.chown(top / f"directory {mode:o}", USER, GROUP)
        os.chmod(top / f"directory {mode:o}", mode)


@row("Owners and modes", "a directory without any permission, and one that is read-only, with files in them")
def _(top):
    for mode in (0o000, 0o555):
        path = top / f"mode {mode:o}"
        path.mkdir()
        os.chmod(write(path / "inside"), 0o000)
        os.chmod(path, mode)


# Times


@row("Times", "nanoseconds")
def _(top):
    set_time(write(top / "file"), seconds(1_234_567_890, 123_456_789))
    set_time(write(top / "one"), seconds(1_234_567_890, 1))


@row("Times", "before 1970")
def _(top):
    for number, time in enumerate([seconds(-1, 999_999_999), seconds(-86_400), seconds(-2_000_000_000, 5)]):
        set_time(write(top / f"file {number}"), time)


@row("Times", "after 2038 and 2106")
def _(top):
    for number, time in enumerate([seconds(2_200_000_000, 1), seconds(5_000_000_000, 999_999_999)]):
        set_time(write(top / f"file {number}"), time)


@row("Times", "times of directories with something in them")
def _(top):
    (top / "a/b").mkdir(parents=True)
    write(top / "a/b/file")
    set_time(top / "a/b", seconds(-5, 7))
    set_time(top / "a", seconds(4_000_000_000, 9))


@row("Times", "times of symlinks, pipes and devices")
def _(top):
    os.symlink("nowhere", top / "link")
    node(top / "pipe", stat.S_IFIFO, 0o600)
    node(top / "null", stat.S_IFCHR, 0o600, os.makedev(1, 3))
    for name in ("link", "pipe", "null"):
        set_time(top / name, seconds(1_000_000_000, 123_456_789))


ACCESS = {"restic": (["--with-atime"], []), "rustic": (["--with-atime"], []), "borg": (["--atime"], [])}


@row("Times", "times of access", also=("time of access",), options=ACCESS)
def _(top):
    os.utime(write(top / "file"), ns=(seconds(1_000_000_000, 5), seconds(1_100_000_000, 5)))


# Attributes


@row("Attributes", "attributes of files: empty, binary, 3,000 bytes")
def _(top):
    path = write(top / "file")
    for name, value in (
        ("user.empty", b""),
        ("user.binary", b"\0\xff\n\0"),
        ("user.large", noise(3000)),
    ):
        xattr(path, name, value)


@row("Attributes", "attributes whose names are odd, and not UTF-8")
def _(top):
    path = write(top / "file")
    xattr(path, "user.\u00fcber=% ", b"odd")
    xattr(path, b"user.\xff\xfe", b"not UTF-8")


@row("Attributes", "attributes of directories")
def _(top):
    (top / "directory").mkdir()
    xattr(top / "directory", "user.note", b"yes")


@row("Attributes", "attributes of symlinks, pipes and devices")
def _(top):
    os.symlink("nowhere", top / "link")
    node(top / "pipe", stat.S_IFIFO, 0o600)
    node(top / "null", stat.S_IFCHR, 0o600, os.makedev(1, 3))
    for name in ("link", "pipe", "null"):
        xattr(top / name, "trusted.note", b"yes")


@row("Attributes", "`trusted` and `security`; capabilities of another owner's program")
def _(top):
    path = write(top / "program")
    with possible():
        os.chown(path, USER, GROUP)
    os.chmod(path, 0o755)
    xattr(path, "trusted.note", b"administrators only")
    xattr(path, "security.note", b"of some module")
    # cap_net_raw+ep, as capabilities(7) stores it
    xattr(path, "security.capability", bytes([1, 0, 0, 2, 0, 32] + [0] * 14))


@row("Attributes", "ACLs of files")
def _(top):
    xattr(write(top / "file"), "system.posix_acl_access", FILE_ACL)


@row("Attributes", "ACLs of directories; default ones, and children that do not have them")
def _(top):
    (top / "directory/without").mkdir(parents=True)
    write(top / "directory/file")
    xattr(top / "directory", "system.posix_acl_access", DIR_ACL)
    xattr(top / "directory", "system.posix_acl_default", DIR_ACL)


@row("Attributes", "flags: `chattr +d` and `+A`", also=("flags",))
def _(top):
    set_flags(write(top / "no dump"), NODUMP)
    set_flags(write(top / "no atime"), NOATIME)


@row("Attributes", "flags: `chattr +i` and `+a`", also=("flags",))
def _(top):
    set_flags(write(top / "immutable"), IMMUTABLE)
    set_flags(write(top / "append"), APPEND)


# Links and holes


@row("Links and holes", "hard links, in one directory and across")
def _(top):
    (top / "below").mkdir()
    write(top / "first", noise(300_000))
    os.link(top / "first", top / "second")
    os.link(top / "first", top / "below/third")
    os.link(write(top / "empty", b""), top / "below/empty too")


@row("Links and holes", "hard links of symlinks, pipes and devices")
def _(top):
    os.symlink("nowhere", top / "link")
    node(top / "pipe", stat.S_IFIFO, 0o600)
    node(top / "null", stat.S_IFCHR, 0o600, os.makedev(1, 3))
    for name in ("link", "pipe", "null"):
        os.link(top / name, top / f"{name} again", follow_symlinks=False)


HOLES = {"restic": ([], ["--sparse"]), "borg": ([], ["--sparse"])}


@row("Links and holes", "holes: in front, between, behind", also=("holes",), options=HOLES)
def _(top):
    for name, size, pieces in (
        ("in front", 8 << 20, [(8 << 20) - 5]),
        ("between", 24 << 20, [0, 20 << 20]),
        ("behind", 16 << 20, [0]),
    ):
        with open(top / name, "wb") as file:
            file.truncate(size)
            for number, at in enumerate(pieces):
                file.seek(at)
                file.write(noise(min(300_000, size - at), number + 1))


@row("Links and holes", "1 GiB of nothing", also=("holes",), options=HOLES)
def _(top):
    with open(top / "nothing", "wb") as file:
        file.truncate(1 << 30)


def build(top, say):
    """Makes all rows below a directory. Returns where each is, and why those that are left out are."""
    assert len({it.title for it in ROWS}) == len(ROWS)
    made, left_out = [], {}
    for number, it in enumerate(ROWS):
        path = top / f"row {number:02}"
        path.mkdir(parents=True)
        try:
            it.build(path)
            made.append((it, path))
        except Impossible as error:
            left_out[it.title] = str(error)
            say(f"{it.title}: not here: {error}")
    return made, left_out
