"""Suites of behaviour on a checkpoint that was trained anywhere, with or without its base, as ``tunescope test``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from tunescope import __version__
from tunescope.behaviour import WORDNET, Material, needs_rows
from tunescope.behaviour.suite import Suite, require_pairs
from tunescope.capture.verify import verify
from tunescope.config import DataConfig
from tunescope.config.behaviour import BehaviourConfig
from tunescope.config.expect import ExpectRule
from tunescope.data.load import load_rows
from tunescope.data.read import read_table
from tunescope.data.rows import Rows, row_ids, text_hash
from tunescope.data.split import hash_order
from tunescope.data.tokens import tokenize
from tunescope.device import resolve_device
from tunescope.environment import command_line, environment
from tunescope.errors import ConfigError, DataError
from tunescope.expect import Verdict, check, summary
from tunescope.files import write_json
from tunescope.foreign import arm_names
from tunescope.lenses import Subject, save_outputs
from tunescope.models import Classifier, fit_probe, load, load_trunk
from tunescope.models.source import Source
from tunescope.progress import SILENT, Progress
from tunescope.report import write_report
from tunescope.runs import RunFolder
from tunescope.stats.results import Finding, save_findings
from tunescope.study.behaviour import STATES, behaviour_of, suites_of, write_csv

FIT_SHARE = (
    0.4  # of rows: the base's probe head and frequent words come from these, suites rewrite the others
)


@dataclass(frozen=True)
class TestRequest:
    """What is tested.

    Attributes:
        model: Folder or hub id of the tuned classifier, or a peft adapter folder.
        config: The suites, and how they are judged.
        folder: Where to write.
        base: Folder or hub id of the model before tuning, or None.
        data: A file of rows that suites rewrite; None where every suite brings its own texts.
        text: The column of texts.
        label: The column of labels, or None.
        label_map: From the checkpoint's label names to the data's, where they differ.
        rules: Expectations about the numbers.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    """

    __test__ = False  # no test of pytest's

    model: str
    config: BehaviourConfig
    folder: Path
    base: str | None = None
    data: str | None = None
    text: str = "text"
    label: str | None = None
    label_map: Mapping[str, str] = field(default_factory=dict)
    rules: Sequence[ExpectRule] = ()
    device: str = "auto"


@dataclass(frozen=True)
class Tested:
    """What was found.

    Attributes:
        folder: The run folder, with ``report.html``.
        findings: Sentences.
        verdicts: What became of the rules.
        left_out: A sentence for every suite that touches no text, where others do.
    """

    folder: Path
    findings: list[Finding]
    verdicts: list[Verdict]
    left_out: list[str] = field(default_factory=list)


def run_suites(request: TestRequest, progress: Progress = SILENT) -> Tested:
    """Test a checkpoint, write the run folder and its report, and hold the rules against it.

    Raises:
        ConfigError: A suite is not valid, needs rows and there are none, or a rule is about nothing.
        DataError: Rows cannot be read, or no suite touches any of them.
        ModelError: A checkpoint cannot be used.
        RunError: The folder is in use or cannot be written.
    """
    _check(request)
    run = RunFolder(request.folder)
    with run.locked():
        start = time.monotonic()
        rows = _rows(request, progress)
        subject = _subject(request, rows, progress)
        suites, left_out = touching(suites_of(request.config, _material(request, rows), progress))
        subject.notes.extend(left_out)
        output, states = behaviour_of(subject, request.config, suites, _rows_said(request))
        folder = request.folder
        about = {"tunescope": __version__, "command": command_line(), "seeds": [request.config.seed]}
        findings = save_outputs([output], folder / "results", about)
        write_csv(output.table, folder / "results" / "behaviour.csv")
        assert output.examples is not None
        write_csv(output.examples, folder / "results" / "examples" / "behaviour.csv")
        if states is not None:
            states.write_parquet(folder / "results" / "examples" / f"{STATES}.parquet")
        save_findings(findings, folder / "findings.json")
        write_json(folder / "environment.json", environment(str(resolve_device(request.device))))
        write_json(folder / "compare.json", _about(request, subject, time.monotonic() - start))
        verdicts = check(folder, request.rules) if request.rules else []
        if request.rules:
            records = [one.record() for one in verdicts]
            content = {"format_version": 1, "verdicts": records, "summary": summary(verdicts)}
            write_json(folder / "expect.json", content)
        write_report(folder)
    return Tested(request.folder, findings, verdicts, left_out)


def touching(suites: Sequence[Suite]) -> tuple[list[Suite], list[str]]:
    """Return the suites that touch some text, and a sentence for each that touches none.

    Raises:
        DataError: None touches any.
    """
    kept = [one for one in suites if len(one)]
    left_out = []
    for one in suites:
        try:
            require_pairs(one)
        except DataError as error:
            if not kept:
                raise
            left_out.append(f"Left out: {error.message}")
    return kept, left_out


def _check(request: TestRequest) -> None:
    """Refuse before anything is loaded what cannot be done."""
    wanted = [one.suite for one in request.config.suites if needs_rows(one)]
    if wanted and request.data is None:
        raise ConfigError(
            f"The suite {wanted[0]!r} rewrites rows, and there are none.", hint="Give rows with --data FILE."
        )
    if request.base is not None and (request.data is None or request.label is None):
        raise ConfigError(
            "The base needs labelled rows to fit its head on: expected --data FILE and --label COLUMN.",
            hint="Give labelled rows, or leave --base away.",
        )


def _rows(request: TestRequest, progress: Progress) -> Rows | pl.DataFrame | None:
    """Return labelled rows in two splits where a base needs them, else a table of texts, or None."""
    if request.data is None:
        return None
    if request.label is not None:
        data = DataConfig(path=request.data, text=request.text, label=request.label)  # type: ignore[call-arg]
        share = 1 - FIT_SHARE if _parted(request) else 0.0
        update = {"seed": request.config.seed, "validation": share, "test": 0.0}
        return load_rows(data.model_copy(update=update), request.config.seed, progress)
    frame = read_table(request.data)
    if request.text not in frame.columns:
        raise DataError(
            f"{request.data} has no column {request.text!r}; it has {', '.join(frame.columns)}.",
            hint="Name the text column with --text.",
        )
    texts = frame[request.text].cast(pl.String).drop_nulls()
    hashes = pl.Series([text_hash(text) for text in texts], dtype=pl.String)
    empty = pl.Series([None] * len(texts), dtype=pl.String)
    ids = row_ids(hashes, empty, empty)
    table = pl.DataFrame({"row_id": ids, "text": texts, "label": empty})
    if not _parted(request):
        return table
    order = hash_order(hashes.to_list(), request.config.seed, "words")  # equal texts stay together
    return table.with_columns(train=order < FIT_SHARE * 2.0**64)


def _parted(request: TestRequest) -> bool:
    """Return whether some rows are kept apart: to fit the base's head, or to pick words that others are tested on."""
    return request.base is not None or any(one.suite == WORDNET for one in request.config.suites)


def _material(request: TestRequest, rows: Rows | pl.DataFrame | None) -> Material | None:
    if rows is None:
        return None
    config = request.config
    if isinstance(rows, Rows):
        names = dict(enumerate(rows.labels.names))
        label = pl.col("label").replace_strict(names, default=None, return_dtype=pl.String)
        frame = rows.frame.select("row_id", "split", "text", "label").with_columns(label)
        frame = frame.with_columns(train=pl.col("split") == "train").drop("split")
    else:
        frame = rows if "train" in rows.columns else rows.with_columns(train=True)
    train = frame.filter("train")
    if _parted(request):
        frame = frame.filter(~pl.col("train"))
    labels = train["label"].to_list() if isinstance(rows, Rows) else None
    return Material(
        frame.drop("train"),
        train["text"].to_list(),
        None,
        config.seed,
        config.rows.n,
        config.controls,
        labels,
    )


def _rows_said(request: TestRequest) -> str:
    if request.data is None:
        return "the suites' own texts"
    head = " that its head was not fitted on"
    part = head if request.base is not None else " that no word was picked on" if _parted(request) else ""
    return f"rows of {Path(request.data).name}{part}, and the suites' own texts"


def _subject(request: TestRequest, rows: Rows | pl.DataFrame | None, progress: Progress) -> Subject:
    """Load the tuned model and, where one is given, its base under a probe head."""
    device = resolve_device(request.device)
    labels = rows.labels if isinstance(rows, Rows) else None
    base_for_adapter = request.base if Source(request.model).is_adapter else None
    tuned = verify(
        load(
            request.model, labels=labels, label_map=request.label_map or None, base=base_for_adapter, device=device
        )
    )  # fmt: skip
    (name,) = arm_names([request.model])
    base, head = tuned, "none"
    splits: dict[str, Any] = {}
    if request.base is not None and isinstance(rows, Rows):
        base, splits = _base(request, tuned, rows, progress)
        head = "probe"
    notes = [] if head == "none" else [f"Base head: {base.record['head']}. Tuned head: the checkpoint's own."]
    return Subject(
        name,
        None,
        base,
        tuned,
        head,
        splits,
        sampling_seed=request.config.seed,
        progress=progress,
        notes=notes,
    )


def _base(
    request: TestRequest, tuned: Classifier, rows: Rows, progress: Progress
) -> tuple[Classifier, dict[str, Any]]:
    assert request.base is not None
    trunk = load_trunk(
        request.base, labels=rows.labels, pooling=tuned.pooling, max_length=tuned.max_length,
        device=tuned.device,
    )  # fmt: skip
    fit = tokenize(rows.split("train"), tuned.tokenizer, tuned.max_length, progress)
    return fit_probe(verify(trunk), fit, seed=request.config.seed, progress=progress), {"train": fit}


def _about(request: TestRequest, subject: Subject, seconds: float) -> dict[str, Any]:
    said = "whether the checkpoint saw these rows in training is not known"
    return {
        "name": f"behaviour of {subject.arm}",
        "question": f"How does {subject.arm} behave when words are exchanged?",
        "command": command_line(),
        "base": request.base or "none given",
        "tuned": {subject.arm: request.model},
        "data": request.data,
        "assumptions": [f"{subject.arm}: {item}" for item in subject.tuned.record.get("assumed", [])],
        "notes": [*subject.notes, *([] if request.data is None else [f"{said[:1].upper()}{said[1:]}."])],
        "logged_metrics": [],
        "seconds": round(seconds, 1),
        "seed": request.config.seed,
    }
