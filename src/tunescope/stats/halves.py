"""The "bow-tie" of a layer-by-layer similarity map as one number: alike within the halves of the depth, unlike between.

A map that fades with distance in depth is darker within halves than between them without any bow-tie, since layers of
one half are nearer to each other; the number at equal distance compares only pairs that are equally far apart.
"""

from __future__ import annotations

import numpy as np

from tunescope.errors import LensError

LEAST = 4  # layers: two in each half, so that there is a pair within


def bow_tie_weights(layers: int, equal_distance: bool = False) -> np.ndarray:
    """Return what each cell of a similarity map counts, `[L, L]`: mean within halves minus mean between them.

    The first half are the first ``L // 2`` layers, the second half the last; with an odd number the middle layer is
    in neither. Each pair of layers counts once, the diagonal never. The sum of map times weights is from -1 to 1 for
    similarities from 0 to 1; 1 says equal within halves and unrelated between them.

    Args:
        layers: L, 4 or more.
        equal_distance: Compare within and between among pairs of equal distance in depth, for every distance that
            has both, and take the mean over these distances.

    Raises:
        LensError: There are fewer than 4 layers; or no distance is found both within and between halves, as in
            five layers without the middle one.
    """
    if layers < LEAST:
        raise LensError(f"A bow-tie needs {LEAST} layers or more, two in each half; there are {layers}.")
    depth = np.arange(layers)
    half = np.where(depth < layers // 2, 0, np.where(depth >= layers - layers // 2, 1, -1))
    pair = np.triu(np.ones((layers, layers), dtype=bool), 1) & (half >= 0)[:, None] & (half >= 0)[None, :]
    same = half[:, None] == half[None, :]
    within, between = pair & same, pair & ~same
    if not equal_distance:
        return within / within.sum() - between / between.sum()
    distance = depth[None, :] - depth[:, None]
    weights, shared = np.zeros((layers, layers)), 0
    for gap in range(1, layers):
        near, far = within & (distance == gap), between & (distance == gap)
        if near.any() and far.any():
            weights += near / near.sum() - far / far.sum()
            shared += 1
    if shared == 0:
        raise LensError(f"Of {layers} layers no two pairs, within and between halves, are equally far apart.")
    return weights / shared
