"""What is read off the shards, one after another: confident rows, frequent words, exchanged words."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import polars as pl

from tunescope.corpus.estimates import GroupedMean, rate_ratio
from tunescope.corpus.request import CorpusRequest
from tunescope.errors import RunError
from tunescope.evaluation.margins import margin
from tunescope.evaluation.predict import probabilities_of
from tunescope.files import atomic_path, write_json
from tunescope.progress import Progress
from tunescope.rewriting.frequent import stop_words
from tunescope.rewriting.words import split_words

ALL = "all"
MOVED = 0.1  # of a probability: what study 000 kept
FLIP_SCHEMA: dict[str, Any] = {
    "class": pl.String, "direction": pl.String, "metric": pl.String, "value": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "n": pl.Int64,
}  # fmt: skip


def summarise(request: CorpusRequest, progress: Progress) -> None:
    """Read every shard once and write the tables and ``summary.json``.

    - ``top.parquet``: per predicted class the rows of the greatest logit margin, ``margin`` in log odds, which tells
      rows apart where the probability is 1 to the last digit.
    - ``words.parquet``: per class (true where given, else predicted) the words that stand in most of its rows,
      ``rows``, ``share`` of the class's rows, ``other_share`` of the rest's, and the ``ratio`` of both with an
      interval (:func:`tunescope.corpus.estimates.rate_ratio`).
    - ``flips.parquet``: per class and direction the rows whose prediction flips, those of which a probability moves by
      0.1 or more, and the mean change of the class's margin (rewritten minus original; the true class where given,
      else the prediction for the original), with intervals over groups of texts.
    - ``moved.parquet``: the rows whose margin moves most.
    """
    gathered = _Gathered(request)
    files = sorted(request.shards.glob("shard-*.parquet"))
    with progress.task("reading shards", len(files), "shards") as task:
        for path in files:
            gathered.add(pl.read_parquet(path))
            task.advance(1)
    tables = {"top": gathered.top, "words": gathered.word_table()}
    if request.lexicon() is not None:
        tables |= {"flips": gathered.flip_table(), "moved": gathered.moved}
    for name, table in tables.items():
        assert table is not None
        with atomic_path(request.folder / f"{name}.parquet") as temporary:
            table.write_parquet(temporary)
    write_json(request.folder / "summary.json", gathered.summary())


class _Gathered:
    """What has been seen of the shards so far; it grows with classes and different words, not with rows."""

    def __init__(self, request: CorpusRequest) -> None:
        self.request = request
        self.rows = 0
        self.names: list[str] = []
        self.predicted: Counter[str] = Counter()
        self.correct = [0, 0]
        self.class_rows: Counter[str] = Counter()
        self.word_rows: dict[str, Counter[str]] = {}
        self.word_uses: dict[str, Counter[str]] = {}
        self.unresolved: Counter[str] = Counter()
        self.terms: Counter[str] = Counter()
        self.means: dict[tuple[str, str, str], GroupedMean] = {}
        self.top: pl.DataFrame | None = None
        self.moved: pl.DataFrame | None = None
        self.stop = frozenset() if request.stop_words else stop_words()

    def add(self, table: pl.DataFrame) -> None:
        """Take up one shard."""
        self.names = [name.removeprefix("logit_") for name in table.columns if name.startswith("logit_")]
        logits = table.select([f"logit_{name}" for name in self.names]).to_numpy()
        table = table.with_columns(
            pl.Series("margin", margin(logits, table["prediction"].to_numpy())),
            pl.Series("confidence", probabilities_of(logits).max(axis=1)),
        )
        self.rows += table.height
        self.predicted.update(table["label_predicted"])
        known = table.filter(pl.col("label").is_not_null())
        self.correct[0] += int((known["label"] == known["label_predicted"]).sum())
        self.correct[1] += known.height
        self._add_top(table)
        self._add_words(table)
        if "rewritten" in table.columns:
            self._add_flips(table, logits)

    def _add_top(self, table: pl.DataFrame) -> None:
        columns = ["label_predicted", "row_id", "position", "text", "label", "confidence", "margin"]
        both = [table.select(columns)] if self.top is None else [self.top, table.select(columns)]
        ordered = pl.concat(both).sort(
            "label_predicted", "margin", "position", descending=[False, True, False]
        )
        self.top = ordered.group_by("label_predicted", maintain_order=True).head(self.request.top)

    def _add_words(self, table: pl.DataFrame) -> None:
        by = "label" if self.request.label is not None else "label_predicted"
        for name, text in table.select(by, "text").iter_rows():
            if name is None:
                continue
            self.class_rows[name] += 1
            found = [w for w in split_words(text).lower if w not in self.stop and not w.isdigit()]
            self.word_uses.setdefault(name, Counter()).update(found)
            self.word_rows.setdefault(name, Counter()).update(set(found))

    def _add_flips(self, table: pl.DataFrame, logits: np.ndarray) -> None:
        self.unresolved.update(table["unresolved"].drop_nulls())
        touched = table["rewritten"].is_not_null().to_numpy()
        own = table.filter(pl.Series(touched))
        if not own.height:
            return
        for terms in own["terms"]:
            self.terms.update(terms.split(", "))
        first, second = logits[touched], own.select([f"rewritten_logit_{n}" for n in self.names]).to_numpy()
        place = {name: index for index, name in enumerate(self.names)}
        # the true class where given, else what the original is predicted as
        names = [true or said for true, said in own.select("label", "label_predicted").iter_rows()]
        followed = np.array([place[name] for name in names])
        change = margin(second, followed) - margin(first, followed)
        moves = np.abs(probabilities_of(second) - probabilities_of(first)).max(axis=1)
        values = {
            "mean_change_of_margin": change,
            "share_flipped": (first.argmax(axis=1) != second.argmax(axis=1)).astype(float),
            f"share_moved_{MOVED}": (moves >= MOVED).astype(float),
        }
        groups = GroupedMean.groups_of(own["text"].to_list())
        directions, classes = own["direction"].to_numpy(), np.array(names)
        for metric, each in values.items():
            for name in (ALL, *self.names):
                for direction in (ALL, *np.unique(directions)):
                    kept = (classes == name) | (name == ALL)
                    kept &= (directions == direction) | (direction == ALL)
                    if kept.any():
                        mean = self.means.setdefault((name, str(direction), metric), GroupedMean())
                        mean.update(each[kept], groups[kept])
        shown = own.select("row_id", "position", "text", "rewritten", "direction", "terms").with_columns(
            pl.Series("class", names), pl.Series("change_of_margin", change),
            pl.Series("flipped", values["share_flipped"] == 1.0), pl.Series("most_moved_probability", moves),
        )  # fmt: skip
        both = [shown] if self.moved is None else [self.moved, shown]
        size = pl.col("change_of_margin").abs()
        self.moved = pl.concat(both).sort([-size, pl.col("position")]).head(self.request.top)

    def word_table(self) -> pl.DataFrame:
        """Return the most frequent words of every class, held against the rows of the others."""
        total = sum(self.class_rows.values())
        everywhere: Counter[str] = Counter()
        for counts in self.word_rows.values():
            everywhere.update(counts)
        lines = []
        for name in sorted(self.class_rows):
            n, rest = self.class_rows[name], total - self.class_rows[name]
            ranked = sorted(self.word_rows[name].items(), key=lambda item: (-item[1], item[0]))
            for word, rows in ranked[: self.request.words]:
                other = everywhere[word] - rows
                ratio = rate_ratio(rows, n, other, rest)
                lines.append({
                    "class": name, "word": word, "rows": rows, "uses": self.word_uses[name][word], "n": n,
                    "share": rows / n, "other_share": other / rest if rest else None,
                    "ratio": ratio.value, "low": ratio.low, "high": ratio.high,
                })  # fmt: skip
        schema: dict[str, Any] = {"class": pl.String, "word": pl.String}
        schema |= dict.fromkeys(("rows", "uses", "n"), pl.Int64)
        schema |= dict.fromkeys(("share", "other_share", "ratio", "low", "high"), pl.Float64)
        return pl.DataFrame(lines, schema=schema)

    def flip_table(self) -> pl.DataFrame:
        """Return what exchanging words does, by class and direction."""
        if self.moved is None:
            self.moved = pl.DataFrame(schema={"row_id": pl.String})
        lines = []
        for (name, direction, metric), mean in sorted(self.means.items()):
            found = mean.interval(share=metric.startswith("share"))
            lines.append({
                "class": name, "direction": direction, "metric": metric, "value": found.value, "low": found.low,
                "high": found.high, "n": found.n,
            })  # fmt: skip
        return pl.DataFrame(lines, schema=FLIP_SCHEMA)

    def summary(self) -> dict[str, Any]:
        """Return counts over all rows.

        Raises:
            RunError: There was no shard.
        """
        if not self.rows:
            raise RunError(f"There are no shards in {self.request.shards}.", hint="Run the command again.")
        hits, known = self.correct
        touched = next((mean.n for (name, way, _), mean in self.means.items() if name == way == ALL), 0)
        return {
            "rows": self.rows,
            "predicted": dict(sorted(self.predicted.items())),
            "labelled": known,
            "accuracy": hits / known if known else None,
            "words_of": "true class" if self.request.label is not None else "predicted class",
            "stop_words": "counted" if self.request.stop_words else "left out",
            "flip": self.request.flip,
            "touched": touched,
            "unresolved": dict(self.unresolved.most_common()),
            "terms": dict(self.terms.most_common(50)),
            "notes": [
                "Words are picked on the rows that they are counted on: their ratios lean away from 1.",
                "The most confident rows are much alike; they are no sample of the class.",
            ],
        }
