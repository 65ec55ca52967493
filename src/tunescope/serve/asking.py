"""What a page may ask the bench, and the answers as plain values, one JSON line each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunescope.errors import TunescopeError
from tunescope.lenses.bench import Bench

MOST_SWITCHES = 2000
# Smaller is done first: what a hand waits for before what fills the page.
URGENCY = {"text": 0, "switch": 0, "attention": 1, "swaps": 2, "words": 3, "grid": 4, "means": 5}


class BadQuestion(Exception):
    """A question is not as it should be; the text says how."""


@dataclass(frozen=True)
class Question:
    """A question about one text.

    Attributes:
        kind: ``text``, ``switch``, ``attention``, ``swaps``, ``words``, ``grid`` or ``means``.
        text: The text.
        off: Components that are switched off.
        edit: What replaces them: ``zero`` or ``mean``.
        layer: Whose attention.
        head: Whose attention.
    """

    kind: str
    text: str = ""
    off: tuple[str, ...] = ()
    edit: str = "zero"
    layer: int = 0
    head: int = 0

    @classmethod
    def of(cls, body: Any) -> Question:
        """Read a question from parsed JSON.

        Raises:
            BadQuestion: A field is missing or of another kind.
        """
        if not isinstance(body, dict) or body.get("kind") not in URGENCY:
            raise BadQuestion(f"Expected a question with a kind: {', '.join(URGENCY)}.")
        off = body.get("off", [])
        fits = (
            isinstance(body.get("text", ""), str)
            and isinstance(off, list) and len(off) <= MOST_SWITCHES and all(isinstance(one, str) for one in off)
            and body.get("edit", "zero") in ("zero", "mean")
            and all(type(body.get(name, 0)) is int for name in ("layer", "head"))
        )  # fmt: skip
        if not fits:
            raise BadQuestion(
                "Expected text, off (a list of components), edit (zero or mean), layer and head."
            )
        return cls(body["kind"], body.get("text", ""), tuple(off), body.get("edit", "zero"),
                   body.get("layer", 0), body.get("head", 0))  # fmt: skip


def answers(bench: Bench, question: Question) -> Iterator[dict[str, Any]]:
    """Answer a question in pieces; runs in the worker.

    Raises:
        TunescopeError: The text or a component cannot be used.
    """
    return _ANSWERS[question.kind](bench, question)


def about(bench: Bench) -> dict[str, Any]:
    """Return what a page needs to know of a bench before it asks."""
    tuned = bench.subject.tuned
    return {
        "labels": list(bench.labels), "layers": tuned.n_layers, "heads": tuned.n_heads,
        "models": list(bench.models), "base_head": bench.subject.base_head,
        "head": str(bench.subject.base.record.get("head", "")), "window": tuned.max_length,
        "family": tuned.family.name, "causal": tuned.family.language_kind == "causal",
        "reference_rows": bench.reference_rows,
    }  # fmt: skip


def plain(value: Any) -> Any:
    """Return arrays as nested lists with five digits behind the point, at any depth."""
    if isinstance(value, np.ndarray):
        return np.round(value.astype(np.float64), 5).tolist()
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def problem(error: BaseException) -> dict[str, Any]:
    """Return an error as the page shows it; what is not ours is named, not explained."""
    if isinstance(error, TunescopeError):
        return {"error": error.message, "hint": error.hint or ""}
    return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "hint": ""}


def _text(bench: Bench, question: Question) -> Iterator[dict[str, Any]]:
    whole = bench.read(question.text)
    yield {
        "pieces": whole.pieces, "cut": whole.cut, "tokens": len(whole.pieces), "words": whole.words,
        "logits": bench.predict(question.text),
    }  # fmt: skip


def _switch(bench: Bench, question: Question) -> Iterator[dict[str, Any]]:
    edit: Any = question.edit
    yield {"logits": bench.switched(question.text, question.off, edit)}


def _attention(bench: Bench, question: Question) -> Iterator[dict[str, Any]]:
    patterns = bench.attention(question.text, question.layer, question.head)
    yield {"pieces": bench.read(question.text).pieces, "patterns": patterns}


def _grid(bench: Bench, question: Question) -> Iterator[dict[str, Any]]:
    edit: Any = question.edit
    return bench.grid(question.text, edit)


def _means(bench: Bench, question: Question) -> Iterator[dict[str, Any]]:
    for share in bench.prepare_means():
        yield {"share": round(share, 4)}
    yield {"share": 1.0}


_ANSWERS: dict[str, Callable[[Bench, Question], Iterator[dict[str, Any]]]] = {
    "text": _text, "switch": _switch, "attention": _attention, "grid": _grid, "means": _means,
    "words": lambda bench, question: bench.words(question.text),
    "swaps": lambda bench, question: bench.swaps(question.text),
}  # fmt: skip
