"""Bars as SVG, by hand. It brings its own background, and follows the reader's choice of light or dark."""

from html import escape

STYLE = """
.back { fill: #ffffff; } text { font: 13px system-ui, sans-serif; fill: #24292f; } .title { font-weight: 600; }
.bar { fill: #8c959f; } .snap { fill: #0969da; } .value { font-size: 12px; }
@media (prefers-color-scheme: dark) {
  .back { fill: #161b22; } text { fill: #d5dbe1; } .bar { fill: #6e7681; } .snap { fill: #4c9aff; }
}
"""
COLUMNS, WIDTH, GAP, LABEL, VALUE = 2, 400, 28, 72, 64
BAR, LINE = 15, 21


def panels(results):
    """Titles, and what each program has under it, unit in the title."""
    for step in results.steps:
        yield f"{step.title}, s", [results.median(step.key, tool, "seconds") for tool in results.tools], 1
    for key, field, title in (
        ("day2", "repository_bytes", "Repository after day 2, MB"),
        ("scattered-2", "added_bytes", "Added by a scattered change, MB"),
    ):
        if results.rows(key):
            yield title, [results.median(key, tool, field) for tool in results.tools], 1e6
    yield "Most memory of a step, MB", [results.most_memory(tool) for tool in results.tools], 1e6


def figure(value):
    """A value beside its bar."""
    return f"{value:.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def panel(title, bars, x, y):
    """One title and a bar for each of (program, value)."""
    out = [f'<text class="title" x="{x}" y="{y + 13}">{escape(title)}</text>']
    most = max((value for _, value in bars), default=0) or 1
    room = WIDTH - LABEL - VALUE
    for row, (tool, value) in enumerate(bars):
        top = y + 24 + row * LINE
        length = max(value / most * room, 1)
        kind = "bar snap" if tool == "snap" else "bar"
        out.append(f'<text x="{x + LABEL - 8}" y="{top + 12}" text-anchor="end">{escape(tool)}</text>')
        out.append(
            f'<rect class="{kind}" x="{x + LABEL}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2"/>'
        )
        out.append(
            f'<text class="value" x="{x + LABEL + length + 6:.1f}" y="{top + 12}">{figure(value)}</text>'
        )
    return out


def draw(results):
    """The plot of a series: a panel for each step, each with a scale of its own."""
    drawn = []
    for title, values, unit in panels(results):
        bars = [(tool, value / unit) for tool, value in zip(results.tools, values) if value is not None]
        # One program by itself is no comparison.
        if len(bars) > 1 or len(results.tools) == len(bars):
            drawn.append((title, bars))
    body, y = [], GAP
    for at in range(0, len(drawn), COLUMNS):
        row = drawn[at : at + COLUMNS]
        for column, (title, bars) in enumerate(row):
            body += panel(title, bars, GAP + column * (WIDTH + GAP), y)
        y += 24 + max(len(bars) for _, bars in row) * LINE + GAP
    width = GAP + COLUMNS * (WIDTH + GAP)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}" role="img">'
    title = "<title>Seconds, memory and bytes of each step, by program; shorter is better</title>"
    back = f'<rect class="back" width="{width}" height="{y}" rx="8"/>'
    return "\n".join([head, title, f"<style>{STYLE}</style>", back, *body, "</svg>", ""])
