"""Two checkpoints, or more: what did tuning change inside? The same look that a study takes at its arms."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunescope import __version__
from tunescope.capture.verify import verify
from tunescope.config import DataConfig, LensConfig, load_data
from tunescope.data.load import load_rows
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens, length_summary, tokenize, truncation_by_label
from tunescope.data.unlabelled import unlabelled_rows
from tunescope.device import resolve_device
from tunescope.environment import command_line, environment
from tunescope.errors import DataError
from tunescope.evaluation.metrics import classification_metrics, confusion_matrix
from tunescope.evaluation.predict import predict
from tunescope.files import atomic_path, write_json
from tunescope.foreign import arm_names, label_doubt, logged_metrics, same_weights
from tunescope.lenses import LENSES, LensOutput, Subject, look, save_outputs
from tunescope.lenses.geometry.other_models import against_others
from tunescope.lenses.language.subject import (
    LanguagePair,
    all_language_models,
    language_subject,
    loss_per_token,
)
from tunescope.models import Classifier, fit_probe, load, load_trunk
from tunescope.models.source import Source
from tunescope.progress import SILENT, Progress
from tunescope.report import write_report
from tunescope.runs import RunFolder
from tunescope.stats.results import Finding, Result, save_findings

FIT_SHARE = 0.4  # of the rows: the base's probe head and the means of mean ablation come from these
DEFAULT_LENSES = (LensConfig(lens="cka"), LensConfig(lens="ablation"))


@dataclass(frozen=True)
class CompareRequest:
    """What to compare.

    Attributes:
        base: Folder or hub id of the model before tuning; its own head, if any, is not read.
        tuned: Folders or hub ids of tuned classifiers, or peft adapter folders.
        data: Labelled rows; where only one split is given, a part fits the base's head and the rest is looked at.
        folder: Where to write.
        label_map: From the checkpoints' label names to the data's, where they differ.
        lenses: What to look through.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        seed: Seeds the draw of rows, the probe and every random control.
    """

    base: str
    tuned: Sequence[str]
    data: DataConfig
    folder: Path
    label_map: Mapping[str, str] = field(default_factory=dict)
    lenses: Sequence[LensConfig] = DEFAULT_LENSES
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        folder: The run folder, with ``report.html``.
        findings: Sentences with numbers and intervals.
    """

    folder: Path
    findings: list[Finding]

    def __getitem__(self, lens: str) -> Result:
        """Return one lens's result: ``.table`` is a polars frame."""
        return Result.load(self.folder / "results", lens)


def compare(
    base: str,
    tuned: str | Sequence[str],
    *,
    data: str | DataConfig,
    text: str | None = None,
    label: str | None = None,
    folder: str | Path = "runs/compare",
    **options: Any,
) -> Comparison:
    """Compare a base with one or more tuned checkpoints, and write the run folder and its report.

    Classifiers are compared on labelled rows; language models (what a checkpoint is, it says itself) on texts alone.

    Args:
        base: Folder or hub id of the model before tuning.
        tuned: One or more tuned checkpoints or adapter folders.
        data: A file (with ``text`` and ``label``), or a whole data section.
        text: The column of texts, where ``data`` is a file.
        label: The column of labels, where ``data`` is a file.
        folder: Where to write.
        options: ``progress``, and the other fields of :class:`CompareRequest`.

    Raises:
        TunescopeError: Data, a checkpoint or a lens cannot be used.
    """
    if not isinstance(data, DataConfig):
        data = load_data({"path": data, "text": text or "text", "label": label or "label"})
    progress = options.pop("progress", SILENT)
    paths = [tuned] if isinstance(tuned, str) else [str(path) for path in tuned]
    return _compare(CompareRequest(base, paths, data, Path(folder), **options), progress)


def compare_folders(request: CompareRequest, progress: Progress = SILENT) -> Path:
    """Compare checkpoints, write the run folder and its report, and return the folder.

    Raises:
        DataError: The rows cannot be read.
        ModelError: A checkpoint cannot be used, or its labels cannot be aligned by name.
        LensError: A lens cannot give a true answer for these models.
        RunError: The folder is in use or cannot be written.
    """
    return _compare(request, progress).folder


def _compare(request: CompareRequest, progress: Progress) -> Comparison:
    run = RunFolder(request.folder)
    with run.locked():
        start = time.monotonic()
        speaks = all_language_models(request.tuned)
        rows = (
            unlabelled_rows(request.data, FIT_SHARE, request.seed, progress)
            if speaks
            else _rows(request, progress)
        )
        device = resolve_device(request.device)
        subjects = []
        notes: list[str] = []
        records = []
        for name, path in zip(arm_names(request.tuned), request.tuned, strict=True):
            load_one = _language_subject if speaks else _subject
            subject, record = load_one(request, name, path, rows, device, progress)
            subjects.append(subject)
            records.append(record)
            notes += record.pop("notes")
        outputs: list[LensOutput] = []
        for subject in subjects:
            wanted = [(lens.lens, against_others(lens, subject.arm, records)) for lens in request.lenses]
            outputs += look(subject, wanted, LENSES)
        command = command_line()
        about = {"tunescope": __version__, "command": command, "seeds": [request.seed]}
        findings = save_outputs(outputs, request.folder / "results", about)
        save_findings(findings, request.folder / "findings.json")
        rows.save(request.folder / "data" / "rows.parquet")
        write_json(request.folder / "data" / "summary.json", _summary(rows, subjects))
        write_json(request.folder / "environment.json", environment(device=str(device)))
        about = _about(request, command, subjects, records, notes, time.monotonic() - start)
        write_json(request.folder / "compare.json", about)
        write_report(request.folder)
    return Comparison(request.folder, findings)


def _rows(request: CompareRequest, progress: Progress) -> Rows:
    """Load rows; a single split is divided into rows to fit the base's head on and rows to look at."""
    update: dict[str, Any] = {"seed": request.seed}
    if not isinstance(request.data.path, dict) and request.data.split_column is None:
        update |= {"validation": 1 - FIT_SHARE, "test": 0.0}
    rows = load_rows(request.data.model_copy(update=update), request.seed, progress)
    missing = [split for split in ("train", "validation") if split not in rows.splits]
    if missing:
        raise DataError(
            f"A comparison needs train rows, to fit the base's head on, and validation rows, to look at; there are no "
            f"{' and no '.join(missing)} rows.",
            hint="Give one file; it is divided by content, and which rows were which is written into the run.",
        )
    return rows


def _subject(
    request: CompareRequest, name: str, path: str, rows: Rows, device: Any, progress: Progress
) -> tuple[Subject, dict[str, Any]]:
    """Load one tuned checkpoint and its base, and measure both on the rows that are looked at."""
    base_for_adapter = request.base if Source(path).is_adapter else None
    tuned = verify(
        load(
            path,
            labels=rows.labels,
            label_map=request.label_map or None,
            base=base_for_adapter,
            device=device,
        )
    )
    limit = request.data.max_length or tuned.max_length
    base = verify(
        load_trunk(request.base, labels=rows.labels, pooling=tuned.pooling, max_length=limit, device=device)
    )
    splits = {s: tokenize(rows.split(s), tuned.tokenizer, limit, progress) for s in rows.splits}
    base = fit_probe(base, splits["train"], seed=request.seed, progress=progress)
    looked = splits["validation"]
    subject = Subject(
        name, None, base, tuned, "probe", splits, sampling_seed=request.seed, progress=progress,
        notes=[f"Base head: {base.record['head']}. Tuned head: the checkpoint's own."],
        texts=rows.frame.select("row_id", "text"),
    )  # fmt: skip
    record = _measure(request, subject, path, looked, progress)
    subject.learned = record.pop("learned")
    subject.identical = same_weights(request.base, path)
    record["notes"] += _same_notes(subject)
    return subject, record


def _language_subject(
    request: CompareRequest, name: str, path: str, rows: Rows, device: Any, progress: Progress
) -> tuple[Subject, dict[str, Any]]:
    """Load a tuned language model and its base, and write their losses on the rows that are looked at."""
    pair = LanguagePair(request.base, path, name, request.data.max_length, device, request.seed)
    subject = language_subject(pair, rows, progress)
    records, said = loss_per_token(subject)
    write_json(
        request.folder / "arms" / name / "seed-0" / "metrics.json",
        {
            "arm": name, "seed": None, "method": "trained elsewhere", "model": path, "records": records,
            "confusion": {}, "seconds": None, "trainable_parameters": None,
            "parameters": sum(one.numel() for one in subject.tuned.model.parameters()),
        },
    )  # fmt: skip
    subject.identical = same_weights(request.base, path)
    notes, assumed = [said, *_same_notes(subject)], ["template: texts go in as they stand"]
    record = {"name": name, "path": path, "notes": notes, "assumed": assumed, "logged": logged_metrics(path)}
    return subject, {**record, "ours": None}


def _same_notes(subject: Subject) -> list[str]:
    same = "base and tuned are one and the same model; there is no change to find."
    if not subject.identical:
        same = "every weight of the trunk equals the base's; tuning changed the head at most."
    return [f"{subject.arm}: {same}"] if subject.identical or subject.same_trunk else []


def _measure(
    request: CompareRequest, subject: Subject, path: str, tokens: Tokens, progress: Progress
) -> dict[str, Any]:
    """Write metrics and predictions of the tuned model, and say what stands out."""
    names = list(subject.tuned.labels.names)
    notes: list[str] = []
    numbers = {}
    for which, model in (("tuned", subject.tuned), ("base", subject.base)):
        table = predict(model, tokens, progress)
        logits = table.select([f"logit_{name}" for name in names]).to_numpy()
        known = tokens.labels >= 0
        metrics = classification_metrics(
            tokens.labels[known], logits[known], names, "validation", request.seed
        )
        numbers[which] = {record["metric"]: record for record in metrics if record["class"] is None}
        if which == "tuned":
            _write_arm(request, subject, metrics, table, tokens)
            doubt = label_doubt(tokens.labels[known], logits[known].argmax(1), names)
            notes += [f"{subject.arm}: {doubt}"] if doubt else []
    base, tuned = numbers["base"]["accuracy"], numbers["tuned"]["accuracy"]
    notes.append(
        f"{subject.arm}: accuracy {_said(tuned)}; the base under its probe head {_said(base)}, on the same "
        f"{tuned['n']} rows."
    )
    logged = logged_metrics(path)
    majority = numbers["tuned"].get("majority_accuracy", {}).get("value") or 0.0
    return {
        "name": subject.arm, "path": path, "notes": notes, "assumed": subject.tuned.record.get("assumed", []),
        "logged": logged, "ours": tuned["value"], "learned": bool((tuned["low"] or 0.0) > majority),
    }  # fmt: skip


def _said(record: Mapping[str, Any]) -> str:
    return f"{record['value']:.3f} [{record['low']:.3f}, {record['high']:.3f}]"


def _write_arm(
    request: CompareRequest,
    subject: Subject,
    metrics: list[dict[str, Any]],
    table: pl.DataFrame,
    tokens: Tokens,
) -> None:
    folder = request.folder / "arms" / subject.arm / "seed-0"
    known = tokens.labels >= 0
    predictions = table["prediction"].to_numpy()
    model: Classifier = subject.tuned
    matrix = confusion_matrix(tokens.labels[known], predictions[known], len(model.labels.names))
    parameters = sum(parameter.numel() for parameter in model.model.parameters())
    write_json(
        folder / "metrics.json",
        {
            "arm": subject.arm, "seed": None, "method": "trained elsewhere", "model": str(model.record["path"]),
            "records": metrics, "confusion": {"validation": np.asarray(matrix).tolist()}, "seconds": None,
            "parameters": parameters, "trainable_parameters": None,
        },
    )  # fmt: skip
    label = pl.Series("label", np.where(known, tokens.labels, 0)).set(pl.Series(~known), None)
    table.insert_column(1, pl.lit("validation").alias("split")).insert_column(2, label)
    with atomic_path(folder / "predictions.parquet") as temporary:
        table.write_parquet(temporary)


def _summary(rows: Rows, subjects: Sequence[Subject]) -> dict[str, Any]:
    parts = {subject.arm: {name: t for name, t in subject.splits.items() if len(t)} for subject in subjects}
    return {
        **rows.summary(),
        "tokens": {
            arm: {name: length_summary(t) for name, t in splits.items()} for arm, splits in parts.items()
        },
        "truncated": {
            arm: {name: truncation_by_label(t, rows.labels) for name, t in splits.items()}
            for arm, splits in parts.items()
        },
    }


def _about(
    request: CompareRequest, command: str, subjects: Sequence[Subject], records: Sequence[Mapping[str, Any]],
    notes: list[str], seconds: float,
) -> dict[str, Any]:  # fmt: skip
    tuned = {subject.arm: str(record["path"]) for subject, record in zip(subjects, records, strict=True)}
    logged = [
        {"arm": record["name"], "logged": record["logged"], "ours": {"accuracy": record["ours"]}}
        for record in records
        if record["logged"]
    ]
    return {
        "name": f"{arm_names([request.base])[0]} against {', '.join(tuned)}",
        "command": command,
        "base": str(request.base),
        "tuned": tuned,
        "data": request.data.model_dump(mode="json"),
        "assumptions": list(dict.fromkeys(f"{r['name']}: {item}" for r in records for item in r["assumed"])),
        "notes": [
            *notes,
            "Whether a checkpoint trained elsewhere has seen some of these rows in training is not known.",
        ],
        "logged_metrics": logged,
        "seconds": round(seconds, 1),
        "seed": request.seed,
    }
