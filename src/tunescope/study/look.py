"""The lens step: every arm and seed, base against tuned, in parts that are merged into one table a lens."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from tunescope import __version__
from tunescope.capture.verify import verify
from tunescope.config import ArmConfig, LensConfig
from tunescope.environment import command_line
from tunescope.files import read_json, write_json
from tunescope.folders import whole_folder
from tunescope.lenses import LENSES, LensOutput, SeveralSeeds, Subject, look, save_outputs
from tunescope.lenses.claims.rules import Arm
from tunescope.lenses.claims.verdicts import claims
from tunescope.models import Classifier, fit_probe
from tunescope.models.families import family_of
from tunescope.seeds import derive_seed
from tunescope.stats.results import Finding, save_findings
from tunescope.study import behaviour
from tunescope.study.context import Context, is_prompted
from tunescope.study.inputs import PLANTED_FOLDER, planted_name
from tunescope.study.measure import learned, metrics_of
from tunescope.study.stages import across_folder, across_stage, part_folder
from tunescope.study.summarise import summary_subject

UNFINISHED = "unfinished"  # begins the name of a folder of what an interrupted sweep has done


def make_looks(context: Context, arm: ArmConfig, seed: int, lenses: Sequence[LensConfig]) -> None:
    """Look at one training through several lenses, and write one part a lens."""
    subject = _subject(context, arm, seed)
    for output in look(subject, [(lens.lens, lens.options) for lens in lenses], LENSES):
        with whole_folder(context.path / part_folder(arm, seed, output.lens)) as folder:
            _save_part(output, folder)


def make_across(context: Context, arm: ArmConfig, lens: LensConfig) -> None:
    """Compare an arm's seeds through one lens, held against what it saw of each, and write one part."""
    seen = [
        _load_part(context.path / part_folder(arm, seed, lens.lens), lens.lens)
        for seed in context.study.seeds
    ]
    examples = [part.examples for part in seen if part.examples is not None]
    subjects = SeveralSeeds(
        arm.name,
        context.study.seeds,
        lambda seed: _subject(context, arm.model_copy(update={"base_head": "none"}), seed),
        pl.concat([part.table for part in seen], how="diagonal_relaxed"),
        pl.concat(examples) if examples else None,
    )
    kind = LENSES[lens.lens]
    assert kind.across_seeds is not None
    output = kind.across_seeds(subjects, kind.options.model_validate(dict(lens.options)))
    with whole_folder(context.path / across_folder(arm, lens.lens)) as folder:
        _save_part(output or LensOutput(lens.lens, pl.DataFrame(), None, [], {"notes": []}), folder)


def make_behaviour(context: Context, arm: ArmConfig, seed: int) -> None:
    """Test the behaviour of one training, and write one part, as of a lens."""
    output, states = behaviour.look_at_behaviour(context, _subject(context, arm, seed))
    with whole_folder(context.path / part_folder(arm, seed, behaviour.NAME)) as folder:
        _save_part(output, folder)
        if states is not None:
            states.write_parquet(folder / "states.parquet")


def make_results(context: Context) -> None:
    """Merge the parts into one result a lens, and the findings into one file."""
    study = context.study
    parts = []
    for arm in context.chosen():
        if is_prompted(arm):
            continue
        parts += [
            _load_part(context.path / part_folder(arm, seed, lens.lens), lens.lens)
            for seed in study.seeds
            for lens in study.lenses
        ]
        parts += [
            _load_part(context.path / across_folder(arm, lens.lens), lens.lens)
            for lens in study.lenses
            if across_stage(study, arm, lens) is not None
        ]
        if study.behaviour is not None:
            parts += [
                _load_part(context.path / part_folder(arm, seed, behaviour.NAME), behaviour.NAME)
                for seed in study.seeds
            ]
    judged = claims(
        _tables(parts), {arm.name: _known(context, arm) for arm in context.chosen() if not is_prompted(arm)}
    )
    parts += [] if judged is None else [judged]
    about = {"seeds": study.seeds, "tunescope": __version__, "command": command_line()}
    with whole_folder(context.path / "results") as folder:
        findings = save_outputs(parts, folder, about)
        if any(part.lens == behaviour.NAME for part in parts):
            behaviour.write_extras(context.path, folder)
    save_findings(findings, context.path / "findings.json")


def _tables(parts: Sequence[LensOutput]) -> dict[str, pl.DataFrame]:
    names = dict.fromkeys(part.lens for part in parts)
    return {
        name: pl.concat([part.table for part in parts if part.lens == name], how="diagonal_relaxed")
        for name in names
    }


def _known(context: Context, arm: ArmConfig) -> Arm:
    """Return what a verdict on published claims must know of an arm."""
    seeds = context.study.seeds
    each = [learned(metrics_of(context, arm, seed)) for seed in seeds]
    config = json.loads(
        (context.arm_folder(arm, seeds[0]) / "model" / "config.json").read_text(encoding="utf-8")
    )
    kind = family_of(config.get("tunescope_model_type") or config["model_type"]).language_kind
    return Arm(None if None in each else all(each), kind == "causal")


def _subject(context: Context, arm: ArmConfig, seed: int) -> Subject:
    if context.study.task == "summarise":
        return summary_subject(context, arm, seed)
    fresh, tuned = verify(context.base(arm, seed)), verify(context.tuned(arm, seed))
    splits = context.splits(arm, tuned)
    base = _base_head(context, arm, seed, fresh, tuned)
    notes = [f"{arm.name}: {arm.note}"] if arm.note else []
    if arm.base_head != "none":
        notes.append(f"base head of {arm.name}: {base.record.get('head', arm.base_head)}")
    return Subject(
        arm=arm.name,
        seed=seed,
        base=base,
        tuned=tuned,
        base_head=arm.base_head,
        splits=splits,
        learned=learned(metrics_of(context, arm, seed)),
        sampling_seed=derive_seed(context.study.seeds[0], "rows of lenses"),
        progress=context.progress,
        notes=notes,
        planted=_planted_folder(context),
        texts=context.rows().frame.select("row_id", "text"),
        unfinished=context.path / f"{UNFINISHED}-{arm.name}-{seed}",
        store=context.store(arm),
    )


def _planted_folder(context: Context) -> Path | None:
    folder = context.path / PLANTED_FOLDER
    return folder if planted_name(context.study) is not None else None


def _base_head(
    context: Context, arm: ArmConfig, seed: int, base: Classifier, tuned: Classifier
) -> Classifier:
    """Give the base model the head that its logits come from."""
    if arm.base_head == "probe":
        train = context.train_tokens(arm, base)
        return fit_probe(
            base, train, seed=derive_seed(seed, "probe"), progress=context.progress, store=context.store(arm)
        )
    if arm.base_head == "tuned":
        base.head = tuned.head
        base.record["head"] = "the tuned head"
    return base


def _save_part(output: LensOutput, folder: Path) -> None:
    output.table.write_parquet(folder / "table.parquet")
    if output.examples is not None:
        output.examples.write_parquet(folder / "examples.parquet")
    findings = [dataclasses.asdict(finding) for finding in output.findings]
    write_json(folder / "about.json", {"findings": findings, "provenance": output.provenance})


def _load_part(folder: Path, lens: str) -> LensOutput:
    about = read_json(folder / "about.json")
    examples = folder / "examples.parquet"
    return LensOutput(
        lens=lens,
        table=pl.read_parquet(folder / "table.parquet"),
        examples=pl.read_parquet(examples) if examples.is_file() else None,
        findings=[Finding(**finding) for finding in about["findings"]],
        provenance=about["provenance"],
    )
