"""How often two seeds of one recipe are called different: each trial draws its own rows and trains two tiny models.

The two models of a trial differ in nothing but the seed of head, order of rows and dropout. A *false finding* is a
claim that one of them is better: the verdict of `compare_arms` on 200 test rows, for accuracy and for macro F1, each at
its own level of 5 %. The ablation lens, with one seed as base and the other as tuned, is told beside it and is not
counted: what it says ("tuning changed the role of head L1H2 most") is a statement about two checkpoints, which really
do differ. The same holds for accuracy where a recipe has not converged: the two checkpoints then differ in truth, and
only several seeds an arm (the Multi-bootstrap from five on) speak of the recipe. Prints one JSON line.

Example: python benchmarks/false_findings.py --trials 100 --output runs/false-findings.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
import torch

from tunescope.data.batches import collate
from tunescope.data.labels import LabelMap
from tunescope.data.tokens import Tokens
from tunescope.doctor.seeds import predictions_of, recipe_base, recipe_tokens
from tunescope.doctor.subjects import keyword_rows, seen, subject_of
from tunescope.evaluation.comparison import ComparisonOptions, compare_arms
from tunescope.models import Classifier, load_trunk
from tunescope.planted.decisive import LABELS
from tunescope.stats.intervals import wilson

METRICS = ("accuracy", "f1_macro")
EPOCHS, BATCH, RATE = 12, 32, 5e-3


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


def trial(number: int, folder: Path) -> dict[str, object]:
    """Train two seeds on one draw of rows, compare them, and say what was claimed."""
    base = recipe_base(folder / "base")
    rows = keyword_rows(400, seed=1000 + number)
    tokens = recipe_tokens(base, rows)
    models = [trained(base, tokens["train"], 2 * number + one) for one in (0, 1)]
    frames = [predictions_of(model, tokens["validation"]) for model in models]
    found: dict[str, object] = {
        "trial": number,
        "first": float((frames[0]["prediction"] == frames[0]["label"]).mean() or 0.0),
        "second": float((frames[1]["prediction"] == frames[1]["label"]).mean() or 0.0),
        "disagree": int((frames[0]["prediction"] != frames[1]["prediction"]).sum()),
    }
    for metric in METRICS:
        options = ComparisonOptions(metric=metric, seed=number)
        pair = compare_arms({("a", 0): frames[0], ("b", 0): frames[1]}, list(LABELS), options)["pairs"][0]
        found[metric] = pair["better"]
    output = seen(
        subject_of(*models, rows), "ablation", rows={"n": 40}, reference_rows=4, components=("heads",),
        edits=("zero",), metrics=("margin_change",), random_control=False,
    )  # fmt: skip
    changed = [one.verdict for one in output.findings if one.metric == "margin_change_difference"]
    found["ablation_change"] = changed[0] if changed else "nothing"
    return found


def main() -> None:
    """Run the trials, one line each to the output, and print the shares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("runs/false-findings.jsonl"))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    wanted.output.parent.mkdir(parents=True, exist_ok=True)
    start, records = time.monotonic(), []
    with wanted.output.open("w", encoding="utf-8") as lines:
        for number in range(wanted.trials):
            with tempfile.TemporaryDirectory() as folder:
                records.append(trial(number, Path(folder)))
            lines.write(json.dumps(records[-1]) + "\n")
            lines.flush()
    table = pl.DataFrame(records, infer_schema_length=None)
    told = {}
    for metric in METRICS:
        hits = int(table[metric].is_not_null().sum())
        share = wilson(hits, table.height)
        told[metric] = {"false_findings": hits, "share": share.value, "low": share.low, "high": share.high}
    print(json.dumps({
        "trials": table.height, **told,
        "ablation_change_found": int((table["ablation_change"] == "found").sum()),
        "mean_accuracy": round(float(table["first"].mean() or 0.0), 4),
        "mean_disagreements_of_200": float(table["disagree"].mean() or 0.0),
        "seconds": round(time.monotonic() - start),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
