"""Cross-evaluation: an arm on another data set whose labels are mapped to the study's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from tunescope.config import load_data
from tunescope.config.expect import ElsewhereData
from tunescope.config.problems import nearest
from tunescope.data.labels import LabelMap
from tunescope.data.load import load_rows
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens, tokenize
from tunescope.errors import ConfigError, DataError
from tunescope.evaluation.metrics import classification_metrics, confusion_matrix
from tunescope.evaluation.predict import predict
from tunescope.models.classifier import Classifier
from tunescope.progress import SILENT, Progress
from tunescope.seeds import derive_seed


@dataclass(frozen=True)
class CrossData:
    """Another data set in the study's labels.

    Attributes:
        name: Its name.
        rows: Its rows (all in the split ``test``) with the study's class indices; unmapped rows left out.
        left_out: Rows of each label of theirs that no label of the study stands for.
        mapped: Their label to ours, as used.
        unlabelled: Rows without a label, left out too.
        cleaned: The cleaning steps that their texts went through.
    """

    name: str
    rows: Rows
    left_out: dict[str, int]
    mapped: dict[str, str]
    unlabelled: int
    cleaned: tuple[str, ...] = ()


def load_cross_data(
    data: ElsewhereData,
    labels: LabelMap,
    template: str | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
    *,
    clean: Sequence[Any] = (),
) -> CrossData:
    """Read another data set and map its labels to the study's.

    Args:
        data: The section of the study.
        labels: The study's labels.
        template: The study's own template, used where the section gives none.
        seed: Seeds the sample of ``data.rows`` rows.
        progress: Where to report.
        clean: The study's cleaning steps; all but ``speaker_turns``, which is about the form of the study's own
            texts, are done here too.

    Raises:
        ConfigError: The map names a label that the study has not, or a label of theirs that does not occur.
        DataError: The data cannot be read, or no row has a mapped label.
    """
    mapped = {str(theirs): ours for theirs, ours in data.map.items()}
    where = f"elsewhere.data.{data.name}.map"
    for ours in dict.fromkeys(mapped.values()):
        if ours not in labels.names:
            near = nearest(ours, labels.names)
            raise ConfigError(
                f"{where}: the study has no label {ours!r}; it has {', '.join(labels.names)}.",
                hint=f"Did you mean {near!r}?" if near else "Map their labels to the study's.",
            )
    options: dict[str, Any] = {"path": {"test": data.path}, "text": data.text, "label": data.label}
    options |= {"encoding": data.encoding, "format": data.format, "validation": 0.0, "test": 0.0}
    fits = isinstance(data.text, dict) or template is None or "{text}" in template
    options["template"] = data.template if data.template is not None else (template if fits else None)
    steps = [step.model_dump() for step in clean if step.step != "speaker_turns"]
    options |= {"clean": steps} if steps else {}
    theirs = load_rows(load_data(options), seed, progress)
    names = theirs.labels.names
    absent = [name for name in mapped if name not in names]
    if absent:
        near = nearest(absent[0], names)
        raise ConfigError(
            f"{where}: {data.name} has no label {absent[0]!r}; it has {', '.join(names)}.",
            hint=f"Did you mean {near!r}?" if near else "Correct the map.",
        )
    return replace(_mapped(data, theirs, labels, mapped, seed), cleaned=tuple(step["step"] for step in steps))


def _mapped(
    data: ElsewhereData, theirs: Rows, labels: LabelMap, mapped: dict[str, str], seed: int
) -> CrossData:
    names = theirs.labels.names
    codes = theirs.label_array
    ours = np.array([labels.names.index(mapped[name]) if name in mapped else -1 for name in names])
    known = (codes >= 0) & (ours[codes] >= 0)
    left_out = {
        name: int((codes == i).sum())
        for i, name in enumerate(names)
        if name not in mapped and (codes == i).any()
    }
    if not known.any():
        raise DataError(f"elsewhere.data.{data.name}: no row has one of the labels {', '.join(mapped)}.")
    frame = theirs.frame.with_columns(pl.Series("label", ours[codes], dtype=pl.Int64)).filter(
        pl.Series(known)
    )
    if data.rows is not None and data.rows < frame.height:
        from tunescope.data.split import sample_rows

        own = frame["label"].to_numpy().astype(np.int64)
        frame = frame.filter(pl.Series(sample_rows(frame["row_id"].to_list(), own, data.rows, seed)))
    rows = Rows(frame, labels, theirs.provenance)
    return CrossData(data.name, rows, left_out, mapped, int((codes < 0).sum()))


def cross_evaluate(
    classifier: Classifier,
    data: CrossData,
    seed: int = 0,
    *,
    tokens: Tokens | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Evaluate a tuned model on another data set.

    Where the data set has fewer labels than the study, an answer outside them is wrong in ``records``;
    ``records_among`` takes the best of the labels that the map leads to, which is the fairer question where the
    others cannot occur.

    Args:
        classifier: A tuned model with the study's labels.
        data: The mapped rows.
        seed: Seeds the intervals.
        tokens: The rows as this model reads them, where they are encoded already.
        progress: Where to report.

    Returns:
        JSON-able: ``name``, ``rows``, ``left_out``, ``unlabelled``, ``map``, ``labels``, ``records``,
        ``records_among`` (None where the map reaches all labels), ``confusion``, ``majority``, ``sentence``.
    """
    names = list(data.rows.labels.names)
    if tokens is None:
        tokens = tokenize(data.rows, classifier.tokenizer, classifier.max_length, progress)
    table = predict(classifier, tokens, progress)
    logits = table.select([f"logit_{name}" for name in names]).to_numpy()
    truth = tokens.labels
    own_seed = derive_seed(seed, "elsewhere", data.name)
    records = classification_metrics(truth, logits, names, "test", own_seed)
    reached = [name for name in names if name in set(data.mapped.values())]
    among = None
    if 1 < len(reached) < len(names):
        place = np.array([names.index(name) for name in reached])
        back = np.full(len(names), -1)
        back[place] = np.arange(len(place))
        among = classification_metrics(back[truth], logits[:, place], reached, "test", own_seed)
    majority = next(record for record in records if record["metric"] == "majority_accuracy")
    return {
        "name": data.name, "rows": len(truth), "left_out": data.left_out, "unlabelled": data.unlabelled,
        "cleaned": list(data.cleaned),
        "map": data.mapped, "labels": reached, "records": records, "records_among": among,
        "confusion": confusion_matrix(truth, logits.argmax(axis=1), len(names)),
        "majority": {"accuracy": majority["value"], "class": majority["note"]},
        "sentence": _sentence(data, records, among, majority["value"]),
    }  # fmt: skip


def _sentence(
    data: CrossData, records: list[dict[str, Any]], among: list[dict[str, Any]] | None, majority: float
) -> str:
    def accuracy(found: list[dict[str, Any]]) -> str:
        one = next(record for record in found if record["metric"] == "accuracy")
        return f"{one['value']:.3f}" + (
            "" if one["low"] is None else f" [{one['low']:.3f}, {one['high']:.3f}]"
        )

    lost = sum(data.left_out.values())
    left = f" {lost:,} rows of other labels ({', '.join(data.left_out)}) were left out." if lost else ""
    best = f", {accuracy(among)} among the mapped labels" if among else ""
    return (
        f"On {data.name} ({len(data.rows):,} rows) accuracy is {accuracy(records)}{best}; always saying the most "
        f"frequent label gives {majority:.3f}.{left}"
    )
