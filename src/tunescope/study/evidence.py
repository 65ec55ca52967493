"""The stages that say how far the numbers of the arms can be believed: audit, baselines, comparison, expectations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import polars as pl

from tunescope.config import ArmConfig
from tunescope.config.expect import ElsewhereData
from tunescope.data.tokens import tokenize
from tunescope.errors import DataError
from tunescope.evaluation import baselines
from tunescope.evaluation.comparison import ComparisonOptions, compare_arms
from tunescope.files import read_json, write_json
from tunescope.folders import whole_folder
from tunescope.models.source import Source, check_source, read_config, read_tokenizer
from tunescope.seeds import derive_seed
from tunescope.study.context import Context, as_read, is_prompted
from tunescope.study.stages import audited_arm, probed_arms

FOLDS = 5


def make_audit(context: Context) -> None:
    """Look for what makes numbers untrue in the rows themselves: repeats, leaks, conflicts, imbalance, cuts."""
    from tunescope.data.audit import AuditOptions, audit

    arm = audited_arm(context.study)
    tokenizer = None
    if arm is not None:
        source = Source(arm.model, arm.revision)
        check_source(source)
        tokenizer = read_tokenizer(source, read_config(source)[0])
    near = find_spec("rensa") is not None
    options = AuditOptions(tokenizer=tokenizer, max_length=context.study.data.max_length, near=near)
    found = audit(context.rows(), options, context.progress)
    content = {**found.to_dict(), "tokens_of": None if arm is None else arm.model}
    if not near:
        content["near"] = "not looked for: the library rensa is not installed"
    write_json(context.path / "data" / "audit.json", content)
    for finding in found.findings:
        if finding.severity == "red":
            context.progress.say(f"  audit, red: {finding.sentence} {finding.advice}")


def make_elsewhere(context: Context) -> None:
    """Measure what tuning cost elsewhere: general text before and after, and other data sets."""
    from tunescope.evaluation.elsewhere import read_documents

    wanted = context.study.elsewhere
    assert wanted is not None
    tuned = [arm for arm in context.chosen() if not is_prompted(arm)]
    skipped = [{"arm": arm.name, "note": "nothing was tuned"} for arm in context.chosen() if is_prompted(arm)]
    content: dict[str, Any] = {"format_version": 1, "language": [], "data": [], "skipped": skipped}
    if wanted.text is not None:
        texts = read_documents(wanted.text, wanted.text_column, wanted.documents)
        content["language"] = _language(context, tuned, texts)
    content["data"] = [one for data in wanted.data for one in _crossed(context, tuned, data)]
    write_json(context.path / "elsewhere.json", content)


def _language(context: Context, arms: Sequence[ArmConfig], texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the language-model loss of every base and of what was tuned from it."""
    from tunescope.evaluation.elsewhere import language_costs
    from tunescope.evaluation.elsewhere.documents import WindowRule

    study = context.study
    assert study.elsewhere is not None
    rule = WindowRule(
        window=study.elsewhere.window,
        windows=study.elsewhere.windows,
        mask_share=study.elsewhere.mask_share,
        seed=derive_seed(study.seeds[0], "elsewhere"),
    )
    bases: dict[tuple[str, str | None], list[ArmConfig]] = {}
    for arm in arms:
        bases.setdefault((context.model_path(arm), arm.revision), []).append(arm)
    found = []
    for own in bases.values():
        base = context.base(as_read(own[0]), study.seeds[0])
        tuned = {(arm.name, seed): partial(context.tuned, arm, seed) for arm in own for seed in study.seeds}
        costs = language_costs(base, tuned, texts, rule, context.progress)
        found.append({"model": own[0].model, "arms": [arm.name for arm in own], **costs})
    return found


def _crossed(context: Context, arms: Sequence[ArmConfig], data: ElsewhereData) -> list[dict[str, Any]]:
    """Return how every tuned model does on another data set."""
    from tunescope.evaluation.elsewhere import cross_evaluate, load_cross_data

    study = context.study
    theirs = load_cross_data(
        data,
        context.rows().labels,
        study.data.template,
        study.data.seed,
        context.progress,
        clean=study.data.clean,
    )
    found = []
    for arm in arms:
        for seed in study.seeds:
            classifier = context.tuned(arm, seed)
            tokens = tokenize(
                theirs.rows, classifier.tokenizer, classifier.max_length, context.progress, study.data.window
            )
            one = cross_evaluate(classifier, theirs, seed, tokens=tokens, progress=context.progress)
            found.append({"arm": arm.name, "seed": seed, **one})
    return found


def make_expect(context: Context) -> None:
    """Hold the study's expectations against the run; a grid's name means its chosen trial."""
    from tunescope.expect import check, summary

    trials = {arm.grid: arm.name for arm in reversed(context.chosen()) if arm.grid is not None}
    rules = []
    for rule in context.study.expect:
        names = {key: trials.get(getattr(rule, key), getattr(rule, key)) for key in ("arm", "against")}
        rules.append(rule.model_copy(update=names))
    verdicts = check(context.path, rules)
    content = {
        "format_version": 1,
        "verdicts": [verdict.record() for verdict in verdicts],
        "summary": summary(verdicts),
    }
    write_json(context.path / "expect.json", content)


def make_baselines(context: Context) -> None:
    """Measure what needs no tuning: majority, look-up, words, and a probe on each base model's features."""
    rows, seed = context.rows(), context.study.seeds[0]
    made, left_out = baselines.cheap(rows, derive_seed(seed, "baselines"), context.progress)
    found: dict[str, Any] = dict(made)
    for arm in probed_arms(context.study):
        parts = context.base_splits(arm)
        base = context.base(as_read(arm), seed)
        name = _probe_name(arm, found)
        found[name] = baselines.probe(base, parts, rows, seed, context.progress, context.store(arm))
        found[name]["about"] = f"{found[name]['about']}; base model {_model_word(arm.model)}"
    with whole_folder(context.path / "baselines") as folder:
        for name, one in found.items():
            (folder / name).mkdir()
            one["predictions"].write_parquet(folder / name / "predictions.parquet")
            write_json(
                folder / name / "metrics.json",
                {"baseline": name, "about": one["about"], "records": one["records"]},
            )
        write_json(folder / "left_out.json", left_out)
    write_json(context.path / "data" / "cross_validation.json", _cross_validation(context))


def _probe_name(arm: ArmConfig, taken: Mapping[str, Any]) -> str:
    """Return ``probe-MODELNAME``, numbered where two models end in the same word."""
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", _model_word(arm.model)).strip("-.")
    name = f"probe-{word[:48] or 'model'}"
    count = sum(other == name or other.startswith(f"{name}-") for other in taken)
    return name if not count else f"{name}-{count + 1}"


def _model_word(model: str) -> str:
    """Return a model's name without the folders that lead to it; of a folder called ``model``, its parent's."""
    parts = [part for part in model.replace("\\", "/").split("/") if part]
    named = [part for part in parts if part.lower() != "model"]
    return (named or parts or ["model"])[-1]


def _cross_validation(context: Context) -> dict[str, Any]:
    """Compare random and grouped folds of the cheap baselines; say why where that cannot be done.

    The groups are those of ``data.group_by``; without one, the values of the column that the audit found to tell
    the label most; without either, rows that repeat a text.
    """
    rows = context.rows()
    column = None if context.study.data.group_by is not None else _telling_column(context)
    groups = context.groups() if column is None else column
    if groups is None:
        return {"done": False, "reason": "no column groups the rows (data.group_by) and no text is repeated"}
    try:
        found = baselines.cross_validate(
            rows, groups, FOLDS, derive_seed(context.study.data.seed, "folds"), progress=context.progress
        )
    except DataError as error:
        return {"done": False, "reason": error.message}
    return {"done": True, **found}


def _telling_column(context: Context) -> str | None:
    """Return the column of the audit's weightiest red finding about one, or None."""
    path = context.path / "data" / "audit.json"
    if not context.study.audit:
        return None
    findings = read_json(path)["findings"]
    return next(
        (
            one["evidence"]["column"]
            for one in findings
            if one["severity"] == "red" and "column" in one["evidence"]
        ),
        None,
    )


def make_comparison(context: Context) -> None:
    """Compare all arms with one another and with the baselines on the same rows."""
    study, rows = context.study, context.rows()
    split = study.compare.split
    if not (rows.split(split).label_array >= 0).any():
        reason = f"there are no labelled {split} rows to compare the arms on"
        write_json(context.path / "comparison.json", {"format_version": 1, "done": False, "reason": reason})
        return
    runs: dict[tuple[str, int | None], pl.DataFrame] = {
        (arm.name, seed): pl.read_parquet(context.arm_folder(arm, seed) / "predictions.parquet")
        for arm in context.chosen()
        for seed in study.seeds
    }
    others = {
        path.parent.name: pl.read_parquet(path)
        for path in sorted((context.path / "baselines").glob("*/predictions.parquet"))
    }
    values = study.compare.model_dump()
    options = ComparisonOptions(**values, seed=derive_seed(study.seeds[0], "comparison"))
    groups = context.groups()
    if groups is not None:
        own = [groups[row] for row in rows.split(split).frame["row_id"]]
        groups = groups if len(set(own)) < len(own) else None
    found = compare_arms(runs, rows.labels.names, options, baselines=others, groups=groups)
    write_json(context.path / "comparison.json", {"format_version": 1, "done": True, **found})
