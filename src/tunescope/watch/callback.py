"""The callback: two lines in a training script, and lenses look at the model while it learns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens, tokenize
from tunescope.errors import DataError, ModelError
from tunescope.lenses import LENSES, Lens, Subject, look
from tunescope.lenses.over_steps.lens import LIGHT
from tunescope.lenses.over_steps.room import require_room, room_of
from tunescope.stats.results import result_table
from tunescope.watch.gradients import GradientNorms
from tunescope.watch.live import frozen_copy, live, undisturbed
from tunescope.watch.records import Records
from tunescope.watch.scalars import Scalars
from tunescope.watch.schedule import Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

MOST_TEXTS = 2000
DEFAULT: tuple[str, ...] = ("cka", "attention", "weights", "gradients")
GRADIENTS = "gradients"


class TunescopeCallback(TrainerCallback):
    """Looks inside a model at step 0 and on a schedule while transformers' Trainer trains it.

        trainer = Trainer(..., callbacks=[TunescopeCallback(texts, labels, folder="watched")])

    Each look compares the model with what it was before training, on the same fixed texts, and leaves one small
    table keyed by the step. Training is not disturbed: weights, modes and random streams are what they were.
    Read the tables with :func:`tunescope.watch.load_watched`; ``tunescope report FOLDER`` draws them.

    Args:
        texts: The fixed texts to look at; a few hundred are plenty.
        labels: Their classes by name or number, for lenses that need them; None where there are none.
        folder: Where to write; each training needs a folder of its own.
        lenses: Names of lenses that read, or (name, options); ``gradients`` stands for gradient norms by module.
        schedule: When to look.
        tokenizer: The tokenizer, where the Trainer was not given it as ``processing_class``.

    Attributes:
        base: The model to compare with; None takes a copy of the one that training starts from. Set it before a
            resumed training, which does not start from its base.
        spent: Seconds that looks have taken.
        tensorboard: Whether scalars are also written for TensorBoard, into the folder's ``tensorboard``; set it to
            False before training for none.

    Raises:
        DataError: There are no texts, or labels that are not one a text.
        LensError: There is no such lens; when training begins, also where the looks would not fit the memory.
        ModelError: The model is of no known family.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[str | int] | None = None,
        *,
        folder: str | Path = "watched",
        lenses: Sequence[str | tuple[str, Mapping[str, Any]]] = DEFAULT,
        schedule: Schedule | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        self.frame = _frame(texts, labels)
        self.lenses = _lenses(lenses, len(texts))
        self.wants_gradients = GRADIENTS in [one if isinstance(one, str) else one[0] for one in lenses]
        self.schedule = schedule or Schedule()
        self.records = Records(Path(folder))
        self.tokenizer = tokenizer
        self.base: PreTrainedModel | None = None
        self.spent = 0.0
        self.tensorboard = True
        self._scalars = Scalars(Path(folder))
        self._one_look = 0.0
        self._began = 0.0
        self._gradients: GradientNorms | None = None
        self._tokens: Tokens | None = None
        self._left_out: list[int] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Keep the model as it is before training, and look for the first time."""
        del args, control
        model = given["model"]
        self.tokenizer = self.tokenizer or given.get("processing_class")
        if self.tokenizer is None:
            raise ModelError(
                "The Trainer was given no tokenizer.",
                hint="Pass processing_class=tokenizer to the Trainer, or tokenizer=... to TunescopeCallback.",
            )
        if not state.is_world_process_zero:
            return
        if self.base is None and state.global_step > 0:
            raise ModelError(
                f"Training goes on from step {state.global_step}, so the model before training is not at hand.",
                hint="Set it before train(): callback.base = AutoModel....from_pretrained(BASE).",
            )
        if self.tensorboard:
            self._scalars.open()
        self._began = time.monotonic()
        with undisturbed(model):
            tuned = live(model, self.tokenizer)
            self._tokens = _tokens(self.frame, tuned)
            names = [name for name, _ in self.lenses]
            room = room_of(tuned, self._tokens, names, copy=self.base is None)
        require_room(room, str(tuned.device), "TunescopeCallback(texts[:{n}], ...)")
        self.base = self.base or frozen_copy(model)
        if state.global_step == 0:
            self._look(model, 0)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Read gradients in the step after which a look is due."""
        del args, control
        if self.wants_gradients and self._due(state, state.global_step + 1):
            self._gradients = GradientNorms(given["model"])
            self._gradients.open()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Stop reading gradients: the batch is whole."""
        del args, state, control, given
        if self._gradients is not None:
            self._gradients.close()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Look, if it is due and there is time for it."""
        del args, control
        if not self._due(state, state.global_step):
            return
        training = time.monotonic() - self._began - self.spent
        done = state.global_step / state.max_steps
        affordable = self.schedule.affordable(self.spent, self._one_look, training, done)
        if state.global_step < state.max_steps and not affordable:
            self._left_out.append(state.global_step)
            self._gradients = None
            return
        self._look(given["model"], state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Keep what the training logs beside what the lenses see."""
        del args, control
        if state.is_world_process_zero and given.get("logs"):
            self.records.log({"step": state.global_step, **given["logs"]})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Look a last time where training stopped early, and write what was done."""
        del args, control
        if not state.is_world_process_zero:
            return
        if self.records.latest < state.global_step:
            self._look(given["model"], state.global_step)
        self._scalars.close()
        elapsed = time.monotonic() - self._began
        self.records.finish({
            "lenses": [name for name, _ in self.lenses], "texts": self.frame.height, "steps": state.global_step,
            "seconds": elapsed, "seconds_looking": self.spent,
            "share_looking": self.spent / elapsed if elapsed else None, "left_out": self._left_out,
        })  # fmt: skip

    def _due(self, state: TrainerState, step: int) -> bool:
        return (
            state.is_world_process_zero
            and step > self.records.latest
            and self.schedule.due(step, state.max_steps)
        )

    def _look(self, model: nn.Module, step: int) -> None:
        start = time.monotonic()
        assert self.base is not None
        assert self.tokenizer is not None
        with undisturbed(model):
            tuned = live(model, self.tokenizer)
            subject = self._subject(live(self.base, self.tokenizer), tuned)
            seen = look(subject, self.lenses, LENSES)
            tables = {output.lens: output.table for output in seen}
            if self._gradients is not None:
                tables[GRADIENTS] = result_table(list(self._gradients.records(tuned)))
                self._gradients = None
        if tables:
            examples = {output.lens: output.examples for output in seen if output.examples is not None}
            self.records.add(step, tables, examples)
            if self.tensorboard:
                self._scalars.write(step, tables)
        self._one_look = time.monotonic() - start
        self.spent += self._one_look

    def _subject(self, base: Any, tuned: Any) -> Subject:
        assert self._tokens is not None
        return Subject("training", None, base.eval(), tuned.eval(), "none", {"validation": self._tokens})


def _frame(texts: Sequence[str], labels: Sequence[str | int] | None) -> pl.DataFrame:
    if not len(texts):
        raise DataError("TunescopeCallback needs texts to look at, and none came.")
    if len(texts) > MOST_TEXTS:
        raise DataError(
            f"{len(texts):,} texts are too many to look at in every step; {MOST_TEXTS:,} is the most.",
            hint="A few hundred, drawn at random, show the same.",
        )
    if labels is not None and len(labels) != len(texts):
        raise DataError(
            f"TunescopeCallback needs one label a text: {len(texts)} texts, {len(labels)} labels."
        )
    return pl.DataFrame({
        "row_id": [f"text-{index}" for index in range(len(texts))],
        "position": pl.Series(range(len(texts)), dtype=pl.Int64),
        "split": ["validation"] * len(texts),
        "text": list(texts),
        "named": [None if labels is None else str(labels[index]) for index in range(len(texts))],
    }, schema_overrides={"named": pl.String})  # fmt: skip


def _lenses(
    wanted: Sequence[str | tuple[str, Mapping[str, Any]]], texts: int
) -> list[tuple[str, dict[str, Any]]]:
    """Return the lenses with their options; they look at all the texts."""
    found = []
    for one in wanted:
        name, options = (one, LIGHT.get(one, {})) if isinstance(one, str) else one
        if name == GRADIENTS:
            continue
        lens = LENSES.get(name)
        has_rows = lens is not None and "rows" in lens.options.model_fields
        rows = {"rows": {"split": "validation", "n": max(4, texts)}} if has_rows else {}
        if isinstance(lens, Lens) and has_rows:
            raise DataError(
                f"The lens {name} runs the model many times; while training goes on only reading lenses look."
            )
        found.append((name, {**rows, **options}))
    return found


def _tokens(frame: pl.DataFrame, model: Any) -> Tokens:
    names: tuple[str, ...] = model.labels.names
    index = {name: number for number, name in enumerate(names)} | {str(n): n for n in range(len(names))}
    unknown = sorted({name for name in frame["named"].drop_nulls() if name not in index}) if names else []
    if unknown:
        raise DataError(
            f"The label {unknown[0]!r} is none of the model's: {', '.join(names)}.",
            hint="Give names of config.id2label, or class numbers.",
        )
    labels = pl.Series(
        [index.get(name) if name is not None else None for name in frame["named"]], dtype=pl.Int64
    )
    rows = Rows(frame.drop("named").with_columns(label=labels), LabelMap(names), {})
    return tokenize(rows, model.tokenizer, model.max_length)
