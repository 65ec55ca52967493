"""The stages of a study that summarises: what each depends on and writes, in order."""

from __future__ import annotations

from collections.abc import Iterator

from tunescope.config import ArmConfig, StudyConfig
from tunescope.fingerprints import data_digests, model_digest
from tunescope.runs import Stage
from tunescope.study.context import ROWS, is_prompted, stage_name
from tunescope.study.stages import VERSIONS, claim_inputs, data_inputs, fitted, look_stage

# Raised by whoever changes what the code of a stage computes.
OWN_VERSIONS = {"data": 1, "summary": 1, "baselines": 1, "train": 1, "evaluate": 1, "comparison": 2}

TRAINED_BY = ("max_tokens", "max_summary", "prompt", "before", "loss_on", "end_token", "cut")
COMPARISON = "summaries.json"


def summary_stages(study: StudyConfig) -> Iterator[Stage]:
    """Yield the stages in an order in which each comes after those it reads."""
    shared = study.summarise
    assert shared is not None
    data = data_inputs(study, "max_length", "window")
    inputs = {"data": data, "files": data_digests(study.data.path)}
    yield Stage("data", inputs, (ROWS, f"{ROWS}.json"), version=OWN_VERSIONS["data"])
    arms = {arm.name: {**base_of(arm), **trained_by(study, arm)} for arm in study.arms}
    yield Stage("summary", arms, ("data/summary.json",), ("data",), OWN_VERSIONS["summary"])
    last = ["data", "summary"]
    if shared.baselines:
        about = {"splits": shared.splits, "seed": study.seeds[0], **meteor_of(study)}
        yield Stage("baselines", about, ("baselines",), ("data",), OWN_VERSIONS["baselines"])
        last.append("baselines")
    runs = [(arm, seed) for arm in study.arms for seed in study.seeds]
    for arm, seed in runs:
        yield _train(study, arm, seed)
        yield _evaluate(study, arm, seed)
    measured = [stage_name("evaluate", arm, seed) for arm, seed in runs]
    looks = [
        look_stage(study, arm, seed, lens)
        for arm, seed in runs
        for lens in study.lenses
        if not is_prompted(arm)
    ]
    yield from looks
    before = ("data", *(["baselines"] if shared.baselines else []), *measured)
    names = {"arms": [arm.name for arm in study.arms], "seeds": study.seeds}
    yield Stage("comparison", names, (COMPARISON,), before, OWN_VERSIONS["comparison"])
    last += [*measured, "comparison"]
    if looks or study.claims:
        lenses = {"lenses": [lens.lens for lens in study.lenses], **claim_inputs(study)}
        after = tuple(stage.name for stage in looks)
        after += (*before, "comparison") if study.claims else ()
        yield Stage("results", lenses, ("results", "findings.json"), after, VERSIONS["results"])
        last.append("results")
    if study.expect:
        rules = {"expect": [rule.model_dump(mode="json") for rule in study.expect]}
        yield Stage("expect", rules, ("expect.json",), tuple(last), VERSIONS["expect"])
        last.append("expect")
    about_page = {"name": study.name, "question": study.question}
    yield Stage("report", about_page, ("report.html",), tuple(last), VERSIONS["report"])


def base_of(arm: ArmConfig) -> dict[str, object]:
    """Return what an arm's base model is."""
    return {"model": arm.model, "revision": arm.revision, "model_files": model_digest(arm.model)}


def trained_by(study: StudyConfig, arm: ArmConfig) -> dict[str, object]:
    """Return the fields of an arm's ``summarise`` that its tokens depend on."""
    chosen = study.summarise_of(arm).model_dump(mode="json")
    return {name: chosen[name] for name in TRAINED_BY}


def meteor_of(study: StudyConfig) -> dict[str, object]:
    """Return METEOR's variant where it is not the usual one."""
    variant = study.summarise.meteor if study.summarise is not None else "stem"
    return {} if variant == "stem" else {"meteor": variant}


def _train(study: StudyConfig, arm: ArmConfig, seed: int) -> Stage:
    inputs = {
        **base_of(arm), "method": arm.method, "options": arm.options, "seed": seed, "train_share": arm.train_share,
        "training": {} if is_prompted(arm) else fitted(study.training_of(arm)), **trained_by(study, arm),
    }  # fmt: skip
    folder = f"arms/{arm.name}/seed-{seed}"
    outputs = [f"{folder}/model", f"{folder}/parameters.json"]
    if not is_prompted(arm):
        outputs.append(f"{folder}/log.jsonl")
    name = stage_name("train", arm, seed)
    return Stage(name, inputs, tuple(outputs), ("data",), OWN_VERSIONS["train"], (f"{folder}/tensorboard",))


def _evaluate(study: StudyConfig, arm: ArmConfig, seed: int) -> Stage:
    folder = f"arms/{arm.name}/seed-{seed}"
    own = study.summarise_of(arm)
    generation = own.generation.model_dump(mode="json", exclude={"rows_at_once"})
    inputs = {"generation": generation, "splits": own.splits, **trained_by(study, arm), **meteor_of(study)}
    inputs |= {"note": arm.note} if arm.note else {}
    outputs = (f"{folder}/metrics.json", f"{folder}/predictions.parquet")
    before = ("data", stage_name("train", arm, seed))
    return Stage(stage_name("evaluate", arm, seed), inputs, outputs, before, OWN_VERSIONS["evaluate"])
