"""One model: what it is, what its weights are like, and what it does with rows. No second model is invented."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from tunescope import __version__
from tunescope.capture.verify import verify
from tunescope.checkpoints.facts import facts_of
from tunescope.checkpoints.measure import measure_pair
from tunescope.checkpoints.rows import rows_for
from tunescope.checkpoints.statistics import WHAT, weight_statistics
from tunescope.checkpoints.usual import ALONE, usual_lenses
from tunescope.config import DataConfig, LensConfig
from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.data.tokens import tokenize
from tunescope.device import resolve_device
from tunescope.environment import command_line, environment
from tunescope.errors import LensError
from tunescope.files import write_json
from tunescope.folders import disk_errors, sweep
from tunescope.foreign import Checkpoint, Kind, Pair, arm_names, is_sentence_export, kind_of, sentence_encoder
from tunescope.lenses import LENSES, LensOutput, Subject, look, save_outputs
from tunescope.lenses.suitable import why_not
from tunescope.models import Classifier, fit_probe, load, load_trunk
from tunescope.models.language import load_language_model
from tunescope.models.source import Source, quiet_transformers
from tunescope.progress import SILENT, Progress
from tunescope.report import write_report
from tunescope.runs import RunFolder
from tunescope.stats.results import Finding, Result, save_findings

# Their sentences are about a model by itself; the others' are about what changed.
SPEAKING = ("logit_lens", "ablation", "words", "attribution_direct")
NO_CLASSES = LabelMap(("no", "classes"))  # a trunk is loaded under some head, which is never read
RESULT = "weight_statistics"
NO_BASE = "none: one model was looked at"


@dataclass(frozen=True)
class InspectRequest:
    """What to look at.

    Attributes:
        model: Folder or hub id of a classifier, language model, trunk or adapter.
        folder: Where to write.
        data: Rows, or None for the model alone.
        label_map: From the model's label names to the data's, where they differ.
        lenses: What to look through, where there are rows; None is what looks at one model, as its size allows.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        seed: Seeds the draw of rows and every random control.
    """

    model: str
    folder: Path
    data: DataConfig | None = None
    label_map: Mapping[str, str] = field(default_factory=dict)
    lenses: Sequence[LensConfig] | None = None
    device: str = "auto"
    seed: int = 0


def inspect_folder(request: InspectRequest, progress: Progress = SILENT) -> Path:
    """Look at one model, write facts, weight statistics, lenses and a report, and return the folder.

    Raises:
        ModelError: The model cannot be used.
        DataError: The rows cannot be read.
        LensError: No lens can look at it on these rows.
        RunError: The folder is in use or cannot be written.
    """
    run = RunFolder(request.folder)
    start = time.monotonic()
    with run.locked(), disk_errors(run.path), quiet_transformers():
        sweep(run.path)
        kind = inspected_kind(request.model)
        rows = (
            None
            if request.data is None
            else rows_for(request.data, kind == "language model", request.seed, progress)
        )
        name = arm_names([request.model])[0]
        device = resolve_device(request.device)
        model = verify(_loaded(request, kind, rows, device))
        facts = facts_of(model, kind, request.model)
        statistics = weight_statistics(model, name, progress)
        notes = ["One model was looked at, nothing was compared; its rows stand under `tuned`."]
        about = {"tunescope": __version__, "command": command_line(), "seeds": [request.seed]}
        Result(RESULT, statistics, {"what": WHAT, "rows": {}, "options": {}, "notes": [], **about}).save(
            run.path / "results"
        )
        findings: list[Finding] = []
        refused: dict[str, str] = {}
        if rows is not None:
            usual = usual_lenses(request.model, ALONE) if request.lenses is None else None
            lenses = usual.lenses if usual is not None else tuple(request.lenses or ())
            seen = _Looking(request, kind, name, model, rows, run.path, progress, lenses)
            notes += usual.notes if usual is not None else ()
            outputs, refused = seen.outputs()
            notes += seen.notes
            findings = save_outputs(outputs, run.path / "results", about)
        save_findings(findings, run.path / "findings.json")
        write_json(run.path / "inspect.json", {**facts, "name": name, "refused": refused})
        write_json(run.path / "environment.json", environment(device=str(device)))
        notes += [f"{name}: the lens {lens} is left out: {why}" for lens, why in refused.items()]
        write_json(run.path / "compare.json", {
            "name": f"{name}, inspected", "command": command_line(), "inspected": request.model, "kind": kind,
            "base": NO_BASE, "tuned": {name: request.model}, "notes": notes, "assumptions": facts["assumed"],
            "refused": [{"arm": name, "lens": lens, "why": why} for lens, why in refused.items()],
            "logged_metrics": [], "seconds": round(time.monotonic() - start, 1), "seed": request.seed,
        })  # fmt: skip
        write_report(run.path)
    return run.path


def inspected_kind(path: str) -> Kind:
    """Return what a model is; one that does not say that it is a classifier has no head that could be read.

    Raises:
        ModelError: The checkpoint cannot be had.
    """
    kind, source = kind_of(path), Source(path)
    raw = source.read_json("config.json")
    said = raw.get("architectures") or ()
    classifies = any("ForSequenceClassification" in str(one) for one in said) or "tunescope_model_type" in raw
    if kind == "classifier" and source.folder is not None and not source.is_adapter and not classifies:
        return "trunk"
    return kind


def _loaded(request: InspectRequest, kind: Kind, rows: Rows | None, device: Any) -> Classifier:
    limit = None if request.data is None else request.data.max_length
    if kind == "language model":
        return load_language_model(request.model, max_length=limit, device=device)
    if kind == "classifier":
        names, mapping = (None, None) if rows is None else (rows.labels, request.label_map or None)
        model = load(request.model, labels=names, label_map=mapping, device=device)
        model.max_length = limit or model.max_length
        return model
    names = NO_CLASSES if rows is None else rows.labels
    if is_sentence_export(request.model):
        encoder = sentence_encoder(request.model)
        model = load_trunk(
            encoder.folder, labels=names, pooling=encoder.pooling, max_length=limit, device=device
        )
        model.max_length = limit or min(model.max_length, encoder.max_length or model.max_length)
        return model
    return load_trunk(request.model, labels=names, max_length=limit, device=device)


@dataclass
class _Looking:
    """One model on rows, through lenses."""

    request: InspectRequest
    kind: Kind
    name: str
    model: Classifier
    rows: Rows
    folder: Path
    progress: Progress
    lenses: Sequence[LensConfig]
    notes: list[str] = field(default_factory=list)

    def outputs(self) -> tuple[list[LensOutput], dict[str, str]]:
        """Return what every lens saw of the model, and for the others why they could not.

        Raises:
            LensError: None could.
        """
        subject = self._subject()
        found, refused = [], {}
        for lens in self.lenses:
            why = why_not(subject, lens.lens, LENSES[lens.lens].two_stacks)
            try:
                output = None if why is not None else self._one(subject, lens)
            except LensError as error:
                output, why = None, error.message
            if output is None:
                refused[lens.lens] = why or "it says what changed between two models, and there is one"
                self.progress.say(f"  {self.name}: the lens {lens.lens} is left out: {refused[lens.lens]}")
            else:
                found.append(output)
        if not found and self.lenses:
            name, why = next(iter(refused.items()))
            raise LensError(
                f"The lens {name!r} cannot look at {self.name}: {why}.", hint="Name others with --lens."
            )
        return found, refused

    def _subject(self) -> Subject:
        splits = {
            one: tokenize(self.rows.split(one), self.model.tokenizer, self.model.max_length, self.progress)
            for one in self.rows.splits
        }
        model, notes = self.model, []
        if self.kind == "trunk":
            model = fit_probe(model, splits["train"], seed=self.request.seed, progress=self.progress)
            notes = [f"The model has no head of its own, so its logits come from a {model.record['head']}."]
        subject = Subject(
            self.name, None, model, model, "none", splits, sampling_seed=self.request.seed, progress=self.progress,
            notes=notes, texts=self.rows.frame.select("row_id", "text"),
        )  # fmt: skip
        self.notes += notes
        self.rows.save(self.folder / "data" / "rows.parquet")
        pair = Pair(self.request.model, Checkpoint(self.name, None, self.request.model))
        measured = measure_pair(subject, pair, self.folder / "arms" / self.name / "seed-0", self.progress)
        self.notes += [note for note in measured["notes"] if "every weight of the trunk" not in note]
        subject.learned = measured["learned"]
        summary = {
            **self.rows.summary(),
            **{key: {self.name: measured[key]} for key in ("tokens", "truncated")},
        }
        write_json(self.folder / "data" / "summary.json", summary)
        return subject

    def _one(self, subject: Subject, lens: LensConfig) -> LensOutput | None:
        """Look through one lens, and keep what is about the model itself."""
        (output,) = look(subject, [(lens.lens, lens.options)], LENSES)
        table = output.table.filter(pl.col("model") == "tuned")
        if table.height == 0:
            return None
        examples = output.examples
        if examples is not None and "model" in examples.columns:
            examples = examples.filter(pl.col("model") == "tuned")
        findings = [
            replace(one, sentence=one.sentence.replace("the tuned model", "the model"))
            for one in output.findings
            if lens.lens in SPEAKING
        ]
        return LensOutput(lens.lens, table, examples, findings, output.provenance)
