"""The stages of a study: what each depends on, what it writes, and in which order they come."""

from __future__ import annotations

from collections.abc import Iterator

from tunescope.config import ArmConfig, LensConfig, StudyConfig
from tunescope.runs import Decision, Stage
from tunescope.study.context import ROWS, Context, stage_name
from tunescope.study.inputs import base_inputs, data_digests, planted_name, scratch_key

# Raised by whoever changes what the code of a stage computes.
VERSIONS = {
    "data": 1, "scratch": 1, "summary": 1, "train": 1, "evaluate": 1, "look": 1, "results": 1, "report": 1,
}  # fmt: skip


def declare(context: Context) -> list[Stage]:
    """Declare every stage of the study to the run folder; return them in order."""
    stages = list(_stages(context))
    context.run.declare(stages)
    return stages


def _stages(context: Context) -> Iterator[Stage]:
    study = context.study
    yield _data(study)
    scratch = {}
    for arm in study.arms:
        if arm.scratch is not None and scratch_key(study, arm.scratch) not in scratch:
            scratch[scratch_key(study, arm.scratch)] = _scratch(study, arm)
    yield from scratch.values()
    yield _summary(study)
    looks: list[str] = []
    for arm in study.arms:
        for seed in study.seeds:
            train, evaluate = _train(study, arm, seed), _evaluate(study, arm, seed)
            yield train
            yield evaluate
            for lens in study.lenses:
                stage = look_stage(study, arm, seed, lens)
                looks.append(stage.name)
                yield stage
    if looks:
        names = {"lenses": [lens.lens for lens in study.lenses]}
        yield Stage("results", names, ("results", "findings.json"), tuple(looks), VERSIONS["results"])
    trained = [(arm, seed) for arm in study.arms for seed in study.seeds]
    before = tuple(stage_name(kind, *one) for one in trained for kind in ("train", "evaluate"))
    about = {"name": study.name, "question": study.question}
    before = ("data", "summary", *before, *(("results",) if looks else ()))
    yield Stage("report", about, ("report.html",), before, VERSIONS["report"])


def _data(study: StudyConfig) -> Stage:
    inputs = {"data": study.data.model_dump(exclude={"max_length"}), "files": data_digests(study.data.path)}
    planted = ("data/planted",) if planted_name(study) is not None else ()
    return Stage("data", inputs, (ROWS, f"{ROWS}.json", *planted), version=VERSIONS["data"])


def scratch_stage_name(study: StudyConfig, arm: ArmConfig) -> str | None:
    """Return the name of the stage that trains an arm's base model from nothing, or None."""
    return None if arm.scratch is None else f"scratch-{scratch_key(study, arm.scratch)}"


def _scratch(study: StudyConfig, arm: ArmConfig) -> Stage:
    assert arm.scratch is not None
    key = scratch_key(study, arm.scratch)
    inputs = {"scratch": arm.scratch.model_dump(), "seed": study.seeds[0]}
    after = ("data",) if arm.scratch.corpus is None else ()
    return Stage(f"scratch-{key}", inputs, (f"scratch/{key}/model",), after, VERSIONS["scratch"])


def _bases(study: StudyConfig, arm: ArmConfig) -> tuple[str, ...]:
    scratch = scratch_stage_name(study, arm)
    return ("data",) if scratch is None else ("data", scratch)


def _summary(study: StudyConfig) -> Stage:
    inputs = {arm.name: base_inputs(study, arm) for arm in study.arms}
    after = tuple(dict.fromkeys(name for arm in study.arms for name in _bases(study, arm)))
    return Stage("summary", inputs, ("data/summary.json",), after, VERSIONS["summary"])


def _train(study: StudyConfig, arm: ArmConfig, seed: int) -> Stage:
    inputs = {
        **base_inputs(study, arm),
        "method": arm.method,
        "options": arm.options,
        "training": study.training_of(arm),
        "seed": seed,
    }
    folder = f"arms/{arm.name}/seed-{seed}"
    outputs = (f"{folder}/model", f"{folder}/log.jsonl")
    return Stage(stage_name("train", arm, seed), inputs, outputs, _bases(study, arm), VERSIONS["train"])


def _evaluate(study: StudyConfig, arm: ArmConfig, seed: int) -> Stage:
    folder = f"arms/{arm.name}/seed-{seed}"
    return Stage(
        stage_name("evaluate", arm, seed),
        {"model": arm.model, "method": arm.method},
        (f"{folder}/metrics.json", f"{folder}/predictions.parquet"),
        ("data", stage_name("train", arm, seed)),
        VERSIONS["evaluate"],
    )


def part_folder(arm: ArmConfig, seed: int, lens: str) -> str:
    """Return where one lens's view of one training lies, relative to the run folder."""
    return f"looks/{arm.name}/seed-{seed}/{lens}"


def look_stage(study: StudyConfig, arm: ArmConfig, seed: int, lens: LensConfig) -> Stage:
    """Return the stage of one lens on one training."""
    part = part_folder(arm, seed, lens.lens)
    inputs = {"lens": lens.lens, "options": lens.options, "base_head": arm.base_head}
    after = (*_bases(study, arm), stage_name("train", arm, seed), stage_name("evaluate", arm, seed))
    return Stage(stage_name("look", arm, seed, lens.lens), inputs, (part,), after, VERSIONS["look"])


def of_training(name: str, arm: ArmConfig, seed: int) -> bool:
    """Whether a stage's name is that of a stage of one training."""
    kinds = [stage_name(kind, arm, seed) for kind in ("train", "evaluate")]
    return name in kinds or name.startswith(f"{stage_name('look', arm, seed)}-")


def announce(plan: list[Decision], context: Context) -> None:
    """Say before anything starts what will be done, what is left alone, and why."""
    todo = [decision for decision in plan if not decision.fresh]
    say = context.progress.say
    if not todo:
        say(f"{context.path}: all {len(plan)} stages are done and undamaged; nothing to do.")
        return
    again = [one for one in todo if one.reasons != ("not done yet",)]
    fresh = len(plan) - len(todo)
    if not again:
        rest = f", {fresh} of {len(plan)} are done" if fresh else ""
        say(f"{context.path}: {len(todo)} stages to do{rest}.")
        return
    say(f"{context.path}: {fresh} of {len(plan)} stages stay as they are; {len(todo)} to do. Again, because:")
    for decision in again:
        say(f"  {decision.stage.name}: {'; '.join(decision.reasons)}")
