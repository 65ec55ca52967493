"""Zero-shot classification with one language model: ask every row, choose the most probable verbalizer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from tunescope import __version__
from tunescope.config.window import WindowConfig
from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.errors import DataError, ModelError, RunError
from tunescope.files import read_json, write_json
from tunescope.progress import SILENT, Progress
from tunescope.prompting.answers import answers_of
from tunescope.prompting.choice import Candidate, choose, folds_of, train_rows
from tunescope.prompting.fields import column_of, refuse_hidden
from tunescope.prompting.language_model import LanguageModel, load_language_model
from tunescope.prompting.scores import log_probabilities
from tunescope.prompting.templates import Encoded, Encoder, Reading, Template
from tunescope.tuning.zero_shot import ZeroShotOptions

FILE = "zero_shot.json"
LONGEST_DEFAULT = 512


class ZeroShot:
    """A classifier that is asked in words.

    The score of a class is the log-probability of its verbalizer after the prompt (a sum over tokens, or their
    mean), less its calibration; softmax of the scores gives the classes' probabilities. With contextual
    calibration (Zhao et al. 2021) the score is ``log p_c - log q_c``, where ``q_c`` is the mean probability that
    class c gets from inputs without content, so that such inputs come out uniform.

    Args:
        model: The language model.
        options: Prompts, verbalizers and how answers are read.
        labels: The classes, in the order of the logits.
        reading: How long a prompt may be, and what of a longer text is kept.
        seed: Seeds the folds and the drawing of train rows.

    Attributes:
        record: What was chosen and why; see :mod:`tunescope.prompting`.

    Raises:
        ConfigError: A prompt or verbalizer does not fit the labels or the model; the message says which.
    """

    def __init__(
        self,
        model: LanguageModel,
        options: ZeroShotOptions,
        labels: LabelMap,
        reading: Reading | None = None,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.options = options
        self.labels = labels
        self.reading = reading or Reading()
        self.seed = seed
        self.answers = answers_of(model, options, labels)
        self.templates = [Template.of(text, model) for text in options.templates]
        for template in self.templates:
            refuse_hidden(template)
        self.max_length = _max_length(model, self.reading.max_length)
        longest = max(len(answer) for answer in self.answers)
        room = self.max_length - (longest - 1 if model.kind == "causal" else longest)
        self._encoder = Encoder(model, room, self.reading.window)
        self.chosen: tuple[Template, np.ndarray] | None = None
        self.record: dict[str, Any] = {}

    def fit(self, rows: Rows, progress: Progress = SILENT) -> ZeroShot:
        """Choose prompt and calibration on labelled train rows; nothing of the model changes.

        Every prompt is asked the same rows. The most accurate one is taken; equal ones in the order given. Since
        it is chosen by what it is then measured on, ``selection_accuracy`` tells what choosing is worth: each
        fold is answered by the candidate that is best on the other folds. Equal texts share a fold.

        Args:
            rows: Train rows; rows of other splits are refused.
            progress: Where to report.

        Raises:
            ConfigError: A field is no column of the rows.
            DataError: A row of another split came, or there are several candidates and no labelled row.
        """
        asked = train_rows(rows, self.options.rows, self.seed)
        labels = asked.label_array
        candidates = []
        for template in self.templates:
            shift = self._shift(template)
            # Columns are checked, and content-free inputs asked, even where no row has a label.
            scores = self._scores(self._encode(template, asked), progress)
            kinds = {"none": [False], "contextual": [True], "choose": [False, True]}[self.options.calibration]
            for calibrated in kinds:
                offset = shift if calibrated else np.zeros_like(shift)
                right = (scores - offset).argmax(axis=1) == labels
                candidates.append(Candidate(template.text, calibrated, offset, right))
        if len(candidates) > 1 and not len(asked):
            raise DataError(
                f"There are {len(candidates)} prompts to choose from and no labelled train row to choose on.",
                hint="Give labelled train rows, or one prompt.",
            )
        folds = folds_of(asked, self.options.folds, self.seed)
        best, evidence = choose(candidates, folds)
        winner = candidates[best]
        template = next(one for one in self.templates if one.text == winner.prompt)
        self.chosen = (template, winner.shift)
        self.record = {
            "prompt": winner.prompt,
            "calibration": "contextual" if winner.calibrated else "none",
            "calibration_log_probabilities": dict(zip(self.labels.names, winner.shift.tolist(), strict=True)),
            **evidence,
            "rows": len(asked),
            "tokens": dict(zip(self.labels.names, map(list, self.answers), strict=True)),
            "model": self.model.record,
            "parameters": self.model.record.get("parameters"),
            "max_length": self.max_length,
        }
        return self

    def predict(self, rows: Rows, progress: Progress = SILENT) -> pl.DataFrame:
        """Answer for every row, with the columns of :func:`tunescope.evaluation.predict`.

        Args:
            rows: Rows of any split, with or without labels.
            progress: Where to report.

        Returns:
            One line per row, in order: ``row_id``, ``prediction`` (class index), ``logit_<label>`` (the score),
            ``probability_<label>`` (softmax of the scores), ``tokens`` (of the whole prompt, uncut) and
            ``truncated`` (some of the text was in no prompt).

        Raises:
            RunError: Nothing was fitted yet.
            ConfigError: A field is no column of the rows.
            DataError: A field is empty (null) in a row.
        """
        if self.chosen is None:
            raise RunError("No prompt is chosen yet.", hint="Call fit with the train rows first.")
        template, shift = self.chosen
        encoded = self._encode(template, rows)
        logits = self._scores(encoded, progress) - shift
        shares = np.exp(_log_softmax(logits))
        names = self.labels.names
        columns: dict[str, pl.Series] = {
            "row_id": rows.frame["row_id"].cast(pl.String),
            "prediction": pl.Series(logits.argmax(axis=1) if len(logits) else [], dtype=pl.Int64),
            **{f"logit_{name}": pl.Series(logits[:, c], dtype=pl.Float64) for c, name in enumerate(names)},
            **{
                f"probability_{name}": pl.Series(shares[:, c], dtype=pl.Float64)
                for c, name in enumerate(names)
            },
            "tokens": pl.Series([one.tokens for one in encoded], dtype=pl.Int64),
            "truncated": pl.Series([one.truncated for one in encoded], dtype=pl.Boolean),
        }
        return pl.DataFrame(columns)

    def save(self, folder: Path) -> None:
        """Write ``zero_shot.json``: what was chosen, and which base model it refers to; no weights.

        Raises:
            RunError: Nothing was fitted yet, or the folder cannot be written.
        """
        if self.chosen is None:
            raise RunError("No prompt is chosen yet.", hint="Call fit with the train rows first.")
        path = str(self.model.record["path"])
        local = Path(path).is_dir()
        content = {
            "tunescope": __version__,
            "options": self.options.model_dump(),
            "labels": list(self.labels.names),
            "reading": {"max_length": self.max_length, "window": self.reading.window.model_dump()},
            "seed": self.seed,
            # A run folder may be moved together with a base model that lies inside it.
            "relative_path": os.path.relpath(path, folder) if local else None,
            "record": self.record,
        }
        write_json(Path(folder) / FILE, content)

    @classmethod
    def load(
        cls, folder: Path, device: str | torch.device = "cpu", model: LanguageModel | None = None
    ) -> ZeroShot:
        """Read what :meth:`save` wrote, and load the base model that it refers to.

        Args:
            folder: The folder.
            device: Where to put the base model.
            model: The base model where it is loaded already.

        Raises:
            ModelError: The base model is gone, or is not the one that was asked then.
            RunError: The file is missing or damaged.
        """
        content = read_json(Path(folder) / FILE)
        record = content["record"]
        then = record["model"]
        if model is None:
            beside = Path(folder) / content["relative_path"] if content["relative_path"] else None
            path = str(beside.resolve()) if beside is not None and beside.is_dir() else then["path"]
            model = load_language_model(path, device, then["revision"])
        if model.record.get("sha256") != then["sha256"]:
            raise ModelError(
                f"{folder}: the base model {model.record['path']} is not the one that was asked then; its weights "
                "or tokenizer have another checksum.",
                hint="Put the old base model back, or fit again.",
            )
        window = WindowConfig.model_validate(content["reading"]["window"])
        options = ZeroShotOptions.model_validate(content["options"])
        reading = Reading(content["reading"]["max_length"], window)
        arm = cls(model, options, LabelMap(tuple(content["labels"])), reading, content["seed"])
        template = next(one for one in arm.templates if one.text == record["prompt"])
        shift = np.array([record["calibration_log_probabilities"][name] for name in arm.labels.names])
        arm.chosen, arm.record = (template, shift), record
        return arm

    def _encode(self, template: Template, rows: Rows) -> list[Encoded]:
        values = {field: column_of(rows, field, template) for field in template.columns}
        texts = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
        return self._encoder.encode(template, texts)

    def _scores(self, encoded: Sequence[Encoded], progress: Progress = SILENT) -> np.ndarray:
        """Return uncalibrated scores [N, C]; the windows of a row are averaged."""
        prompts = [prompt for one in encoded for prompt in one.prompts]
        owner = np.repeat(np.arange(len(encoded)), [len(one.prompts) for one in encoded])
        logs = log_probabilities(self.model, prompts, self.answers, progress)
        if self.options.normalise == "mean":
            logs = logs / np.array([len(answer) for answer in self.answers])
        out = np.zeros((len(encoded), len(self.answers)))
        np.add.at(out, owner, logs)
        return out / np.bincount(owner, minlength=len(encoded)).clip(min=1)[:, None]

    def _shift(self, template: Template) -> np.ndarray:
        """Return the log of the mean probability [C] that content-free inputs give to each class."""
        if self.options.calibration == "none":
            return np.zeros(len(self.answers))
        inputs = [dict.fromkeys(template.columns, text) for text in self.options.content_free]
        shares = np.exp(_log_softmax(self._scores(self._encoder.encode(template, inputs))))
        return np.log(shares.mean(axis=0))


def truncation_by_label(rows: Rows, table: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Count rows and rows with cut texts per class, as ``data/summary.json`` wants them; unlabelled rows not.

    Args:
        rows: The rows that were predicted, in order.
        table: What :meth:`ZeroShot.predict` returned for them.
    """
    labels, cut = rows.label_array, table["truncated"].to_numpy()
    return {
        name: {"rows": int((labels == c).sum()), "truncated": int(cut[labels == c].sum())}
        for c, name in enumerate(rows.labels.names)
    }


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _max_length(model: LanguageModel, wanted: int | None) -> int:
    if wanted is None:
        return min(model.limit, LONGEST_DEFAULT)
    if not 1 <= wanted <= model.limit:
        raise ModelError(
            f"max_length {wanted} does not fit {model.record['path']}: it numbers {model.limit} positions.",
            hint=f"Set data.max_length to {model.limit} or less.",
        )
    return wanted
