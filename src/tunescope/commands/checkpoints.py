"""The commands on finished models: compare and predict."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tunescope.commands import summaries
from tunescope.commands.asked import Ending, LookWish, label_map
from tunescope.errors import ConfigError
from tunescope.progress import Progress

if TYPE_CHECKING:
    import polars as pl

    from tunescope.data.labels import LabelMap
    from tunescope.data.rows import Rows


@dataclass(frozen=True)
class ComparisonWish:
    """What ``tunescope compare`` was asked for, as written on the command line."""

    base: str
    tuned: Sequence[str]
    look: LookWish
    base_head: str | None = None
    ending: Ending = field(default_factory=Ending)


@dataclass(frozen=True)
class PredictionWish:
    """What ``tunescope predict`` was asked for."""

    model: str
    texts: Sequence[str] = ()
    data: str | None = None
    text: str | None = None
    ending: Ending = field(default_factory=Ending)


def compare(wish: ComparisonWish) -> None:
    """Compare checkpoints on labelled rows and say where the results are."""
    folder = _call_compare(wish)
    report = folder / "report.html"
    if wish.ending.as_json:
        print(json.dumps({"folder": str(folder.resolve()), "report": str(report.resolve())}))
    elif not wish.ending.quiet:
        print(f"Report: {report}" if report.is_file() else f"Results: {folder}")


def _call_compare(wish: ComparisonWish) -> Path:
    from tunescope.checkpoints import BASE_HEADS, CompareRequest, compare_folders

    if wish.base_head is not None and wish.base_head not in BASE_HEADS:
        raise ConfigError(
            f"--base-head expected {', '.join(BASE_HEADS)}; came {wish.base_head!r}.",
            hint="Leave it out: a probe is fitted on the base's frozen features.",
        )
    request = CompareRequest(
        base=wish.base,
        tuned=list(wish.tuned),
        data=wish.look.section(),
        label_map=label_map(wish.look.label_map),
        lenses=wish.look.chosen(),
        folder=wish.ending.output or Path("runs") / "compare",
        device=wish.ending.device,
        seed=wish.look.seed,
        base_head=wish.base_head,  # type: ignore[arg-type]  # checked above
    )
    return Path(compare_folders(request, progress=Progress(wish.ending.quiet)))


def predict(wish: PredictionWish) -> None:
    """Predict labels for texts, or for the rows of a file in their order; a model that summarises writes summaries.

    Raises:
        ConfigError: Neither texts nor a file were given, or both, or the output's name says no known format.
    """
    if bool(wish.texts) == bool(wish.data):
        raise ConfigError(
            "Expected texts, or --data FILE --text COLUMN; came " + ("both." if wish.texts else "neither."),
            hint='For example: tunescope predict runs/demo/arms/full/seed-0/model "A text to classify."',
        )
    if wish.data and not wish.text:
        raise ConfigError(
            "--data needs --text COLUMN, the column that holds the text.", hint="Add --text COLUMN."
        )
    ending = wish.ending
    if ending.output is not None and ending.output.suffix not in WRITERS:
        raise ConfigError(
            f"--output expected a name that ends in {', '.join(WRITERS)}; came {ending.output.name!r}.",
            hint="For example --output predictions.parquet.",
        )
    texts = list(wish.texts) or _texts_of(str(wish.data), str(wish.text))
    if summaries.writes(wish.model):
        summaries.print_summaries(wish.model, texts, ending)
        return
    table = _call_predict(wish.model, texts, ending.device, Progress(ending.quiet))
    if ending.output is not None:
        _write_table(table, ending.output)
        if not ending.quiet:
            print(f"{table.height} predictions are in {ending.output}.")
    elif ending.as_json:
        sys.stdout.write(table.write_ndjson())
    else:
        _print_table(table, texts)


def _texts_of(data: str, column: str) -> list[str]:
    """Return one text column of a file, in the file's order.

    Raises:
        DataError: The column is missing or holds cells that are not text.
    """
    from tunescope.config.problems import unknown
    from tunescope.data.read import read_table
    from tunescope.errors import DataError

    frame = read_table(data)
    if column not in frame.columns:
        raise DataError(
            f"{data}: {unknown('column', column, frame.columns)}", hint="Name a column with --text."
        )
    missing = [row + 1 for row, value in enumerate(frame[column].to_list()) if not isinstance(value, str)]
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"{data}: column {column!r} holds {len(missing)} cells that are not text: rows {shown} (from 1).",
            hint="Name the text column with --text, or remove those rows.",
        )
    return frame[column].to_list()


def _call_predict(model: str, texts: Sequence[str], device: str, progress: Progress) -> pl.DataFrame:
    """Return ``row_id, prediction, label_predicted, logit_*, probability_*`` in the order of the texts."""
    import polars as pl

    from tunescope.data.tokens import tokenize
    from tunescope.device import resolve_device
    from tunescope.evaluation.predict import predict as predict_rows
    from tunescope.models.load import load

    classifier = load(model, device=resolve_device(device))
    rows = _rows_of(texts, classifier.labels)
    tokens = tokenize(rows, classifier.tokenizer, classifier.max_length, progress)
    table = predict_rows(classifier, tokens, progress)
    names = pl.Series(classifier.labels.to_list(), dtype=pl.String)
    predicted = names.gather(table["prediction"]).alias("label_predicted")
    return table.insert_column(table.get_column_index("prediction") + 1, predicted)


def _rows_of(texts: Sequence[str], labels: LabelMap) -> Rows:
    """Return unlabelled rows of texts, in their order."""
    import polars as pl

    from tunescope.data.rows import Rows, row_ids, text_hash

    split = pl.Series("split", ["test"] * len(texts), dtype=pl.String)
    label = pl.Series("label", [None] * len(texts), dtype=pl.Int64)
    ids = row_ids(pl.Series("hash", [text_hash(text) for text in texts], dtype=pl.String), split, label)
    columns = {
        "row_id": ids, "position": range(len(texts)), "split": split, "text": list(texts), "label": label,
    }  # fmt: skip
    return Rows(pl.DataFrame(columns, schema_overrides={"position": pl.Int64}), labels, {})


WRITERS = {".parquet": "write_parquet", ".csv": "write_csv", ".jsonl": "write_ndjson"}


def _write_table(table: pl.DataFrame, output: Path) -> None:
    from tunescope.files import atomic_path

    with atomic_path(output) as temporary:
        getattr(table, WRITERS[output.suffix])(temporary)


def _print_table(table: pl.DataFrame, texts: Sequence[str]) -> None:
    """Print one line a text: the label, its probability and the text with control characters escaped."""
    for row, text in zip(table.iter_rows(named=True), texts, strict=True):
        label = str(row["label_predicted"])
        chance = row[f"probability_{label}"]
        plain = "".join(letter if letter.isprintable() else " " for letter in text)
        print(f"{label}\t{chance:.3f}\t{plain if len(plain) <= 100 else plain[:99] + '…'}")
