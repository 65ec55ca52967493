"""Which words decide: every word left out, masked, and given its integrated gradient, base and tuned.

Formula:
    Leave-one-out: ``margin(text) - margin(text without the word)``. Integrated gradients: the integral of the
    margin's gradient along the way from a neutral text (the mask token's embedding everywhere, or the
    vocabulary's mean where there is none), summed over a word's tokens.

Range:
    Logits, any sign: above 0 the word speaks for the class. Gradients of a row add up to the difference of
    margins.

How to read:
    Trust words on which leaving out and gradients agree (``rank_agreement``). A word's row is the mean over its
    occurrences.

Cost:
    One run a word and row; gradients take ``most_steps`` passes a row at most.

Limits:
    A text without a word may read like none that the model knows. Words that only matter together are missed;
    rows that the model cuts are left out. An encoder-decoder reads the text in both stacks: a word is left out of,
    masked in, and given the gradients of, both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tunescope.data.batches import collate
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.evaluation.predict import logits_of
from tunescope.evaluation.words import word_spans
from tunescope.lenses.subject import Subject, Which
from tunescope.lenses.words.effects import (
    Integrated,
    all_margins,
    behind_a_mask,
    integrated_gradients,
    rank_correlation,
    without_each,
)
from tunescope.lenses.words.rows import Drawn, WordOptions, draw
from tunescope.models.classifier import Classifier
from tunescope.progress import Task
from tunescope.stats.intervals import bootstrap_mean, bootstrap_means
from tunescope.stats.results import result_table
from tunescope.stats.tests import benjamini_hochberg, sign_flip_p

WHAT = (
    "Which words decide: how far the margin falls when a word is left out (exactly, the text tokenised anew) or "
    "masked, and the word's integrated gradient; held against the other words of the same rows."
)
METHODS = ("left_out", "masked", "gradient")
Record = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """One model's effects, row by row.

    Attributes:
        effects: Per method (``left_out``, ``masked``) one `[W, C]` array a row: the fall of every class's margin.
        gradients: Per row, of the true class; None where a row has none.
        predicted: `[N]` the model's own classes.
    """

    effects: dict[str, list[np.ndarray]]
    gradients: list[Integrated | None]
    predicted: np.ndarray

    def true(self, method: str, index: int, label: int) -> np.ndarray:
        """Return the words' effects on the true class's margin in one row, `[W]`; NaN where not measured."""
        if method != "gradient":
            return self.effects[method][index][:, label]
        one = self.gradients[index]
        width = len(self.effects["left_out"][index])
        return one.words if one is not None and one.complete else np.full(width, np.nan)


def run(subject: Subject, options: WordOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Measure every word of every row in both models; the base drops out where its head is ``none``.

    Raises:
        LensError: The texts are not known, no row has a label, every row is cut or has one word, an effect is NaN, or
            the tokenizer cannot say where its tokens stand.
    """
    drawn = draw(subject, options)
    measured: dict[Which, Measured] = {}
    models = subject.models_with_logits()
    total = len(drawn.words) * len(models) * 2
    with subject.progress.task(f"{subject.arm}: words", total, "rows") as task:
        for which, model in models:
            measured[which] = _measure(model, drawn, options, task)
    records: list[Record] = []
    names = subject.tuned.labels.names
    for which, found in measured.items():
        about = {"arm": subject.arm, "seed": subject.seed, "model": which}
        about["base_head"] = subject.base_head if which == "base" else None
        made = [*_words(drawn, found, None, options, subject), *_checks(drawn, found, subject)]
        made += _shown(drawn, found, names, options)
        records += [{**about, **record} for record in made]
    if len(measured) == 2:
        about = {"arm": subject.arm, "seed": subject.seed, "base_head": subject.base_head}
        base, tuned = measured["base"], measured["tuned"]
        change = _words(drawn, tuned, base, options, subject)
        records += [{**about, "model": "tuned_minus_base", **record} for record in change]
        pairs = _correlations(drawn, (tuned, "left_out"), (base, "left_out"))
        record = _agreement(pairs, drawn, subject, "left_out, base and tuned")
        records.append({**about, "model": "base_tuned", **record})
    return result_table(records), _examples(subject, drawn, measured)


def _measure(model: Classifier, drawn: Drawn, options: WordOptions, task: Task) -> Measured:
    """Take every row apart.

    Raises:
        LensError: A logit or a gradient is NaN or infinite; the row is named.
    """
    tokens, words = drawn.tokens, drawn.words
    logits = logits_of(model, tokens)
    _require(np.isfinite(logits).all(axis=1), tokens, "logits")
    before = all_margins(logits)
    effects = {"left_out": without_each(model, words, before, task)}
    masked = behind_a_mask(model, words, tokens, before, task)
    if masked is None:
        task.advance(len(words))
    else:
        effects["masked"] = masked
    for found in effects.values():
        fine = [bool(np.isfinite(one[row.places]).all()) for one, row in zip(found, words, strict=True)]
        _require(np.array(fine), tokens, "effects of leaving words out")
    gradients: list[Integrated | None] = [None] * len(words)
    for index in range(min(options.gradient_rows, len(words))):
        inputs = collate(tokens, np.array([index])).to(model.device).inputs()
        label = int(tokens.labels[index])
        gradients[index] = integrated_gradients(model, words[index], inputs, label, options.most_steps)
    return Measured(effects, gradients, logits.argmax(axis=1))


def _require(fine: np.ndarray, tokens: Tokens, what: str) -> None:
    bad = np.flatnonzero(~fine)
    if len(bad):
        row = tokens.row_ids[int(bad[0])]
        raise LensError(
            f"The {what} are NaN or infinite in {len(bad)} of {len(tokens)} rows, the first is row {row}."
        )


def _occurrences(drawn: Drawn, at_least: int) -> dict[str, list[tuple[int, int]]]:
    """Return where every word that stands in enough rows stands: (row, place), places that are left out only."""
    where: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for index, row in enumerate(drawn.words):
        for place in row.places.tolist():
            where[row.words[place]].append((index, place))
    return {
        word: spots for word, spots in sorted(where.items()) if len({index for index, _ in spots}) >= at_least
    }


def _words(
    drawn: Drawn, found: Measured, other: Measured | None, options: WordOptions, subject: Subject
) -> list[Record]:
    """Return the mean effect of every listed word by method and class, with q over all of one method.

    With another model the effects are the differences from it, occurrence by occurrence.
    """
    names, labels = subject.tuned.labels.names, drawn.tokens.labels
    records = []
    for method in (*found.effects, "gradient"):
        made: list[Record] = []
        columns = [None, *names] if method != "gradient" else [None]
        table = _effect_table(found, method, labels)
        if other is not None:
            table = [one - two for one, two in zip(table, _effect_table(other, method, labels), strict=True)]
        for word, spots in _occurrences(drawn, options.at_least).items():
            values = np.array([table[index][place] for index, place in spots])  # [n, 1 + C]
            known = np.isfinite(values).all(axis=1)
            rows = np.array([index for index, _ in spots])[known]
            if len(np.unique(rows)) < options.at_least:
                continue
            groups = drawn.groups[rows]
            ends = bootstrap_means(values[known], groups, resamples=1000, seed=subject.sampling_seed)
            p = sign_flip_p(values[known], groups, permutations=4999, seed=subject.sampling_seed)
            spots = [spot for spot, keep in zip(spots, known, strict=True) if keep]
            control = np.mean([_rest(table[index], place) for index, place in spots], axis=0)
            made += [
                {"metric": "word_effect", "by": method, "word": word, "class": name, **ends[column].record(),
                 "p": p[column], "control": float(control[column]), "rows": len(np.unique(rows))}
                for column, name in enumerate(columns)
            ]  # fmt: skip
        q = benjamini_hochberg([record["p"] for record in made])
        records += [{**record, "q": value} for record, value in zip(made, q, strict=True)]
    return records


def _effect_table(found: Measured, method: str, labels: np.ndarray) -> list[np.ndarray]:
    """Return per row the effects on the true class's margin, then (not of gradients) on each class's, `[W, 1 + C]`."""
    if method == "gradient":
        return [found.true(method, index, int(label))[:, None] for index, label in enumerate(labels)]
    return [
        np.column_stack([one[:, label], one])
        for one, label in zip(found.effects[method], labels, strict=True)
    ]


def _rest(effects: np.ndarray, place: int) -> np.ndarray:
    """Return the mean effect of a word drawn at random from the rest of a row, exactly."""
    others = np.delete(effects, place, axis=0)
    others = others[np.isfinite(others).all(axis=1)]
    return others.mean(axis=0) if len(others) else np.zeros(effects.shape[1])


def _checks(drawn: Drawn, found: Measured, subject: Subject) -> Iterator[Record]:
    """Say how well the methods agree, and for how many rows integrated gradients did not add up."""
    for method in [name for name in ("masked", "gradient") if name == "gradient" or name in found.effects]:
        pairs = _correlations(drawn, (found, "left_out"), (found, method))
        if any(one is not None for one in found.gradients) or method != "gradient":
            yield _agreement(pairs, drawn, subject, f"left_out and {method}")
    done = [one for one in found.gradients if one is not None]
    if done:
        failed = sum(not one.complete for one in done)
        share = np.array([abs(one.gap) / max(abs(one.total), 1e-12) for one in done if one.complete])
        yield {"metric": "incomplete_rows", "by": "gradient", "value": float(failed), "n": len(done)}
        steps = float(np.mean([one.steps for one in done]))
        yield {"metric": "steps", "by": "gradient", "value": steps, "n": len(done)}
        if len(share):
            yield {
                "metric": "completeness_gap",
                "by": "gradient",
                "value": float(np.median(share)),
                "n": len(share),
            }


def _correlations(drawn: Drawn, first: tuple[Measured, str], second: tuple[Measured, str]) -> np.ndarray:
    """Return each row's rank correlation over its words between two methods or models, `[N]`; NaN where undefined."""
    labels = drawn.tokens.labels
    return np.array([
        rank_correlation(*(one.true(method, index, int(labels[index])) for one, method in (first, second)))
        for index in range(len(labels))
    ])  # fmt: skip


def _agreement(pairs: np.ndarray, drawn: Drawn, subject: Subject, method: str) -> Record:
    known = np.isfinite(pairs)
    mean = bootstrap_mean(pairs[known], drawn.groups[known], seed=subject.sampling_seed)
    return {"metric": "rank_agreement", "by": method, **mean.record(), "control": 0.0} if known.any() else {
        "metric": "rank_agreement", "by": method, "value": None, "n": 0, "control": 0.0,
        "note": "undefined: in no row do both sides rank three words",
    }  # fmt: skip


def _shown(drawn: Drawn, found: Measured, names: tuple[str, ...], options: WordOptions) -> Iterator[Record]:
    """Return the words of the first rows, which are drawn at random, with their effects on the true class's margin."""
    for index, row in enumerate(drawn.words[: options.examples]):
        label = int(drawn.tokens.labels[index])
        spans = word_spans(row.text)
        effects = found.true("left_out", index, label)
        for place, (start, end) in enumerate(spans):
            yield {
                "metric": "example", "by": "left_out", "row_id": row.row_id, "place": place,
                "word": row.text[start:end], "class": names[label], "value": float(effects[place]),
                "prediction": names[int(found.predicted[index])],
            }  # fmt: skip


def _examples(subject: Subject, drawn: Drawn, measured: dict[Which, Measured]) -> pl.DataFrame:
    names, records = subject.tuned.labels.names, []
    for which, found in measured.items():
        for index, row in enumerate(drawn.words):
            label = int(drawn.tokens.labels[index])
            values = {
                method: found.true(method, index, label)
                if method == "gradient" or method in found.effects
                else None
                for method in METHODS
            }
            for place, word in enumerate(row.words):
                records.append({
                    "arm": subject.arm, "seed": subject.seed, "model": which, "row_id": row.row_id,
                    "label": names[label], "prediction": names[int(found.predicted[index])], "place": place,
                    "word": word,
                    **{method: None if one is None or np.isnan(one[place]) else float(one[place])
                       for method, one in values.items()},
                })  # fmt: skip
    schema = {"seed": pl.Int64(), **dict.fromkeys(METHODS, pl.Float64())}
    return pl.DataFrame(records, schema_overrides=schema, infer_schema_length=None)
