"""The lens step: every arm and seed, base against tuned, in parts that are merged into one table a lens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from tunescope import __version__
from tunescope.capture.verify import verify
from tunescope.config import ArmConfig, LensConfig
from tunescope.environment import command_line
from tunescope.folders import whole_folder
from tunescope.lenses import LENSES, LensOutput, SeveralSeeds, Subject, look, save_outputs
from tunescope.lenses.bench import can_bench, write_bench
from tunescope.lenses.bench.bench import REFERENCE_ROWS
from tunescope.models import Classifier, fit_probe
from tunescope.seeds import derive_seed
from tunescope.stats.results import joined_tables, save_findings
from tunescope.study import behaviour
from tunescope.study.claims import judged_claims
from tunescope.study.context import Context, as_read, is_prompted
from tunescope.study.inputs import PLANTED_FOLDER, planted_name
from tunescope.study.measure import learned, metrics_of
from tunescope.study.stages import BENCH, across_folder, across_stage, part_folder
from tunescope.study.summarise import summary_subject

UNFINISHED = "unfinished"  # begins the name of a folder of what an interrupted sweep has done


def make_looks(context: Context, arm: ArmConfig, seed: int, lenses: Sequence[LensConfig]) -> None:
    """Look at one training through several lenses, and write one part a lens."""
    subject = subject_of(context, arm, seed)
    for output in look(subject, [(lens.lens, lens.options) for lens in lenses], LENSES):
        with whole_folder(context.path / part_folder(arm, seed, output.lens)) as folder:
            output.save_part(folder)
    options = next((lens.options for lens in lenses if lens.lens == "ablation"), None)
    if options is not None and can_bench(subject):
        with whole_folder(context.path / part_folder(arm, seed, BENCH)) as folder:
            rows = int(options.get("reference_rows", REFERENCE_ROWS))
            write_bench(subject, folder, rows, with_row=seed == context.study.seeds[0])


def make_across(context: Context, arm: ArmConfig, lens: LensConfig) -> None:
    """Compare an arm's seeds through one lens, held against what it saw of each, and write one part."""
    seen = [
        LensOutput.load_part(context.path / part_folder(arm, seed, lens.lens), lens.lens)
        for seed in context.study.seeds
    ]
    examples = [part.examples for part in seen if part.examples is not None]
    subjects = SeveralSeeds(
        arm.name,
        context.study.seeds,
        lambda seed: subject_of(context, arm.model_copy(update={"base_head": "none"}), seed),
        joined_tables(part.table for part in seen),
        pl.concat(examples) if examples else None,
    )
    kind = LENSES[lens.lens]
    assert kind.across_seeds is not None
    output = kind.across_seeds(subjects, kind.options.model_validate(dict(lens.options)))
    with whole_folder(context.path / across_folder(arm, lens.lens)) as folder:
        (output or LensOutput(lens.lens, pl.DataFrame(), None, [], {"notes": []})).save_part(folder)


def make_behaviour(context: Context, arm: ArmConfig, seed: int) -> None:
    """Test the behaviour of one training, and write one part, as of a lens."""
    output, states = behaviour.look_at_behaviour(context, subject_of(context, arm, seed))
    with whole_folder(context.path / part_folder(arm, seed, behaviour.NAME)) as folder:
        output.save_part(folder)
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
            LensOutput.load_part(context.path / part_folder(arm, seed, lens.lens), lens.lens)
            for seed in study.seeds
            for lens in study.lenses
        ]
        parts += [
            LensOutput.load_part(context.path / across_folder(arm, lens.lens), lens.lens)
            for lens in study.lenses
            if across_stage(study, arm, lens) is not None
        ]
        if study.behaviour is not None:
            parts += [
                LensOutput.load_part(context.path / part_folder(arm, seed, behaviour.NAME), behaviour.NAME)
                for seed in study.seeds
            ]
    judged = judged_claims(context, _tables(parts))
    parts += [] if judged is None else [judged]
    about = {"seeds": study.seeds, "tunescope": __version__, "command": command_line()}
    with whole_folder(context.path / "results") as folder:
        findings = save_outputs(parts, folder, about)
        if any(part.lens == behaviour.NAME for part in parts):
            behaviour.write_extras(context.path, folder)
    save_findings(findings, context.path / "findings.json")


def _tables(parts: Sequence[LensOutput]) -> dict[str, pl.DataFrame]:
    names = dict.fromkeys(part.lens for part in parts)
    return {name: joined_tables(part.table for part in parts if part.lens == name) for name in names}


def subject_of(context: Context, arm: ArmConfig, seed: int) -> Subject:
    """Load one training as its lenses see it: base under its base head, tuned, and the rows' tokens."""
    if context.study.task == "summarise":
        return summary_subject(context, arm, seed)
    padded, arm = arm.pooling == "last_padded", as_read(arm)
    fresh = verify(context.base(arm, seed))
    tuned = verify(context.tuned(arm, seed, "last" if padded else None))
    splits = context.splits(arm, tuned)
    base = base_head(context, arm, seed, fresh, tuned)
    notes = [f"{arm.name}: {arm.note}"] if arm.note else []
    if padded:
        notes.append(
            f"{arm.name} was trained and evaluated at the last padded position; the lenses read its last real token, "
            "as the study's own extraction did."
        )
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


def base_head(context: Context, arm: ArmConfig, seed: int, base: Classifier, tuned: Classifier) -> Classifier:
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
