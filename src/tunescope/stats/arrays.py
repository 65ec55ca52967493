"""Numbers from torch or numpy as numpy arrays, without importing torch."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_floats(values: Any) -> np.ndarray:
    """Return values as a numpy array of float32 or float64 on the CPU.

    float32 and float64 stay as they are; half precision, bfloat16 among it, becomes float32, which holds it
    exactly; integers and booleans become float64.

    Args:
        values: A torch tensor on any device, a numpy array, or nested sequences of numbers.
    """
    if hasattr(values, "detach"):  # a torch tensor; numpy has no bfloat16, so it is widened before it crosses
        tensor = values.detach()
        if tensor.is_floating_point() and tensor.element_size() < 4:
            tensor = tensor.float()
        values = tensor.cpu().numpy()
    array = np.asarray(values)
    if array.dtype in (np.float32, np.float64):
        return array
    return array.astype(np.float32 if array.dtype == np.float16 else np.float64)


def as_float64(values: Any) -> np.ndarray:
    """Return values as a numpy array of float64 on the CPU; see :func:`as_floats`."""
    return as_floats(values).astype(np.float64, copy=False)


def as_integers(values: Any) -> np.ndarray:
    """Return whole numbers as a numpy array of int64.

    Raises:
        ValueError: The values are not of an integer type.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.size == 0:
        return array.astype(np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"expected whole numbers, found {array.dtype}")
    return array.astype(np.int64, copy=False)


def select(values: np.ndarray, mask: Any | None) -> np.ndarray:
    """Return the vectors that a mask keeps, as rows.

    Args:
        values: `[..., D]`.
        mask: `[...]`, true or non-zero where a vector counts; None keeps all.

    Returns:
        `[N, D]`.

    Raises:
        ValueError: The mask's shape is not that of the values without their last axis.
    """
    rows = values.reshape(-1, values.shape[-1])
    if mask is None:
        return rows
    chosen = as_floats(mask) != 0
    if chosen.shape != values.shape[:-1]:
        raise ValueError(f"expected a mask of shape {values.shape[:-1]}, found {chosen.shape}")
    return rows[chosen.reshape(-1)]
