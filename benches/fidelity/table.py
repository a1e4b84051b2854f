"""The page: what each program keeps, row by row."""


def words(lost):
    """`time 2 of 3, owner 1 of 3`."""
    return ", ".join(f"{what} {count}" for what, count in lost.items())


def cell(result):
    """What became of a row."""
    if not result["lost"]:
        return "kept"
    with_options = ""
    if "options" in result:
        options = f"`{' '.join(result['options'])}`"
        if not result["lost with options"]:
            return f"kept with {options}, without it lost: {words(result['lost'])}"
        with_options = f"; with {options} {words(result['lost with options'])}"
    codes = [result[part] for part in ("backup", "code") if part in result]
    said = "" if not codes else " (exit 0)" if not any(codes) else f" (exit {', '.join(map(str, codes))})"
    return f"**lost:** {words(result['lost'])}{with_options}{said}"


def sections(made):
    """The rows by section, in order."""
    out = {}
    for row, _ in made:
        out.setdefault(row.section, []).append(row.title)
    return out


def table(made, results, extra=()):
    """A table for each section."""
    names = list(results)
    lines = []
    for section, titles in [*sections(made).items(), *extra]:
        lines += [f"### {section}", "", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        lines += [f"| {title} | {' | '.join(cell(results[name][title]) for name in names)} |" for title in titles]
        lines.append("")
    return lines


def kept(made, results):
    """How many rows each program keeps, in words."""
    whole = {name: sum(cell(rows[row.title]).startswith("kept") for row, _ in made) for name, rows in results.items()}
    return ", ".join(f"{name} {count}" for name, count in whole.items())


def write(made, left_out, results, mounts, versions, about, today):
    """The whole page."""
    lines = [
        "# Fidelity",
        "",
        "What comes back of a nasty tree. Written by `benches/fidelity/fidelity`; what you change here goes with the next run.",
        "",
        f"Each row is a directory, backed up and restored by itself, by root, with the options that a program has by default. Of {len(made)} rows,",
        f"these come back whole, one or the other with an option: {kept(made, results)}.",
        "",
        "*Lost: time 2 of 3* means that of three entries in the directory two came back with another time. The numbers behind are the exit codes of",
        "backup and restore, if one of them said that something was wrong; *exit 0* means that neither did.",
        "",
        "Compared are type, content, target, device number, mode, owner, time of modification to the nanosecond, extended attributes with ACLs, which",
        "names are one file, and where a row is about them, holes (space on disk), flags and times of access. Nobody can set the time of change.",
        "",
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}. Linux {about['kernel']}, {about['file_system']}; {today}.",
        "",
        "## Backed up and restored",
        "",
        *table(made, results, [("Together", ["all of them in one tree"])]),
    ]
    if mounts:
        lines += [
            "## Through a mount",
            "",
            "The same tree, looked at where a program mounts its snapshot. Of "
            f"{len(made)} rows these are whole: {kept(made, mounts)}. Holes are not compared here.",
            "",
            *table(made, mounts),
        ]
    if left_out:
        lines += ["## Left out", "", "The machine has no such things:", ""]
        lines += [f"- {title}: {why}" for title, why in left_out.items()]
        lines.append("")
    return "\n".join(lines)
