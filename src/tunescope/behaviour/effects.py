"""What a rewrite does to a classifier, pair by pair: margins, probabilities, flips, and the same for controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tunescope.behaviour.suite import Suite
from tunescope.data.labels import LabelMap
from tunescope.data.rows import rows_of_texts
from tunescope.data.tokens import tokenize
from tunescope.evaluation.margins import margin
from tunescope.evaluation.predict import logits_of, probabilities_of
from tunescope.models.classifier import Classifier
from tunescope.progress import SILENT, Progress

Predict = Callable[[list[str]], np.ndarray]
TEXTS_AT_ONCE = 8192
LABELLED, PREDICTED = "label", "prediction"


class Answers:
    """Logits of texts, each text predicted once however often it stands in the suites.

    Args:
        predict: From texts to logits `[n, C]`.
    """

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._place: dict[str, int] = {}
        self._parts: list[np.ndarray] = []
        self._logits: np.ndarray | None = None

    def ask(self, texts: Iterable[str]) -> None:
        """Predict the texts that are new, in chunks of bounded size."""
        new = [text for text in dict.fromkeys(texts) if text not in self._place]
        for start in range(0, len(new), TEXTS_AT_ONCE):
            some = new[start : start + TEXTS_AT_ONCE]
            self._parts.append(np.asarray(self._predict(some), dtype=np.float64))
            self._place.update({text: len(self._place) + offset for offset, text in enumerate(some)})
            self._logits = None

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the logits `[n, C]` of texts that were asked for."""
        if self._logits is None:
            self._logits = np.concatenate(self._parts)
            self._parts = [self._logits]
        return self._logits[[self._place[text] for text in texts]]


def predictor(classifier: Classifier, progress: Progress = SILENT, max_length: int | None = None) -> Predict:
    """Return a function from texts to the logits `[n, C]` of a classifier."""
    labels = LabelMap(tuple(classifier.labels.names))

    def predict(texts: list[str]) -> np.ndarray:
        rows = rows_of_texts(texts, labels)
        limit = max_length or classifier.max_length
        return logits_of(classifier, tokenize(rows, classifier.tokenizer, limit), progress)

    return predict


def texts_of(suite: Suite) -> list[str]:
    """Return every text of a suite and of its controls, each once."""
    columns = [suite.pairs["original"], suite.pairs["rewritten"].drop_nulls()]
    columns += [suite.controls["original"], suite.controls["rewritten"]]
    return list(dict.fromkeys(text for column in columns for text in column))


@dataclass(frozen=True)
class Effects:
    """What the pairs of a suite do to one model.

    Attributes:
        reference: `[n]` class whose margin is followed: the true class where the pair has a label, else the class
            that the tuned model predicts for the original.
        by_label: `[n]` whether the reference is the true class.
        margin_change: `[n]` margin of the reference class, rewritten minus original, in logits.
        class_margin_change: `[n, C]` the same for every class.
        probability_change: `[n, C]` rewritten minus original.
        before: `[n]` predicted class of the original.
        after: `[n]` predicted class of the rewritten text.
        probability_before: `[n, C]`.
        control_change: By control, `[n]` mean absolute change of the reference margin over the control pairs of each
            pair; NaN where a pair has none.
    """

    reference: np.ndarray
    by_label: np.ndarray
    margin_change: np.ndarray
    class_margin_change: np.ndarray
    probability_change: np.ndarray
    before: np.ndarray
    after: np.ndarray
    probability_before: np.ndarray
    control_change: Mapping[str, np.ndarray]

    @property
    def flips(self) -> np.ndarray:
        """`[n]` whether the predicted class changes."""
        return self.before != self.after

    @property
    def largest(self) -> np.ndarray:
        """`[n]` largest absolute change of any class's probability."""
        return np.abs(self.probability_change).max(axis=1, initial=0.0)


def references(suite: Suite, answers: Answers, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the class that each pair is followed by, and whether it is the true one.

    Args:
        suite: The suite.
        answers: Those of the tuned model, which both models are followed by where a pair has no label.
        names: Class names in the order of the logits.
    """
    index = {name: place for place, name in enumerate(names)}
    predicted = answers.logits(suite.pairs["original"].to_list()).argmax(axis=1)
    known = np.array([index.get(name, -1) for name in suite.pairs["label"]], dtype=np.int64)
    return np.where(known >= 0, known, predicted), known >= 0


def effects_of(suite: Suite, answers: Answers, reference: np.ndarray, by_label: np.ndarray) -> Effects:
    """Return what the pairs of a suite do to the model that gave the answers.

    In minimum functionality tests there is no second text: every change is 0, and ``before`` is what is judged.
    """
    original = suite.pairs["original"].to_list()
    rewritten = suite.pairs["rewritten"].fill_null(suite.pairs["original"]).to_list()
    first, second = answers.logits(original), answers.logits(rewritten)
    chances = probabilities_of(first)
    return Effects(
        reference,
        by_label,
        margin(second, reference) - margin(first, reference),
        class_margins(second) - class_margins(first),
        probabilities_of(second) - chances,
        first.argmax(axis=1),
        second.argmax(axis=1),
        chances,
        _controls(suite, answers, reference),
    )


def class_margins(logits: np.ndarray) -> np.ndarray:
    """Return the margin of every class `[n, C]`."""
    rows = len(logits)
    return np.stack([margin(logits, np.full(rows, place)) for place in range(logits.shape[1])], axis=1)


def _controls(suite: Suite, answers: Answers, reference: np.ndarray) -> dict[str, np.ndarray]:
    """Return by control the mean absolute change of margin over each pair's controls, `[n]`."""
    place = {pair: index for index, pair in enumerate(suite.pairs["pair_id"])}
    found: dict[str, np.ndarray] = {}
    for name in suite.controls["control"].unique(maintain_order=True):
        own = suite.controls.filter(pl.col("control") == name)
        at = np.array([place[pair] for pair in own["pair_id"]], dtype=np.int64)
        first = margin(answers.logits(own["original"].to_list()), reference[at])
        second = margin(answers.logits(own["rewritten"].to_list()), reference[at])
        total, count = np.zeros(len(suite)), np.zeros(len(suite))
        np.add.at(total, at, np.abs(second - first))
        np.add.at(count, at, 1.0)
        found[str(name)] = np.divide(total, count, out=np.full(len(suite), np.nan), where=count > 0)
    return found
