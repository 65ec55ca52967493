"""The commands around a study: init, validate, run, report and recipes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunescope.commands.recipes import Wanted, unmet_lines, verdict_lines
from tunescope.config import study_schema
from tunescope.errors import ConfigError, RunError
from tunescope.progress import Progress


@dataclass(frozen=True)
class RunRequest:
    """What ``tunescope run`` was asked for."""

    wanted: Wanted
    output_dir: Path | None
    device: str
    quiet: bool
    as_json: bool
    workers: int | None = None
    strict: bool = False
    keep_store: bool = False
    restart: bool = False


def write_study(data: str, text: Sequence[str], label: str | None, output: str, model: str | None) -> None:
    """Look at a data file and write a commented study for it; ``-`` as output prints it.

    Raises:
        ConfigError: The output exists already.
    """
    from tunescope.files import write_atomic
    from tunescope.init import draft_study, look_at

    to_screen = output == "-"
    target = Path(output)
    if not to_screen and target.exists():
        raise ConfigError(
            f"{target} exists already and is never overwritten.",
            hint="Choose another name with -o, or print the study with -o -.",
        )
    look = look_at(data, text=text, label=label)
    study = draft_study(look, folder=Path.cwd() if to_screen else target.parent, model=model)
    if to_screen:
        sys.stdout.write(study)
        return
    write_atomic(target, study)
    print(f"{target} is written. Text: {look.text_reason}. Label: {look.label_reason}.")
    print(f"Next: read it, then `tunescope validate {target}` and `tunescope run {target}`.")


def print_schema() -> None:
    """Print the JSON schema of a study file."""
    from tunescope.study import LENSES, METHODS

    print(json.dumps(study_schema(METHODS, LENSES), indent=2))


def validate_study(wanted: Wanted, quiet: bool) -> None:
    """Check study, data and models, and print what a run would need."""
    from tunescope.study import validate

    config, _ = wanted.load()
    print(validate(config, Progress(quiet)))


def run_study(request: RunRequest) -> None:
    """Run a study, or continue it, and say where its report is."""
    from tunescope import study as stages

    start = time.monotonic()
    config, source = request.wanted.load()
    folder = request.output_dir or Path("runs") / config.name
    progress = Progress(request.quiet)
    stages.run(
        config, folder, device=request.device, progress=progress, source=source, workers=request.workers,
        keep_store=request.keep_store, restart=request.restart,
    )  # fmt: skip
    report = folder / "report.html"
    found = _expectations(folder) if config.expect else {}
    if request.as_json:
        about = {"run": str(folder.resolve()), "report": str(report.resolve())}
        expect = {"expect": found["summary"]} if found else {}
        print(json.dumps({**about, "seconds": round(time.monotonic() - start, 3), **expect}))
    elif not request.quiet:
        if found:
            print("Expectations: " + ", ".join(f"{count} {name}" for name, count in found["summary"].items()))
        for line in [*verdict_lines(folder), *unmet_lines(found)]:
            print(line)
        print(f"Report: {report}")
    if request.strict:
        _require(found)


def _expectations(folder: Path) -> dict[str, Any]:
    from tunescope.files import read_json

    return dict(read_json(folder / "expect.json"))


def _require(found: dict[str, Any]) -> None:
    """Refuse a run whose expectations are not met, where the study has any.

    Raises:
        ExpectationError: An expectation is not met or undecided.
    """
    from tunescope.expect import Verdict, require

    require([Verdict(**verdict) for verdict in found.get("verdicts", [])], strict=True)


def render_report(run: Path) -> None:
    """Write the report of a finished run again, from its tables alone.

    Raises:
        RunError: There is no such folder.
    """
    from tunescope.report import write_report

    if not run.is_dir():
        raise RunError(f"There is no run folder {run}.", hint="Give the folder that `tunescope run` wrote.")
    print(f"Report: {write_report(run)}")
