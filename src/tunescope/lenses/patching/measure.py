"""How far a run stands between two others: answers row by row, and shares of a gain with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tunescope.errors import LensError
from tunescope.evaluation.margins import margin
from tunescope.lenses.subject import Subject
from tunescope.stats.clustered import wilson_clustered
from tunescope.stats.intervals import Interval
from tunescope.stats.ratios import bootstrap_ratios
from tunescope.stats.tests import benjamini_hochberg, sign_flip_p

PERMUTATIONS = 1999
NAMES = {"margin": "margin", "accuracy": "hit"}
PICKS = {
    "strongest head": ("head_out", "cross_head_out"),
    "strongest sublayer": ("attn_out", "cross_attn_out", "mlp_out"),
}
Place = tuple[str, int | None, int | None, str | None]  # site, layer, head, stack


def _place(run: Mapping[str, Any]) -> Place:
    return run["site"], run["layer"], run["head"], run.get("stack")


@dataclass(frozen=True)
class Answers:
    """What V runs answered on N rows.

    Attributes:
        margin: Logit margin of the true class, [N, V].
        hit: 1 where the predicted class is the true one, else 0, [N, V].
        probability: Of the true class, [N, V].
    """

    margin: np.ndarray
    hit: np.ndarray
    probability: np.ndarray

    @classmethod
    def empty(cls, rows: int, runs: int) -> Answers:
        """Return answers to be filled batch by batch."""
        return cls(*(np.empty((rows, runs)) for _ in range(3)))

    def fill(self, index: np.ndarray, logits: torch.Tensor, labels: np.ndarray, names: Sequence[str]) -> None:
        """Write the answers of one batch.

        Args:
            index: The rows' positions, [B].
            logits: Of every run, [V, B, C].
            labels: True classes, [B].
            names: Ids of the rows, for messages.

        Raises:
            LensError: A logit is not finite; the row is named.
        """
        values = logits.double().cpu()
        bad = (~torch.isfinite(values)).any(-1).any(0)
        if bool(bad.any()):
            raise LensError(f"Row {names[int(bad.nonzero()[0])]}: patched logits are not finite.")
        true = torch.as_tensor(labels)
        runs = len(values)
        flat = margin(values.flatten(0, 1), true.repeat(runs)).unflatten(0, (runs, -1))
        self.margin[index] = flat.T.numpy()
        self.hit[index] = (values.argmax(-1) == true).T.double().numpy()
        chance = torch.softmax(values, -1).gather(-1, true.expand(runs, -1).unsqueeze(-1))
        self.probability[index] = chance.squeeze(-1).T.numpy()

    def take(self, rows: np.ndarray) -> Answers:
        """Return the answers on some rows."""
        return Answers(self.margin[rows], self.hit[rows], self.probability[rows])

    def columns(self, runs: Sequence[int]) -> Answers:
        """Return the answers of some runs."""
        return Answers(self.margin[:, runs], self.hit[:, runs], self.probability[:, runs])


@dataclass(frozen=True)
class Between:
    """Two runs that others are placed between, on the same N rows.

    Attributes:
        base: Answers of the run that counts as 0 (one column): the base under the tuned readout.
        tuned: Answers of the run that counts as 1 (one column).
        groups: Group of each row, [N]; whole groups are drawn for intervals.
        seed: Seeds resamples and permutations.
    """

    base: Answers
    tuned: Answers
    groups: np.ndarray
    seed: int

    def shares(self, answers: Answers, metric: str, lost: bool) -> list[Interval]:
        """Return the share of the gain that each run has: ``(m_run - m_base) / (m_tuned - m_base)`` summed over rows.

        With ``lost`` it is the share that the run has given up of it, ``(m_tuned - m_run) / (m_tuned - m_base)``.
        """
        name = NAMES[metric]
        runs, base, tuned = (getattr(one, name) for one in (answers, self.base, self.tuned))
        over = tuned - runs if lost else runs - base
        return list(bootstrap_ratios(over, (tuned - base)[:, 0], self.groups, seed=self.seed))

    def p_values(self, answers: Answers, lost: bool) -> np.ndarray:
        """Return sign-flip p values of the change of margin against the run that the change was made in, [V]."""
        start = self.tuned if lost else self.base
        return sign_flip_p(
            answers.margin - start.margin, self.groups, permutations=PERMUTATIONS, seed=self.seed
        )

    def records(
        self, subject: Subject, runs: Sequence[Mapping[str, Any]], answers: Answers, lost: bool
    ) -> list[dict[str, Any]]:
        """Return one record a run and metric: shares of margin and accuracy gained (or lost), and the accuracy.

        Args:
            subject: Whose models they are.
            runs: The axes of each run (``site``, ``layer``, ``head``, ``control`` and further).
            answers: Of these runs.
            lost: Whether the runs start from the tuned model.
        """
        if not runs:
            return []
        p = self.p_values(answers, lost)
        real = [index for index, run in enumerate(runs) if run["control"] == "none"]
        q = np.full(len(runs), np.nan)
        if real:
            q[real] = benjamini_hochberg(p[real])
        word = "lost" if lost else "recovered"
        found = []
        for metric in ("margin", "accuracy"):
            for index, (run, share) in enumerate(zip(runs, self.shares(answers, metric, lost), strict=True)):
                tests = {"p": p[index], "q": q[index]} if metric == "margin" else {}
                found.append(_record(subject, run, f"{word}_{metric}", share, tests))
        for index, run in enumerate(runs):
            found.append(
                _record(subject, run, "accuracy", wilson_clustered(answers.hit[:, index], self.groups), {})
            )
        return found

    def take(self, rows: np.ndarray) -> Between:
        """Return the same on some rows."""
        return Between(self.base.take(rows), self.tuned.take(rows), self.groups[rows], self.seed)

    def picks(
        self, runs: Sequence[Mapping[str, Any]], answers: Answers, first: np.ndarray
    ) -> dict[str, Place]:
        """Return the head and the sublayer that bring most of the margin into the base, on some rows alone.

        Runs that carry all or nothing by construction are no candidates: nothing is learnt from them.

        Args:
            runs: The axes of each run.
            answers: Of these runs, on all rows; they start from the base.
            first: The rows on which parts are picked.
        """
        gains = (answers.margin[first] - self.base.margin[first]).mean(axis=0)
        found = {}
        for pick, sites in PICKS.items():
            usable = [
                index for index, run in enumerate(runs)
                if run["control"] == "none" and run["site"] in sites and run.get("by_construction") is None
            ]  # fmt: skip
            if usable:
                found[pick] = _place(runs[max(usable, key=lambda index: gains[index])])
        return found

    def picked(
        self, subject: Subject, runs: Sequence[Mapping[str, Any]], answers: Answers, picks: Mapping[str, Place],
        second: np.ndarray,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Return the records of picked parts on rows that did not pick them.

        Their controls are ``split_half``, and ``split_half_random`` for the random change of the same place.
        """
        shown, own = self.take(second), answers.take(second)
        names = {"none": "split_half", "random": "split_half_random"}
        found = []
        for pick, place in picks.items():
            for index, run in enumerate(runs):
                if run["control"] in names and _place(run) == place:
                    axes = {**run, "control": names[run["control"]], "pick": pick}
                    lost = run["direction"] == "base_into_tuned"
                    found += shown.records(subject, [axes], own.columns([index]), lost)
        return found

    def ends(self, subject: Subject) -> list[dict[str, Any]]:
        """Return the accuracies of the two runs, and the gain that shares are of."""
        found = []
        for which, answers in (("base", self.base), ("tuned", self.tuned)):
            axes = {"site": "logits", "control": "none", "model": which}
            interval = wilson_clustered(answers.hit[:, 0], self.groups)
            found.append(_record(subject, axes, "accuracy", interval, {}))
        axes = {"site": "logits", "control": "none"}
        for metric, name in NAMES.items():
            gain = getattr(self.tuned, name) - getattr(self.base, name)
            interval = bootstrap_ratios(gain, np.ones(len(gain)), self.groups, seed=self.seed)[0]
            found.append(_record(subject, axes, f"gain_{metric}", interval, {}))
        return found


def _record(
    subject: Subject, axes: Mapping[str, Any], metric: str, interval: Interval, tests: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "arm": subject.arm, "seed": subject.seed, "model": "base_tuned", "base_head": "tuned", "metric": metric,
        "value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n, "note": interval.note,
        **axes, **tests,
    }  # fmt: skip
