"""What the stages of one run share: rows, tokens and models, loaded once and only when needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tunescope.config import ArmConfig, StudyConfig
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens, tokenize
from tunescope.models import Classifier, load, load_trunk
from tunescope.progress import SILENT, Progress
from tunescope.runs import RunFolder
from tunescope.seeds import derive_seed
from tunescope.study.inputs import scratch_key

ROWS = "data/rows.parquet"


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
    _tokens: dict[tuple[str, str], Tokens] = field(default_factory=dict, repr=False)

    @property
    def path(self) -> Path:
        """The run folder's path."""
        return self.run.path

    def forget_rows(self) -> None:
        """Drop what was read from rows that were made anew."""
        self._rows = None
        self._tokens.clear()

    def rows(self) -> Rows:
        """Return the rows of the study, all splits."""
        if self._rows is None:
            self._rows = Rows.load(self.path / ROWS)
        return self._rows

    def arm_folder(self, arm: ArmConfig, seed: int) -> Path:
        """Return the folder of one training."""
        return self.path / "arms" / arm.name / f"seed-{seed}"

    def model_path(self, arm: ArmConfig) -> str:
        """Return the folder or hub id of an arm's base model."""
        if arm.scratch is None:
            return arm.model
        return str(self.path / "scratch" / scratch_key(self.study, arm.scratch) / "model")

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
        )

    def tuned(self, arm: ArmConfig, seed: int) -> Classifier:
        """Load an arm's tuned model."""
        folder = self.arm_folder(arm, seed) / "model"
        return load(str(folder), labels=self.rows().labels, device=self.device)

    def tokens(self, arm: ArmConfig, classifier: Classifier, split: str) -> Tokens:
        """Return the encoded rows of a split as an arm's model reads them."""
        key = (arm.name, split)
        if key not in self._tokens:
            rows = self.rows().split(split)
            self._tokens[key] = tokenize(rows, classifier.tokenizer, classifier.max_length, self.progress)
        return self._tokens[key]

    def splits(self, arm: ArmConfig, classifier: Classifier) -> dict[str, Tokens]:
        """Return the encoded rows of every split."""
        return {split: self.tokens(arm, classifier, split) for split in self.rows().splits}


def stage_name(kind: str, arm: ArmConfig, seed: int, more: str | None = None) -> str:
    """Return the name of a stage of one training, such as ``train-full-seed-0``."""
    return f"{kind}-{arm.name}-seed-{seed}" + ("" if more is None else f"-{more}")
