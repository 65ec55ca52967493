"""Finding and opening files: local paths, globs and fsspec URLs, each error with the next step."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from encodings.aliases import aliases
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tunescope.data.table import listed, nearest
from tunescope.errors import DataError, MissingDependencyError, TunescopeError

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz"}
BLOCK = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """One file that exists, local or remote."""

    filesystem: Any
    path: str

    @property
    def shown(self) -> str:
        """The path for messages and provenance: relative below the working folder, a URL when remote."""
        if not isinstance(self.filesystem, LocalFileSystem):
            return str(self.filesystem.unstrip_protocol(self.path))
        relative = os.path.relpath(self.path) if os.path.splitdrive(self.path)[0] == "" else self.path
        return self.path if relative.startswith("..") else relative

    @property
    def suffix(self) -> str:
        """The extension in lower case, without a compression's."""
        return suffix_of(self.path)

    @property
    def local(self) -> str | None:
        """The local path of an uncompressed file, for readers that map it into memory."""
        plain = self._compression is None
        return self.path if plain and isinstance(self.filesystem, LocalFileSystem) else None

    @property
    def _compression(self) -> str | None:
        return COMPRESSIONS.get(PurePosixPath(self.path).suffix.lower())

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open for reading bytes; gzip, bz2 and xz are unpacked on the way.

        Raises:
            DataError: The file cannot be read.
        """
        with readable(self.shown), self.filesystem.open(self.path, "rb") as raw:
            if self._compression is None:
                yield raw
            else:
                with fsspec.compression.compr[self._compression](raw, mode="rb") as unpacked:
                    yield unpacked

    def digest(self) -> tuple[str, int]:
        """Return the SHA-256 (hexadecimal) and the size in bytes of the stored file."""
        total, size = hashlib.sha256(), 0
        with readable(self.shown), self.filesystem.open(self.path, "rb") as raw:
            while block := raw.read(BLOCK):
                total.update(block)
                size += len(block)
        return total.hexdigest(), size


def suffix_of(path: str) -> str:
    """Return the lower-case extension of a path, looking through ``.gz``, ``.bz2`` and ``.xz``."""
    pure = PurePosixPath(path.replace("\\", "/"))
    if pure.suffix.lower() in COMPRESSIONS:
        pure = pure.with_suffix("")
    return pure.suffix.lower()


@contextlib.contextmanager
def readable(shown: str) -> Iterator[None]:
    """Turn a failure to reach or read ``shown`` into a DataError that names it."""
    try:
        yield
    except (TunescopeError, UnicodeError):
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            f"{shown} could not be read: {reason}.",
            hint="Check that it exists, may be read and is complete; a remote file needs the network.",
        ) from error


def filesystem_of(path: str) -> tuple[Any, str]:
    """Return the fsspec file system and the path within it.

    Raises:
        DataError: The URL's protocol is not known.
        MissingDependencyError: The protocol's package is not installed.
    """
    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading this kind of URL needs a package that is not installed ({error}).",
            hint=f'pip install "fsspec[{path.split(":", 1)[0]}]"',
        ) from error
    except ValueError as error:
        raise DataError(
            f"{path}: {error}.", hint="Use a local path, or a URL such as s3://, gs:// or https://."
        ) from error
    return filesystem, inner


def expand(path: str) -> list[SourceFile]:
    """Return the files that a path, a glob or a URL stands for, sorted by name.

    A path that exists is taken literally, even when it holds ``[`` or ``*``. Folders are not expanded here.

    Raises:
        DataError: Nothing is there; the message names the nearest file in the same folder.
    """
    filesystem, inner = filesystem_of(path)
    with readable(path):
        if filesystem.isfile(inner):
            return [SourceFile(filesystem, inner)]
        found = sorted(filesystem.glob(inner)) if any(mark in inner for mark in "*?[") else []
        files = [SourceFile(filesystem, name) for name in found if filesystem.isfile(name)]
    if not files:
        raise missing_file(path)
    return files


def missing_file(path: str) -> DataError:
    """Build the error for a file that is not there, with the nearest name beside it."""
    filesystem, inner = filesystem_of(path)
    folder, _, name = inner.rpartition("/")
    try:
        beside = [entry.rpartition("/")[2] for entry in filesystem.ls(folder or ".", detail=False)]
    except OSError:
        return DataError(
            f"{path}: the file is missing, and so is its folder.", hint="Check data.path for a typing error."
        )
    match = nearest(name, beside)
    guess = f"Did you mean {match!r}? " if match else ""
    there = f" The folder holds: {listed(sorted(beside), 8)}." if beside else " The folder is empty."
    what = "no file matches the pattern." if any(mark in name for mark in "*?[") else "the file is missing."
    return DataError(f"{path}: {what}{there}", hint=f"{guess}Check data.path.")


@contextlib.contextmanager
def open_text(file: SourceFile, encoding: str, newline: str) -> Iterator[io.TextIOWrapper]:
    """Open a file as strictly decoded text; a byte order mark is taken off.

    Raises:
        DataError: The encoding is not known, or the bytes are not of that encoding (with the byte's offset).
    """
    try:
        name = codecs.lookup(encoding).name
    except LookupError as error:
        match = nearest(encoding, set(aliases) | set(aliases.values()))
        raise DataError(
            f"data.encoding: {encoding!r} is not an encoding that Python knows.",
            hint=f"Use {match!r}." if match else "Use utf-8, cp1252 or utf-16.",
        ) from error
    try:
        with file.open() as raw:
            wrapper = io.TextIOWrapper(raw, "utf-8-sig" if name == "utf-8" else name, newline=newline)
            yield wrapper
            wrapper.detach()
    except UnicodeDecodeError as error:
        raise _wrong_encoding(file, encoding) from error


def _wrong_encoding(file: SourceFile, encoding: str) -> DataError:
    """Find the first byte that cannot be decoded, by decoding again in blocks."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    offset, line, start = 0, 1, b""
    with file.open() as raw:
        while True:
            block = raw.read(BLOCK)
            start = start or block[:2]
            pending = decoder.getstate()[0]
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                whole = pending + block
                bad = offset - len(pending) + error.start
                line += whole[: error.start].count(b"\n")
                byte = whole[error.start]
                break
            offset += len(block)
            line += block.count(b"\n")
    guess = "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "cp1252 or latin-1"
    return DataError(
        f"{file.shown}: byte {bad} (0x{byte:02x}, line {line}) is not {encoding}.",
        hint=f"Set data.encoding to what the file was written in (perhaps {guess}), or convert it to UTF-8.",
    )
