"""How often seeds of one recipe are called different: comparisons whose arms differ in nothing but the seed.

Every recipe trains a tiny GPT-2 on 200 rows of its own with several seeds (head, order of rows, dropout). Comparisons
draw their seeds at random from one recipe's pool and 200 test rows at random from 5,200; the 5,000 others say what is
true of the two models. Comparisons of one recipe share trainings, so their shares vary a little more than the Wilson
intervals beside them say. Four things are counted, by accuracy and by macro F1, each at its own level of 5 %:

1. `methods_1_against_1`: one seed each, and a verdict that names a better *method*. By design there is none.
2. `methods_3_against_3`: three seeds each, and a verdict that names a better method, with the same seeds in both arms
   (as in a study: differences seed by seed) and with other seeds in each.
3. `checkpoints`: one seed each, and a verdict that names a better *trained model*. Two trainings may really differ, so
   it is false only where the 5,000 rows contradict its sign, or show a difference nearer to zero than its interval.
4. `exchanged`: the same pairs with every row's answers exchanged between the two models by chance one half. Then the
   null hypothesis is exactly true, and p may be 5 % or less in at most 5 % of pairs; the bootstrap's p stands beside.

Prints one JSON line. Started again with the same output, it goes on with the recipes that are not complete there.
Example: python benchmarks/false_findings.py --output runs/false-findings.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
import torch

from tunescope.data.batches import collate
from tunescope.data.labels import LabelMap
from tunescope.data.tokens import Tokens
from tunescope.doctor.seeds import predictions_of, recipe_base, recipe_tokens
from tunescope.doctor.subjects import keyword_rows
from tunescope.evaluation.comparison import ComparisonOptions, compare_arms
from tunescope.evaluation.comparison.inputs import Run, align
from tunescope.models import Classifier, load_trunk
from tunescope.planted.decisive import LABELS
from tunescope.stats.intervals import wilson
from tunescope.stats.paired import bootstrap_p

METRICS = ("accuracy", "f1_macro")
EPOCHS, BATCH, RATE = 12, 32, 5e-3
TRAIN, TEST, FRESH = 200, 200, 5000
ALPHA = 0.05

Frames = dict[tuple[str, int | None], pl.DataFrame]


def trained(base: Path, tokens: Tokens, seed: int) -> Classifier:
    """Train all weights with AdamW for EPOCHS epochs, the rate falling to 0; the seed draws head, order and dropout."""
    model = load_trunk(str(base), labels=LabelMap(LABELS), seed=seed)
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    steps = EPOCHS * -(-len(tokens) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    model.train()
    for _ in range(EPOCHS):
        order = generator.permutation(len(tokens))
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            loss = torch.nn.functional.cross_entropy(
                model(**collate(tokens, some).inputs()), torch.as_tensor(tokens.labels[some])
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


def pool(recipe: int, seeds: int, folder: Path) -> list[pl.DataFrame]:
    """Train one recipe with several seeds, and return each model's predictions of test and fresh rows together."""
    base = recipe_base(folder / "base")
    train = recipe_tokens(base, keyword_rows(2 * TRAIN, seed=1000 + recipe))["train"]
    rows = recipe_tokens(base, keyword_rows(2 * (TEST + FRESH), seed=5000 + recipe))["validation"]
    return [predictions_of(trained(base, train, 100 * recipe + seed), rows) for seed in range(seeds)]


def pair_of(frames: Frames, metric: str, seed: int) -> dict[str, Any]:
    """Return the record of the one pair of arms."""
    found = compare_arms(frames, list(LABELS), ComparisonOptions(metric=metric, seed=seed))
    record: dict[str, Any] = found["pairs"][0]
    return record


def of_methods(some: list[pl.DataFrame], apart: bool, metric: str, seed: int) -> str | None:
    """Return which of two arms of one recipe is called the better method, given the frames of both in turn."""
    half = len(some) // 2
    frames: Frames = {("a", index): frame for index, frame in enumerate(some[:half])}
    frames |= {("b", index + half * apart): frame for index, frame in enumerate(some[half:])}
    better: str | None = pair_of(frames, metric, seed)["methods"]["better"]
    return better


def of_checkpoints(
    two: list[pl.DataFrame], fresh: list[pl.DataFrame], metric: str, seed: int
) -> dict[str, Any]:
    """Return what is said of two trained models on the test rows, and whether the fresh rows bear it out."""
    record = pair_of({("a", 0): two[0], ("b", 0): two[1]}, metric, seed)
    truth = float(pair_of({("a", 0): fresh[0], ("b", 0): fresh[1]}, metric, seed)["value"])
    value, low, high = record["value"], record["low"], record["high"]
    named = record["better"] is not None
    return {
        "value": value, "low": low, "high": high, "truth": truth, "better": record["better"],
        "method": record["methods"]["better"], "contradicted": named and value * truth <= 0,
        "overstated": named and (truth < low if value > 0 else truth > high), "covered": low <= truth <= high,
    }  # fmt: skip


def exchanged(two: list[pl.DataFrame], metric: str, seed: int) -> dict[str, float]:
    """Return the p values of two models whose answers were exchanged row by row: the comparison's, the bootstrap's."""
    swap = np.random.default_rng([seed, 7]).random(two[0].height) < 0.5
    columns = [name for name in two[0].columns if name.startswith("logit_") or name == "prediction"]
    chosen = pl.Series("swap", swap)
    frames: Frames = {}
    for arm, own, other in (("a", *two), ("b", *two[::-1])):
        mixed = [pl.when(chosen).then(other[name]).otherwise(own[name]).alias(name) for name in columns]
        frames[arm, 0] = own.with_columns(mixed)
    drawn = align(frames, list(LABELS), "test").draws(metric, 2000, [seed, 0]).drawn
    plain = bootstrap_p(drawn[Run("a", 0)] - drawn[Run("b", 0)])
    return {"p": pair_of(frames, metric, seed)["p"], "bootstrap_p": 1.0 if plain is None else plain}


def comparison(frames: list[pl.DataFrame], number: int, exchanges: int) -> list[dict[str, Any]]:
    """Draw seeds and test rows, and return one record a metric."""
    generator = np.random.default_rng([2, number])
    seeds = generator.choice(len(frames), 6, replace=False)
    order = generator.permutation(frames[0].height)
    test, rest = np.sort(order[:TEST]), np.sort(order[TEST:])
    some = [frames[seed][test] for seed in seeds]
    fresh = [frames[seed][rest] for seed in seeds[:2]]
    return [
        {
            "comparison": number, "metric": metric, "checkpoints": of_checkpoints(some[:2], fresh, metric, number),
            "same_seeds": of_methods(some, False, metric, number),
            "other_seeds": of_methods(some, True, metric, number),
            "exchanged": [exchanged(some[:2], metric, 1000 * number + one) for one in range(exchanges)],
        }
        for metric in METRICS
    ]  # fmt: skip


def share(hits: list[bool]) -> dict[str, Any]:
    """Return how many of how many, as a share with Wilson's interval."""
    found = wilson(sum(hits), len(hits))
    return {"hits": sum(hits), "of": len(hits), "share": found.value, "low": found.low, "high": found.high}


def told(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the shares of one metric."""
    pairs = [one["checkpoints"] for one in records]
    swaps = [each for one in records for each in one["exchanged"]]
    return {
        "methods_1_against_1": share([one["method"] is not None for one in pairs]),
        "methods_3_against_3_same_seeds": share([one["same_seeds"] is not None for one in records]),
        "methods_3_against_3_other_seeds": share([one["other_seeds"] is not None for one in records]),
        "checkpoints_found": share([one["better"] is not None for one in pairs]),
        "checkpoints_false": share([one["contradicted"] or one["overstated"] for one in pairs]),
        "checkpoints_contradicted": sum(one["contradicted"] for one in pairs),
        "intervals_that_hold_the_truth": share([one["covered"] for one in pairs]),
        "exchanged": share([one["p"] <= ALPHA for one in swaps]),
        "exchanged_by_the_bootstrap": share([one["bootstrap_p"] <= ALPHA for one in swaps]),
    }


def known(output: Path, comparisons: int) -> dict[int, list[dict[str, Any]]]:
    """Return the records of the recipes that an earlier call has finished, by recipe."""
    lines = output.read_text(encoding="utf-8").splitlines() if output.is_file() else []
    found: dict[int, list[dict[str, Any]]] = {}
    for record in map(json.loads, lines):
        found.setdefault(record["comparison"] // comparisons, []).append(record)
    return {recipe: some for recipe, some in found.items() if len(some) == comparisons * len(METRICS)}


def main() -> None:
    """Train the pools, run the comparisons, one line each to the output, and print the shares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", type=int, default=5, help="pools of trainings, each on rows of its own")
    parser.add_argument("--seeds", type=int, default=12, help="trainings of each recipe, at least 6")
    parser.add_argument("--comparisons", type=int, default=20, help="comparisons of each recipe")
    parser.add_argument("--exchanges", type=int, default=4, help="exchanges of each pair")
    parser.add_argument(
        "--stop-after", type=int, default=None, help="recipes of this call; the next one goes on"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/false-findings.jsonl"))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    wanted.output.parent.mkdir(parents=True, exist_ok=True)
    start, cpu = time.monotonic(), time.process_time()
    done = known(wanted.output, wanted.comparisons)
    todo = [recipe for recipe in range(wanted.recipes) if recipe not in done][: wanted.stop_after]
    wanted.output.write_text("".join(json.dumps(one) + "\n" for some in done.values() for one in some))
    with wanted.output.open("a", encoding="utf-8") as lines:
        for recipe in todo:
            with tempfile.TemporaryDirectory() as folder:
                frames = pool(recipe, wanted.seeds, Path(folder))
            right = [float((frame["prediction"] == frame["label"]).to_numpy().mean()) for frame in frames]
            done[recipe] = []
            for one in range(wanted.comparisons):
                for record in comparison(frames, recipe * wanted.comparisons + one, wanted.exchanges):
                    record["mean_accuracy"] = float(np.mean(right))
                    done[recipe].append(record)
                    lines.write(json.dumps(record) + "\n")
                lines.flush()
    records = [record for some in done.values() for record in some]
    print(json.dumps({
        "recipes": len(done), "seeds": wanted.seeds, "comparisons": len(done) * wanted.comparisons,
        "train_rows": TRAIN, "test_rows": TEST, "fresh_rows": FRESH,
        **{metric: told([one for one in records if one["metric"] == metric]) for metric in METRICS},
        "mean_accuracy": round(float(np.mean([one["mean_accuracy"] for one in records])), 4),
        "seconds": round(time.monotonic() - start), "cpu_seconds": round(time.process_time() - cpu),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
