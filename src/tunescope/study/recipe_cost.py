"""What a recipe costs, by the arithmetic of ``tunescope validate``, from the sizes that the recipe states."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tunescope.config import ArmConfig, StudyConfig
from tunescope.config.claims import CostConfig
from tunescope.study.context import is_prompted
from tunescope.study.estimate import HIGHEST_USE, LOWEST_USE, Shape, memory, operations

MODEL_BYTES, CHECKPOINT_BYTES = (
    4.0,
    12.0,
)  # a parameter: weights; two moments and weights of the step that can resume
CHECKPOINTS = 2  # the last and the best step, while a training runs
RATES = (1e11, 1e13)  # operations a second: two cores of a laptop, one graphics card
STATED = (
    "Arithmetic: 6 x N x tokens operations to train (N: parameters outside the embeddings; adapters 4 x N, a frozen "
    "trunk 2 x N once), 2 x N x tokens a forward pass, at 30 % to 80 % of a machine's matrix rate; 16 bytes a trained "
    "parameter and 68 bytes x tokens of a batch x width x layers of memory; on disk 4 bytes a parameter and arm and "
    "seed, and 2 x 12 more while a training runs. `tunescope validate` measures this machine and these very rows."
)


def cost_lines(study: StudyConfig) -> Iterator[str]:
    """Yield lines on operations, time, memory and disk; nothing where the recipe states no sizes."""
    cost = study.recipe.cost if study.recipe is not None else None
    if cost is None:
        return
    total, most, disk, largest = 0.0, 0.0, cost.data_mb * 1e6, 0.0
    batch = {
        arm.name: int(study.training_of(arm).get("per_device_train_batch_size", 16)) for arm in study.arms
    }
    for arm in study.arms:
        shape = _shape(study, arm, cost)
        if shape is None:
            yield f"  the size of {arm.model} is not stated, so arm {arm.name} is not counted"
            continue
        total += sum(operations(study, arm, shape).values()) * len(study.seeds)
        most = max(most, memory(arm, shape, batch[arm.name]))
        if not is_prompted(arm):
            disk += MODEL_BYTES * shape.parameters * len(study.seeds)
            largest = max(largest, CHECKPOINTS * CHECKPOINT_BYTES * shape.parameters)
    spans = [(total / rate / HIGHEST_USE, total / rate / LOWEST_USE) for rate in RATES]
    yield (
        f"  time: {total:.1e} operations: {_time(spans[0][0])} to {_time(spans[0][1])} at 100 GFLOP/s (two cores), "
        f"{_time(spans[1][0])} to {_time(spans[1][1])} at 10 TFLOP/s (one graphics card)"
    )
    yield f"  memory: about {0.6 + most / 1e9:.1f} GB; disk: about {(disk + largest) / 1e9:.1f} GB"


def _shape(study: StudyConfig, arm: ArmConfig, cost: CostConfig) -> Shape | None:
    own = cost.shapes.get(arm.model) or cost.shapes.get(arm.model.rpartition("/")[2])
    if own is None and arm.scratch is not None:
        own = cost.shapes.get("scratch")
    if own is None:
        return None
    lengths: dict[str, np.ndarray] = {}
    for split, rows in cost.rows.items():
        wanted = study.data.rows
        cap = (wanted if isinstance(wanted, int) else wanted.get(split, rows)) if wanted is not None else rows  # type: ignore[call-overload]
        lengths[split] = np.full(min(rows, cap), min(cost.tokens, study.data.max_length or 512))
    lengths["train"][0] = min(cost.longest, study.data.max_length or 512)
    return Shape(own.parameters, own.parameters - own.embeddings, own.width, own.layers, own.heads,
                 lengths, {}, True)  # fmt: skip


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
