"""One loud shared dimension against its population value, raw and standardised."""

from __future__ import annotations

import numpy as np
import pytest

from tunescope.stats import BlockHSIC

WIDTH, ROWS = 768, 4000


@pytest.mark.parametrize("loudness", [1.0, 5.0, 10.0, 30.0])
def test_a_shared_dimension_has_its_population_value_and_standardising_takes_it_away(loudness):
    """CKA of two clouds that share one dimension of deviation s among independent ones is s^4 / (s^4 + 767)."""
    generator = np.random.default_rng(7)
    first, second = (generator.normal(size=(ROWS, WIDTH)) for _ in range(2))
    first[:, 0] = second[:, 0] = loudness * generator.normal(size=ROWS)
    population = loudness**4 / (loudness**4 + WIDTH - 1)
    for scale, expected in ((1.0, population), (loudness, 1 / WIDTH)):
        state = BlockHSIC(["a", "b"], ROWS)
        for start in range(0, ROWS, 500):
            rows = slice(start, start + 500)
            pair = [np.concatenate([x[rows, :1] / scale, x[rows, 1:]], axis=1) for x in (first, second)]
            state.update(np.arange(start, start + 500), {"a": pair[0], "b": pair[1]})
        matrix = state.matrix()
        error = (matrix.high[0, 1] - matrix.low[0, 1]) / (2 * 1.96)
        assert abs(matrix.value[0, 1] - expected) < 3 * error
