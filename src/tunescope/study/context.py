"""What the stages of one run share: rows, tokens and models, loaded once and only when needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunescope.config import ArmConfig, Pooling, StudyConfig
from tunescope.data.pieces import DUPLICATES
from tunescope.data.repeats import clusters
from tunescope.data.rows import Rows
from tunescope.data.split import hash_order
from tunescope.data.tokens import Tokens, tokenize
from tunescope.errors import ConfigError
from tunescope.files import read_json
from tunescope.models import Classifier, load, load_trunk
from tunescope.models.store import ActivationStore, Filling
from tunescope.progress import SILENT, Progress
from tunescope.runs import RunFolder
from tunescope.seeds import derive_seed
from tunescope.study.inputs import scratch_key
from tunescope.tuning import METHODS, Method

ROWS = "data/rows.parquet"
GRIDS = "grids.json"
STORE = "store"  # what frozen blocks give, shared by trainings; removed when all are done


@dataclass
class Context:
    """A study, its run folder, and what its stages have in common.

    Attributes:
        study: The study.
        run: Its run folder.
        device: Where models compute.
        progress: Where to report.
        keep_checkpoints: Leave the checkpoints of finished trainings in place.
    """

    study: StudyConfig
    run: RunFolder
    device: str = "cpu"
    progress: Progress = SILENT
    keep_checkpoints: bool = False
    _rows: Rows | None = field(default=None, repr=False)
    _groups: Any = field(default=..., repr=False)
    _tokens: dict[tuple[Any, str], Tokens] = field(default_factory=dict, repr=False)

    @property
    def path(self) -> Path:
        """The run folder's path."""
        return self.run.path

    def forget_rows(self) -> None:
        """Drop what was read from rows that were made anew."""
        self._rows, self._groups = None, ...
        self._tokens.clear()

    def rows(self) -> Rows:
        """Return the rows of the study, all splits."""
        if self._rows is None:
            self._rows = Rows.load(self.path / ROWS)
        return self._rows

    def groups(self) -> dict[str, str] | None:
        """Return the group of each row id where rows are not independent of one another, or None."""
        if self._groups is ...:
            self._groups = row_groups(self.rows(), self.study.data.group_by)
        return self._groups

    def arm_folder(self, arm: ArmConfig, seed: int) -> Path:
        """Return the folder of one training."""
        return self.path / "arms" / arm.name / f"seed-{seed}"

    def model_path(self, arm: ArmConfig) -> str:
        """Return the folder or hub id of an arm's base model."""
        if arm.scratch is None:
            return arm.model
        return str(self.path / "scratch" / scratch_key(self.study, arm.scratch) / "model")

    def method(self, arm: ArmConfig) -> tuple[Method, Any]:
        """Return an arm's method and its validated options.

        Raises:
            ConfigError: There is no such method (a study made without the loader).
        """
        method = METHODS.get(arm.method)
        if method is None:
            raise ConfigError(f"There is no tuning method {arm.method!r}.", hint=f"Use {', '.join(METHODS)}.")
        return method, method.options.model_validate(arm.options)

    def base(self, arm: ArmConfig, seed: int) -> Classifier:
        """Load an arm's base model with a fresh head; arms of one study and seed start from equal heads."""
        return load_trunk(
            self.model_path(arm),
            labels=self.rows().labels,
            pooling=arm.pooling,
            max_length=self.study.data.max_length,
            seed=derive_seed(seed, "head"),
            device=self.device,
            revision=arm.revision,
            head=arm.head,
        )

    def store(self, arm: ArmConfig) -> ActivationStore | None:
        """Return the run's activation store for what is not a training, or None where the arm says never.

        What does not fit is computed without being kept; under a budget nothing is kept, so that the budget is
        left to trainings.
        """
        training = self.study.training_of(arm)
        if training.get("activation_store", "auto") == "never":
            return None
        most = training.get("activation_store_bytes")
        filling: Filling = "optional" if most is None else "none"
        return ActivationStore(self.path / STORE, most, progress=self.progress, filling=filling)

    def tuned(self, arm: ArmConfig, seed: int, pooling: Pooling | None = None) -> Classifier:
        """Load an arm's tuned model, with its own pooling unless another is given."""
        folder = self.arm_folder(arm, seed) / "model"
        return load(str(folder), labels=self.rows().labels, pooling=pooling, device=self.device)

    def tokens(self, arm: ArmConfig, classifier: Classifier, split: str) -> Tokens:
        """Return the encoded rows of a split as an arm's model reads them; arms of one base share them."""
        key = (self._base_key(arm), split)
        if key not in self._tokens:
            rows, window = self.rows().split(split), self.study.data.window
            self._tokens[key] = tokenize(
                rows, classifier.tokenizer, classifier.max_length, self.progress, window
            )
        return self._tokens[key]

    def splits(self, arm: ArmConfig, classifier: Classifier) -> dict[str, Tokens]:
        """Return the encoded rows of every split."""
        return {split: self.tokens(arm, classifier, split) for split in self.rows().splits}

    def base_splits(self, arm: ArmConfig) -> dict[str, Tokens]:
        """Return the encoded rows of every split, loading the base model only if no arm needed it before."""
        splits = self.rows().splits
        if all((self._base_key(arm), split) in self._tokens for split in splits):
            return {split: self._tokens[self._base_key(arm), split] for split in splits}
        return self.splits(arm, self.base(arm, self.study.seeds[0]))

    def _base_key(self, arm: ArmConfig) -> tuple[str, str | None]:
        return self.model_path(arm), arm.revision

    def train_tokens(self, arm: ArmConfig, classifier: Classifier) -> Tokens:
        """Return the encoded train rows that an arm may see: those with a label, or its share of them."""
        tokens = self.tokens(arm, classifier, "train")
        return tokens.take(seen_rows(self.rows().split("train"), arm.train_share, self.study.data.seed))

    def chosen(self) -> list[ArmConfig]:
        """Return the arms that are evaluated on every split, in order: all but the trials not chosen."""
        if not any(arm.grid for arm in self.study.arms):
            return list(self.study.arms)
        kept = {name for grid in read_json(self.path / GRIDS)["grids"] for name in grid["chosen"]}
        return [arm for arm in self.study.arms if arm.grid is None or arm.name in kept]


def as_read(arm: ArmConfig) -> ArmConfig:
    """Return an arm as lenses and probes read it: at the last real token where it was trained to read padding."""
    return arm.model_copy(update={"pooling": "last"}) if arm.pooling == "last_padded" else arm


def is_prompted(arm: ArmConfig) -> bool:
    """Whether an arm trains nothing and only asks a language model."""
    return arm.method in METHODS and METHODS[arm.method].kind == "prompt"


def seen_rows(rows: Rows, share: float, seed: int) -> np.ndarray:
    """Return the positions of the labelled rows that a share of the train rows holds, ascending.

    Of every class the first rows by a hash of their ids: a smaller share is part of every larger one, and a
    class keeps at least one row.

    Args:
        rows: Train rows.
        share: Above 0, at most 1.
        seed: The seed of the data.
    """
    labels = rows.label_array
    if share >= 1:
        return np.flatnonzero(labels >= 0)
    order = hash_order(rows.frame["row_id"].to_list(), seed, "train_share")
    kept = []
    for label in np.unique(labels[labels >= 0]):
        own = np.flatnonzero(labels == label)
        kept.append(own[np.argsort(order[own], kind="stable")][: max(1, round(share * len(own)))])
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, dtype=np.int64)


def row_groups(rows: Rows, group_by: str | None) -> dict[str, str] | None:
    """Return the group of each row id where rows are not independent of one another, or None.

    Rows of one ``group_by`` value belong together, those of one cluster of near duplicates where it is
    ``duplicates``; without either, rows that repeat a text.
    """
    frame = rows.frame
    repeated = pl.col("row_id").str.split("-").list.first()
    if group_by == DUPLICATES:
        table = frame.select("row_id").with_columns(
            pl.Series("group", clusters(frame["text"], "near")).cast(pl.String)
        )
    elif group_by is not None and (own := _column_of(frame, group_by)) is not None:
        table = frame.select("row_id", pl.coalesce(pl.col(own).cast(pl.String), repeated).alias("group"))
    else:
        table = frame.select("row_id", repeated.alias("group"))
    if table["group"].n_unique() == table.height:
        return None
    return dict(table.iter_rows())


def _column_of(frame: pl.DataFrame, name: str) -> str | None:
    """Return what the rows call a column of the source; None for text and id, which the row ids stand for."""
    return next((one for one in (name, f"source_{name}") if one in frame.columns and one != "text"), None)


def stage_name(kind: str, arm: ArmConfig, seed: int, more: str | None = None) -> str:
    """Return the name of a stage of one training, such as ``train-full-seed-0``."""
    return f"{kind}-{arm.name}-seed-{seed}" + ("" if more is None else f"-{more}")
