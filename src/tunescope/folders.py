"""Folders that are either whole or not there, and a full disk said in one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from tunescope.errors import RunError, TunescopeError

FULL_TEXTS = (
    "No space left on device",
    "os error 28",
    "PytorchStreamWriter failed writing",
    "Disk quota exceeded",
)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or unwritable disk, whatever library met it, into one clear error.

    Args:
        path: What is being written, for the message.

    Raises:
        RunError: The disk is full, or ``path`` may not be written.
    """
    try:
        yield
    except TunescopeError:
        raise
    except Exception as error:
        if _says_full(error):
            raise RunError(
                f"The disk is full: {path} could not be written; nothing half-written was left behind.",
                hint="Free some space, or choose another place with --output-dir, and run again.",
            ) from error
        if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
            raise RunError(
                f"{getattr(error, 'filename', None) or path} could not be written: {error.strerror}.",  # type: ignore[attr-defined]
                hint="Check that the folder may be written, or choose another with --output-dir.",
            ) from error
        raise


def _says_full(error: BaseException) -> bool:
    """Whether an error, or its cause, is a full disk: libraries in Rust and C++ raise no OSError."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return True
    if any(text in str(error) for text in FULL_TEXTS):
        return True
    origin = error.__cause__ or error.__context__
    return origin is not None and _says_full(origin)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that takes its place when the block ends well.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with disk_errors(path):
            temporary.mkdir(parents=True)
            yield temporary
            remove(path)
            os.replace(temporary, path)
    finally:
        remove(temporary)


def sweep(path: Path) -> None:
    """Remove what killed processes left half-written in ``path`` and below."""
    for leftover in sorted(path.rglob(".*.part")):
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
