"""The labelled rows of a study, all splits in one table, with ids that depend on content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunescope.data.labels import LabelMap
from tunescope.errors import DataError, RunError
from tunescope.files import atomic_path, read_json, sha256_of, write_json

SPLITS = ("train", "validation", "test")
RESERVED = ("row_id", "position", "split", "text", "label")


@dataclass(frozen=True)
class Rows:
    """Labelled rows in input order.

    Attributes:
        frame: ``row_id`` (string, unique), ``position`` (Int64, input order; rows left out leave gaps),
            ``split`` (train, validation or test), ``text``, ``label`` (Int64 class index, null = unlabelled),
            then the source's other columns; one that bears a reserved name is called ``source_NAME``.
        labels: The classes.
        provenance: JSON-able: files with checksums, template, how splits were made, counts, what was left
            out.
    """

    frame: pl.DataFrame
    labels: LabelMap
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return self.frame.height

    def split(self, *names: str) -> Rows:
        """Return the rows of the named splits, in the same order.

        Raises:
            DataError: A name is not train, validation or test.
        """
        for name in names:
            if name not in SPLITS:
                raise DataError(f"{name!r} is not a split.", hint="Use train, validation or test.")
        return Rows(self.frame.filter(pl.col("split").is_in(names)), self.labels, self.provenance)

    @property
    def splits(self) -> list[str]:
        """The splits that have rows, in the order train, validation, test."""
        there = set(self.frame["split"].unique())
        return [name for name in SPLITS if name in there]

    @property
    def label_array(self) -> np.ndarray:
        """Class indices as int64 [N], -1 where unlabelled."""
        return self.frame["label"].fill_null(-1).to_numpy().astype(np.int64)

    def summary(self) -> dict[str, Any]:
        """Return counts per split and label, notes and provenance, as ``data/summary.json`` wants them."""
        counts = {}
        for split in self.splits:
            column = self.frame.filter(pl.col("split") == split)["label"]
            counts[split] = {name: int((column == i).sum()) for i, name in enumerate(self.labels.names)}
        return {
            "rows": {split: int((self.frame["split"] == split).sum()) for split in self.splits},
            "labels": self.labels.to_list(),
            "counts": counts,
            "notes": list(self.provenance.get("notes", [])),
            "provenance": self.provenance,
        }

    def save(self, path: Path) -> None:
        """Write ``path`` (Parquet), and ``path`` + ``.json`` (labels, provenance, checksum), atomically."""
        path = Path(path)
        with atomic_path(path) as temporary:
            self.frame.write_parquet(temporary, compression="zstd")
        content = {"labels": self.labels.to_list(), "provenance": self.provenance, "sha256": sha256_of(path)}
        write_json(_beside(path), content)

    @classmethod
    def load(cls, path: Path) -> Rows:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: A file is missing, damaged, or not of the same writing as the other.
        """
        path = Path(path)
        document = read_json(_beside(path))
        step = "Run the study again; it rebuilds what is missing or damaged."
        if not path.is_file():
            raise RunError(f"{path} is missing.", hint=step)
        if sha256_of(path) != document["sha256"]:
            raise RunError(
                f"{path} is damaged: its checksum is not the one in {_beside(path).name}.", hint=step
            )
        frame = pl.read_parquet(path, glob=False)
        return cls(frame, LabelMap(tuple(document["labels"])), document["provenance"])


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def text_hash(text: str) -> str:
    """Return the first 64 bits of a text's BLAKE2b as 16 hexadecimal digits."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def row_ids(hashes: pl.Series, split: pl.Series, label: pl.Series) -> pl.Series:
    """Make ids from texts' hashes: the hash, with ``-k`` for the k-th repeat of the text (k from 1).

    Repeats are counted by split, then label, then order, so that reordering a file leaves to every pair of
    text and label the same ids.

    Args:
        hashes: One :func:`text_hash` per row.
        split: The given split of each row, or null.
        label: Class index, or null.
    """
    frame = pl.DataFrame({"hash": hashes, "split": split, "label": label}).with_row_index("order")
    repeat = (
        frame.sort("hash", "split", "label", "order", nulls_last=True)
        .with_columns((pl.int_range(pl.len()).over("hash")).alias("k"))
        .sort("order")
    )
    with_k = pl.concat_str("hash", pl.lit("-"), "k")
    return repeat.select(pl.when(pl.col("k") == 0).then("hash").otherwise(with_k).alias("row_id"))["row_id"]


def fingerprint(frame: pl.DataFrame) -> str:
    """Return a SHA-256 over ids, splits, labels and texts in order: equal when the rows are equal."""
    total = hashlib.sha256()
    columns = frame.select("row_id", "split", "label", "text")
    for row_id, split, label, text in columns.iter_rows():
        total.update(f"{row_id}\0{split}\0{label}\0{len(text)}\0{text}\n".encode())
    return total.hexdigest()


def rows_of_texts(texts: Sequence[str], labels: LabelMap) -> Rows:
    """Return texts as unlabelled rows of one split, ``row_id`` by their place, to be tokenised and predicted."""
    count = len(texts)
    frame = pl.DataFrame({
        "row_id": [str(number) for number in range(count)],
        "position": pl.Series(range(count), dtype=pl.Int64),
        "split": ["test"] * count,
        "text": list(texts),
        "label": pl.Series([None] * count, dtype=pl.Int64),
    })  # fmt: skip
    return Rows(frame, labels, {})
