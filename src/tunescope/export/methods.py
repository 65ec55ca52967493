"""The methods section: written from what the run folder holds, and from nothing else.

Every sentence is made from a file of the run: the resolved study, the audit and summary of the rows, metrics,
comparison, the provenance of each lens's table, the environment. What is not recorded is not said, and a lens that
was not run is not named. Works are cited as ``[@key]`` (Pandoc); their entries make ``references.bib``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from tunescope.export.methods_lenses import lenses, statistics
from tunescope.export.said import counted, option_said, options_said
from tunescope.export.section import Section
from tunescope.export.words import code, markdown
from tunescope.lenses.works import OF_ARCHITECTURE, OF_METHOD, WORKS, Cite, Ran, bibtex
from tunescope.report.read import SPLITS, ArmRun, RunFolder
from tunescope.report.text import listed, number, plural, short_path

PRECISION = ("bf16", "fp16", "tf32")
SCHEDULE = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "label_smoothing_factor", "class_weights", "sampling", "logit_adjustment", "early_stopping", "variance_loss",
    "neftune_noise_alpha", "load_best_model_at_end", "metric_for_best_model",
)  # fmt: skip


@dataclass(frozen=True)
class Methods:
    """The section and the entries of what it cites."""

    text: str
    bibtex: str


def methods(run: RunFolder) -> Methods:
    """Return the methods section of a run in Markdown, with its references.

    Args:
        run: The run, read with the choice of texts that the section may show.
    """
    section = Section(run)
    section.lines += [f"# Methods of {markdown(run.name)}", ""]
    question = (run.study or {}).get("question") or (run.compare or {}).get("question")
    section.say(f"Question: {markdown(question)}" if question else "")
    for part in (_data, _models, _training, _evaluation, lenses, _software):
        part(section)
    keys = [key for key in section.keys if key in WORKS]
    if keys:
        section.head("References")
        section.lines += [f"- @{key}: {WORKS[key].said}, *{WORKS[key].title}*" for key in sorted(keys)]
    return Methods("\n".join(section.lines).rstrip() + "\n", bibtex(keys, WORKS) if keys else NO_WORKS)


NO_WORKS = "% methods.md cites no works.\n"


def _data(section: Section) -> None:
    summary = section.run.summary
    if not summary:
        return
    section.head("Data")
    about = summary.get("provenance") or {}
    files = [
        f"`{PurePath(str(file.get('path'))).name}` ({counted(file.get('rows'), 'row')}"
        + (f", SHA-256 `{str(file['sha256'])[:16]}…`" if file.get("sha256") else "")
        + ")"
        for source in about.get("sources") or []
        for file in source.get("files") or []
    ]
    given = (section.run.study or {}).get("data")
    hub = [
        f"{key} {code(given[key])}"
        for key in ("name", "revision")
        if isinstance(given, dict) and given.get(key)
    ]
    rows = summary.get("rows") or {}
    order = [
        *[split for split in reversed(SPLITS) if split in rows],
        *[split for split in rows if split not in SPLITS],
    ]
    used = [f"{counted(rows[split], 'row')} of {markdown(split)}" for split in order]
    labels = section.run.labels
    section.say(
        f"The texts come from {listed(files)}{', ' + listed(hub) if hub else ''}." if files else "",
        f"The run used {listed(used)}." if rows else "",
        f"The labels are {listed(map(markdown, labels))}." if labels else "",
        _tokens(section.run),
    )  # fmt: skip
    section.say(*(markdown(note) for note in summary.get("notes") or []))
    audit = (section.run.audit or {}).get("findings")
    if audit is not None:
        counts = [
            f"{sum(one.get('severity') == grade for one in audit)} {grade}" for grade in ("red", "amber")
        ]
        section.say(f"An audit of the rows for leaks, repeats and imbalance had {listed(counts)} findings.")


def _tokens(run: RunFolder) -> str:
    length = ((run.study or {}).get("data") or {}).get("max_length")
    cut = [
        sum(cell.get("truncated", 0) for cell in labels.values() if isinstance(cell, dict))
        for splits in run.of_arms("truncated").values()
        for labels in splits.values()
    ]
    said = f"Texts have at most {number(length)} tokens" if length else ""
    if not cut:
        return f"{said}." if said else ""
    most = f"at most {plural(max(cut), 'text')} of a split was cut" if max(cut) else "no text was cut"
    return f"{said}; {most}." if said else f"{most[0].upper()}{most[1:]}."


def _models(section: Section) -> None:
    run = section.run
    if run.inspected:
        section.head("Model")
        path = code(short_path(str((run.compare or {}).get("inspected"))))
        section.say(f"One model was looked at, {path}, trained elsewhere; nothing was compared.")
        section.say(*(markdown(note) for note in (run.compare or {}).get("assumptions") or []))
        return
    if run.compare is not None:
        section.head("Models")
        base = short_path(str(run.compare.get("base")))
        tuned = [
            f"{markdown(name)} ({code(short_path(str(path)))})"
            for name, path in (run.compare.get("tuned") or {}).items()
        ]
        section.say(f"The base is {code(base)}; it was held against {listed(tuned)}, trained elsewhere.")
        section.say(*(markdown(note) for note in run.compare.get("assumptions") or []))
        return
    trained = [arm for arm in run.arm_names if run.of(arm)]
    if not trained:
        return
    section.head("Models and tuning")
    declared = {str(arm.get("name")): arm for arm in (run.study or {}).get("arms") or []}
    for arm in trained:
        section.say(_arm(section, arm, declared.get(arm, {})))
    seeds = listed(map(str, run.seeds))
    many = f"one training per seed ({seeds})" if len(run.seeds) > 1 else f"one training, seed {seeds}"
    section.say(f"Every arm was {many}, on the same rows." if len(trained) > 1 else f"The arm was {many}.")


def _arm(section: Section, arm: str, declared: Mapping[str, Any]) -> str:
    first = section.run.of(arm)[0]
    found = first.metrics or {}
    method = str(found.get("method") or declared.get("method") or "")
    options = {**declared, **(found.get("point") or {})}
    works = [cite for cite in OF_METHOD.get(method, ()) if cite.when(Ran(options))]
    kind = _architecture(section.run, first)
    architecture = OF_ARCHITECTURE.get(kind)
    parts = [f"method {code(method)}{section.cite(works)}" if method else ""]
    if kind:
        parts.append(f"architecture {markdown(kind)}{section.cite([architecture] if architecture else [])}")
    revision = declared.get("revision")
    parts.append(f"revision {code(revision)}" if revision else "")
    trained, every = found.get("trainable_parameters"), found.get("parameters")
    if isinstance(trained, int) and isinstance(every, int):
        parts.append(f"{number(trained)} of {number(every)} parameters trained")
    parts += [
        f"{name.replace('_', ' ')} {option_said(options[name])}"
        for name in ("pooling", "head", "k", "r", "alpha", "base_head", "train_share")
        if options.get(name) is not None
    ]
    parts.append(
        f"differing from the shared settings in {options_said(declared.get('training'))}"
        if declared.get("training")
        else ""
    )
    steps = (found.get("cost") or {}).get("steps")
    parts.append(f"{plural(steps, 'step')} in the first seed" if isinstance(steps, int) and steps else "")
    model = code(short_path(str(found.get("model") or declared.get("model") or "not recorded")))
    return f"**{markdown(arm)}**: {model}; {'; '.join(part for part in parts if part)}."


def _architecture(run: RunFolder, trained: ArmRun) -> str:
    """Return the architecture's name out of the saved model's own configuration; empty where none was kept."""
    place = run.folder / "arms" / trained.arm / f"seed-{trained.seed}" / "model" / "config.json"
    try:
        return str(json.loads(place.read_text(encoding="utf-8")).get("model_type") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def _training(section: Section) -> None:
    run = section.run
    given = (run.study or {}).get("training") or {}
    if run.compare is not None or not given or not any(item.log for item in run.arms):
        return
    section.head("Training")
    optim = str(given.get("optim") or "")
    adamw = section.cite([Cite("loshchilov2019", "AdamW")]) if optim.startswith("adamw") else ""
    adjusted = section.cite([Cite("menon2021", "")]) if given.get("logit_adjustment") else ""
    kept = {name: given[name] for name in SCHEDULE if given.get(name) not in (None, False, -1, 0.0)}
    precision = {name: given[name] for name in PRECISION if given.get(name) is not None}
    device = (run.environment or {}).get("device")
    section.say(
        f"The optimiser is {code(optim)}{adamw}." if optim else "",
        f"Shared settings: {options_said(kept)}{adjusted}.",
        f"Precision: {options_said(precision)}{f', on the device {markdown(device)}' if device else ''}."
        if precision
        else "",
    )


def _evaluation(section: Section) -> None:
    run = section.run
    records = [
        record
        for item in run.arms
        for record in (item.metrics or {}).get("records", [])
        if record.get("split") == run.split
    ]
    if not records and run.comparison is None:
        return
    section.head("Evaluation")
    cited = section.cite(statistics(_evaluation_words(run, records)))
    level = f"{100 * float((run.comparison or {}).get('level') or 0.95):g}"
    names = dict.fromkeys(str(record.get("metric")).replace("_", " ") for record in records)
    ways = dict.fromkeys(
        str(record.get("method")).split(":")[0] for record in records if record.get("method")
    )
    section.say(
        f"Measured on {markdown(run.split)}: {listed(map(markdown, names))}." if records else "",
        f"Intervals are {level} % intervals, by {listed(map(markdown, ways))}{cited}." if ways else "",
        f"The same rows were given to {listed(markdown(one.name) for one in run.baselines)}." if run.baselines else "",
    )  # fmt: skip
    section.say(_comparison(run))


def _comparison(run: RunFolder) -> str:
    found = run.comparison or {}
    if not found.get("done", True) or not (found.get("pairs") or found.get("against_baselines")):
        return ""
    pairs = [*(found.get("pairs") or []), *(found.get("against_baselines") or [])]
    tests = dict.fromkeys(str(pair["test"]) for pair in pairs if pair.get("test"))
    bound = found.get("equivalent_within")
    return (
        f"Arms were compared in pairs on {counted(found.get('n'), 'row')} of {markdown(found.get('split'))} "
        f"by {markdown(str(found.get('metric')).replace('_', ' '))}: {listed(map(markdown, tests))}, corrected by "
        f"{markdown(found.get('correction'))}"
        + (f"; differences within ±{number(bound)} count as equivalent." if bound is not None else ".")
    )


def _evaluation_words(run: RunFolder, records: Sequence[Mapping[str, Any]]) -> str:
    """Return everything that says how numbers were made, as one lower-case text."""
    said = [f"{record.get('metric')} {record.get('method')}" for record in records]
    found = run.comparison or {}
    pairs = [*(found.get("pairs") or []), *(found.get("against_baselines") or [])]
    for pair in pairs:
        said += [json.dumps(pair), str(found.get("correction"))]
    said += ["prior shift" for item in run.arms if (item.metrics or {}).get("prior")]
    return " ".join(said).lower()


def _software(section: Section) -> None:
    found = section.run.environment
    if not found:
        return
    section.head("Software")
    libraries = [
        f"{name} {version}" + (section.cite([Cite("wolf2020", "")]) if name == "transformers" else "")
        for name, version in (found.get("libraries") or {}).items()
    ]
    named = {key: found.get(key) for key in ("tunescope", "python", "platform", "device", "device_name")}
    parts = [f"{key.replace('_', ' ')} {markdown(value)}" for key, value in named.items() if value]
    section.say(f"Made with {listed([*parts, *libraries])}.", _doctor(found.get("doctor")))
    if found.get("command"):
        section.say(f"Command: {code(found['command'])}.")


def _doctor(found: Any) -> str:
    if not isinstance(found, Mapping) or "passed" not in found:
        return ""
    verdict = "passed" if found["passed"] else "failed"
    return f"The self-check of this installation {verdict} on {markdown(found.get('date'))}."
