"""Closed-form predictors and small suites whose effects are known to the last digit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from tunescope.behaviour import Suite, pair_table

NAMES = ["positive", "negative"]


def counting(
    weights: Mapping[str, float], seen: list[list[str]] | None = None
) -> Callable[[list[str]], np.ndarray]:
    """Two classes; the margin of the first is the sum of its words' weights."""

    def predict(texts: list[str]) -> np.ndarray:
        if seen is not None:
            seen.append(texts)
        score = np.array(
            [sum(weights.get(word, 0.0) for word in re.findall(r"\w+", text.lower())) for text in texts]
        )
        return np.stack([score / 2, -score / 2], axis=1)

    return predict


def gender_suite(n: int = 60, label: str | None = "positive", **more) -> Suite:
    """n sentences of she and n of he, each with the other as its pair; row numbers make them differ."""
    records = []
    for index in range(n):
        for first, second, direction in (("she", "he", "female_to_male"), ("he", "she", "male_to_female")):
            records.append(
                {
                    "original": f"{first} walks w{index}", "rewritten": f"{second} walks w{index}", "label": label,
                    "direction": direction, "terms": [first], "text": f"w{index}",
                }
            )  # fmt: skip
    return Suite("gender", "invariance", "she and he", pair_table(records), **more)
