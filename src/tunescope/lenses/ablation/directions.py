"""Directions of the residual stream: what a model writes about the class there, or directions from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tunescope.capture.hooks import reading
from tunescope.capture.sites import Site
from tunescope.data.batches import batches
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.ablation.components import EditKind, Part, Variant
from tunescope.models.classifier import Classifier, right_padded
from tunescope.models.encoder_decoder import StackName

TOLERANCE = 1e-6


class Direction(BaseModel):
    """Directions behind one block: only the stream's share in their span is changed, at every token."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer: int = Field(ge=0, description="the block behind which the direction is removed, from 0")
    stack: StackName | None = Field(
        default=None, description="encoder or decoder, of a model that has both; else null"
    )
    file: Path | None = Field(
        default=None, description="a NumPy file with directions, [width] or [directions, width]"
    )
    classes: bool = Field(
        default=False, description="true: the differences between the classes' mean pooled states"
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> Direction:
        if (self.file is None) == (not self.classes):
            raise ValueError("a direction needs either a file or classes: true")
        return self

    def variant(self, name: str, model: Classifier, edit: EditKind) -> Variant:
        """Return the change that replaces the share of the stream in these directions.

        Raises:
            LensError: The layer is outside the model, or the stack is not one of its own.
        """
        layers = {stack.name: stack.n_layers for stack in model.stacks}
        if self.stack not in layers:
            stacks = " or ".join(str(one) for one in layers)
            expected = f"stack: {stacks}" if model.is_encoder_decoder else "no stack"
            raise LensError(
                f"The direction {name!r} names {f'the {self.stack}' if self.stack else 'no stack'}; "
                f"{model.family.name} needs {expected}."
            )
        if self.layer >= layers[self.stack]:
            where = f"the {self.stack}'s" if self.stack else "the model's"
            raise LensError(
                f"The direction {name!r} names layer {self.layer}; {where} layers are 0 to {layers[self.stack] - 1}."
            )
        part = Part(Site("resid_post", self.layer, self.stack), direction=name)
        return Variant("direction", self.layer, None, edit, parts=(part,), name=name, stack=self.stack)


def directions_of(direction: Direction, model: Classifier, reference: Tokens) -> torch.Tensor:
    """Return an orthonormal basis of the directions, [K, D].

    Raises:
        LensError: The file does not hold directions of this width, or fewer than two classes have reference rows.
    """
    raw = (
        _from_file(direction.file, model.width)
        if direction.file
        else _class_means(Site("resid_post", direction.layer, direction.stack), model, reference)
    )
    _, sizes, basis = np.linalg.svd(raw, full_matrices=False)
    kept = basis[sizes > TOLERANCE * max(float(sizes.max()), TOLERANCE)]
    if not len(kept):
        raise LensError("The directions are all zero, so there is nothing to remove.")
    return torch.as_tensor(kept, dtype=torch.float32, device=model.device)


def _from_file(path: Path, width: int) -> np.ndarray:
    try:
        raw = np.atleast_2d(np.load(path, allow_pickle=False)).astype(np.float64)
    except (OSError, ValueError) as error:
        raise LensError(f"{path} holds no directions ({error}).") from error
    if raw.ndim != 2 or raw.shape[1] != width or not np.isfinite(raw).all():
        raise LensError(f"{path}: expected finite directions of shape [K, {width}], came {raw.shape}.")
    return raw


def _class_means(site: Site, model: Classifier, reference: Tokens) -> np.ndarray:
    """Return the classes' mean pooled states behind a block, less their mean, [classes, D]."""
    sums: dict[int, np.ndarray] = {}
    counts: dict[int, int] = {}
    for batch in batches(reference):
        moved = batch.to(model.device)
        mask = right_padded(moved.input_ids, moved.attention_mask)[1]
        seen: list[torch.Tensor] = []
        with torch.inference_mode(), reading(model, [site], lambda _s, value, into=seen: into.append(value)):  # type: ignore[misc]
            model(**moved.inputs())
        pooled = model.pool(seen[0], mask).double().cpu().numpy()
        for label, state in zip(batch.labels.tolist(), pooled, strict=True):
            if label >= 0:
                sums[label] = sums.get(label, 0.0) + state
                counts[label] = counts.get(label, 0) + 1
    if len(sums) < 2:
        raise LensError("The classes' directions need labelled reference rows of at least two classes.")
    means = np.stack([sums[label] / counts[label] for label in sorted(sums)])
    return means - means.mean(0)
