"""Articles and their summaries as rows: read, cleaned, identified and split as labelled texts are, without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tunescope.data.labels import LabelMap
from tunescope.data.pieces import UNSPLIT, Account, Piece, read_pieces
from tunescope.data.rows import RESERVED, SPLITS, Rows, fingerprint, row_ids, text_hash
from tunescope.data.split import group_keys, hash_order, make_splits
from tunescope.data.text import TextRule
from tunescope.errors import DataError
from tunescope.progress import SILENT, Progress

if TYPE_CHECKING:
    from tunescope.config import DataConfig

SUMMARY = "summary"


def load_summaries(data: DataConfig, seed: int, progress: Progress = SILENT) -> Rows:
    """Load articles (``text``) with their summaries (the column ``summary``); the label map is empty.

    Rows without an article or a summary are left out and counted. Splits that are not given are made from train, so
    that equal articles never cross; ``data.rows`` draws by hash of the row ids, so that it does not depend on the order
    of the file.

    Raises:
        DataError: A file or column is missing, no row is left, or the section asks for what is done to labelled rows
            alone (deduplicate, folds, labels, group_by, id).
    """
    _refuse(data)
    rule = TextRule.of(data.text, data.template)
    account = Account()
    with progress.task("read rows", total=1, unit="steps") as task:
        pieces = read_pieces(data, rule, account)
        frame = _frame(data, pieces)
        task.advance()
    frame, made = _split(frame, data, seed)
    frame = _sample(frame, data, seed)
    notes = list(account.notes)
    if made:
        notes.append(
            f"Made from train: {' and '.join(f'{n} ({s:.0%})' for n, s in made.items())}; seed {seed}."
        )
    provenance = {
        "path": dict(data.path) if isinstance(data.path, dict) else data.path,
        "sources": [
            {"rows": len(piece.table), "files": [{"path": part.path, "rows": part.rows, "sha256": part.sha256}
                                                 for part in piece.table.parts]}
            for piece in pieces
        ],
        "text": rule.fields if not rule.plain else rule.columns[0],
        SUMMARY: data.summary,
        "seed": seed,
        "dropped": account.dropped,
        "cleaning": account.cleaning,
        "sample": dict(data.rows) if isinstance(data.rows, dict) else data.rows,
        "rows": {name: int((frame["split"] == name).sum()) for name in SPLITS},
        "fingerprint": fingerprint(frame),
        "notes": notes,
    }  # fmt: skip
    return Rows(frame.drop("_hash"), LabelMap(()), provenance)


def _refuse(data: DataConfig) -> None:
    for name, there in (
        ("deduplicate", data.deduplicate), ("folds", data.folds), ("labels", data.labels),
        ("group_by", data.group_by), ("id", data.id),
    ):  # fmt: skip
        if there is not None:
            raise DataError(
                f"data.{name} is not available for articles and summaries yet.",
                hint="Take the key out, or prepare the rows beforehand.",
            )


def _frame(data: DataConfig, pieces: list[Piece]) -> pl.DataFrame:
    """Put the rows that have both texts below one another, identified by the article."""
    frames, start = [], 0
    for piece in pieces:
        summary = piece.values.column.str.strip_chars()
        there = (summary.fill_null("") != "").to_numpy()
        frames.append(
            pl.DataFrame({
                "position": pl.Series(np.arange(start, start + len(piece.table)), dtype=pl.Int64),
                "split": pl.Series(piece.splits.tolist(), dtype=pl.String),
                "text": piece.texts, SUMMARY: summary,
            }).filter(pl.Series(piece.keep & there))
        )  # fmt: skip
        start += len(piece.table)
    frame = pl.concat(frames)
    if not frame.height:
        raise DataError(
            f"No row has both an article and a summary ({data.summary}).",
            hint="Check data.text and data.summary.",
        )
    frame = frame.with_columns(
        pl.Series("_hash", [text_hash(text) for text in frame["text"]], pl.String),
        pl.Series("label", [None] * frame.height, dtype=pl.Int64),
    )
    frame = frame.with_columns(row_ids(frame["_hash"], frame["split"], frame["label"]).alias("row_id"))
    return frame.select(*RESERVED, SUMMARY, "_hash")


def _split(frame: pl.DataFrame, data: DataConfig, seed: int) -> tuple[pl.DataFrame, dict[str, float]]:
    there = set(frame["split"].unique())
    shares = {
        name: share
        for name, share in (("test", data.test), ("validation", data.validation))
        if share > 0 and name not in there
    }
    pool = frame["split"].is_in(["train", UNSPLIT]).to_numpy()
    splits = np.where(pool, "train", frame["split"].to_numpy()).astype(object)
    if shares and pool.any():
        keys = group_keys(frame.filter(pl.Series(pool))["_hash"], None)
        splits[pool] = make_splits(list(keys), np.zeros(int(pool.sum()), dtype=np.int64), shares, seed, False)
    else:
        shares = {}
    return frame.with_columns(pl.Series("split", splits.tolist(), pl.String)), shares


def _sample(frame: pl.DataFrame, data: DataConfig, seed: int) -> pl.DataFrame:
    """Keep the first rows of a split by hash of their ids; what is drawn never depends on the file's order."""
    if data.rows is None:
        return frame
    kept = []
    for name in frame["split"].unique(maintain_order=True):
        own = frame.filter(pl.col("split") == name).sort("position")
        most = data.rows.get(name) if isinstance(data.rows, dict) else data.rows
        if most is not None and most < own.height:
            order = np.argsort(hash_order(own["row_id"].to_list(), seed, "sample"), kind="stable")
            own = own[np.sort(order[:most]).tolist()]
        kept.append(own)
    return pl.concat(kept).sort("position")


@dataclass(frozen=True)
class Pairs:
    """Articles and summaries of one split, in the order of the rows.

    Attributes:
        row_ids: Ids [N].
        articles: Articles [N].
        summaries: Reference summaries [N].
    """

    row_ids: list[str]
    articles: list[str]
    summaries: list[str]

    def __len__(self) -> int:
        return len(self.row_ids)

    @classmethod
    def of(cls, rows: Rows, split: str) -> Pairs:
        """Return the pairs of one split of rows that :func:`load_summaries` made."""
        own = rows.split(split).frame
        return cls(own["row_id"].to_list(), own["text"].to_list(), own[SUMMARY].to_list())
