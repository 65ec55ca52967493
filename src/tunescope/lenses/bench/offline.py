"""One row of the bench with every single switch worked out beforehand, for a report that needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.files import write_json
from tunescope.lenses.bench.bench import Bench, Edit, same_shape
from tunescope.lenses.bench.heads import HEAD, write_head
from tunescope.lenses.subject import LensRows, Subject
from tunescope.models.language import LanguageModel

FILE = "row.json"
CANDIDATES = 64
FEWEST_WORDS, MOST_WORDS = 6, 30
DIGITS = 4


def bench_row(
    subject: Subject, edits: Sequence[Edit] = ("zero", "mean"), reference_rows: int = 512
) -> dict[str, Any]:
    """Return one validation row under base and tuned, with each component switched off by itself.

    Args:
        subject: Two classifiers, with ``texts``.
        edits: What a switched-off component is replaced by.
        reference_rows: Train rows that means are taken over.

    Returns:
        ``arm, seed, base_head, labels, layers, heads, row_id, label, text, pieces, words, chosen`` (how the row was
        found) and ``models``: per model ``logits``, ``words`` (logits without each word) and ``off``: per edit
        ``heads`` [L, H, C], ``attention`` and ``mlp`` [L, C], all logits to four digits.

    Raises:
        LensError: The subject has no texts, or the bench cannot look at such models.
    """
    bench = Bench(subject, reference_rows=reference_rows)
    row_id, label, text, chosen = _example(subject, bench)
    whole = bench.read(text)
    clean, words = bench.predict(text), _words(bench, text)
    if "mean" in edits:
        for _ in bench.prepare_means():
            pass
    off = {edit: _off(bench, text, edit) for edit in edits}
    return {
        "arm": subject.arm, "seed": subject.seed, "base_head": subject.base_head, "labels": list(bench.labels),
        "layers": subject.tuned.n_layers, "heads": subject.tuned.n_heads, "row_id": row_id, "label": label,
        "text": text, "pieces": whole.pieces, "cut": whole.cut, "words": [list(span) for span in whole.words],
        "chosen": chosen,
        "models": {
            which: {
                "logits": rounded(clean[which]), "words": words[which],
                "off": {edit: found[which] for edit, found in off.items()},
            }
            for which in bench.models
        },
    }  # fmt: skip


def can_bench(subject: Subject) -> bool:
    """Whether a row can be made: two classifiers of one stack, validation rows, and their texts."""
    tuned = subject.tuned
    plain = not tuned.is_encoder_decoder and not isinstance(tuned, LanguageModel)
    plain = plain and same_shape(subject)
    return plain and subject.texts is not None and len(subject.splits.get("validation", ())) > 0


def write_bench(subject: Subject, folder: Path, reference_rows: int = 512, with_row: bool = True) -> None:
    """Write what the bench needs of a training: the base's fitted head, and :func:`bench_row` where it is wanted."""
    if subject.base_head == "probe":
        write_head(subject.base, folder / HEAD)
    if with_row:
        write_json(folder / FILE, bench_row(subject, reference_rows=reference_rows))


def rounded(values: np.ndarray) -> Any:
    """Return an array as nested lists of numbers with four digits behind the point."""
    return np.round(np.asarray(values, dtype=np.float64), DIGITS).tolist()


def _example(subject: Subject, bench: Bench) -> tuple[str, int | None, str, str]:
    """Find the first drawn validation row of middle length that the tuned model has right, else the first row."""
    if subject.texts is None:
        raise LensError("A row of the bench needs the rows' texts; they are not known here.")
    drawn = subject.draw(LensRows(split="validation", n=CANDIDATES), labelled=False)
    known = dict(subject.texts.select("row_id", "text").iter_rows())
    for place, row_id in enumerate(drawn.row_ids):
        if _fits(drawn, place, known[row_id]) and _is_right(bench, drawn, place, known[row_id]):
            said = (
                f"the first of {len(drawn)} drawn validation rows of {FEWEST_WORDS} to {MOST_WORDS} words that the "
                "tuned model has right"
            )
            return row_id, int(drawn.labels[place]), known[row_id], said
    first = drawn.row_ids[0]
    label = int(drawn.labels[0])
    return first, label if label >= 0 else None, known[first], "the first drawn validation row"


def _fits(drawn: Tokens, place: int, text: str) -> bool:
    return FEWEST_WORDS <= len(text.split()) <= MOST_WORDS and not bool(drawn.truncated[place])


def _is_right(bench: Bench, drawn: Tokens, place: int, text: str) -> bool:
    return int(bench.logits("tuned", [text])[0].argmax()) == int(drawn.labels[place])


def _words(bench: Bench, text: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {which: [] for which in bench.models}
    for part in bench.words(text):
        found[part["model"]] += rounded(part["logits"])
    return found


def _off(bench: Bench, text: str, edit: Edit) -> dict[str, dict[str, list[Any]]]:
    layers = bench.subject.tuned.n_layers
    found: dict[str, dict[str, list[Any]]] = {
        which: {kind: [None] * layers for kind in ("heads", "attention", "mlp")} for which in bench.models
    }
    for part in bench.grid(text, edit):
        for kind in ("heads", "attention", "mlp"):
            found[part["model"]][kind][part["layer"]] = rounded(part[kind])
    return found
