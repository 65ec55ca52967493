"""What a recipe costs, by the arithmetic of ``tunescope validate``, from the sizes that the recipe states."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tunescope.config import ArmConfig, StudyConfig
from tunescope.config.claims import CostConfig
from tunescope.study.context import is_prompted
from tunescope.study.estimate import HIGHEST_USE, LOWEST_USE, memory
from tunescope.study.operations import Shape, operations

MODEL_BYTES, CHECKPOINT_BYTES = (
    4.0,
    12.0,
)  # a parameter: weights; two moments and weights of the step that can resume
CHECKPOINTS = 2  # the last and the best step, while a training runs
CORES = 1.8e11  # operations a second of matrix products on two cores with AVX-512
CARD = 1e13  # and on one graphics card
USED = 0.6  # of that rate, as measured for trainings of distilgpt2's shape on one core (docs/checks.md)
STATED = (
    "Arithmetic: 6 x N x tokens operations to train (N: parameters outside the embeddings; adapters 4 x N, frozen "
    "blocks 2 x N once), 2 x N x tokens a forward pass (written tokens four times, since they come one by one), at "
    "30 % to 80 % of a machine's matrix rate (60 % was measured); 16 bytes a trained parameter and 68 bytes x tokens "
    "of a batch x width x layers of memory; on disk 4 bytes a parameter and arm and seed, and 2 x 12 more while a "
    "training runs. Left out: reading data, suites of behaviour, writing the report. `tunescope validate` measures "
    "this machine and these very rows."
)


def recipe_operations(study: StudyConfig) -> float | None:
    """Return the floating-point operations of a recipe: all arms and seeds, and each model's frozen-trunk probe.

    None where the recipe states no sizes, or not those of one of its models.
    """
    cost = study.recipe.cost if study.recipe is not None else None
    if cost is None:
        return None
    shapes = {arm.name: _shape(study, arm, cost) for arm in study.arms}
    if any(shape is None for shape in shapes.values()):
        return None
    return _total(study, {name: shape for name, shape in shapes.items() if shape is not None})


def _total(study: StudyConfig, shapes: dict[str, Shape]) -> float:
    counted = [arm for arm in study.arms if arm.name in shapes]
    total = sum(sum(operations(study, arm, shapes[arm.name]).values()) for arm in counted) * len(study.seeds)
    if study.task == "classify":
        bases = {arm.model: shapes[arm.name] for arm in counted if arm.scratch is None}
        total += sum(
            2.0 * shape.inner * float(sum(lengths.sum() for lengths in shape.lengths.values()))
            for shape in bases.values()
        )
    return total


def cost_lines(study: StudyConfig) -> Iterator[str]:
    """Yield lines on operations, time, memory and disk; nothing where the recipe states no sizes."""
    cost = study.recipe.cost if study.recipe is not None else None
    if cost is None:
        return
    most, disk, largest = 0.0, cost.data_mb * 1e6, 0.0
    shapes: dict[str, Shape] = {}
    batch = {
        arm.name: int(study.training_of(arm).get("per_device_train_batch_size", 16)) for arm in study.arms
    }
    for arm in study.arms:
        shape = _shape(study, arm, cost)
        if shape is None:
            yield f"  the size of {arm.model} is not stated, so arm {arm.name} is not counted"
            continue
        shapes[arm.name] = shape
        most = max(most, memory(arm, shape, batch[arm.name]))
        if not is_prompted(arm):
            disk += MODEL_BYTES * shape.parameters * len(study.seeds)
            largest = max(largest, CHECKPOINTS * CHECKPOINT_BYTES * shape.parameters)
    total = _total(study, shapes)
    spans = [(total / rate / HIGHEST_USE, total / rate / LOWEST_USE) for rate in (CORES, CARD)]
    yield (
        f"  time: {total:.1e} operations: {_time(spans[0][0])} to {_time(spans[0][1])} on two cores of together 180 "
        f"GFLOP/s ({_time(total / CORES / USED)} at 60 % of it), {_time(spans[1][0])} to {_time(spans[1][1])} on one "
        f"graphics card of 10 TFLOP/s"
    )
    yield f"  memory: about {0.6 + most / 1e9:.1f} GB; disk: about {(disk + largest) / 1e9:.1f} GB"


def _shape(study: StudyConfig, arm: ArmConfig, cost: CostConfig) -> Shape | None:
    own = cost.shapes.get(arm.model) or cost.shapes.get(arm.model.rpartition("/")[2])
    if own is None and arm.scratch is not None:
        own = cost.shapes.get("scratch")
    if own is None:
        return None
    lengths: dict[str, np.ndarray] = {}
    wanted = study.data.rows
    own_validation = isinstance(study.data.path, dict) and "validation" in study.data.path
    for split, rows in cost.rows.items():
        if split == "validation" and study.data.validation == 0 and not own_validation:
            continue  # there is none
        cap = (wanted if isinstance(wanted, int) else wanted.get(split, rows)) if wanted is not None else rows  # type: ignore[call-overload]
        lengths[split] = np.full(min(rows, cap), min(cost.tokens, study.data.max_length or 512))
    lengths["train"][0] = min(cost.longest, study.data.max_length or 512)
    return Shape(own.parameters, own.parameters - own.embeddings, own.width, own.layers, own.heads,
                 lengths, {}, True)  # fmt: skip


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
