"""From raw results to a page: tables, notes, and the plot beside it."""

import json
import statistics

import plot
from rounds import STEPS

FLOORS = {
    "du": "`du -s`: looking at every file",
    "cat": "`cat` of every file: reading everything",
    "cp": "`cp -a`: writing everything, without any encryption",
}


class Results:
    """What a series of rounds has measured."""

    def __init__(self, raw):
        self.raw = raw
        self.tools = [name for name in raw["tools"] if any(row["tool"] == name for row in raw["results"])]
        self.steps = [step for step in STEPS if self.rows(step.key)]

    def rows(self, step, tool=None):
        """The rounds of a step that were asked for."""
        wanted = (row for row in self.raw["results"] if row["step"] == step and row["asked"])
        return [row for row in wanted if tool is None or row["tool"] == tool]

    def values(self, step, tool, field):
        """A field of every round in which it was measured."""
        return [row[field] for row in self.rows(step, tool) if row.get(field) is not None]

    def median(self, step, tool, field):
        """None if it was never measured."""
        values = self.values(step, tool, field)
        return statistics.median(values) if values else None

    def best_peer(self, step, field):
        """The least of the medians of all but snap."""
        values = [self.median(step, tool, field) for tool in self.tools if tool != "snap"]
        return min((value for value in values if value is not None), default=None)

    def error(self, step, tool):
        """Why there is no number."""
        return next((row["error"] for row in self.rows(step, tool) if "error" in row), None)

    def most_memory(self, tool):
        """The largest median of all steps."""
        values = [self.median(step.key, tool, "peak_bytes") for step in self.steps]
        return max((value for value in values if value is not None), default=None)


def number(value, places=None):
    """Three digits or so."""
    if value is None:
        return "-"
    if places is None:
        places = 3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{places}f}"


def megabytes(value):
    """10^6 bytes."""
    return (
        "-" if value is None else number(value / 1e6, 2 if abs(value) < 1e6 else 1 if abs(value) < 1e7 else 0)
    )


def table(head, rows):
    """Markdown; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def overview(results):
    """One line a step, one column a tool."""
    rows = []

    def line(title, values, show):
        least = min((value for value in values if value is not None), default=None)
        peers = [v for t, v in zip(results.tools, values) if t != "snap" and v is not None]
        cells = [
            f"**{show(value)}**" if value is not None and value == least else show(value) for value in values
        ]
        if "snap" in results.tools:
            own = values[results.tools.index("snap")]
            cells.append(number(own / min(peers), 2) if own is not None and peers and min(peers) > 0 else "-")
        rows.append([title, *cells])

    for step in results.steps:
        line(
            f"{step.title}, s", [results.median(step.key, tool, "seconds") for tool in results.tools], number
        )
    last = next((key for key in ("day2", "again", "first") if results.rows(key)), None)
    if last:
        title = "Repository after day 2, MB" if last == "day2" else "Repository, MB"
        line(title, [results.median(last, tool, "repository_bytes") for tool in results.tools], megabytes)
    if results.rows("scattered-2"):
        values = [results.median("scattered-2", tool, "added_bytes") for tool in results.tools]
        line("Added by a scattered change, MB", values, megabytes)
    line("Most memory of a step, MB", [results.most_memory(tool) for tool in results.tools], megabytes)
    ratio = ["snap / best peer"] if "snap" in results.tools else []
    return table(["", *results.tools, *ratio], rows)


def step_table(results, step):
    """Everything about a step."""
    head = ["", "seconds", "from - to", "/ best peer", "CPU s", "memory MB"]
    if step.writes and step.key != "restore":
        head += ["added MB", "repository MB"]
    best = results.best_peer(step.key, "seconds")
    rows = []
    for tool in results.tools:
        seconds = results.values(step.key, tool, "seconds")
        if not seconds:
            reason = "failed" if results.error(step.key, tool) else "not measured"
            if results.rows(step.key, tool):
                rows.append([tool, reason, *["-"] * (len(head) - 2)])
            continue
        middle = statistics.median(seconds)
        cpu = list(map(sum, zip(results.values(step.key, tool, "user"), results.values(step.key, tool, "system"))))
        cpu = statistics.median(cpu) if cpu else None
        row = [tool, number(middle), f"{number(min(seconds))} - {number(max(seconds))}"]
        row += [number(middle / best, 2) if best else "-", number(cpu)]
        row.append(megabytes(results.median(step.key, tool, "peak_bytes")))
        if step.writes and step.key != "restore":
            row += [
                megabytes(results.median(step.key, tool, field))
                for field in ("added_bytes", "repository_bytes")
            ]
        rows.append(row)
    return table(head, rows)


def fidelity(results):
    """What a restored tree lacks."""
    lines = []
    for tool in results.tools:
        found = results.raw["differences"].get(tool)
        if found is None:
            continue
        text = ", ".join(f"{what} {count:,}" for what, count in sorted(found.items()))
        lines.append(f"- {tool}: {'entries that differ: ' + text if found else 'nothing differs'}")
    return "\n".join(lines)


def floors(results):
    """Seconds of what needs no backup program."""
    rows = []
    for key, title in FLOORS.items():
        values = [row["seconds"] for row in results.raw["floors"] if row["floor"] == key]
        if values:
            rows.append(
                [title, number(statistics.median(values)), f"{number(min(values))} - {number(max(values))}"]
            )
    return table(["", "seconds", "from - to"], rows)


def corpus_table(facts):
    """What was backed up."""
    names = {
        "small": "small source and documentation files of the machine",
        "programs": "one tar of its programs",
        "uploads": "uploads that do not compress (generated)",
        "dumps": "two text dumps (generated): rows as pgbench makes them, and records",
    }
    rows = [
        [title, f"{facts[key]['files']:,}", megabytes(facts[key]["bytes"])] for key, title in names.items()
    ]
    rows.append(
        [
            "beside it, for the scattered change: a dump of orders (generated)",
            "1",
            megabytes(facts["dumps"]["scattered_bytes"]),
        ]
    )
    return table(["", "files", "MB"], rows)


def notes(results):
    """What a reader should know before believing a number."""
    raw = results.raw
    out = [
        "Ratios carry over to another machine, seconds do not. A difference smaller than the spread between rounds is none.",
        "All programs encrypt with authentication and compress with zstd at level 3 or the level of their own that equals it;"
        " otherwise they run as they come, with as many threads as they choose.",
        "Keys: " + "; ".join(f"{name}: {raw['tools'][name]['note']}" for name in results.tools) + ".",
        "The input of each step was read once before it, so that the disk is measured as little as it can be. "
        + (
            "Steps that write end with a `sync` of the whole machine, within the measured seconds, the same for all."
            if raw["sync"]
            else "What was written was not synced by the benchmark: a program that syncs by itself pays for it alone."
        ),
        "Programs take turns: each step is done by all before the next one begins, in another order each round.",
        "Memory is the peak of the largest process (resource usage of the kernel), not the sum of several;"
        " 8 MB is the least that can be told.",
        "The next version of a dump is a new file under the same name, as dumps are.",
    ]
    if "bupstash" in results.tools:
        out.append("bupstash runs two processes at once; its memory is that of the larger.")
    if "borg" in results.tools:
        out.append(
            "The newest file of the tree is a stamp, because borg reads the newest files again in each run."
        )
    scale, rounds = raw["scale"], raw["rounds"]
    if scale < 1:
        out.append(
            f"This run used {scale * 100:g} % of the corpus: what a run costs at least (keys, start) weighs more than it does in earnest."
        )
    if rounds < 3:
        out.append(f"{rounds} round{'s' if rounds > 1 else ''} only: there is little to say of the spread.")
    if scale < 0.02:
        out.append("A dump so small is cut like any file: the scattered change says nothing.")
    if raw["machine"]["load"] > raw["machine"]["cores"] / 4:
        out.append(
            f"The machine was not idle when it began (load {raw['machine']['load']:.1f}): take the numbers with care."
        )
    for name in raw["missing"]:
        out.append(f"{name} was not there, and is left out.")
    for step in results.steps:
        for tool in results.tools:
            if error := results.error(step.key, tool):
                code = error.split(":")[0]
                out.append(f"{tool} failed in at least one round of *{step.title}* ({code}).")
    return "\n".join(f"- {line}" for line in out)


def machine(raw):
    """Without names and paths."""
    it = raw["machine"]
    versions = ", ".join(f"{name} {tool['version']}" for name, tool in raw["tools"].items())
    return (
        f"{it['cores']} cores of {it['cpu']}, {it['memory_bytes'] / (1 << 30):.0f} GiB of memory, Linux {it['kernel']},"
        f" {it['file_system']}; {raw['date']}. {versions}. {raw['rounds']} round{'s' if raw['rounds'] > 1 else ''},"
        f" scale {raw['scale']:g}."
    )


def line_limits(results, line):
    """How near to what the line carries the first backups came."""
    if not line or not line["mbit"] or not results.rows("first"):
        return []
    lines = ["The line alone needs, for what each first backup has stored:\n"]
    for tool in results.tools:
        size = results.median("first", tool, "added_bytes")
        seconds = results.median("first", tool, "seconds")
        if size and seconds:
            least = size * 8 / (line["mbit"] * 1e6)
            lines.append(
                f"- {tool}: {megabytes(size)} MB, {number(least)} s; it took {number(seconds / least, 2)} times that"
            )
    return ["\n".join(lines) + "\n"]


def s3_section(raw):
    """A table for a series against a bucket."""
    results = Results(raw)
    line = raw["line"]
    how = (
        f"through a line of {line['mbit']:g} Mbit/s and {line['latency']:g} ms a round trip"
        if line
        else "with nothing put between"
    )
    text = [
        f"### {raw['title']}\n",
        f"{machine(raw)} {raw['corpus']['small']['files']:,} small files of a tree of",
    ]
    text.append(
        f"{megabytes(sum(raw['corpus'][part]['bytes'] for part in ('small', 'programs', 'uploads', 'dumps')))} MB, {how}.\n"
    )
    text.append(overview(results))
    text += line_limits(results, line)
    text.append(fidelity(results) + "\n")
    failed = [
        (step, tool) for step in results.steps for tool in results.tools if results.error(step.key, tool)
    ]
    text += [f"- {tool} failed in at least one round of *{step.title}*." for step, tool in failed]
    return "\n".join(text)


def page(raw, s3, picture):
    """The whole page."""
    parts = [
        "# Benchmarks\n",
        "Written by `benches/compare/compare`; what you change here goes with the next run.\n",
    ]
    if raw:
        results = Results(raw)
        parts += [
            "Medians of wall seconds; the best of each line is bold.\n",
            overview(results),
            f"![Seconds of each step, by program]({picture})\n",
            "Shorter is better; each panel has a scale of its own.\n",
            "## Machine and corpus\n",
            machine(raw) + "\n",
            corpus_table(raw["corpus"]),
            "What needs no backup program, on the same tree:\n",
            floors(results),
            "## Each step\n",
        ]
        for step in results.steps:
            parts += [
                f"### {step.title}\n",
                step.what[0].upper() + step.what[1:] + ".\n",
                step_table(results, step),
            ]
        if results.raw["differences"]:
            parts += [
                "## What came back\n",
                "The restored tree against the source: every name, content, mode, owner, target and time of modification.\n",
                fidelity(results) + "\n",
            ]
    if s3:
        parts.append("## Against S3\n")
        parts += [s3_section(series) for series in s3]
    if raw:
        parts += ["## Notes\n", notes(Results(raw)) + "\n"]
    parts += ["## Again\n", "```sh"]
    parts += [series["command"] for series in [raw, *s3] if series]
    parts += [
        "```\n",
        "`--install-peers DIRECTORY` installs the other programs. More in `benches/README.md`.\n",
    ]
    return "\n".join(parts)


def write(work, out):
    """Writes the page and the plot from whatever results lie in the work directory."""
    local = work / "local.json"
    raw = json.loads(local.read_text()) if local.exists() else None
    s3 = [json.loads(path.read_text()) for path in sorted(work.glob("s3*.json"))]
    s3.sort(key=lambda series: series["line"] is not None)
    out.parent.mkdir(parents=True, exist_ok=True)
    picture = out.with_suffix(".svg")
    out.write_text(page(raw, s3, picture.name))
    if raw:
        picture.write_text(plot.draw(Results(raw)))
