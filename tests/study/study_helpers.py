from __future__ import annotations

import random
from pathlib import Path

from tunescope.config import StudyConfig, load_study
from tunescope.progress import Progress
from tunescope.study import LENSES, METHODS

WORDS = {
    "good": ["love", "fine day", "very good", "warm", "lovely"],
    "bad": ["sad", "angry", "noise", "nothing ever works", "cold"],
    "odd": ["surprise", "what", "strange", "film", "because"],
}
FILLERS = [
    "the cat",
    "he said",
    "in the street",
    "she walked home",
    "on the mat",
    "and the rain",
    "it was night",
]


class Listening(Progress):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def write_reviews(path: Path, rows: int = 150, seed: int = 0) -> Path:
    rng = random.Random(seed)
    lines = ["review,mood"]
    for number in range(rows):
        label = sorted(WORDS)[number % 3]
        parts = [rng.choice(FILLERS), rng.choice(WORDS[label]), *rng.sample(FILLERS, rng.randint(0, 4))]
        rng.shuffle(parts)
        lines.append(f"{' '.join(parts)} {number},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def raw_study(data: Path, model: Path, **more) -> dict:
    return {
        "name": "moods",
        "data": {"path": str(data), "text": "review", "label": "mood", "validation": 0.2, "test": 0.2},
        "arms": [{"name": "full", "model": str(model)}],
        "training": {"num_train_epochs": 2, "learning_rate": 2e-3, "per_device_train_batch_size": 16},
        "lenses": [{"lens": "cka", "rows": {"n": 24}}],
        **more,
    }


def make_study(raw: dict, *overrides: str) -> StudyConfig:
    return load_study(raw, overrides, methods=METHODS, lenses=LENSES)
