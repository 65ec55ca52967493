"""The files of audit, baselines, comparison, grids, expectations and the like, by their real writers where cheap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from report_run import SPLITS, Recipe

from tunescope.config.expect import ExpectRule
from tunescope.data.audit import AuditOptions, audit
from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.evaluation import (
    Scored,
    classification_metrics,
    reliability_curve,
    slice_metrics,
    standard_columns,
    tune_thresholds,
)
from tunescope.evaluation.comparison import ComparisonOptions, compare_arms
from tunescope.expect import check, summary
from tunescope.files import read_json, write_json
from tunescope.prompting.choice import Candidate, choose

COST = {
    "seconds": 312.4, "steps": 1500, "stored_bytes": 90_912_345, "real_tokens_per_second": 3425.3,
    "padding_share": 0.0326, "peak_memory_bytes": 802_017_280, "memory": [[1.0, 7.9e8], [9.0, 8.02e8]],
    "devices": ["cpu"], "stopped_early": False, "halved": 0,
}  # fmt: skip


def add_evidence(folder: Path, recipe: Recipe, column: str = "kind") -> Path:
    """Add every file of issues 3 and 4 to a generated run; ``column`` names a column that tells the label."""
    rows = pl.read_parquet(folder / "data" / "rows.parquet")
    told = pl.Series(column, [f"{column} {label}" for label in rows["label"]])
    rows = rows.with_columns(told)
    small = pl.concat([rows.filter(pl.col("split") == split).head(150) for split in SPLITS])
    found = audit(
        Rows(small, LabelMap(recipe.labels), {"text": "text", "label": "label"}), AuditOptions(near=False)
    )
    write_json(folder / "data" / "audit.json", {**found.to_dict(), "tokens_of": None})
    tables = {}
    for arm in recipe.arms:
        for seed in recipe.seeds:
            tables[arm, seed] = _measure(folder, recipe, arm, seed, rows)
    others = _baselines(folder, recipe, rows)
    options = ComparisonOptions(resamples=200)
    compared = compare_arms(tables, list(recipe.labels), options, baselines=others)
    write_json(folder / "comparison.json", {"done": True, **compared})
    cross_validation(folder)
    elsewhere(folder, recipe)
    expect(folder, recipe)
    return folder


def place_of(folder: Path, arm: str, seed: int) -> Path:
    return folder / "arms" / arm.replace("/", "_") / f"seed-{seed}"


def _measure(folder: Path, recipe: Recipe, arm: str, seed: int, rows: pl.DataFrame) -> pl.DataFrame:
    """Add to an arm's metrics what the real writers write, on its predictions."""
    place, names = place_of(folder, arm, seed), list(recipe.labels)
    table = pl.read_parquet(place / "predictions.parquet")
    document = read_json(place / "metrics.json")
    del document["format_version"]
    document |= {"cost": COST, "slices": [], "reliability": {}, "notes": [], "point": {}, "train_share": 1.0}
    scored = {}
    for split in ("validation", "test"):
        own = table.filter(pl.col("split") == split).join(rows.drop("split", "label"), on="row_id")
        logits = own.select([f"logit_{name}" for name in names]).to_numpy()
        truth = own["label"].to_numpy()
        scored[split] = Scored(truth, logits)
        document["reliability"][split] = reliability_curve(truth, logits)
    told = own.columns[-1]
    columns = {
        **standard_columns(np.arange(own.height) % 60, np.arange(own.height) % 7 == 0),
        told: own[told].to_numpy(),
    }
    document["slices"] = slice_metrics(truth, logits, names, columns, "test", 0)
    document["threshold"] = tune_thresholds(scored["validation"], scored["test"], names, seed=0)
    document["records"] += [
        record
        for record in classification_metrics(truth[:40], logits[:40], names, "test", 0)
        if record["metric"] in ("expected_calibration_error", "matthews_corrcoef")
    ]
    if arm == recipe.arms[0]:
        document["prompt"] = prompts(len(names))
        document["notes"] = ["the base model has read these texts, without labels"]
    write_json(place / "metrics.json", document)
    matrices = [
        {"matrix": "classifier.weight", "shape": [6, 384], "trained": 2304, "of": 2304},
        {"matrix": "encoder.0.query.weight", "shape": [384, 384], "trained": 0, "of": 147_456},
    ]
    write_json(place / "parameters.json", {"matrices": matrices})
    return table


def _baselines(folder: Path, recipe: Recipe, rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    names, found = list(recipe.labels), {}
    for name, right in (("majority", 0.0), ("tfidf", 0.6)):
        rng = np.random.default_rng(3)
        truth = rows["label"].to_numpy()
        guesses = np.where(rng.random(len(truth)) < right, truth, 1)
        logits = np.eye(len(names))[guesses] * 3.0
        table = rows.select("row_id", "split", "label").with_columns(
            pl.Series("prediction", guesses),
            *(pl.Series(f"logit_{label}", logits[:, i]) for i, label in enumerate(names)),
        )
        test = rows["split"].to_numpy() == "test"
        place = folder / "baselines" / name
        place.mkdir(parents=True)
        records = classification_metrics(truth[test], logits[test], names, "test", 0)
        write_json(place / "metrics.json", {"baseline": name, "about": f"what {name} is", "records": records})
        found[name] = table
    write_json(folder / "baselines" / "left_out.json", {"lookup": "there is no column beside text and label"})
    return found


def prompts(classes: int, texts: tuple[str, ...] = ("Feeling: {text}", "{text} I feel")) -> dict[str, Any]:
    """Return the record of prompts that were tried, by the real choice."""
    rng = np.random.default_rng(5)
    candidates = [
        Candidate(text, False, np.zeros(classes), rng.random(200) < share)
        for text, share in zip(texts, (0.4, 0.7), strict=True)
    ]
    _, evidence = choose(candidates, np.arange(200) % 4)
    return {"prompt": texts[1], "calibration": "none", **evidence, "rows": 200, "tokens": {"joy": [3]}}


def cross_validation(folder: Path) -> None:
    def share(value: float) -> dict[str, Any]:
        return {
            "value": value,
            "low": value - 0.02,
            "high": value + 0.02,
            "n": 450,
            "method": "bootstrap",
            "note": None,
        }

    line = {
        "name": "tfidf", "random": {"accuracy": share(0.81), "f1_macro": 0.8},
        "grouped": {"accuracy": share(0.64), "f1_macro": 0.6}, "gap": {**share(0.17), "p": 2e-4, "q": 4e-4},
        "leak": True,
    }  # fmt: skip
    content = {
        "done": True, "k": 5, "seed": 0, "rows": 450, "of_rows": 450, "groups": 30, "grouped_by": "topic",
        "baselines": [line], "left_out": {}, "sentence": "Random folds flatter tfidf by 0.170.",
    }  # fmt: skip
    write_json(folder / "data" / "cross_validation.json", content)


def elsewhere(folder: Path, recipe: Recipe) -> None:
    arm, seed = recipe.arms[0], recipe.seeds[0]

    def bits(value: float, **more: Any) -> dict[str, Any]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 20, "method": "bootstrap",
                "note": None, **more}  # fmt: skip

    tuned = [{"arm": arm, "seed": seed, **bits(3.4), "difference": bits(1.2, p=0.001, share=0.55)}]
    language = {
        "model": "gpt2-mini", "arms": [arm], "unit": "bits per byte", "kind": "causal", "documents": 20,
        "tokens": 2400, "bytes": 9000, "window": 128, "base": bits(2.2), "tuned": tuned, "note": None,
        "sentence": "", "head": "the base's own token embedding (tied)", "skipped": [],
    }  # fmt: skip
    rng = np.random.default_rng(0)
    truth = rng.integers(0, len(recipe.labels), 80)
    logits = rng.normal(0, 1, (80, len(recipe.labels)))
    records = classification_metrics(truth, logits, list(recipe.labels), "test", 0)
    other = {
        "arm": arm, "seed": seed, "name": "tweets", "rows": 80, "left_out": {"boredom": 7}, "unlabelled": 0,
        "map": {"happy": recipe.labels[0]}, "labels": [recipe.labels[0]], "records": records,
        "records_among": None, "majority": {"accuracy": 0.3, "class": None}, "sentence": "",
    }  # fmt: skip
    skipped = [{"arm": "zero-shot", "note": "nothing was tuned"}]
    write_json(folder / "elsewhere.json", {"language": [language], "data": [other], "skipped": skipped})


def expect(folder: Path, recipe: Recipe) -> None:
    arm = recipe.arms[0]
    rules = [
        ExpectRule(metric="accuracy", lower=0.5, arm=arm),
        ExpectRule(metric="accuracy", lower=0.99, arm=arm, name="nearly perfect", source="a paper, table 2"),
        ExpectRule(metric="f1_macro", lower=0.91, arm=arm),
    ]
    verdicts = check(folder, rules)
    content = {"verdicts": [one.record() for one in verdicts], "summary": summary(verdicts)}
    write_json(folder / "expect.json", content)


def add_grid(folder: Path, name: str = "lora", key: str = "k") -> None:
    """Write grids.json: a selection over two settings, and a learning curve, in the format of the study's stage."""

    def seeds(value: float) -> list[dict[str, Any]]:
        return [
            {"seed": seed, "value": value + 0.01 * seed, "low": value - 0.03, "high": value + 0.04, "n": 200,
             "method": "wilson", "note": None, "seconds": 12.0}
            for seed in (0, 1)
        ]  # fmt: skip

    def point(arm: str, settings: dict[str, Any], value: float) -> dict[str, Any]:
        return {"arm": arm, "point": settings, "seeds": seeds(value), "mean": value, "trainable_parameters": 4000,
                "parameters": 90_000}  # fmt: skip

    rates = [1e-4, 5e-4]
    points = [
        point(
            f"{name}-{key}{k}-{rate}", {key: k, "training.learning_rate": rate}, 0.7 + 0.05 * k + 100 * rate
        )
        for k in (1, 2, 4)
        for rate in rates
    ]
    axes = [{"key": key, "values": [1, 2, 4]}, {"key": "training.learning_rate", "values": rates}]
    shares = [
        point(f"curve-{share}", {"train_share": share}, 0.5 + 0.3 * share) for share in (0.25, 0.5, 1.0)
    ]
    common = {"how": "one is chosen by accuracy on validation rows", "seeds": [0, 1]}
    content = {
        "metric": "accuracy", "lower_is_better": False, "split": "validation", "trials": {name: 6, "full": 1},
        "note": "The arms are given unequal numbers of trials.",
        "grids": [
            {"grid": name, "axes": axes, "kind": "selection", "points": points, "chosen": [points[-1]["arm"]],
             **common},
            {"grid": "curve", "axes": [{"key": "train_share", "values": [0.25, 0.5, 1.0]}], "kind": "learning_curve",
             "points": shares, "chosen": [one["arm"] for one in shares], **common},
        ],
    }  # fmt: skip
    write_json(folder / "grids.json", content)
