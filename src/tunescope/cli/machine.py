"""Commands about the machine."""

from __future__ import annotations

from typing import Annotated

import typer

from tunescope.cli.options import AsJson, Quiet


def doctor(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="One check; may stand several times.")
    ] = None,
    env: Annotated[
        bool, typer.Option("--env", help="Only describe versions, devices, caches and extras.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Plant truths on this machine and show that every lens, metric and interval recovers them.

    Takes up to three minutes, needs no network, and ends with exit code 9 where anything is missed.

    Example: tunescope doctor
    """
    from tunescope.commands import doctor as command

    if env:
        command.describe(as_json)
    else:
        command.examine(only or [], as_json, quiet)
