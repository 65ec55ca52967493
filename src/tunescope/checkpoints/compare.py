"""Two checkpoints, or more: what did tuning change inside? The same look that a study takes at its arms."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from tunescope.checkpoints.measure import measure_pair
from tunescope.checkpoints.outcome import Outcome, say_stages, write_outcome
from tunescope.checkpoints.pair import PairLoader
from tunescope.checkpoints.plan import PAIR, ROWS, Plan
from tunescope.checkpoints.request import CompareRequest
from tunescope.checkpoints.rows import rows_for
from tunescope.checkpoints.usual import usual_lenses
from tunescope.config import LensConfig
from tunescope.data.rows import Rows
from tunescope.device import resolve_device
from tunescope.environment import environment
from tunescope.errors import LensError, ModelError
from tunescope.files import read_json, write_json
from tunescope.folders import disk_errors, sweep, whole_folder
from tunescope.foreign import Kind, Pair, Pairs, kind_of, pairs_of
from tunescope.lenses import LENSES, LensOutput, ReadLens, SeveralSeeds, Subject, look
from tunescope.lenses.bench import can_bench, write_bench
from tunescope.lenses.bench.bench import REFERENCE_ROWS
from tunescope.lenses.suitable import require_same_tokens, why_not
from tunescope.progress import SILENT, Progress
from tunescope.runs import RunFolder, Stage
from tunescope.stats.results import joined_tables


def compare_folders(request: CompareRequest, progress: Progress = SILENT) -> Path:
    """Compare checkpoints, write the run folder and its report, and return the folder.

    What an interrupted or earlier call finished there, and still holds, is left alone. A lens that cannot look at a
    pair is left out with its reason; the others go on.

    Raises:
        DataError: The rows cannot be read.
        ModelError: A checkpoint cannot be used, or its labels cannot be aligned by name.
        LensError: No lens can give a true answer for these models.
        RunError: The folder is in use or cannot be written.
    """
    pairs = pairs_of(request.base, request.tuned)
    kind = _kind(pairs)
    head = request.base_head or ("own" if pairs.bases_of_run else "probe")
    usual = usual_lenses(pairs.pairs[0].tuned.path) if request.lenses is None else None
    wanted = usual.lenses if usual is not None else tuple(request.lenses or ())
    plan = Plan(request, pairs, kind, head, wanted, usual.notes if usual is not None else ())
    run = RunFolder(request.folder)
    with run.locked(), disk_errors(run.path):
        sweep(run.path)
        _Comparing(plan, run, progress).work()
    return run.path


def _kind(pairs: Pairs) -> Kind:
    """Return what the tuned models are.

    Raises:
        ModelError: They are of several kinds.
    """
    kinds = {pair.tuned.path: kind_of(pair.tuned.path) for pair in pairs.pairs}
    first, kind = next(iter(kinds.items()))
    for path, other in kinds.items():
        if other != kind:
            raise ModelError(
                f"{first} is a {kind} and {path} is a {other}; one comparison looks at one kind.",
                hint="Compare them in two runs.",
            )
    return kind


@dataclass
class _Comparing:
    """One call: what is known while the stages run."""

    plan: Plan
    run: RunFolder
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)

    def work(self) -> None:
        """Do the stages that are not fresh, and say where the time went."""
        plan, run = self.plan, self.run
        self.device = resolve_device(plan.request.device)
        run.declare(plan.stages())
        todo = [one for one in run.plan() if not one.fresh]
        done = len(run.stages) - len(todo)
        self._announce(len(todo), done)
        self._timed(plan.rows(), self._rows)
        rows = Rows.load(run.path / ROWS)
        self.loader = PairLoader(plan.request, rows, self.device, plan.kind, plan.base_head, self.progress)
        for pair in plan.pairs.pairs:
            self._look_at(pair)
        for arm, pairs in plan.arms().items():
            self._across(arm, pairs)
        for name in run.set_aside():
            self.progress.say(f"  {name} is no longer part of the comparison: moved to set-aside/")
        outcome = Outcome(plan, run, rows, self.seconds, self.start)
        self._timed(run.stages["results"], outcome.merge)
        run.do(run.stages["report"], partial(self._report, outcome), self.progress)
        say_stages(outcome, self.progress)

    def _announce(self, todo: int, done: int) -> None:
        if done:
            self.progress.say(
                f"{self.run.path}: {done} of {todo + done} stages are done and undamaged; {todo} to do."
            )
            for name in self.run.bring_back():
                self.progress.say(f"  {name} is part of the comparison again: brought back from set-aside/")

    def _rows(self) -> None:
        request = self.plan.request
        rows_for(request.data, self.plan.speaks, request.seed, self.progress).save(self.run.path / ROWS)

    def _report(self, outcome: Outcome) -> None:
        write_json(self.run.path / "environment.json", environment(device=str(self.device)))
        write_outcome(outcome)

    def _timed(self, stage: Stage, work: Any) -> None:
        start = time.monotonic()
        if self.run.do(stage, work, self.progress):
            self.seconds[stage.name] = time.monotonic() - start

    # ---- one pair ----

    def _look_at(self, pair: Pair) -> None:
        """Measure a pair and look at it through every lens whose part is not fresh; it is loaded at most once."""
        run, plan = self.run, self.plan
        wanted = {lens.lens: (lens, plan.look(pair, lens)) for lens in plan.lenses(pair)}
        measured = plan.measure(pair)
        stale = {name: both for name, both in wanted.items() if not run.decide(both[1]).fresh}
        if run.decide(measured).fresh and not stale:
            return
        start = time.monotonic()
        subject = self.loader.load(pair)
        if plan.speaks:
            require_same_tokens(subject)
        subject.unfinished = run.path / f"unfinished-{self.plan.place(pair).replace('/', '-')}"
        self.seconds[f"load {pair.name}"] = time.monotonic() - start
        self._timed(measured, partial(self._measure, subject, pair))
        subject.learned = read_json(run.path / f"looks/{plan.place(pair)}/{PAIR}")["learned"]
        # What an earlier part of this pair's measuring changed may make more parts stale.
        stale = {name: both for name, both in wanted.items() if not run.decide(both[1]).fresh}
        able = []
        for name, (lens, stage) in stale.items():
            why = why_not(subject, name, LENSES[name].two_stacks)
            if why is None:
                able.append(lens)
            else:
                self._refuse(pair, name, stage, why)
        reading = [lens for lens in able if isinstance(LENSES[lens.lens], ReadLens)]
        for group in [reading, *([lens] for lens in able if lens not in reading)]:
            if group:
                self._look(subject, pair, group)

    def _measure(self, subject: Subject, pair: Pair) -> None:
        folder = self.run.path / self.plan.arm_folder(pair)
        found = measure_pair(subject, pair, folder, self.progress)
        write_json(self.run.path / f"looks/{self.plan.place(pair)}/{PAIR}", found)

    def _look(self, subject: Subject, pair: Pair, lenses: list[LensConfig]) -> None:
        """Look through lenses that share a pass; where one of them cannot, each looks alone."""
        stages = {lens.lens: self.plan.look(pair, lens) for lens in lenses}
        for stage in stages.values():
            self.run.begin(stage)
        start = time.monotonic()
        try:
            outputs = look(subject, [(lens.lens, lens.options) for lens in lenses], LENSES)
        except LensError as error:
            if len(lenses) == 1:
                self._refuse(pair, lenses[0].lens, stages[lenses[0].lens], error.message)
                return
            for lens in lenses:
                self._look(subject, pair, [lens])
            return
        for output in outputs:
            with whole_folder(self.run.path / self.plan.part(pair, output.lens)) as folder:
                output.save_part(folder)
        options = next((lens.options for lens in lenses if lens.lens == "ablation"), None)
        if options is not None and can_bench(subject):
            with whole_folder(self.run.path / self.plan.part(pair, "bench")) as folder:
                rows = int(options.get("reference_rows", REFERENCE_ROWS))
                first = next(one for one in self.plan.pairs.pairs if one.tuned.arm == pair.tuned.arm)
                write_bench(subject, folder, rows, with_row=pair is first)
        seconds = time.monotonic() - start
        for stage in stages.values():
            self.run.finish(stage, {"seconds": round(seconds, 3), "together": list(stages)})
        self.seconds[f"{pair.name}: {', '.join(stages)}"] = seconds

    def _refuse(self, pair: Pair, lens: str, stage: Stage, why: str) -> None:
        """Write down in a part without rows why a lens is left out."""
        self.progress.say(f"  {pair.name}: the lens {lens} is left out: {why}")
        self.run.begin(stage)
        with whole_folder(self.run.path / self.plan.part(pair, lens)) as folder:
            LensOutput(lens, pl.DataFrame(), None, [], {"notes": [], "refused": why}).save_part(folder)
        self.run.finish(stage)

    # ---- the seeds of an arm ----

    def _across(self, arm: str, pairs: list[Pair]) -> None:
        for lens in self.plan.wanted:
            stage = self.plan.across(arm, pairs, lens)
            if stage is not None:
                self._timed(stage, partial(self._compare_seeds, arm, pairs, lens, stage))

    def _compare_seeds(self, arm: str, pairs: list[Pair], lens: LensConfig, stage: Stage) -> None:
        parts = [
            LensOutput.load_part(self.run.path / self.plan.part(pair, lens.lens), lens.lens) for pair in pairs
        ]
        output = None
        if not any("refused" in part.provenance for part in parts):
            by_seed = {pair.tuned.seed or 0: pair for pair in pairs}
            loader = replace(self.loader, base_head="none", _bases={}, _probes={})
            examples = [part.examples for part in parts if part.examples is not None]
            subjects = SeveralSeeds(
                arm,
                list(by_seed),
                lambda seed: loader.load(by_seed[seed]),
                joined_tables(part.table for part in parts),
                pl.concat(examples) if examples else None,
            )
            kind = LENSES[lens.lens]
            assert kind.across_seeds is not None
            output = kind.across_seeds(subjects, kind.options.model_validate(dict(lens.options)))
        with whole_folder(self.run.path / stage.outputs[0]) as folder:
            (output or LensOutput(lens.lens, pl.DataFrame(), None, [], {"notes": []})).save_part(folder)
