"""What the comparison on disk and the one against S3 have in common: options, tools, the rounds, the page."""

import argparse
import shlex
import shutil
import sys
from pathlib import Path

import machine
import page
from corpus import Corpus
from rounds import Rounds, find_program, steps_for
from tools import TOOLS


def say(text):
    """To the one who waits."""
    print(text, file=sys.stderr, flush=True)


def words(known):
    """A list with commas, of these words."""

    def parse(text):
        chosen = [word for word in text.split(",") if word]
        if unknown := [word for word in chosen if word not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(known)}")
        return chosen

    return parse


def arguments(description, tools, scale, steps, out):
    """What this command and its sibling for S3 have in common."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scale", type=float, default=scale, help=f"share of the corpus [default: {scale:g}]"
    )
    parser.add_argument("--runs", type=int, default=3, help="rounds [default: 3]")
    parser.add_argument(
        "--tools", type=words(tools), default=tools, metavar="NAME,…", help=f"of {', '.join(tools)}"
    )
    parser.add_argument("--only", type=words(steps), metavar="STEP,…", help=f"of {', '.join(steps)}")
    parser.add_argument(
        "--work",
        type=Path,
        default=machine.ROOT / "target" / "compare",
        metavar="DIR",
        help="corpus, repositories, raw results [default: target/compare]",
    )
    parser.add_argument(
        "--out", default=out, metavar="FILE", help=f"the page, - for standard output [default: {out}]"
    )
    parser.add_argument("--peers", type=Path, metavar="DIR", help="where the other programs are, before PATH")
    parser.add_argument(
        "--snap", type=Path, metavar="BIN", help="this program instead of a release build of the checkout"
    )
    parser.add_argument(
        "--no-sync", action="store_true", help="do not flush what was written within the measured time"
    )
    return parser


def parse(parser):
    """The options, with paths made absolute: the page belongs to the checkout, whatever the directory."""
    options = parser.parse_args()
    options.work = options.work.absolute()
    if options.out != "-":
        options.out = machine.ROOT / options.out
    return options


def make_tools(options, store=None):
    """Those that are there, and the names of those that are not."""
    tools, missing = [], []
    for name in options.tools:
        if name == "snap":
            program = options.snap.absolute() if options.snap else machine.build_snap()
        else:
            program = find_program(name, options.peers)
        if program is None:
            missing.append(name)
            say(f"{name} is not there: left out")
            continue
        tool = TOOLS[name](program, options.work / "tools" / name, store and store.of(name))
        if name == "snap" and not options.snap and (commit := machine.commit()):
            tool.version += f" ({commit})"
        tools.append(tool)
    return tools, missing


def again(program, options, tools, scale, extra=()):
    """The command that repeats this run elsewhere: without paths."""
    parts = [f"benches/compare/{program}", *extra]
    if options.tools != tools:
        parts += ["--tools", ",".join(options.tools)]
    if options.scale != scale:
        parts += ["--scale", f"{options.scale:g}"]
    if options.runs != 3:
        parts += ["--runs", str(options.runs)]
    if options.only:
        parts += ["--only", ",".join(options.only)]
    if options.no_sync:
        parts.append("--no-sync")
    return shlex.join(parts)


def measure_all(options, tools, missing, sizes, **more):
    """Builds the corpus and takes the rounds; after each it gives the raw results so far."""
    options.work.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(options.work / "corpus", options.scale)
    about = machine.describe(options.work)
    corpus.build(say)
    on_disk = len([tool for tool in tools if not tool.store])
    needed = corpus.total_bytes() * (2.2 + 1.7 * on_disk)
    if shutil.disk_usage(options.work).free < needed:
        raise SystemExit(f"{options.work}: {needed / 1e9:.1f} GB are needed")
    steps, chosen = steps_for(options.only)
    rounds = Rounds(tools, corpus, options.work, steps, chosen, not options.no_sync, sizes, say)
    for number in range(options.runs):
        rounds.take(number)
        yield {
            "date": machine.today(),
            "scale": options.scale,
            "rounds": number + 1,
            "sync": not options.no_sync,
            "machine": about,
            "corpus": corpus.facts,
            "tools": {tool.name: {"version": tool.version, "note": tool.note} for tool in tools},
            "missing": missing,
            "results": rounds.results,
            "floors": rounds.floors,
            "differences": rounds.differences,
            **more,
        }


def publish(options):
    """Writes the page from what lies in the work directory."""
    out = options.work / "benchmarks.md" if options.out == "-" else options.out
    page.write(options.work, out)
    if options.out == "-":
        print(out.read_text())
    else:
        say(f"written: {out}")
