"""The stages of a study: what each depends on, what it writes, and in which order they come.

Where a study has grids, the trials are measured on validation rows first. Only then is it known which of them
are evaluated on all splits and looked into, so the stages after the choice are declared in a second step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunescope.config import ArmConfig, LensConfig, StudyConfig
from tunescope.fingerprints import data_digests, model_digest
from tunescope.lenses import LENSES
from tunescope.runs import Decision, RunFolder, Stage
from tunescope.study.context import GRIDS, ROWS, Context, is_prompted, stage_name
from tunescope.study.inputs import (
    base_inputs,
    behaviour_inputs,
    elsewhere_digests,
    planted_name,
    scratch_key,
)

# Raised by whoever changes what the code of a stage computes.
VERSIONS = {
    "data": 3, "audit": 2, "scratch": 2, "summary": 2, "baselines": 2, "train": 2, "trial": 1, "grids": 1,
    "evaluate": 2, "elsewhere": 1, "look": 6, "across": 1, "behaviour": 3, "results": 2,
    "comparison": 4, "expect": 1, "report": 3,
}  # fmt: skip

BENCH = "bench"  # folder of the row that the report's bench shows, and of the base's fitted head

# Training fields that change no weight: changed alone, they train nothing again.
BESIDE = ("report_to", "save_total_limit")
BESIDE_PREFIX = "logging_"


def declare(context: Context) -> bool:
    """Declare the stages of the study to the run folder, as far as they are known, in order.

    Returns:
        Whether all are declared: not before the trials of the study's grids are measured.
    """
    context.run.stages.clear()
    if context.study.task == "summarise":
        from tunescope.study.summary_stages import summary_stages  # it builds on this module

        context.run.declare(summary_stages(context.study))
        return True
    context.run.declare(_first(context.study))
    if "grids" not in context.run.stages:
        context.run.declare(_second(context.study, context.study.arms))
        return True
    if context.run.decide(context.run.stages["grids"]).fresh:
        declare_chosen(context)
        return True
    return False


def declare_chosen(context: Context) -> None:
    """Declare the stages of the trials that were chosen, and all that comes after the grids."""
    first = {stage.name for stage in _first(context.study)}
    for name in [name for name in context.run.stages if name not in first]:
        del context.run.stages[name]
    context.run.declare(_second(context.study, context.chosen()))


def _first(study: StudyConfig) -> Iterator[Stage]:
    """Up to the choice among trials; without grids, up to the evaluation of every arm."""
    yield _data(study)
    if study.audit:
        yield _audit(study)
    scratch = {}
    for arm in study.arms:
        if arm.scratch is not None and scratch_key(study, arm.scratch) not in scratch:
            scratch[scratch_key(study, arm.scratch)] = _scratch(study, arm)
    yield from scratch.values()
    yield _summary(study)
    yield _baselines(study)
    trials = []
    for arm in study.arms:
        for seed in study.seeds:
            yield _train(study, arm, seed)
            if arm.grid is None:
                yield _evaluate(study, arm, seed)
            else:
                trials.append(_trial(arm, seed))
                yield trials[-1]
    if trials:
        inputs = {
            "selection": study.selection.model_dump(exclude={"most_trainings"}),
            "trials": {arm.name: arm.point for arm in study.arms if arm.grid is not None},
        }
        yield Stage("grids", inputs, (GRIDS,), tuple(one.name for one in trials), VERSIONS["grids"])


def _second(study: StudyConfig, arms: Sequence[ArmConfig]) -> Iterator[Stage]:
    """After the choice: ``arms`` are those that are shown."""
    runs = [(arm, seed) for arm in arms for seed in study.seeds]
    for arm, seed in runs:
        if arm.grid is not None:
            yield _evaluate(study, arm, seed)
    measured = tuple(stage_name("evaluate", arm, seed) for arm, seed in runs)
    last = ["data", "summary", "baselines", *(["audit"] if study.audit else []), *measured]
    if any(arm.grid for arm in arms):
        last.append("grids")
    if study.elsewhere is not None:
        trained = tuple(stage_name("train", arm, seed) for arm, seed in runs)
        inputs = {
            "elsewhere": study.elsewhere.model_dump(mode="json"),
            "files": elsewhere_digests(study.elsewhere),
        }
        yield Stage("elsewhere", inputs, ("elsewhere.json",), ("data", *trained), VERSIONS["elsewhere"])
        last.append("elsewhere")
    looks = []
    for arm, seed in runs:
        for lens in study.lenses if not is_prompted(arm) else ():
            stage = look_stage(study, arm, seed, lens)
            looks.append(stage.name)
            yield stage
    if study.behaviour is not None:
        own = [behaviour_stage(study, arm, seed) for arm, seed in runs if not is_prompted(arm)]
        looks += [stage.name for stage in own]
        yield from own
    across = [
        one for arm in arms for lens in study.lenses if (one := across_stage(study, arm, lens)) is not None
    ]
    looks += [stage.name for stage in across]
    yield from across
    compare = {"compare": study.compare.model_dump(), "arms": [arm.name for arm in arms]}
    yield Stage(
        "comparison", compare, ("comparison.json",), ("data", "baselines", *measured), VERSIONS["comparison"]
    )
    last.append("comparison")
    if looks or study.claims:
        names: dict[str, Any] = {"lenses": [lens.lens for lens in study.lenses]}
        names |= {"behaviour": ["behaviour"]} if study.behaviour is not None else {}
        names |= claim_inputs(study)
        before = ("baselines", *measured, "comparison") if study.claims else ()
        yield Stage("results", names, ("results", "findings.json"), (*looks, *before), VERSIONS["results"])
        last.append("results")
    if study.expect:
        rules = {"expect": [rule.model_dump(mode="json") for rule in study.expect]}
        yield Stage("expect", rules, ("expect.json",), tuple(last), VERSIONS["expect"])
        last.append("expect")
    about = {"name": study.name, "question": study.question}
    drawn = [f"{lens.lens}.html" for lens in study.lenses if looks and lens.lens in ("maps", "steps")]
    pages = ("report.html", *drawn)
    yield Stage("report", about, pages, tuple(last), VERSIONS["report"])


def claim_inputs(study: StudyConfig) -> dict[str, Any]:
    """Return the claims as what verdicts depend on; nothing where there are none."""
    return {"claims": [one.model_dump(mode="json") for one in study.claims]} if study.claims else {}


def data_inputs(study: StudyConfig, *beside: str) -> dict[str, Any]:
    """Return the data section as what rows depend on, without the keys ``beside``."""
    data = study.data.model_dump(mode="json", exclude=set(beside))
    if not data["repeats_cross_splits"]:  # runs from before it was an option stay as they are
        del data["repeats_cross_splits"]
    return data


def _data(study: StudyConfig) -> Stage:
    data = data_inputs(study, "max_length", "window", "summary")
    inputs = {"data": data, "files": data_digests(study.data.path)}
    planted = ("data/planted",) if planted_name(study) is not None else ()
    return Stage("data", inputs, (ROWS, f"{ROWS}.json", *planted), version=VERSIONS["data"])


def audited_arm(study: StudyConfig) -> ArmConfig | None:
    """Return the first arm whose tokenizer the audit counts with: that of a model that is not made here."""
    return next((arm for arm in study.arms if arm.scratch is None), None)


def _audit(study: StudyConfig) -> Stage:
    arm = audited_arm(study)
    inputs = {"max_length": study.data.max_length, "base": None if arm is None else base_inputs(study, arm)}
    return Stage("audit", inputs, ("data/audit.json",), ("data",), VERSIONS["audit"])


def scratch_stage_name(study: StudyConfig, arm: ArmConfig) -> str | None:
    """Return the name of the stage that trains an arm's base model from nothing, or None."""
    return None if arm.scratch is None else f"scratch-{scratch_key(study, arm.scratch)}"


def _scratch(study: StudyConfig, arm: ArmConfig) -> Stage:
    assert arm.scratch is not None
    key = scratch_key(study, arm.scratch)
    inputs = {"scratch": arm.scratch.model_dump(mode="json"), "seed": study.seeds[0]}
    return Stage(f"scratch-{key}", inputs, (f"scratch/{key}/model",), ("data",), VERSIONS["scratch"])


def _bases(study: StudyConfig, arm: ArmConfig) -> tuple[str, ...]:
    scratch = scratch_stage_name(study, arm)
    return ("data",) if scratch is None else ("data", scratch)


def _of_bases(study: StudyConfig, arms: Sequence[ArmConfig]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("data", *(name for arm in arms for name in _bases(study, arm)))))


def _summary(study: StudyConfig) -> Stage:
    arms = [arm for arm in study.arms if not is_prompted(arm)]
    inputs = {arm.name: base_inputs(study, arm) for arm in arms}
    return Stage("summary", inputs, ("data/summary.json",), _of_bases(study, arms), VERSIONS["summary"])


def probed_arms(study: StudyConfig) -> list[ArmConfig]:
    """Return one arm for each base model whose frozen features make a baseline, in order.

    Bases that a grid varies are no baselines: there would be one for each trial.
    """
    found: dict[str, ArmConfig] = {}
    for arm in study.arms:
        varied = any(key == "model" or key.startswith("scratch.") for key in arm.point)
        if not varied and not is_prompted(arm):
            base = arm.model if arm.scratch is None else f"scratch-{scratch_key(study, arm.scratch)}"
            found.setdefault(f"{base}@{arm.revision}", arm)
    return list(found.values())


def _baselines(study: StudyConfig) -> Stage:
    arms = probed_arms(study)
    inputs = {"bases": [base_inputs(study, arm) for arm in arms], "group_by": study.data.group_by}
    outputs = ("baselines", "data/cross_validation.json")
    before = (*_of_bases(study, arms), *(["audit"] if study.audit else []))
    return Stage("baselines", inputs, outputs, before, VERSIONS["baselines"])


def _train(study: StudyConfig, arm: ArmConfig, seed: int) -> Stage:
    inputs = {
        **base_inputs(study, arm),
        "method": arm.method,
        "options": arm.options,
        "training": {} if is_prompted(arm) else fitted(study.training_of(arm)),
        "head": arm.head,
        "train_share": arm.train_share,
        "seed": seed,
    }
    folder = f"arms/{arm.name}/seed-{seed}"
    outputs = [f"{folder}/model", f"{folder}/parameters.json"]
    if not is_prompted(arm):
        outputs.append(f"{folder}/log.jsonl")
    beside = (f"{folder}/tensorboard",)
    name = stage_name("train", arm, seed)
    return Stage(name, inputs, tuple(outputs), _bases(study, arm), VERSIONS["train"], beside)


def fitted(training: dict[str, Any]) -> dict[str, Any]:
    """Return the training fields that a tuned model depends on: not where it reports to, or what it keeps."""
    return {
        name: value
        for name, value in training.items()
        if name not in BESIDE and not name.startswith(BESIDE_PREFIX)
    }


def _trial(arm: ArmConfig, seed: int) -> Stage:
    """A trial of a grid on validation rows alone; nothing is measured on test rows before the choice."""
    outputs = (f"arms/{arm.name}/seed-{seed}/trial.json",)
    before = ("data", stage_name("train", arm, seed))
    return Stage(stage_name("trial", arm, seed), {"point": arm.point}, outputs, before, VERSIONS["trial"])


def _evaluate(study: StudyConfig, arm: ArmConfig, seed: int) -> Stage:
    folder = f"arms/{arm.name}/seed-{seed}"
    inputs: dict[str, Any] = {"model": arm.model, "method": arm.method, "group_by": study.data.group_by}
    inputs |= {"note": arm.note} if arm.note else {}
    inputs |= {"prior": study.prior} if study.prior is not None else {}
    return Stage(
        stage_name("evaluate", arm, seed),
        inputs,
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
    inputs: dict[str, Any] = {"lens": lens.lens, "options": lens.options, "base_head": arm.base_head}
    if isinstance(lens.options.get("models"), Mapping):  # models from elsewhere that the lens reads
        inputs["models"] = {name: model_digest(str(path)) for name, path in lens.options["models"].items()}
    after = (*_bases(study, arm), stage_name("train", arm, seed), stage_name("evaluate", arm, seed))
    # The bench needs what ablation loads; where a model has no bench, there is no such folder.
    beside = (part_folder(arm, seed, BENCH),) if lens.lens == "ablation" else ()
    return Stage(stage_name("look", arm, seed, lens.lens), inputs, (part,), after, VERSIONS["look"], beside)


def across_folder(arm: ArmConfig, lens: str) -> str:
    """Return where one lens's comparison of an arm's seeds lies, relative to the run folder."""
    return f"looks/{arm.name}/across-seeds/{lens}"


def across_stage(study: StudyConfig, arm: ArmConfig, lens: LensConfig) -> Stage | None:
    """Return the stage that compares an arm's seeds through one lens, after all were looked at; None where none is."""
    several = len(study.seeds) > 1 and study.task == "classify"
    if is_prompted(arm) or not several or LENSES[lens.lens].across_seeds is None:
        return None
    before = tuple(look_stage(study, arm, seed, lens).name for seed in study.seeds)
    trained = tuple(stage_name("train", arm, seed) for seed in study.seeds)
    inputs = {"lens": lens.lens, "options": lens.options, "seeds": study.seeds}
    outputs = (across_folder(arm, lens.lens),)
    name = f"across-{arm.name}-{lens.lens}"
    return Stage(name, inputs, outputs, (*before, *trained), VERSIONS["across"])


def behaviour_stage(study: StudyConfig, arm: ArmConfig, seed: int) -> Stage:
    """Return the stage that tests the behaviour of one training."""
    inputs = {**behaviour_inputs(study), "base_head": arm.base_head}
    after = (*_bases(study, arm), stage_name("train", arm, seed), stage_name("evaluate", arm, seed))
    part = (part_folder(arm, seed, "behaviour"),)
    return Stage(stage_name("behaviour", arm, seed), inputs, part, after, VERSIONS["behaviour"])


def of_training(run: RunFolder, arm: ArmConfig, seed: int) -> list[Stage]:
    """Return the declared stages that train and measure one arm with one seed."""
    names = [stage_name(kind, arm, seed) for kind in ("train", "trial", "evaluate")]
    return [run.stages[name] for name in names if name in run.stages]


def announce(plan: list[Decision], context: Context, complete: bool) -> None:
    """Say before anything starts what will be done, what is left alone, and why."""
    todo = [decision for decision in plan if not decision.fresh]
    say = context.progress.say
    if not todo:
        say(f"{context.path}: all {len(plan)} stages are done and undamaged; nothing to do.")
        return
    again = [one for one in todo if one.reasons != ("not done yet",)]
    fresh = len(plan) - len(todo)
    later = "" if complete else ", and those of the trials that will be chosen"
    if not again:
        rest = f", {fresh} of {len(plan)} are done" if fresh else ""
        say(f"{context.path}: {len(todo)} stages to do{rest}{later}.")
        return
    say(
        f"{context.path}: {fresh} of {len(plan)} stages stay as they are; {len(todo)} to do{later}. "
        "Again, because:"
    )
    for decision in again:
        say(f"  {decision.stage.name}: {'; '.join(decision.reasons)}")
