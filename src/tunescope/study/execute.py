"""Running the stages of a study in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunescope import processes
from tunescope.config import ArmConfig, StudyConfig, dump_study
from tunescope.device import resolve_device
from tunescope.environment import environment
from tunescope.errors import RunError
from tunescope.files import write_atomic, write_json
from tunescope.folders import disk_errors, sweep
from tunescope.models.source import quiet_transformers
from tunescope.models.store import ActivationStore
from tunescope.progress import Progress
from tunescope.report import write_report
from tunescope.runs import Decision, RunFolder, Stage
from tunescope.study import choose, evidence, look, work
from tunescope.study.check import check_elsewhere, check_rows, check_study
from tunescope.study.context import STORE, Context, is_prompted, stage_name
from tunescope.study.perform import perform
from tunescope.study.stages import (
    across_stage,
    announce,
    declare,
    declare_chosen,
    look_stage,
    of_training,
    scratch_stage_name,
)
from tunescope.study.unfinished import ending_cleanly, keep_half_finished


@dataclass(frozen=True)
class RunOptions:
    """How a study is run: on which device, from which file, and whether checkpoints stay.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        source: The study file, or None.
        keep_checkpoints: Leave the checkpoints of finished trainings in place.
        workers: Processes that train at the same time; None is one for each visible CUDA device.
        keep_store: Leave the activation store in place, for runs to come in this folder.
        restart: Train from the beginning what is half finished and belongs to another study or other data.
    """

    device: str = "auto"
    source: Path | None = None
    keep_checkpoints: bool = False
    workers: int | None = None
    keep_store: bool = False
    restart: bool = False


def run_stages(study: StudyConfig, folder: Path, options: RunOptions, progress: Progress) -> Path:
    """Do what :func:`tunescope.study.run` says."""
    check_study(study)
    device = resolve_device(options.device)
    _say_processes(progress)
    run = RunFolder(Path(folder))
    with run.locked():
        # These lenses look at what training saved on its way.
        keep = options.keep_checkpoints or any(lens.lens in ("steps", "watch") for lens in study.lenses)
        context = Context(study, run, device, progress, keep)
        with ending_cleanly():
            with disk_errors(run.path):
                sweep(run.path)
                complete = declare(context)
                keep_half_finished(context, options.restart)
                _settle(context, complete)
            plan = run.plan()
            announce(plan, context, complete)
            if any(not decision.fresh for decision in plan):
                for line in choose.say_trials(study):
                    progress.say(line)
            with disk_errors(run.path):
                _write_head(context, options.source, plan)
            with quiet_transformers():
                _do(context, options.workers, options.keep_store)
    return run.path


def _say_processes(progress: Progress) -> None:
    """Say what several processes share, and refuse where each would run the whole study by itself.

    Raises:
        RunError: A launcher started several processes of a program that calls this.
    """
    if processes.count() > 1:
        raise RunError(
            f"{processes.count()} processes were started, and each would run the whole study by itself.",
            hint="Under torchrun or accelerate launch use the command: -m tunescope run STUDY.",
        )
    team = processes.team()
    if team is not None:
        progress.say(
            f"{team.size} processes: the first one leads; predictions, features, reading passes, sweeps of ablations, "
            "written summaries and steps of several micro-batches are shared"
        )


def _settle(context: Context, complete: bool) -> None:
    """Set aside what left the study, and bring back what returned to it."""
    if complete:  # before that, a stage that is not declared may be declared later
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


def _do(context: Context, workers: int | None, keep_store: bool) -> None:
    """Do every stage that is not fresh, in order; the lenses of one training share their passes."""
    study, run, progress = context.study, context.run, context.progress

    def do(name: str, make: partial[None]) -> None:
        if name in run.stages:
            run.do(run.stages[name], make, progress)

    if study.task == "summarise":
        _do_summaries(context, workers)
        return
    do("data", partial(work.make_data, context))
    check_rows(study, context.rows())
    if not (context.path / "elsewhere.json").is_file():
        check_elsewhere(study, context.rows())
    do("audit", partial(evidence.make_audit, context))
    _train_all(context, _scratch_tasks(context), workers)
    do("summary", partial(work.make_summary, context))
    do("baselines", partial(evidence.make_baselines, context))
    _train_all(context, [(arm, seed) for arm in study.arms for seed in study.seeds], workers)
    if "grids" in run.stages:
        do("grids", partial(choose.make_grids, context))
        with disk_errors(run.path):
            declare_chosen(context)
            _settle(context, True)
        chosen = [arm for arm in context.chosen() if arm.grid is not None]
        _train_all(context, [(arm, seed) for arm in chosen for seed in study.seeds], workers)
    do("elsewhere", partial(evidence.make_elsewhere, context))
    for arm in context.chosen():
        for seed in study.seeds:
            _lens_stage(context, arm, seed)
            if not is_prompted(arm):
                do(stage_name("behaviour", arm, seed), partial(look.make_behaviour, context, arm, seed))
        _across_stages(context, arm)
    _end_store(context, keep_store)
    do("comparison", partial(evidence.make_comparison, context))
    do("results", partial(look.make_results, context))
    do("expect", partial(evidence.make_expect, context))
    do("report", partial(_report, context))


def _do_summaries(context: Context, workers: int | None) -> None:
    """Do every stage of a study that summarises that is not fresh, in order."""
    from tunescope.study import summarise, summary_evidence

    study, run = context.study, context.run

    def do(name: str, make: Callable[[Context], None]) -> None:
        if name in run.stages:
            run.do(run.stages[name], partial(make, context), context.progress)

    do("data", summarise.make_rows)
    summarise.check_pairs(study, context.rows())
    do("summary", summarise.make_counts)
    do("baselines", summary_evidence.make_baselines)
    _train_all(context, [(arm, seed) for arm in study.arms for seed in study.seeds], workers)
    for arm in study.arms:
        for seed in study.seeds:
            _lens_stage(context, arm, seed)
    do("comparison", summary_evidence.make_comparison)
    do("results", look.make_results)
    do("expect", evidence.make_expect)
    do("report", _report)


def _end_store(context: Context, keep: bool) -> None:
    """Say what the activation store holds, and remove it unless it is to stay."""
    store = ActivationStore(context.path / STORE)
    entries = store.entries()
    if entries:
        size = sum(entry.bytes for entry in entries) / 1e6
        count = f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}"
        done = "kept" if keep else "removed (--keep-store keeps them)"
        context.progress.say(f"  activation store: {count}, {size:,.1f} MB, {done}: {store.folder}")
    if not keep:
        store.evict()


def _scratch_tasks(context: Context) -> list[tuple[ArmConfig, None]]:
    """Return one arm for each model from nothing."""
    found: dict[str, ArmConfig] = {}
    for arm in context.study.arms:
        name = scratch_stage_name(context.study, arm)
        if name is not None:
            found.setdefault(name, arm)
    return [(arm, None) for arm in found.values()]


def _steps(context: Context, arm: ArmConfig, seed: int | None) -> list[tuple[str, Stage]]:
    """Return the stages of one training that are not fresh, each with its kind."""
    if seed is None:
        stages = [context.run.stages[str(scratch_stage_name(context.study, arm))]]
    else:
        stages = of_training(context.run, arm, seed)
    stale = [stage for stage in stages if not context.run.decide(stage).fresh]
    return [(stage.name.partition("-")[0], stage) for stage in stale]


def _train_all(context: Context, runs: Iterable[tuple[ArmConfig, int | None]], workers: int | None) -> None:
    """Train and measure what is not fresh: one after another, or in worker processes."""
    from tunescope.study import workers as pool

    todo = [(arm, seed) for arm, seed in runs if _steps(context, arm, seed)]
    where = pool.places(context.device, workers)
    if len(where) > 1 and len(todo) > 1:
        _train_apart(context, todo, where)
        todo = [(arm, seed) for arm, seed in todo if _steps(context, arm, seed)]  # a result may have changed
    for arm, seed in todo:
        context.progress.say(_title(arm, seed))
        for kind in ("scratch", "train", "trial", "evaluate"):
            for own, stage in _steps(context, arm, seed):
                if own == kind:
                    make = partial(perform, context, kind, arm, seed, stage)
                    context.run.do(stage, make, context.progress)


def _train_apart(context: Context, todo: list[tuple[ArmConfig, int | None]], where: list[str | None]) -> None:
    import torch

    from tunescope.study import workers as pool

    tasks = [
        pool.Task(_title(arm, seed), arm.name, seed, tuple(_steps(context, arm, seed))) for arm, seed in todo
    ]
    where = where[: len(tasks)]
    threads = max(1, torch.get_num_threads() // len(where))
    context.progress.say(
        f"{len(tasks)} trainings in {len(where)} processes of {threads} thread{'s' if threads > 1 else ''}"
    )
    order = pool.Order(context.study, context.path, context.device, context.keep_checkpoints, threads)
    with disk_errors(context.path):
        pool.run_tasks(context.run, tasks, order, where, context.progress)


def _title(arm: ArmConfig, seed: int | None) -> str:
    return f"{arm.name}, model from nothing" if seed is None else f"{arm.name}, seed {seed}"


def _lens_stage(context: Context, arm: ArmConfig, seed: int) -> None:
    """Look at one training through every lens whose part is not fresh, all in one call."""
    run = context.run
    if is_prompted(arm):
        if context.study.lenses and seed == context.study.seeds[0]:
            context.progress.say(
                f"{arm.name}: no lens looks at it: nothing was tuned, so base and tuned are one"
            )
        return
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


def _across_stages(context: Context, arm: ArmConfig) -> None:
    """Compare an arm's seeds through every lens that can, where one of them is new."""
    for lens in context.study.lenses:
        stage = across_stage(context.study, arm, lens)
        if stage is not None:
            context.run.do(stage, partial(look.make_across, context, arm, lens), context.progress)


def _report(context: Context) -> None:
    write_report(context.path)
