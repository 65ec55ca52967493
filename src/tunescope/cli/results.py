"""Commands that begin with a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that run or compare wrote.")],
) -> None:
    """Write the report of a run folder again, from its tables alone.

    Example: tunescope report runs/quickstart
    """
    from tunescope.commands import studies

    studies.render_report(run)
