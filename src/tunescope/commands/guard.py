"""From an exception to a sentence and an exit code that means something."""

from __future__ import annotations

import errno
import functools
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from tunescope import processes
from tunescope.errors import ConfigError, TunescopeError

SHOW_TRACEBACK = "TUNESCOPE_TRACEBACK"
INTERRUPTED = 130
OPERATING_SYSTEM = 6  # as RunError
SHARED = (
    "run",
    "compare",
    "inspect",
    "behaviour",
    "predict",
    "corpus",
)  # what several processes work on together
BUG = 70  # EX_SOFTWARE of sysexits.h

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def guarded(command: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Let a command end in a sentence on standard error and an exit code, never in a bare traceback."""

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        if processes.count() > 1:
            sys.exit(_in_processes(lambda: alone(*args, **kwargs), command.__name__))
        return alone(*args, **kwargs)

    def alone(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:
            raise  # the reader went away, as in `tunescope recipes | head`; typer ends quietly
        except (Exception, KeyboardInterrupt) as error:
            if type(error).__module__.startswith(("typer", "click")):
                raise
            if os.environ.get(SHOW_TRACEBACK):
                traceback.print_exception(error)
            text, code = explain(error)
            print(text, file=sys.stderr)
            sys.exit(code)

    return run


def _in_processes(command: Callable[[], object], name: str) -> int:
    """Run a command in the first of several processes, the others sharing its work; return the exit code."""
    first = os.environ.get("RANK", "0") == "0"

    def leader() -> int:
        try:
            command()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        return 0

    try:
        if name not in SHARED:
            raise ConfigError(
                f"{processes.count()} processes were started, and `tunescope {name}` has nothing for them to share.",
                hint="Start it once, without torchrun or accelerate launch.",
            )
        return processes.lead_or_serve(leader)
    except TunescopeError as error:
        if first:
            print(f"Error: {error}", file=sys.stderr)
        return error.exit_code


def explain(error: BaseException) -> tuple[str, int]:
    """Return what to tell the user about ``error``, and the exit code."""
    if isinstance(error, TunescopeError):
        return (f"Error: {error}" if error.exit_code != INTERRUPTED else str(error)), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        text = "Stopped. What was finished is kept; run the same command to continue."
        return text, INTERRUPTED
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return _out_of_memory(error), OPERATING_SYSTEM
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" while writing {error.filename}" if error.filename else ""
        text = f"Error: The disk is full{where}.\nNext: Free some space and run the same command again."
        return text, OPERATING_SYSTEM
    if isinstance(error, OSError) and error.filename:
        said = (error.strerror or str(error)).lower()
        text = f"Error: {error.filename}: {said}.\nNext: Check that the file is there and may be used."
        return text, OPERATING_SYSTEM
    return _bug(error), BUG


def _out_of_memory(error: BaseException) -> str:
    first = str(error).split("\n")[0][:200]
    return (
        f"Error: The memory is not enough{f' ({first})' if first else ''}.\n"
        "Next: Lower training.per_device_train_batch_size or data.max_length with --set, keep fewer rows "
        "with data.rows, or use another --device; `tunescope validate` estimates what a study needs."
    )


def _bug(error: BaseException) -> str:
    said = " ".join(str(error).split())[:300]
    sentence = f"Error: {type(error).__name__}: {said}\nThis is a bug in tunescope; please report it"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="tunescope-traceback-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return f"{sentence}, with the traceback that {SHOW_TRACEBACK}=1 shows."
    return f"{sentence} with the traceback in {Path(file.name)}"
