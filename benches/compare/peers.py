"""Finds and installs the programs that snap is compared with."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BORG = "borgbackup==1.4.*"
CARGO = {"rustic": ("rustic-rs", "0.11.4"), "bupstash": ("bupstash", "0.12.0")}
BORG_NEEDS = [
    "libacl1-dev",
    "liblz4-dev",
    "libzstd-dev",
    "libxxhash-dev",
    "libssl-dev",
    "pkg-config",
    "python3-venv",
]


def install(prefix, names, say):
    """Installs into PREFIX/bin what is not there. Needs a Debian or Ubuntu machine, and root for its packages."""
    prefix = Path(prefix).absolute()
    (prefix / "bin").mkdir(parents=True, exist_ok=True)
    for name in names:
        if name == "snap" or (prefix / "bin" / name).exists():
            continue
        say(f"installing {name}")
        if name == "restic":
            _restic(prefix)
        elif name == "borg":
            _apt(BORG_NEEDS)
            _run(sys.executable, "-m", "venv", prefix / "borg-venv")
            _run(prefix / "borg-venv" / "bin" / "pip", "-q", "install", BORG)
            (prefix / "bin" / "borg").symlink_to(prefix / "borg-venv" / "bin" / "borg")
        else:
            if name == "bupstash":
                _apt(["libsodium-dev", "pkg-config"])
            package, version = CARGO[name]
            _run("cargo", "install", package, "--version", version, "--locked", "--root", prefix)


def _restic(prefix):
    """The newest that Debian has, from the mirror that the machine uses anyway; unpacked, not installed."""
    with tempfile.TemporaryDirectory() as state:
        for part in ("lists/partial", "cache/archives/partial"):
            os.makedirs(os.path.join(state, part))
        sources = os.path.join(state, "sources.list")
        Path(sources).write_text(f"deb {_mirror()} sid main\n")
        options = {
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": f"{state}/lists",
            "Dir::Cache": f"{state}/cache",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "-qq", *(word for option in options.items() for word in ("-o", "=".join(option)))]
        _run(*apt, "update")
        _run(*apt, "download", "restic", directory=state)
        package = next(Path(state).glob("restic_*.deb"))
        _run("dpkg", "-x", package, f"{state}/root")
        shutil.copy2(f"{state}/root/usr/bin/restic", prefix / "bin" / "restic")


def _mirror():
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for path in lists:
        text = path.read_text() if path.is_file() else ""
        if found := re.search(r"https?://\S+/debian/?(?=\s)", text):
            return found.group(0)
    raise SystemExit("no Debian mirror is configured here: put restic on PATH, or into PREFIX/bin")


def _apt(packages):
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    _run(*sudo, "apt-get", "-qq", "update")
    _run(
        *sudo,
        "apt-get",
        "-qq",
        "install",
        "-y",
        "--no-install-recommends",
        *packages,
        stdout=subprocess.DEVNULL,
    )


def _run(*argv, directory=None, stdout=None):
    subprocess.run([os.fspath(word) for word in argv], cwd=directory, stdout=stdout, check=True)
