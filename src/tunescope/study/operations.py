"""How many floating-point operations an arm of a study takes, from the sizes of its model and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tunescope.config import ArmConfig, LensConfig, StudyConfig
from tunescope.data.sampler import LengthGroupedSampler
from tunescope.study.context import is_prompted
from tunescope.study.lens_cost import lens_operations, passes_of
from tunescope.tuning import METHODS

WRITTEN = (
    4  # what a written token costs against a read one: 8 rows at once reach a third to a fifth of the rate
)


@dataclass(frozen=True)
class Shape:
    """What the arithmetic needs to know of an arm's model.

    Attributes:
        parameters: All of them.
        inner: Those outside the embeddings, N.
        width: Of the residual stream.
        layers: Number of blocks.
        heads: Attention heads in a block.
        lengths: Tokens of the rows by split, after truncation.
        cut: Share of truncated rows by split.
        assumed: Whether lengths are a guess from words.
    """

    parameters: int
    inner: int
    width: int
    layers: int
    heads: int
    lengths: dict[str, np.ndarray]
    cut: dict[str, float]
    assumed: bool


def padded_tokens(lengths: np.ndarray, batch: int) -> int:
    """Return the tokens of one epoch, padding included, in the batches that training would form."""
    ordered = lengths[LengthGroupedSampler(lengths, batch, seed=0).order()]
    return sum(
        int(part.max()) * len(part) for part in np.array_split(ordered, range(batch, len(ordered), batch))
    )


def operations(study: StudyConfig, arm: ArmConfig, shape: Shape) -> dict[str, float]:
    """Return the floating-point operations of one seed of an arm: train, evaluate, and every lens."""
    writes = study.task == "summarise"
    size = (
        shape.parameters if writes else shape.inner
    )  # what writes multiplies by its embeddings at every token
    below = 0.0 if writes else stored_share(study, arm, shape)  # run once a row, then read from disk
    known = [shape.lengths[split] for split in ("train", "validation") if split in shape.lengths]
    kept = float(sum(lengths.sum() for lengths in known))
    cost = {"evaluate": 2.0 * size * (_evaluated(study, arm, shape) - below * kept)}
    if is_prompted(arm):
        if writes:
            return cost  # the prompt is the study's: nothing is chosen
        asked = len(arm.options.get("prompts") or [1]) * min(len(shape.lengths["train"]), arm.options["rows"])
        return {"choose": 2.0 * shape.inner * asked * float(shape.lengths["train"].mean()), **cost}
    training = study.training_of(arm)
    batch = int(training.get("per_device_train_batch_size", 16))
    epoch = padded_tokens(shape.lengths["train"], batch) * arm.train_share
    epochs = float(training.get("num_train_epochs", 3))
    if int(training.get("max_steps") or -1) > 0:
        epochs = int(training["max_steps"]) * batch / max(1, len(shape.lengths["train"]))
    frozen = METHODS[arm.method].frozen_trunk
    times = 1.0 if frozen else epochs
    each = per_token(arm, shape) - 2.0 * below
    cost = {"train": (each * times + 2.0 * below) * size * epoch, **cost}
    if "validation" in shape.lengths and not frozen and training.get("eval_strategy") != "no":
        looked = float(shape.lengths["validation"].sum()) * (epochs * (1 - below) + below)
        cost["train"] += 2.0 * size * looked
    for lens in study.lenses:
        passes = passes_of(
            lens_rows(lens, shape.lengths), shape.lengths["train"], shape.inner, shape.layers, shape.heads
        )
        cost[lens.lens] = lens_operations(lens, passes)
    return cost


def _evaluated(study: StudyConfig, arm: ArmConfig, shape: Shape) -> float:
    """Return the tokens that pass through a model to evaluate it: read, and of summaries also written."""
    if study.task != "summarise":
        return sum(float(lengths.sum()) for lengths in shape.lengths.values())
    options = study.summarise_of(arm)
    written = [shape.lengths[split] for split in options.splits if split in shape.lengths]
    writing = WRITTEN * options.max_summary * options.generation.beams
    return sum(float(lengths.sum()) + writing * len(lengths) for lengths in written)


def per_token(arm: ArmConfig, shape: Shape) -> float:
    """Return the operations of training by one token, in units of N: 2 forward, 2 back, 2 for the weights.

    Blocks below the first trained one take the way forward alone, and what an adapter or a bias trains is next to
    nothing beside N.
    """
    if METHODS[arm.method].frozen_trunk:
        return 2.0
    weights = 4.0 if arm.method in ("full", "last_k") else 2.0
    return 2.0 + weights * (shape.layers - lowest_trained(arm, shape)) / shape.layers


def lowest_trained(arm: ArmConfig, shape: Shape) -> int:
    """Return the first block that a method trains anything in; 0 where it trains all of them."""
    if arm.method == "last_k":
        return max(0, shape.layers - int(arm.options["k"]))
    layers = (arm.options.get("peft") or {}).get("layers_to_transform")
    return min(layers) if isinstance(layers, list) and layers else layers if isinstance(layers, int) else 0


def stored_share(study: StudyConfig, arm: ArmConfig, shape: Shape) -> float:
    """Return the share of the blocks whose output the activation store keeps: those below the first trained one."""
    if is_prompted(arm) or study.training_of(arm).get("activation_store", "auto") == "never":
        return 0.0
    return lowest_trained(arm, shape) / shape.layers


def lens_rows(lens: LensConfig, lengths: Mapping[str, np.ndarray]) -> tuple[np.ndarray, int]:
    """Return the lengths of the split that a lens looks at, and how many of its rows it takes."""
    rows = lens.options.get("rows") or {}
    own = lengths.get(rows.get("split", "validation"), np.zeros(0, dtype=np.int64))
    return own, min(len(own), int(rows.get("n", len(own))))
