"""Weight grafts: which of the tuned weights give the base the task?

A graft puts the tuned model's weights of one part into the base (or the base's into the tuned model), everything read
through the tuned readout, so that the base stands at 0 and the tuned model at 1 (model grafting and skill localisation,
Panigrahi et al. 2023; the curve over depth is the weights' side of patching across models). The curve "grafted up to
here" says how deep one must take tuned blocks until the task is there; single parts say which alone suffice or are
missed; the smallest set is found greedily on one half of the rows and shown on the other.

Exact shortcuts: a run starts from the stored stream before its first changed block; the curves over depth are one
model's stream going on in the other's blocks; all heads of a block share one attention pass; a part whose weights did
not change has no effect and is not run.

Formula:
    ``recovered = (m_grafted - m_base) / (m_tuned - m_base)``, a ratio of sums over rows; the same for accuracy.

Range:
    About 0 (as the base) to 1 (as the tuned model); beyond both where a graft over- or undershoots.

How to read:
    The curve "grafted up to here" says how deep the task lies; a single part with much recovery suffices alone.
    The control is a random change of equal norm.

Cost:
    Parts times rows, each run started before its first changed block; weight rows need runs of their own.

Limits:
    What holds no weight that tuning changed carries nothing, what holds all of them everything: the column
    ``by_construction`` says so, and no finding picks it. Parts may only work together: what a part recovers alone
    and what is lost without it need not agree. In an encoder-decoder a head's weights leave out T5's table of
    positions, which all blocks of a stack share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.graft_parts import GraftPlace
from tunescope.errors import LensError
from tunescope.lenses.ablation.table import FEWEST_TEXTS, halves
from tunescope.lenses.grafting.axes import axes_of
from tunescope.lenses.grafting.runs import Grafts, Run
from tunescope.lenses.grafting.runs_encoder_decoder import StackGrafts
from tunescope.lenses.grafting.sets import greedy, weight_rows
from tunescope.lenses.patching.cross import comparable
from tunescope.lenses.patching.measure import Answers, Between, Place
from tunescope.lenses.subject import LensRows, Subject, clusters
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import Stack
from tunescope.seeds import derive_seed
from tunescope.stats.results import result_table

WHAT = (
    "Share of tuning's gain in margin and accuracy that the base has when it is given the tuned weights of one part, "
    "of all blocks up to a depth, or of the smallest set of parts; read through the tuned head."
)
Part = Literal["embeddings", "block", "attention", "mlp", "head"]


class GraftOptions(BaseModel):
    """Options of the lens ``grafting``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(default_factory=LensRows, description="which rows to look at")
    parts: tuple[Part, ...] = Field(
        ("embeddings", "block", "attention", "mlp", "head"),
        description="what is grafted one by one: embeddings, block, attention, mlp, head",
    )
    curves: bool = Field(
        True, description="whether blocks are grafted up to each depth, and from each depth on"
    )
    both_ways: bool = Field(True, description="whether single parts are also taken from the tuned model")
    smallest: tuple[Part, ...] = Field(
        ("embeddings", "attention", "mlp"),
        description="parts of which the smallest set is sought (embeddings, block, attention, mlp); empty for none",
    )
    reach: float = Field(
        0.95, gt=0, le=1, description="share of the gain that the smallest set must reach: above 0 to 1"
    )
    weight_rows: tuple[float, ...] = Field(
        (0.001, 0.01, 0.03, 0.1, 0.3, 1.0),
        description="shares of all matrix rows that are grafted, those that tuning moved most first; empty for none",
    )
    random_control: bool = Field(
        True, description="whether every graft is also made with a random change of the same size"
    )


def run(subject: Subject, options: GraftOptions) -> tuple[pl.DataFrame, None]:
    """Graft weights between base and tuned, and return shares of the gain.

    Raises:
        LensError: The models have different shapes, or there are no labelled rows.
    """
    tokens = subject.draw(options.rows)
    base, tuned = comparable(subject, "grafting")
    if "head" in options.smallest:
        raise LensError(
            "grafting: the smallest set is of embeddings, block, attention and mlp; heads are too many."
        )
    seed = derive_seed(subject.sampling_seed, "grafting")
    with subject.progress.task(f"{subject.arm}: grafting weights", len(tokens), "rows") as task:
        kind = StackGrafts if base.is_encoder_decoder else Grafts
        grafts = kind(base, tuned, tokens, seed)
        found = _Found(subject, options, grafts)
        grafts.prepare(task)
        records = found.between(np.arange(len(tokens))).ends(subject) + found.singles()
        if options.curves:
            records += found.curves()
        records += found.sets()
    return result_table(records), None


def single_parts(model: Classifier, kinds: Sequence[str]) -> list[Run]:
    """List the grafts of single parts, the embeddings first, then block by block."""
    found = [Run("one", "embeddings")] if "embeddings" in kinds else []
    for stack, places in _places(model):
        for layer in range(stack.n_layers):
            for kind in kinds:
                own = places if kind in ("head", "attention") else places[:1]
                if kind != "embeddings":
                    heads = range(stack.n_heads) if kind == "head" else (None,)
                    found += [Run("one", kind, layer, head, place=place) for place in own for head in heads]
    return found


def _places(model: Classifier) -> Iterator[tuple[Stack, tuple[GraftPlace | None, ...]]]:
    """Yield every stack with the places in which it attends: self-attention, and in a decoder cross-attention."""
    for stack in model.stacks:
        yield stack, ("decoder", "cross") if stack.name == "decoder" else (stack.name,)


@dataclass(frozen=True)
class _Found:
    """Makes the records of every kind of graft."""

    subject: Subject
    options: GraftOptions
    grafts: Grafts

    def between(self, rows: np.ndarray) -> Between:
        ends = self.grafts.ends.take(rows)
        groups = clusters(self.grafts.tokens)[rows]
        return Between(ends.columns([0]), ends.columns([1]), groups, self.subject.sampling_seed)

    def singles(self) -> list[dict[str, Any]]:
        """Graft every part alone, and without it; the random control beside."""
        directions = ["tuned_into_base", *(["base_into_tuned"] if self.options.both_ways else [])]
        between = self.between(np.arange(len(self.grafts.tokens)))
        records: list[dict[str, Any]] = []
        picks: dict[str, Place] = {}
        first, second = halves(self.grafts.tokens, self.subject.sampling_seed)
        for direction in directions:
            runs = [
                replace(one, direction=direction)
                for one in single_parts(self.grafts.base, self.options.parts)
            ]
            if self.options.random_control and direction == "tuned_into_base":
                runs += [replace(one, control="random") for one in runs]
            place = self.grafts.base.stacks[0].name
            runs.append(Run("one", "block", 0, direction=direction, control="no_op", place=place))
            axes, answers = [axes_of(self.grafts, one) for one in runs], self.grafts.answers(runs)
            records += between.records(self.subject, axes, answers, direction == "base_into_tuned")
            if len(set(between.groups.tolist())) >= FEWEST_TEXTS:
                picks = picks or between.picks(axes, answers, first)
                records += between.picked(self.subject, axes, answers, picks, second)
        return records

    def curves(self) -> list[dict[str, Any]]:
        """Graft blocks up to every depth, and from every depth on."""
        blocks = single_parts(self.grafts.base, ("block",))
        runs = [Run("up_to_here", "embeddings"), *(replace(one, scope="up_to_here") for one in blocks)]
        runs += [replace(one, scope="from_here") for one in blocks]
        if self.options.random_control:
            runs += [replace(one, control="random") for one in runs]
        return self._records(runs)

    def _records(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        answers = self.grafts.answers(runs)
        rows = np.arange(len(self.grafts.tokens))
        lost = runs[0].direction == "base_into_tuned"
        return self.between(rows).records(
            self.subject, [axes_of(self.grafts, one) for one in runs], answers, lost
        )

    def sets(self) -> list[dict[str, Any]]:
        """Seek the smallest set of parts, and of rows, on one half of the texts; show both on the other."""
        if not (self.options.smallest or self.options.weight_rows):
            return []
        tokens, seed = self.grafts.tokens, self.subject.sampling_seed
        if len(set(clusters(tokens).tolist())) < FEWEST_TEXTS:
            self._say(f"fewer than {FEWEST_TEXTS} texts, so no smallest set was sought on one half of them.")
            return []
        first, second = halves(tokens, seed)
        seen = self.between(first)
        gain = float((seen.tuned.hit - seen.base.hit).mean())
        if gain <= 0 or not self.grafts.moved:
            self._say(
                "tuning gained no accuracy on the half of the rows where a smallest set would be sought."
            )
            return []
        picking, showing = self.grafts.on(first), self.grafts.on(second)
        records = []
        if self.options.smallest:
            kinds = [str(kind) for kind in self.options.smallest]
            runs = greedy(picking, single_parts(self.grafts.base, kinds), gain, self.options.reach)
            records += self._shown(showing, second, runs)
        if self.options.weight_rows:
            runs = weight_rows(
                picking, self.options.weight_rows, gain, self.options.reach, self.options.random_control
            )
            records += self._shown(showing, second, runs)
        return records

    def _shown(self, showing: Grafts, rows: np.ndarray, runs: Sequence[Run]) -> list[dict[str, Any]]:
        answers: Answers = showing.answers(runs)
        return self.between(rows).records(
            self.subject, [axes_of(self.grafts, one) for one in runs], answers, False
        )

    def _say(self, what: str) -> None:
        note = f"grafting: {what}"
        if note not in self.subject.notes:
            self.subject.notes.append(note)
