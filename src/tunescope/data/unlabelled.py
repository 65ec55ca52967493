"""Texts without labels, for language models: read, checked, identified and divided by content."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import polars as pl

from tunescope.data.labels import LabelMap
from tunescope.data.read import read_table
from tunescope.data.rows import Rows, fingerprint, row_ids, text_hash
from tunescope.data.sources import expand, open_text, suffix_of
from tunescope.data.table import listed
from tunescope.data.text import TextRule
from tunescope.errors import DataError
from tunescope.progress import SILENT, Progress

if TYPE_CHECKING:
    from tunescope.config import DataConfig

LINES = ".txt"  # one text a line


def unlabelled_rows(data: DataConfig, fit_share: float, seed: int, progress: Progress = SILENT) -> Rows:
    """Load texts; labels, where there are any, are not read.

    Texts are divided by content into train and validation, so that equal texts never cross, whatever their order.

    Args:
        data: Says where the texts are; ``path``, ``text``, ``template``, ``format``, ``encoding`` and ``rows`` count.
        fit_share: The share of the distinct texts that become train rows.
        seed: Seeds division and sample.
        progress: Where to report.

    Raises:
        DataError: A source is missing or holds no texts, or the section asks for what is done to labelled rows alone.
    """
    if isinstance(data.path, dict) or data.clean or data.deduplicate is not None:
        raise DataError(
            "Texts for language models come from one source and are taken as they are; data.path is a mapping, or data "
            "has cleaning steps or deduplicate.",
            hint="Give one file, and prepare its texts beforehand.",
        )
    with progress.task("read texts", total=1, unit="steps") as task:
        texts, empty = _texts(data)
        task.advance()
    keyed = sorted(set(texts), key=lambda text: blake2b(f"{seed}:{text}".encode(), digest_size=8).digest())
    wanted = data.rows if isinstance(data.rows, int) else None
    if wanted is not None and wanted < len(texts):
        chosen = set(keyed[:wanted])
        texts = [text for text in texts if text in chosen][:wanted]
        keyed = [text for text in keyed if text in chosen]
    train = set(keyed[: max(1, round(fit_share * len(keyed)))])
    if len(keyed) < 2:
        raise DataError(
            f"{data.path}: {len(keyed)} distinct text; two are needed at least, one to fit means on and one to look at."
        )
    split = pl.Series(
        "split", ["train" if text in train else "validation" for text in texts], dtype=pl.String
    )
    label = pl.Series("label", [None] * len(texts), dtype=pl.Int64)
    hashes = pl.Series("hash", [text_hash(text) for text in texts], dtype=pl.String)
    frame = pl.DataFrame({
        "row_id": row_ids(hashes, split, label), "position": pl.Series(range(len(texts)), dtype=pl.Int64),
        "split": split, "text": texts, "label": label,
    })  # fmt: skip
    notes = ["Texts without labels, divided by content into train and validation."]
    notes += [f"{empty:,} rows without text were left out."] if empty else []
    rows = {name: int((split == name).sum()) for name in ("train", "validation")}
    about = {
        "path": str(data.path),
        "seed": seed,
        "rows": rows,
        "fingerprint": fingerprint(frame),
        "notes": notes,
    }
    return Rows(frame, LabelMap(()), about)


def _texts(data: DataConfig) -> tuple[list[str], int]:
    """Return the texts of the source and how many rows have none."""
    if isinstance(data.path, str) and suffix_of(data.path) == LINES and data.format is None:
        texts: list[str | None] = []
        for file in expand(data.path):
            with open_text(file, data.encoding, "\n") as lines:
                texts += [line.rstrip("\r\n") for line in lines]
    else:
        frame = read_table(
            data.path,  # type: ignore[arg-type]  # a mapping was refused
            format=data.format, encoding=data.encoding, name=data.name, revision=data.revision,
        )  # fmt: skip
        rule = TextRule.of(data.text, data.template)
        missing = [column for column in rule.columns if column not in frame.columns]
        if missing:
            raise DataError(
                f"{data.path}: there is no column {missing[0]!r}; the columns are {listed(frame.columns)}.",
                hint="Name the column that holds the text with --text.",
            )
        texts = rule.render(frame).to_list()
    kept = [text for text in texts if text is not None and text.strip()]
    if not kept:
        raise DataError(
            f"{data.path} holds no text.", hint="Name the column that holds the text with --text."
        )
    return kept, len(texts) - len(kept)
