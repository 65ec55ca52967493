"""A run with many lenses, made of generated rows and two tiny models by the real pipeline, and a browser to open it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

WORDS = {
    "=good": ("love", "fine day", "warm"),
    "bad": ("sad", "noise", "cold"),
    "odd": ("what", "film", "because"),
}
FILLERS = (
    "the cat",
    "he said",
    "in the street",
    "she walked home",
    "on the mat",
    "and the rain",
    "it was night",
)
LENSES = (
    "cka", "similarity", "probes", "ablation", "spread", "dimensions", "maps", "patching", "patching_cross",
    "grafting", "logit_lens", "attribution_direct", "words", "attention", "flow", "activations",
    "weights",
)  # fmt: skip
FEW: dict[str, dict[str, Any]] = {
    "similarity": {"permutations": 20},
    "dimensions": {"train_rows": 40, "random": 2},
    "maps": {"methods": ["pca"], "axes": [2]},
    "words": {"gradient_rows": 2, "at_least": 3},
    "flow": {"rows": {"n": 8}},
    "weights": {"rows": None},
}


def write_rows(path: Path, rows: int) -> Path:
    rng = random.Random(0)
    lines = ["review,mood"]
    for number in range(rows):
        label = sorted(WORDS)[number % len(WORDS)]
        parts = [rng.choice(FILLERS), rng.choice(WORDS[label]), rng.choice(FILLERS)]
        lines.append(f"{' '.join(parts)} {number},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def study_of(folder: Path, model: Path) -> dict[str, Any]:
    lenses = []
    for name in LENSES:
        options = {"rows": {"n": 24}, **FEW.get(name, {})}
        lenses.append({"lens": name, **{key: value for key, value in options.items() if value is not None}})
    return {
        "name": "moods", "question": "Do moods show?",
        "data": {
            "path": str(write_rows(folder / "rows.csv", 150)), "text": "review", "label": "mood",
            "validation": 0.2, "test": 0.2,
        },
        "arms": [
            {"name": "full", "model": str(model)},
            {"name": "head-only", "model": str(model), "method": "head_only"},
        ],
        "training": {"num_train_epochs": 1, "learning_rate": 5e-3, "per_device_train_batch_size": 16},
        "lenses": lenses,
    }  # fmt: skip


@pytest.fixture(scope="session")
def rich_run(tmp_path_factory, gpt2_folder) -> Path:
    """A run folder with every lens that is cheap on a tiny model, and its report."""
    from tunescope.config import load_study
    from tunescope.progress import Progress
    from tunescope.study import LENSES as known
    from tunescope.study import METHODS, run

    folder = tmp_path_factory.mktemp("rich")
    study = load_study(study_of(folder, gpt2_folder), [], methods=METHODS, lenses=known)
    return run(study, folder / "run", progress=Progress(quiet=True))
