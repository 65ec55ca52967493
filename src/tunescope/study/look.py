"""The lens step: every arm and seed, base against tuned, in parts that are merged into one table a lens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from tunescope import __version__
from tunescope.capture.verify import verify
from tunescope.config import ArmConfig, LensConfig
from tunescope.environment import command_line
from tunescope.files import read_json, write_json
from tunescope.folders import whole_folder
from tunescope.lenses import LENSES, LensOutput, Subject, look, save_outputs
from tunescope.models import Classifier, fit_probe
from tunescope.seeds import derive_seed
from tunescope.stats.results import Finding, save_findings
from tunescope.study.context import Context, is_prompted
from tunescope.study.inputs import PLANTED_FOLDER, planted_name
from tunescope.study.measure import learned, metrics_of
from tunescope.study.stages import part_folder


def make_looks(context: Context, arm: ArmConfig, seed: int, lenses: Sequence[LensConfig]) -> None:
    """Look at one training through several lenses, and write one part a lens."""
    subject = _subject(context, arm, seed)
    for output in look(subject, [(lens.lens, lens.options) for lens in lenses], LENSES):
        with whole_folder(context.path / part_folder(arm, seed, output.lens)) as folder:
            _save_part(output, folder)


def make_results(context: Context) -> None:
    """Merge the parts into one result a lens, and the findings into one file."""
    study = context.study
    parts = [
        _load_part(context.path / part_folder(arm, seed, lens.lens), lens.lens)
        for arm in context.chosen()
        if not is_prompted(arm)
        for seed in study.seeds
        for lens in study.lenses
    ]
    about = {"seeds": study.seeds, "tunescope": __version__, "command": command_line()}
    with whole_folder(context.path / "results") as folder:
        findings = save_outputs(parts, folder, about)
    save_findings(findings, context.path / "findings.json")


def _subject(context: Context, arm: ArmConfig, seed: int) -> Subject:
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
