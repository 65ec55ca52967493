"""The command ``doctor``: planted truths, what was measured of them, and what is installed."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tunescope.errors import DoctorError
from tunescope.progress import Progress


def describe(as_json: bool) -> None:
    """Print versions, devices, threads, caches and optional libraries."""
    from tunescope.doctor.environment import environment_json, environment_text

    print(environment_json() if as_json else environment_text())


def examine(only: Sequence[str], as_json: bool, quiet: bool) -> None:
    """Run the checks, print planted beside measured, and keep the record of a whole examination.

    Raises:
        ConfigError: There is no check of a name.
        DoctorError: A check missed.
    """
    from tunescope.doctor import examine as run
    from tunescope.doctor.table import keep, text_of

    found = run.examine(only, Progress(quiet))
    if found.whole:
        keep(found)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    elif not quiet:
        print(text_of(found))
    if not found.passed:
        missed = found.missed
        raise DoctorError(
            f"{len(missed)} of {len(found.outcomes)} checks missed: {', '.join(missed)}. Numbers of this installation "
            "are not to be trusted where these checks look.",
            hint="Report it with the output of `tunescope doctor --env` and `tunescope doctor --only "
            f"{missed[0]} --json`.",
        )
