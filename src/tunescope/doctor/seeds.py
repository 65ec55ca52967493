"""Checks of training and seeds: a task is learnt, a training repeats, and two seeds of one recipe do not differ."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens, tokenize
from tunescope.doctor.check import Bench, Line, same
from tunescope.doctor.subjects import keyword_rows
from tunescope.evaluation.comparison import compare_arms
from tunescope.evaluation.predict import predict
from tunescope.models import Classifier, load_trunk
from tunescope.planted.decisive import BAD, FILLERS, GOOD, LABELS
from tunescope.planted.random_models import RandomModel, random_model
from tunescope.training import TrainOptions, train
from tunescope.tuning import METHODS

TRAINING = {
    "num_train_epochs": 3, "per_device_train_batch_size": 16, "learning_rate": 5e-3, "logging_steps": 1000,
}  # fmt: skip


def recipe_base(folder: Path) -> Path:
    """Write the untrained trunk that every seed of the small recipe starts from; it knows the planted words."""
    words = (*GOOD, *BAD, *FILLERS)
    return random_model(RandomModel("gpt2", layers=2, labels=LABELS, scale=0.1, words=words), folder)


def recipe_tokens(base: Path, rows: Rows) -> dict[str, Tokens]:
    """Return the tokens of train and validation under the recipe's tokenizer."""
    model = load_trunk(str(base), labels=rows.labels)
    return {
        name: tokenize(rows.split(name), model.tokenizer, model.max_length)
        for name in ("train", "validation")
    }


def trained(base: Path, rows: Rows, tokens: dict[str, Tokens], folder: Path, seed: int) -> Classifier:
    """Train the small recipe with one seed, and return the model."""
    model = load_trunk(str(base), labels=rows.labels, seed=seed)
    method = METHODS["full"]
    method.prepare(model, method.options())
    train(model, tokens["train"], None, folder, TrainOptions(training=dict(TRAINING), seed=seed))
    return model.eval()


def predictions_of(model: Classifier, tokens: Tokens, split: str = "test") -> pl.DataFrame:
    """Return the predictions of labelled rows, as a run keeps them."""
    found = predict(model, tokens)
    return found.with_columns(label=pl.Series(tokens.labels), split=pl.lit(split))


def two_seeds(bench: Bench) -> Iterable[Line]:
    """Train one recipe with two seeds: the task is learnt, one seed repeats, and the two are not called different."""
    base = recipe_base(bench.folder / "base")
    rows = keyword_rows(400, seed=bench.seed)
    tokens = recipe_tokens(base, rows)
    models = {seed: trained(base, rows, tokens, bench.folder / str(seed), seed) for seed in (0, 1)}
    again = trained(base, rows, tokens, bench.folder / "again", 0)
    frames = {seed: predictions_of(model, tokens["validation"]) for seed, model in models.items()}
    for seed, frame in frames.items():
        share = float((frame["prediction"] == frame["label"]).to_numpy().mean())
        yield Line(f"accuracy of seed {seed} (majority 0.5)", "above 0.8", f"{share:.3f}", share > 0.8)
    equal = predictions_of(again, tokens["validation"]).equals(frames[0])
    yield Line("the same seed twice", "the same bits", "the same bits" if equal else "other numbers", equal)
    differ = not frames[0].equals(frames[1])
    yield Line("another seed", "other numbers", "other numbers" if differ else "the same bits", differ)
    found = compare_arms({("first", 0): frames[0], ("second", 0): frames[1]}, list(LABELS))
    yield same("the two seeds compared: better one", None, found["pairs"][0]["better"])
    blind = frames[0].with_columns(prediction=pl.lit(0, dtype=pl.Int64))
    for name, value in (("negative", 5.0), ("positive", -5.0)):
        blind = blind.with_columns(pl.lit(value).alias(f"logit_{name}"))
    told = compare_arms({("learnt", 0): frames[0], ("one class", 0): blind}, list(LABELS))
    yield same("a seed against one class for all: better one", "learnt", told["pairs"][0]["better"])
