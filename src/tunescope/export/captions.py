"""What each exported figure shows: the list beside the pictures."""

from __future__ import annotations

from collections.abc import Sequence

from tunescope.export.figures import Placed, names
from tunescope.export.words import markdown
from tunescope.report.read import RunFolder


def captions(run: RunFolder, chosen: Sequence[Placed]) -> str:
    """Return a page in Markdown: every figure with its files, what it shows, how to read it, what was measured."""
    lines = [f"# Figures of {markdown(run.name)}", ""]
    for one in chosen:
        figure = one.figure
        title = " · ".join(part for part in (figure.title or one.section, one.group) if part)
        lines += [f"## {markdown(title)}", "", f"Section `{one.section}`, key `{figure.key}`.", ""]
        for name, panel in zip(names(figure), figure.panels, strict=True):
            lines.append(f"- `{name}`" + (f": {markdown(panel.title)}" if panel.title else ""))
        told = [figure.shows, figure.measured, figure.caption, figure.how, figure.high]
        lines += ["", " ".join(markdown(part) for part in dict.fromkeys(told) if part), ""]
        if figure.scale is not None:
            ends = f"{markdown(figure.scale.low)} to {markdown(figure.scale.high)}"
            lines += [f"Colour scale: {ends}.", ""]
    return "\n".join(lines)
