"""Commands that begin with a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunescope.cli import options


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that run or compare wrote.")],
    texts: options.Texts = None,
) -> None:
    """Write the report of a run folder again, from its tables alone.

    Example: tunescope report runs/quickstart --texts none
    """
    from tunescope.commands import studies
    from tunescope.report.texts import asked

    with asked(texts):
        studies.render_report(run)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that run or compare wrote.")],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Where to; default RUN/export.")
    ] = None,
    width: Annotated[str, typer.Option(help="Width of a figure: 3.3in, 84mm, 8.4cm or 239pt.")] = "3.3in",
    texts: Annotated[
        str, typer.Option(help="Texts of rows that may leave: all, examples or none (row ids only).")
    ] = "examples",
    figures: Annotated[
        list[str],
        typer.Option(metavar="WHICH", help="open (those not folded), all, none, a section or a key."),
    ] = ["open"],  # noqa: B006  # Typer copies it
    formats: Annotated[
        list[str], typer.Option("--format", metavar="KIND", help="Kinds of figure files: pdf, svg, png.")
    ] = ["pdf", "svg", "png"],  # noqa: B006
    tables: Annotated[bool, typer.Option(help="Write tables as CSV and LaTeX.")] = True,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a run's figures, tables, methods section, references and model cards, for a paper or a model hub.

    Figures are drawn by the system's Chromium or Chrome, offline (pip install 'tunescope[export]').

    Example: tunescope export runs/quickstart --to paper --width 3.3in --texts none
    """
    from tunescope.commands import export as commands

    commands.export(
        commands.ExportRequest(
            run=run, to=to, width=width, texts=texts, figures=tuple(figures), formats=tuple(formats),
            tables=tables, quiet=quiet, as_json=as_json,
        )
    )  # fmt: skip


def serve(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUNS...", help="Run folders, or folders that hold run folders.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 for any free port.")] = 8321,
    memory_gb: Annotated[
        float, typer.Option(min=0.1, help="What open models may take; the oldest leave.")
    ] = 4,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    device: options.Device = "auto",
) -> None:
    """Show runs, their reports and the bench in a browser of this machine, until Ctrl-C.

    The bench takes a typed text and shows base and tuned side by side: predictions, deciding words, attention, and
    what happens when heads and layers are switched off.

    Example: tunescope serve runs/quickstart
    """
    from tunescope.commands.serve import serve_runs

    serve_runs(runs, port, device, memory_gb, browser)
