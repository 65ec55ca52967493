"""The studies of docs/studies: valid wherever the real data and weights are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunescope.config import load_study
from tunescope.study import LENSES, METHODS
from tunescope.study.check import check_study
from tunescope.study.choose import trials_of

STUDIES = Path(__file__).resolve().parents[2] / "docs" / "studies"


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "arms", "trials"),
    [("arms-sst2", 10, {1}), ("arms-di725", 17, {1, 16}), ("interventions-emotion", 2, {1})],
    ids=["arms-sst2", "arms-di725", "interventions-emotion"],
)
def test_example_studies_are_valid(shared, name, arms, trials):
    study = load_study(STUDIES / f"{name}.yaml", methods=METHODS, lenses=LENSES)
    check_study(study)
    assert len(study.arms) == arms
    assert set(trials_of(study).values()) == trials
    for arm in study.arms:
        path = arm.model if arm.scratch is None else arm.scratch.like
        assert path is None or "minilm" in path or Path(path).is_dir(), path
    paths = study.data.path
    assert isinstance(paths, dict)
    assert all(Path(str(path)).is_file() for path in paths.values())
