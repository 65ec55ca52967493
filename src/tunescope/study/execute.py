"""Running the stages of a study in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tunescope.config import ArmConfig, StudyConfig, dump_study
from tunescope.device import resolve_device
from tunescope.environment import environment
from tunescope.errors import Interrupted
from tunescope.files import write_atomic, write_json
from tunescope.folders import disk_errors, sweep
from tunescope.models.source import quiet_transformers
from tunescope.progress import Progress
from tunescope.report import write_report
from tunescope.runs import Decision, RunFolder, Stage
from tunescope.study import look, work
from tunescope.study.context import Context, stage_name
from tunescope.study.stages import announce, declare, look_stage, of_training, scratch_stage_name

Work = Callable[[], Mapping[str, Any] | None]


@dataclass(frozen=True)
class RunOptions:
    """How a study is run: on which device, from which file, and whether checkpoints stay."""

    device: str = "auto"
    source: Path | None = None
    keep_checkpoints: bool = False


def run_stages(study: StudyConfig, folder: Path, options: RunOptions, progress: Progress) -> Path:
    """Do what :func:`tunescope.study.run` says."""
    device = resolve_device(options.device)
    run = RunFolder(Path(folder))
    with run.locked():
        context = Context(study, run, device, progress, options.keep_checkpoints)
        try:
            with disk_errors(run.path):
                sweep(run.path)
                stages = {stage.name: stage for stage in declare(context)}
                _settle(context)
            plan = run.plan()
            announce(plan, context)
            with disk_errors(run.path):
                _write_head(context, options.source, plan)
            with quiet_transformers():
                _do(context, stages)
        except KeyboardInterrupt as error:
            raise Interrupted(
                "Stopped by Ctrl-C; what was finished is kept.",
                hint="Run the same command again: it continues with what is missing.",
            ) from error
    return run.path


def _settle(context: Context) -> None:
    """Set aside what left the study, and bring back what returned to it."""
    for name in context.run.set_aside():
        context.progress.say(f"  {name} is no longer part of the study: moved to set-aside/")
    for name in context.run.bring_back():
        context.progress.say(f"  {name} is part of the study again: taken back from set-aside/")
    work.clear_scratch_work(context)


def _write_head(context: Context, source: Path | None, plan: list[Decision]) -> None:
    """Write the study as given and as resolved, and where it runs."""
    resolved = dump_study(context.study)
    given = resolved if source is None else source.read_text(encoding="utf-8")
    for name, text in (("study.yaml", given), ("study.resolved.yaml", resolved)):
        path = context.path / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomic(path, text)
    if any(not decision.fresh for decision in plan):
        write_json(context.path / "environment.json", environment(context.device))


def _do(context: Context, stages: Mapping[str, Stage]) -> None:
    """Do every stage that is not fresh, in order; the lenses of one training share their passes."""
    study, run = context.study, context.run
    run.do(stages["data"], partial(work.make_data, context), context.progress)
    for arm in study.arms:
        name = scratch_stage_name(study, arm)
        if name is not None:
            run.do(stages[name], partial(work.make_scratch, context, arm), context.progress)
    run.do(stages["summary"], partial(work.make_summary, context), context.progress)
    for arm in study.arms:
        for seed in study.seeds:
            if not all(run.decide(stages[name]).fresh for name in stages if of_training(name, arm, seed)):
                context.progress.say(f"{arm.name}, seed {seed}")
            stage = stages[stage_name("train", arm, seed)]
            run.do(stage, partial(work.make_training, context, arm, seed, stage), context.progress)
            stage = stages[stage_name("evaluate", arm, seed)]
            run.do(stage, partial(work.make_evaluation, context, arm, seed), context.progress)
            _lens_stage(context, arm, seed)
    if "results" in stages:
        run.do(stages["results"], partial(look.make_results, context), context.progress)
    run.do(stages["report"], partial(_report, context), context.progress)


def _lens_stage(context: Context, arm: ArmConfig, seed: int) -> None:
    """Look at one training through every lens whose part is not fresh, all in one call."""
    run = context.run
    wanted = {lens.lens: (lens, look_stage(context.study, arm, seed, lens)) for lens in context.study.lenses}
    stale = {name: pair for name, pair in wanted.items() if not run.decide(pair[1]).fresh}
    if not stale:
        return
    for _, stage in stale.values():
        run.begin(stage)
    with disk_errors(run.path):
        look.make_looks(context, arm, seed, [lens for lens, _ in stale.values()])
    for _, stage in stale.values():
        run.finish(stage)


def _report(context: Context) -> None:
    write_report(context.path)
