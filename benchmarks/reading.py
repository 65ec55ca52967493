"""What reading lenses cost beside the bare forward passes that they need, and how much memory attention takes.

Two models of GPT-2-small's shape (random weights: costs do not depend on them) read rows of 512 tokens. Bare is one
forward pass of each model without padding, as anyone would run it in evaluation mode. Every measurement is a process
of its own, in turn, and the best of ROUNDS is taken; memory is the peak above what the process held before the rows.

    python benchmarks/reading.py            # 16 rows, 12 layers: about six minutes on two cores
    python benchmarks/reading.py --rows 64
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

THREADS = str(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
LENGTH, VOCABULARY = 512, 50257
LIGHT = ("cka", "spread")
GOALS = {"light": 1.2, "attention": 1.5, "memory": 8.0, "speed": 1.0}
ROUNDS = 2


def models(layers: int) -> tuple[Any, Any]:
    """Return base and tuned: one shape, different weights everywhere."""
    import torch
    from transformers import GPT2Config, GPT2ForSequenceClassification

    from tunescope.data.labels import LabelMap
    from tunescope.models.classifier import Classifier
    from tunescope.models.families import family_of

    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = GPT2Config(n_layer=layers, vocab_size=VOCABULARY, num_labels=2, pad_token_id=0)
        model = GPT2ForSequenceClassification(config).eval()
        family = family_of("gpt2")
        tokenizer: Any = _Vocabulary()
        made.append(
            Classifier(model, tokenizer, family, family.own_pooling, LabelMap(("a", "b")), LENGTH).eval()
        )
    return made[0], made[1]


class _Vocabulary:
    """What lenses ask of a tokenizer where the rows are token ids already."""

    def get_vocab(self) -> dict[str, int]:
        return {}


def tokens(rows: int) -> Any:
    import numpy as np

    from tunescope.data.tokens import Tokens

    generator = np.random.default_rng(0)
    ids = [generator.integers(1, VOCABULARY, LENGTH) for _ in range(rows)]
    names = [f"row-{index}" for index in range(rows)]
    labels, lengths = np.arange(rows) % 2, np.full(rows, LENGTH)
    return Tokens(names, ids, None, labels, lengths, pad_id=0)


def measure(what: str, rows: int, layers: int) -> dict[str, float]:
    """Run one way of reading in this process; seconds, and bytes above those before the rows."""
    import torch

    from tunescope.data.packed import packed_batches
    from tunescope.lenses import LENSES, Subject, look

    base, tuned = models(layers)
    data = tokens(rows)
    subject = Subject("arm", 0, base, tuned, "none", {"validation": data})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, processor = time.perf_counter(), time.process_time()
    if what == "bare":
        with torch.inference_mode():
            for model in (base, tuned):
                for batch in packed_batches(data):
                    model(**batch.inputs())
    elif what == "output_attentions":
        _all_attentions(base, tuned, data)
    else:
        names = {"light": LIGHT, "attention": (*LIGHT, "attention"), "attention_alone": ("attention",)}[what]
        options: dict[str, Any] = {"rows": {"split": "validation", "n": rows}}
        look(subject, [(name, options) for name in names], LENSES)
    seconds, used = time.perf_counter() - start, time.process_time() - processor
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {"seconds": seconds, "processor": used, "bytes": float(peak)}


def _all_attentions(base: Any, tuned: Any, data: Any) -> None:
    """What one would otherwise write: all patterns of both models at once, then entropy and divergence."""
    import torch

    for model in (base, tuned):
        model.model.set_attn_implementation("eager")
    for first in range(0, len(data), 4):
        ids = torch.tensor([row.tolist() for row in data.input_ids[first : first + 4]])
        with torch.inference_mode():
            patterns = [
                torch.stack(model.trunk(input_ids=ids, output_attentions=True).attentions)
                for model in (base, tuned)
            ]
            [torch.special.entr(one).sum(-1).mean(-1) for one in patterns]
            before, after = (one.clamp_min(1e-12) for one in patterns)
            (before * (before.log() - after.log())).sum(-1).mean(-1)


def run(what: str, rows: int, layers: int) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--only", what, "--rows", str(rows), "--layers", str(layers)]
    environment = {**os.environ, "OMP_NUM_THREADS": THREADS, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        print(json.dumps(measure(chosen.only, chosen.rows, chosen.layers)))
        return
    ways = ("bare", "light", "attention", "attention_alone", "output_attentions")
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for way in ways:
            found = run(way, chosen.rows, chosen.layers)
            known = best.get(way, found)
            best[way] = {key: min(known[key], found[key]) for key in found}
    shape = f"{chosen.layers} layers, {LENGTH} tokens, {chosen.rows} rows, {THREADS} threads"
    print(f"{shape}; light lenses: {', '.join(LIGHT)}")
    for way in ways:
        one = best[way]
        print(
            f"{way:18} {one['seconds']:7.2f} s  {one['processor']:7.2f} s processor  {one['bytes'] / 2**20:7.0f} MiB"
        )
    bare = best["bare"]["seconds"]
    figures = {
        "light lenses over bare passes": (best["light"]["seconds"] / bare, GOALS["light"], True),
        "with attention over bare passes": (best["attention"]["seconds"] / bare, GOALS["attention"], True),
        "memory of all patterns over attention lens": (
            best["output_attentions"]["bytes"] / best["attention_alone"]["bytes"], GOALS["memory"], False,
        ),
        "time of all patterns over attention lens": (
            best["output_attentions"]["seconds"] / best["attention_alone"]["seconds"], GOALS["speed"], False,
        ),
    }  # fmt: skip
    for figure, (ratio, goal, at_most) in figures.items():
        met = ratio <= goal if at_most else ratio >= goal
        print(
            json.dumps({"figure": figure, "ratio": round(ratio, 3), "goal": goal, "met": met, "shape": shape})
        )


if __name__ == "__main__":
    main()
