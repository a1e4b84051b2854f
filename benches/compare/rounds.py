"""The steps, and how they are taken: each step by all tools before the next step, in another order each round."""

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import measure
from measure import Command, Failed


@dataclass(frozen=True)
class Step:
    """Something that is measured. `needs` are steps that come before it for the same tool."""

    key: str
    title: str
    what: str
    needs: tuple = ()
    writes: bool = False
    repository: str = "main"
    # Dumps that it wants in place.
    version: int = 0


STEPS = (
    Step("first", "First backup", "everything, into an empty repository", (), True, version=1),
    Step("again", "Again, nothing changed", "the same once more", ("first",), True, version=1),
    Step(
        "cold",
        "Again, without a local cache",
        "nothing changed; what the program keeps locally was deleted before",
        ("first",),
        True,
        version=1,
    ),
    Step("list", "List the snapshots", "what opening the repository costs", ("first",)),
    Step(
        "day2",
        "Day 2",
        "both dumps replaced by their next version: one row in a thousand changed, some added",
        ("first",),
        True,
        version=2,
    ),
    Step("restore", "Restore all", "the newest snapshot, into an empty directory", ("first",), True),
    Step("cat", "One large file to standard output", "the tar of programs", ("first",)),
    Step("check", "Check, reading all data", "everything read, authenticated, hashed", ("first",)),
    Step(
        "limited",
        "Again, with a key that can only write",
        "a `backup` slot cannot read what it compares with",
        ("first",),
        True,
    ),
    Step(
        "scattered",
        "Scattered change, first",
        "a dump into an empty repository of its own",
        (),
        True,
        "scattered",
        1,
    ),
    Step(
        "scattered-2",
        "Scattered change, second",
        "one row in a thousand changed, at random places",
        ("scattered",),
        True,
        "scattered",
        2,
    ),
)


def steps_for(only):
    """The steps to take, in order, and those of them that are measured."""
    chosen = {step.key for step in STEPS} if only is None else set(only)
    taken = set(chosen)
    for step in reversed(STEPS):
        if step.key in taken:
            taken.update(step.needs)
    return [step for step in STEPS if step.key in taken], chosen


class Rounds:
    """Takes the steps and keeps what they cost."""

    def __init__(self, tools, corpus, work, steps, chosen, sync, sizes, say):
        self.tools, self.corpus, self.work, self.steps, self.chosen = tools, corpus, work, steps, chosen
        self.sync, self.sizes, self.say = sync, sizes, say
        self.results, self.differences, self.floors = [], {}, []
        self.scratch = work / "scratch"
        # What was written is deleted at the end of a round: for minutes after many files were deleted ext4 makes new ones
        # slowly, as it passes over each inode that was in use a moment ago, and the next program would pay for it.
        self.restored = work / "restored"
        self.scratch.mkdir(exist_ok=True)
        self.manifests = {}

    def take(self, number):
        """One round."""
        measure.remove(self.restored)
        for tool in self.tools:
            self._begin(tool)
        self.corpus.use(1)
        self._floors(number)
        failed = set()
        order = self.tools[number % len(self.tools) :] + self.tools[: number % len(self.tools)]
        for step in self.steps:
            if step.version:
                self.corpus.use(step.version)
            for tool in order:
                if any((tool.name, need) in failed for need in step.needs):
                    failed.add((tool.name, step.key))
                    continue
                try:
                    self._step(number, step, tool)
                except Failed as error:
                    failed.add((tool.name, step.key))
                    self._keep(number, step, tool, error=str(error))
                    self.say(f"round {number + 1}: {step.key}: {tool.name}: {error}")
        measure.remove(self.restored)

    def _begin(self, tool):
        tool.reset()
        for repository in {step.repository for step in self.steps}:
            for command in tool.initialise(repository):
                try:
                    measure.run(command, self.scratch)
                except Failed as error:
                    raise SystemExit(f"{tool.name} makes no repository: {error}") from None

    def _source(self, step):
        return self.corpus.live if step.repository == "main" else self.corpus.scattered

    def _step(self, number, step, tool):
        source = self._source(step)
        before = self.sizes.repository(tool, step.repository)
        what = {
            "again": "backup",
            "cold": "backup",
            "first": "backup",
            "day2": "backup",
            "scattered": "backup",
            "scattered-2": "backup",
        }
        cost = getattr(self, "_" + what.get(step.key, step.key))(number, step, tool, source)
        if cost is None:
            return
        after = self.sizes.repository(tool, step.repository)
        cache = measure.size_of(tool.cache(step.repository))
        self._keep(
            number,
            step,
            tool,
            cost=cost,
            repository_bytes=after,
            added_bytes=after - before,
            cache_bytes=cache,
        )
        mark = "" if step.key in self.chosen else " (not asked for)"
        peak = cost.peak_bytes / 1e6
        self.say(
            f"round {number + 1}: {step.key:11} {tool.name:8} {cost.seconds:8.2f} s {peak:6.0f} MB{mark}"
        )

    def _keep(self, number, step, tool, cost=None, **more):
        measured = (
            {key: value for key, value in asdict(cost).items() if key not in ("stdout", "stderr")}
            if cost
            else {}
        )
        asked = step.key in self.chosen
        self.results.append(
            {"round": number, "step": step.key, "tool": tool.name, "asked": asked, **measured, **more}
        )

    def _run(self, command, step, *warm):
        measure.read_all(*warm)
        # What others have written is not this tool's.
        os.sync()
        return measure.run(command, self.scratch, sync=self.sync and step.writes)

    def _backup(self, number, step, tool, source):
        if step.key == "cold":
            measure.remove(tool.cache(step.repository))
        cost = self._run(tool.backup(step.repository, source), step, source)
        tool.backed_up(step.repository, cost.stdout)
        return cost

    def _stored(self, tool, step):
        place = tool.place(step.repository)
        return [place] if place.exists() else []

    def _list(self, number, step, tool, source):
        return self._run(tool.listing(step.repository), step)

    def _restore(self, number, step, tool, source):
        target = self.restored / tool.name
        measure.remove(target)
        target.mkdir(parents=True)
        command, root = tool.restore(step.repository, source, target)
        cost = self._run(command, step, *self._stored(tool, step))
        if tool.name not in self.differences:
            self.differences[tool.name] = measure.differences(self._manifest(source), measure.manifest(root))
            if self.differences[tool.name]:
                self.say(f"restored by {tool.name}: {self.differences[tool.name]}")
        return cost

    def _manifest(self, source):
        # The dumps are the same until the next step swaps them, and differences are looked for in one step only.
        if source not in self.manifests:
            self.manifests[source] = measure.manifest(source)
        return self.manifests[source]

    def _cat(self, number, step, tool, source):
        path = self.corpus.large_file
        command = tool.cat(step.repository, source, path)
        cost = self._run(command, step, *self._stored(tool, step))
        if number == 0:
            # Once more, unmeasured: is it the file?
            copy = self.scratch / "copy"
            script = 'out=$1; shift; exec "$@" > "$out"'
            written = Command(
                ["sh", "-c", script, "sh", copy, *command.argv],
                command.env,
                command.directory,
                False,
                command.fine,
            )
            measure.run(written, self.scratch)
            same = measure.digest_file(copy) == measure.digest_file(path)
            copy.unlink()
            if not same:
                raise Failed("wrote something else than the file")
        return cost

    def _check(self, number, step, tool, source):
        command = tool.check(step.repository)
        return command and self._run(command, step, *self._stored(tool, step))

    def _limited(self, number, step, tool, source):
        commands = tool.limited(step.repository, source)
        if commands is None:
            return None
        prepare, command = commands
        for each in prepare:
            measure.run(each, self.scratch)
        return self._run(command, step, source)

    def _floors(self, number):
        """What no backup of this tree can do without: looking at it, reading it, and for a restore writing it."""
        live, copy = self.corpus.live, self.restored / "copy"
        self.restored.mkdir(exist_ok=True)
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
        measure.read_all(live)
        floors = {
            "du": (Command(["du", "-s", live], env), False),
            "cat": (Command(["find", live, "-type", "f", "-exec", "cat", "{}", "+"], env), False),
            "cp": (Command(["cp", "-a", live, copy], env), self.sync),
        }
        for name, (command, sync) in floors.items():
            os.sync()
            cost = measure.run(command, self.scratch, sync)
            self.floors.append({"round": number, "floor": name, "seconds": cost.seconds})


class LocalSizes:
    """Sizes of repositories in directories."""

    def repository(self, tool, repository):
        return measure.size_of(tool.place(repository))


def find_program(name, peers):
    """A program in the directory of peers, else on the path."""
    path = (str(peers) + os.pathsep if peers else "") + os.environ.get("PATH", "")
    found = shutil.which(name, path=path)
    return Path(found).absolute() if found else None
