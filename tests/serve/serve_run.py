"""A whole run of a tiny model on generated texts, made by the real pipeline, and its server."""

from __future__ import annotations

import random
from pathlib import Path

from tiny import tiny_folder
from tunescope.config import load_study
from tunescope.study import LENSES, METHODS, run

HOSTILE = "<img src=x onerror=alert(1)>"
WORDS = {
    "good": ["love", "fine day", "very good", "warm"],
    HOSTILE: ["sad", "angry", "noise", "cold"],
    "odd": ["surprise", "what", "strange", "film"],
}
FILLERS = ["the cat", "he said", "in the street", "she walked home", "on the mat", "and the rain"]
TEXT = "he said the cat was sad and angry about the rain"
TOKEN = "a-secret-of-the-tests"


def write_texts(path: Path, rows: int = 90) -> Path:
    rng = random.Random(0)
    lines = ["review,mood"]
    for number in range(rows):
        label = sorted(WORDS)[number % 3]
        parts = [rng.choice(FILLERS), rng.choice(WORDS[label]), *rng.sample(FILLERS, 3)]
        rng.shuffle(parts)
        lines.append(f"{' '.join(parts)} {number},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_run(folder: Path) -> Path:
    model = tiny_folder("gpt2", folder / "base", layers=2)
    raw = {
        "name": "moods",
        "question": "Does </script><script>alert(1)</script> stay text?",
        "data": {
            "path": str(write_texts(folder / "texts.csv")), "text": "review", "label": "mood",
            "validation": 0.3, "test": 0.2,
        },
        "arms": [{"name": "full", "model": str(model)}],
        "training": {"num_train_epochs": 2, "learning_rate": 2e-3, "per_device_train_batch_size": 16},
        "audit": False,
        "lenses": [{"lens": "ablation", "rows": {"n": 8}, "edits": ["zero", "mean"], "reference_rows": 16}],
    }  # fmt: skip
    study = load_study(raw, (), methods=METHODS, lenses=LENSES)
    return run(study, folder / "runs" / "moods", device="cpu")
