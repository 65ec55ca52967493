"""What a comparison of checkpoints is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunescope.config import DataConfig, LensConfig

BaseHead = Literal["probe", "tuned", "own", "none"]
BASE_HEADS: tuple[BaseHead, ...] = ("probe", "tuned", "own", "none")


@dataclass(frozen=True)
class CompareRequest:
    """What to compare.

    Attributes:
        base: Folder or hub id of the model before tuning; or a run folder, whose models are then the bases of those of
            the same arm and seed.
        tuned: Folders or hub ids of tuned classifiers, language models or trunks, peft adapter folders, folders of
            ``checkpoint-*``, run folders, or ``NAME=FOLDER,FOLDER`` for seeds of one arm.
        data: Labelled rows; where only one split is given, a part fits the base's head and the rest is looked at.
        folder: Where to write; what an interrupted call finished there is not done again.
        label_map: From the checkpoints' label names to the data's, where they differ.
        lenses: What to look through; None is the usual lenses, as thorough as the models' size allows.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        seed: Seeds the draw of rows, the probe and every random control.
        base_head: What gives a base its logits: ``probe``, ``tuned``, ``own`` (the trained head of a base that is a
            classifier) or ``none``. None means ``own`` where the bases come from a run, else ``probe``.
    """

    base: str
    tuned: Sequence[str]
    data: DataConfig
    folder: Path
    label_map: Mapping[str, str] = field(default_factory=dict)
    lenses: Sequence[LensConfig] | None = None
    device: str = "auto"
    seed: int = 0
    base_head: BaseHead | None = None
