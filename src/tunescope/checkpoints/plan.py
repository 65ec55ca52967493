"""The stages of a comparison: what each depends on, and what it writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunescope.checkpoints.request import BaseHead, CompareRequest
from tunescope.config import LensConfig
from tunescope.fingerprints import data_digests, model_digest
from tunescope.foreign import Kind, Pair, Pairs
from tunescope.lenses import LENSES
from tunescope.lenses.geometry.other_models import against_others
from tunescope.runs import Stage

# Raised by whoever changes what the code of a stage computes.
VERSIONS = {"rows": 1, "measure": 1, "look": 2, "across": 1, "results": 1, "report": 1}
ROWS = "data/rows.parquet"
PAIR = "pair.json"


@dataclass
class Plan:
    """What is compared, and the stages that it takes.

    Attributes:
        request: What was asked for.
        pairs: Which base with which tuned model.
        kind: What the tuned models are.
        base_head: What gives bases their logits.
        wanted: What every pair is looked at through.
        notes: What the reader must know of the choice.
    """

    request: CompareRequest
    pairs: Pairs
    kind: Kind
    base_head: BaseHead
    wanted: Sequence[LensConfig]
    notes: Sequence[str] = ()
    _digests: dict[str, str | None] = field(default_factory=dict, repr=False)

    @property
    def speaks(self) -> bool:
        """Whether the models are language models."""
        return self.kind == "language model"

    def arms(self) -> dict[str, list[Pair]]:
        """Return the pairs of every arm, in order."""
        found: dict[str, list[Pair]] = {}
        for pair in self.pairs.pairs:
            found.setdefault(pair.tuned.arm, []).append(pair)
        return found

    def lenses(self, pair: Pair) -> list[LensConfig]:
        """Return what a pair is looked at through: over the steps too, where its tuned model is a training's last."""
        models = [{"name": one.tuned.arm, "path": one.tuned.path} for one in self.pairs.pairs]
        wanted = [
            one.model_copy(update={"options": dict(against_others(one, pair.tuned.arm, models))})
            for one in self.wanted
        ]
        if pair.tuned.steps is not None:
            over = ("steps", "watch") if self.kind == "classifier" else ("watch",) if self.speaks else ()
            for name in over:
                asked = next((one for one in wanted if one.lens == name), LensConfig(lens=name, options={}))
                options = {**asked.options, "folder": pair.tuned.steps}
                wanted = [one for one in wanted if one.lens != name] + [
                    LensConfig(lens=name, options=options)
                ]
        return wanted

    # ---- where things lie, relative to the run folder ----

    @staticmethod
    def place(pair: Pair) -> str:
        """Return ``ARM/seed-N``; a single model's seed is not known, and its folder is that of seed 0."""
        return f"{pair.tuned.arm}/seed-{pair.tuned.seed or 0}"

    def arm_folder(self, pair: Pair) -> str:
        """Return where metrics and predictions of a tuned model lie."""
        return f"arms/{self.place(pair)}"

    def part(self, pair: Pair, lens: str) -> str:
        """Return where one lens's view of a pair lies."""
        return f"looks/{self.place(pair)}/{lens}"

    # ---- stages ----

    def stages(self) -> Iterator[Stage]:
        """Yield all stages in order."""
        yield self.rows()
        last = []
        for pair in self.pairs.pairs:
            yield self.measure(pair)
            last.append(self.measure(pair).name)
            for lens in self.lenses(pair):
                yield self.look(pair, lens)
                last.append(self.look(pair, lens).name)
        for arm, pairs in self.arms().items():
            for lens in self.wanted:
                stage = self.across(arm, pairs, lens)
                if stage is not None:
                    yield stage
                    last.append(stage.name)
        yield Stage("results", {}, ("results", "findings.json"), tuple(last), VERSIONS["results"])
        outputs = ("compare.json", "data/summary.json", "report.html")
        about = {
            "notes": list(self.pairs.notes),
            "base": self.request.base,
            "tuned": list(self.request.tuned),
        }
        yield Stage("report", about, outputs, ("results",), VERSIONS["report"])

    def rows(self) -> Stage:
        """Return the stage that reads the rows."""
        data = self.request.data
        inputs = {
            "data": data.model_dump(mode="json", exclude={"max_length"}), "files": data_digests(data.path),
            "seed": self.request.seed, "labelled": not self.speaks,
        }  # fmt: skip
        return Stage("rows", inputs, (ROWS, f"{ROWS}.json"), (), VERSIONS["rows"])

    def measure(self, pair: Pair) -> Stage:
        """Return the stage that measures a tuned model and its base."""
        folder = self.arm_folder(pair)
        predicted = () if self.speaks else (f"{folder}/predictions.parquet",)
        outputs = (f"{folder}/metrics.json", *predicted, f"looks/{self.place(pair)}/{PAIR}")
        name = f"measure-{self.place(pair).replace('/', '-')}"
        return Stage(name, self._inputs(pair), outputs, ("rows",), VERSIONS["measure"])

    def look(self, pair: Pair, lens: LensConfig) -> Stage:
        """Return the stage of one lens on one pair."""
        inputs = {**self._inputs(pair), "lens": lens.lens, "options": dict(lens.options)}
        if isinstance(lens.options.get("models"), Mapping):
            inputs["models"] = {
                name: self._digest(str(path)) for name, path in lens.options["models"].items()
            }
        if lens.lens in ("steps", "watch") and pair.tuned.steps is not None:
            steps = sorted(Path(pair.tuned.steps).glob("checkpoint-*"))
            inputs["steps"] = {path.name: self._digest(str(path)) for path in steps}
        before = ("rows", self.measure(pair).name)
        name = f"look-{self.place(pair).replace('/', '-')}-{lens.lens}"
        beside = (self.part(pair, "bench"),) if lens.lens == "ablation" else ()  # for the report's bench
        return Stage(name, inputs, (self.part(pair, lens.lens),), before, VERSIONS["look"], beside)

    def across(self, arm: str, pairs: Sequence[Pair], lens: LensConfig) -> Stage | None:
        """Return the stage that compares an arm's seeds through one lens; None where none is."""
        if len(pairs) < 2 or self.speaks or LENSES[lens.lens].across_seeds is None:
            return None
        before = tuple(self.look(pair, lens).name for pair in pairs)
        inputs = {
            "lens": lens.lens,
            "options": dict(lens.options),
            "seeds": [one.tuned.seed for one in pairs],
        }
        return Stage(f"across-{arm}-{lens.lens}", inputs, (f"looks/{arm}/across-seeds/{lens.lens}",), before)

    def _inputs(self, pair: Pair) -> dict[str, Any]:
        return {
            "base": pair.base, "base_files": self._digest(pair.base), "tuned": pair.tuned.path,
            "tuned_files": self._digest(pair.tuned.path), "seed": pair.tuned.seed, "base_head": self.base_head,
            "label_map": dict(self.request.label_map), "max_length": self.request.data.max_length,
            "sampling_seed": self.request.seed,
        }  # fmt: skip

    def _digest(self, path: str) -> str | None:
        if path not in self._digests:
            self._digests[path] = model_digest(path)
        return self._digests[path]
