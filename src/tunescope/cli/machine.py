"""Commands about the machine."""

from __future__ import annotations

from typing import Annotated

import typer

from tunescope.cli.options import AsJson


def doctor(
    env: Annotated[
        bool, typer.Option("--env", help="Describe versions, devices, caches and extras.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what tunescope finds on this machine: versions, devices, threads, caches, optional libraries.

    Example: tunescope doctor --env
    """
    from tunescope import doctor as look
    from tunescope.errors import ConfigError

    if not env:
        raise ConfigError("Expected what to look at.", hint="Run `tunescope doctor --env`.")
    print(look.environment_json() if as_json else look.environment_text())
