"""Reading one source of rows, whatever it is: file, glob, list, folder, URL or hub data set."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import polars as pl

from tunescope.data import hub
from tunescope.data.delimited import empty_file, read_delimited
from tunescope.data.json_rows import read_json_document, read_json_lines
from tunescope.data.sources import SourceFile, expand, filesystem_of, open_text, readable, suffix_of
from tunescope.data.table import Part, Table, listed, stack, stack_frames
from tunescope.errors import DataError

FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip
SPLIT_NAMES = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation",
    "val": "validation", "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(#[\w.-]+)?")  # after '#': one of its splits


@dataclass(frozen=True)
class ReadOptions:
    """How a source is to be read.

    Attributes:
        format: One of csv, tsv, json, jsonl, parquet, arrow, text_folder, hub; None goes by the extension.
        encoding: Encoding of text formats.
        name: Configuration of a hub data set.
        revision: Revision of a hub data set.
        check: Called with every file's table, so that an error names the file and not the whole glob.
    """

    format: str | None = None
    encoding: str = "utf-8"
    name: str | None = None
    revision: str | None = None
    check: Callable[[Table], None] | None = None


def read_table(
    source: str | Sequence[str],
    *,
    format: str | None = None,
    encoding: str = "utf-8",
    name: str | None = None,
    revision: str | None = None,
) -> pl.DataFrame:
    """Read one source into one table, with all its columns.

    Args:
        source: A file, glob, fsspec URL, list of these, folder, or hub id.
        format: As in a study's ``data.format``; None goes by the extension.
        encoding: Encoding of text formats.
        name: Configuration of a hub data set.
        revision: Revision of a hub data set.

    Returns:
        The rows in file order. Where the source names its splits, a column ``split`` says which.

    Raises:
        DataError: The source is missing, empty, or not what its format promises.
    """
    tables = read_source(source, ReadOptions(format, encoding, name, revision))
    if list(tables) == [None]:
        return tables[None].frame
    named = [
        (str(split), table.frame.with_columns(pl.lit(split, pl.String).alias("split")))
        for split, table in tables.items()
    ]
    return stack_frames(named)


def read_source(source: str | Sequence[str], options: ReadOptions) -> dict[str | None, Table]:
    """Read one source; the keys are the splits it names itself, or only None.

    Raises:
        DataError: The source is missing, empty, or not what its format promises.
    """
    if not isinstance(source, str):
        if not source:
            raise DataError("data.path is an empty list.", hint="Name at least one file.")
        parts = [read_source(one, options) for one in source]
        keys = list(dict.fromkeys(key for part in parts for key in part))
        return {key: stack([part[key] for part in parts if key in part]) for key in keys}
    if options.format == "hub" or (options.format is None and _is_hub_id(source)):
        return _checked(_of_hub(source, options), options)
    filesystem, inner = filesystem_of(source)
    with readable(source):
        is_folder = filesystem.isdir(inner)
    if is_folder:
        return _read_folder(source, filesystem, inner, options)
    if options.format == "text_folder":
        raise DataError(
            f"{source}: data.format is text_folder, but there is no such folder.",
            hint="Give a folder that has one folder of .txt files per class.",
        )
    return {None: stack([_read_file(file, options) for file in expand(source)])}


def _of_hub(source: str, options: ReadOptions) -> dict[str | None, Table]:
    """Load a hub data set, or of ``id#split`` that split alone."""
    name, _, split = source.partition("#")
    tables = hub.load_hub(name, options.name, options.revision)
    if not split:
        return tables
    if split not in tables:
        raise DataError(
            f"The hub data set {name!r} has no split {split!r}; it has {listed([str(key) for key in tables])}.",
            hint=f"Name one of them: {name}#SPLIT.",
        )
    return {split: tables[split]}


def _checked(tables: dict[str | None, Table], options: ReadOptions) -> dict[str | None, Table]:
    for table in tables.values():
        if options.check is not None:
            options.check(table)
    return tables


def _is_hub_id(source: str) -> bool:
    """A hub id is what looks like one and is nothing on this machine."""
    if "://" in source or not HUB_ID.fullmatch(source) or suffix_of(source) in FORMATS:
        return False
    filesystem, inner = filesystem_of(source)
    return not filesystem.exists(inner)


def _read_file(file: SourceFile, options: ReadOptions) -> Table:
    kind = options.format or FORMATS.get(file.suffix)
    if kind == "csv":
        # by name a csv has commas, but one whose header has none is often cut at semicolons
        table = read_delimited(file, options.encoding)
    elif kind == "tsv":
        table = read_delimited(file, options.encoding, "\t")
    elif kind == "jsonl":
        table = read_json_lines(file, options.encoding)
    elif kind == "json":
        table = read_json_document(file, options.encoding)
    elif kind in ("parquet", "arrow"):
        table = _read_columnar(file, kind)
    else:
        raise DataError(
            f"{file.shown}: the extension {file.suffix!r} is not one of {listed(sorted(FORMATS))}.",
            hint="Set data.format to csv, tsv, json, jsonl, parquet or arrow.",
        )
    if options.check is not None:
        options.check(table)
    return table


def _read_columnar(file: SourceFile, kind: str) -> Table:
    sha256, size = file.digest()
    if size == 0:
        raise empty_file(file.shown)
    try:
        with file.open() as raw:
            if kind == "parquet":
                frame = pl.read_parquet(file.local or raw, glob=False)
            else:
                # datasets writes Arrow streams, feather and polars write Arrow files
                is_file = raw.read(6) == b"ARROW1"
                raw.seek(0)
                frame = pl.read_ipc(raw) if is_file else pl.read_ipc_stream(raw)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{file.shown}: not a readable {kind} file ({reason}).",
            hint="Check that it was written or copied whole, or set data.format to what it is.",
        ) from error
    if frame.height == 0:
        raise DataError(f"{file.shown} has no rows.", hint="Give a file with labelled rows.")
    return Table(frame, (Part(file.shown, 0, frame.height, sha256, size),), {"format": kind})


def _read_folder(shown: str, filesystem: Any, inner: str, options: ReadOptions) -> dict[str | None, Table]:
    with readable(shown):
        entries = sorted(filesystem.ls(inner, detail=True), key=lambda entry: str(entry["name"]))
    files = [entry["name"] for entry in entries if entry["type"] == "file"]
    folders = [str(entry["name"]).rstrip("/") for entry in entries if entry["type"] == "directory"]
    names = {_base(name) for name in files}
    if names & set(hub.SAVED_MARKS):
        return _checked(hub.load_saved(shown), options)
    has_data = any(suffix_of(name) in FORMATS for name in files)
    if options.format == "text_folder" or (options.format is None and folders and not has_data):
        by_split: dict[str | None, str] = {
            SPLIT_NAMES[_base(f).lower()]: f for f in folders if _base(f).lower() in SPLIT_NAMES
        }
        if by_split and len(by_split) == len(folders):
            return _checked({s: _text_folder(filesystem, f, options) for s, f in by_split.items()}, options)
        return _checked({None: _text_folder(filesystem, inner, options)}, options)
    by_file: dict[str | None, list[SourceFile]] = {}
    for name in files:
        if suffix_of(name) in FORMATS:
            by_file.setdefault(split_of_name(_base(name)), []).append(SourceFile(filesystem, name))
    if not by_file:
        raise DataError(
            f"{shown}: the folder holds neither a folder of .txt files per class nor data files.",
            hint="Name a file, a glob such as folder/*.csv, or a folder with one folder of texts per class.",
        )
    if None in by_file and len(by_file) > 1:
        odd = [_base(file.path) for file in by_file[None]]
        raise DataError(
            f"{shown}: some files name a split and others do not: {listed(odd)}.",
            hint="Say which file is which split: data.path: {train: ..., validation: ..., test: ...}.",
        )
    return {split: stack([_read_file(file, options) for file in found]) for split, found in by_file.items()}


def split_of_name(name: str) -> str | None:
    """Return the split that a file's name begins with: ``train-00000-of-00001.parquet`` is train."""
    return SPLIT_NAMES.get(re.split(r"[-_.]", name.lower(), maxsplit=1)[0])


def _base(path: str) -> str:
    return PurePosixPath(path.rstrip("/")).name


def _text_folder(filesystem: Any, root: str, options: ReadOptions) -> Table:
    """Read ``root/CLASS/*.txt``: columns text, label (the folder's name) and file."""
    shown = SourceFile(filesystem, root).shown
    with readable(shown):
        found = [SourceFile(filesystem, str(path)) for path in sorted(filesystem.glob(f"{root}/*/*.txt"))]
    if not found:
        raise missing_texts(shown)
    total, size, texts = hashlib.sha256(), 0, []
    for file in found:
        with open_text(file, options.encoding, newline="") as text:
            content = text.read()
        data = content.encode()
        total.update(f"{PurePosixPath(file.path).parent.name}/{_base(file.path)}\0".encode())
        total.update(hashlib.sha256(data).digest())
        size += len(data)
        texts.append(content)
    frame = pl.DataFrame(
        {
            "text": pl.Series(texts, dtype=pl.String),
            "label": [PurePosixPath(file.path).parent.name for file in found],
            "file": [_base(file.path) for file in found],
        }
    )
    part = Part(shown, 0, len(found), total.hexdigest(), size, names=[file.shown for file in found])
    return Table(frame, (part,), {"format": "text_folder"})


def missing_texts(shown: str) -> DataError:
    """Build the error for a folder in which no class has a text."""
    return DataError(
        f"{shown}: no .txt file lies in a folder of it.",
        hint="Arrange the texts as FOLDER/CLASS/name.txt, one folder per class.",
    )
