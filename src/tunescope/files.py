"""Files that are either whole or not there: atomic writing, checksums, versioned JSON."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunescope.errors import FormatError, RunError

FORMAT_VERSION = 1
FORMAT_MARKS = ("environment.json", "compare.json", "findings.json")  # whose format_version is the run's


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends well.

    On any error the temporary file is removed and ``path`` is left as it was.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _write_error(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_error(path: Path, error: OSError) -> RunError:
    if error.errno == errno.ENOSPC:
        return RunError(
            f"The disk is full: {path} could not be written; nothing half-written was left behind.",
            hint="Free some space, or choose another place with --output-dir, and run the same command again.",
        )
    return RunError(
        f"{path} could not be written: {error.strerror or error}.",
        hint="Check that the folder exists and may be written, or choose another with --output-dir.",
    )


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the whole new one."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object with ``format_version`` first, atomically.

    Raises:
        ValueError: The content holds NaN or an infinity, which JSON cannot say.
    """
    document = {"format_version": FORMAT_VERSION, **content}
    write_atomic(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that :func:`write_json` wrote.

    Raises:
        FormatError: The file is of another format version.
        RunError: The file is missing or not JSON.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(
            f"{path} is missing.", hint="Run the study again; it rebuilds what is missing."
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(
            f"{path} is not readable JSON ({error}).", hint="Run the study again; it rebuilds it."
        ) from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        kind = FormatError if isinstance(version, int) else RunError
        raise kind(
            f"{path}: expected format_version {FORMAT_VERSION}, found {version!r}.",
            hint="It was written by another version of tunescope; run the study again in a new folder.",
        )
    return document


def require_format(folder: Path) -> None:
    """Refuse a run folder whose files are of another ``format_version``.

    Raises:
        FormatError: It is; the message says which version of tunescope wrote it, and so reads it.
    """
    for name in FORMAT_MARKS:
        try:
            document = json.loads((Path(folder) / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # missing or damaged: said where the file is read
        found = document.get("format_version") if isinstance(document, dict) else None
        if not isinstance(found, int) or found == FORMAT_VERSION:
            continue
        writer = document.get("tunescope")
        raise FormatError(
            f"{folder} is a run of format_version {found} ({name}); this version of tunescope reads format_version "
            f"{FORMAT_VERSION}.",
            hint=f"Read it with the version that wrote it: pip install tunescope=={writer}"
            if isinstance(writer, str)
            else "Read it with the version of tunescope that wrote it, or run the study again in a new folder.",
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, read in blocks, as 64 hexadecimal digits."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
