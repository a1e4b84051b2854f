"""How each program is called. All of them encrypt, and compress with zstd at level 3, where that is not their default by an
option; everything else is as the program comes."""

import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path

from measure import Command, Failed

PASSWORD = "correct horse battery staple"


class Tool:
    """A program with its keys, caches and repositories below one directory. `store` says where repositories are."""

    name = ""
    # What the page says of it.
    note = ""
    version_argument = "--version"
    speaks_s3 = False

    def __init__(self, program, home, store=None):
        self.program, self.home, self.store = Path(program), home, store
        self.version = self._version()

    def _version(self):
        run = subprocess.run(
            [self.program, self.version_argument], capture_output=True, text=True, check=False
        )
        found = re.search(r"\d+\.\d+(\.\d+)?[-+.\w]*", run.stdout + run.stderr)
        return found.group(0) if found else "?"

    def reset(self):
        """Forgets everything: keys, caches, repositories in a directory."""
        if self.home.exists():
            shutil.rmtree(self.home)
        self.home.mkdir(parents=True)
        (self.home / "password").write_text(PASSWORD + "\n")
        if self.store:
            self.store.round += 1

    def place(self, repository):
        """Where a repository is."""
        return self.home / "repositories" / repository

    def cache(self, repository):
        """What the program keeps beside it, to be faster."""
        return self.home / "cache" / repository

    def env(self, **more):
        """Nothing of the caller's environment but what is needed."""
        path = os.pathsep.join([os.fspath(self.program.parent), "/usr/bin", "/bin"])
        env = {"PATH": path, "HOME": os.fspath(self.home), "LANG": "C.UTF-8", "TZ": "UTC"}
        if self.store:
            env.update(self.store.env())
        return {**env, **{key: os.fspath(value) for key, value in more.items()}}

    def call(self, repository, *arguments, **more):
        """The program with arguments on a repository."""
        raise NotImplementedError

    def initialise(self, repository):
        """Commands that make a repository."""
        return [self.call(repository, "init")]

    def backup(self, repository, source):
        """Backs up a directory."""
        return self.call(repository, "backup", source)

    def backed_up(self, repository, stdout):
        """Told what `backup` printed."""

    def listing(self, repository):
        """Lists the snapshots: what opening a repository costs."""
        return self.call(repository, "snapshots")

    def restore(self, repository, source, target):
        """Restores a directory. Returns the command and where the directory then is."""
        raise NotImplementedError

    def cat(self, repository, source, path):
        """Writes a file below `source` to standard output."""
        raise NotImplementedError

    def check(self, repository):
        """Reads and verifies everything; None if the program cannot."""
        raise NotImplementedError

    def limited(self, repository, source):
        """Commands that back up with a key that can only write: one to prepare, one to measure. None without such keys."""
        return None


class Snap(Tool):
    name = "snap"
    note = "key file"
    speaks_s3 = True

    def call(self, repository, *arguments, key="key", cache=None, **more):
        place = self.store.snap(repository) if self.store else self.place(repository)
        cache = cache or self.cache(repository)
        head = [
            self.program,
            "-r",
            place,
            "--key-file",
            self.home / f"{repository}.{key}",
            "--cache-dir",
            cache,
        ]
        return Command([*head, *arguments], self.env(), **more)

    def restore(self, repository, source, target):
        return self.call(repository, "restore", f"latest:{source}", "--target", target), target

    def cat(self, repository, source, path):
        return self.call(repository, "cat", f"latest:{path}")

    def check(self, repository):
        return self.call(repository, "check", "--read-data")

    def limited(self, repository, source):
        new_key = self.home / f"{repository}.limited"
        add = self.call(
            repository, "key", "add", "--role", "backup", "--domain", "main", "--new-key-file", new_key
        )
        cache = self.home / "cache" / f"{repository}-limited"
        backup = self.call(repository, "backup", source, key="limited", cache=cache)
        return [add, backup], backup


class Restic(Tool):
    name = "restic"
    note = "password (scrypt, about a second for each command: see *list*)"
    version_argument = "version"
    speaks_s3 = True

    def call(self, repository, *arguments, **more):
        place = self.store.restic(repository) if self.store else self.place(repository)
        password, cache = self.home / "password", self.cache(repository)
        env = self.env(RESTIC_REPOSITORY=place, RESTIC_PASSWORD_FILE=password, RESTIC_CACHE_DIR=cache)
        options = self.store.restic_options() if self.store else []
        return Command([self.program, *options, *arguments], env, **more)

    def restore(self, repository, source, target):
        return self.call(repository, "restore", f"latest:{source}", "--target", target), target

    def cat(self, repository, source, path):
        return self.call(repository, "dump", "latest", path)

    def check(self, repository):
        return self.call(repository, "check", "--read-data")


class Rustic(Tool):
    name = "rustic"
    note = "password (scrypt)"
    speaks_s3 = True

    def call(self, repository, *arguments, **more):
        env = self.env(
            RUSTIC_PASSWORD_FILE=self.home / "password",
            RUSTIC_CACHE_DIR=self.cache(repository),
            RUSTIC_NO_PROGRESS="true",
        )
        if self.store:
            profile = self.home / f"{repository}.toml"
            profile.write_text(self.store.rustic(repository))
            return Command([self.program, "-P", profile.with_suffix(""), *arguments], env, **more)
        return Command([self.program, "-r", self.place(repository), *arguments], env, **more)

    def restore(self, repository, source, target):
        return self.call(repository, "restore", f"latest:{source}", target), target

    def cat(self, repository, source, path):
        return self.call(repository, "dump", "--archive", "content", f"latest:{path}")

    def check(self, repository):
        return self.call(repository, "check", "--read-data")


class Borg(Tool):
    name = "borg"
    note = "password (PBKDF2), `repokey-blake2`, `--compression zstd,3`"

    def reset(self):
        super().reset()
        self.archives = {}

    def call(self, repository, *arguments, **more):
        env = self.env(
            BORG_REPO=self.place(repository),
            BORG_PASSPHRASE=PASSWORD,
            BORG_BASE_DIR=self.home,
            BORG_CACHE_DIR=self.cache(repository),
        )
        return Command([self.program, *arguments], env, fine=(0, 1), **more)

    def initialise(self, repository):
        self.place(repository).parent.mkdir(parents=True, exist_ok=True)
        return [self.call(repository, "init", "--encryption", "repokey-blake2")]

    def backup(self, repository, source):
        archive = self.archives[repository] = self.archives.get(repository, 0) + 1
        return self.call(repository, "create", "--compression", "zstd,3", f"::{archive}", source)

    def listing(self, repository):
        return self.call(repository, "list")

    def restore(self, repository, source, target):
        path = str(source).lstrip("/")
        command = self.call(repository, "extract", f"::{self.archives[repository]}", path, directory=target)
        return command, target / path

    def cat(self, repository, source, path):
        path = str(path).lstrip("/")
        return self.call(repository, "extract", "--stdout", f"::{self.archives[repository]}", path)

    def check(self, repository):
        return self.call(repository, "check", "--verify-data")


class Bupstash(Tool):
    name = "bupstash"
    note = "key file; takes no extended attributes unless asked, and was not asked; has no check of its data"

    def reset(self):
        super().reset()
        self.items = {}

    def call(self, repository, *arguments, **more):
        cache = self.cache(repository)
        cache.mkdir(parents=True, exist_ok=True)
        env = self.env(
            BUPSTASH_REPOSITORY=self.place(repository),
            BUPSTASH_KEY=self.home / "key",
            BUPSTASH_QUERY_CACHE=cache / "query",
            BUPSTASH_SEND_LOG=cache / "sent",
        )
        return Command([self.program, *arguments], env, **more)

    def initialise(self, repository):
        self.place(repository).parent.mkdir(parents=True, exist_ok=True)
        commands = [self.call(repository, "init", "-q")]
        if not (self.home / "key").exists():
            commands.insert(0, self.call(repository, "new-key", "-o", self.home / "key"))
        return commands

    def backup(self, repository, source):
        sent = self.cache(repository) / "sent"
        return self.call(repository, "put", "-q", "--send-log", sent, "::", source, keeps_stdout=True)

    def backed_up(self, repository, stdout):
        if not re.fullmatch(r"[0-9a-f]+", stdout.strip()):
            raise Failed("bupstash put printed no id")
        self.items[repository] = f"id={stdout.strip()}"

    def listing(self, repository):
        return self.call(repository, "list", "-q")

    def restore(self, repository, source, target):
        command = self.call(
            repository, "restore", "-q", "--ownership", "--into", target, self.items[repository]
        )
        return command, target

    def cat(self, repository, source, path):
        return self.call(repository, "get", "-q", "--pick", path.relative_to(source), self.items[repository])

    def check(self, repository):
        return None


TOOLS = {tool.name: tool for tool in (Snap, Restic, Rustic, Borg, Bupstash)}


class S3Store:
    """A bucket, as each program wants to be told of it."""

    def __init__(self, endpoint, bucket, region, prefix, key_id, secret):
        self.endpoint, self.bucket, self.region, self.prefix = endpoint.rstrip("/"), bucket, region, prefix
        self.key_id, self.secret = key_id, secret
        # One set of names a run: what is left of another is in nobody's way.
        self.run = secrets.token_hex(4)
        self.tool, self.round = "", 0

    def of(self, tool):
        """The part of the bucket that a tool writes to."""
        store = S3Store(self.endpoint, self.bucket, self.region, self.prefix, self.key_id, self.secret)
        store.run, store.tool = self.run, tool
        return store

    def key(self, repository):
        """The prefix of a repository, without a slash at its ends."""
        return f"{self.base()}{self.round}/{repository}"

    def base(self):
        """What all keys of a tool begin with."""
        return f"{self.prefix}/{self.run}/{self.tool}/"

    def env(self):
        return {
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": self.region,
        }

    def snap(self, repository):
        return f"s3://{self.bucket}/{self.key(repository)}?endpoint={self.endpoint}&region={self.region}"

    def restic(self, repository):
        return f"s3:{self.endpoint}/{self.bucket}/{self.key(repository)}"

    def restic_options(self):
        return ["-o", f"s3.region={self.region}", "-o", "s3.bucket-lookup=path"]

    def rustic(self, repository):
        options = {
            "bucket": self.bucket,
            "root": f"/{self.key(repository)}",
            "endpoint": self.endpoint,
            "region": self.region,
        }
        lines = ['[repository]\nrepository = "opendal:s3"\n\n[repository.options]']
        return "\n".join([*lines, *(f'{key} = "{value}"' for key, value in options.items())]) + "\n"
