"""What TunescopeCallback costs of a training at its default schedule and lenses, TensorBoard scalars included.

The small GPT-2 of ../shared (or random weights of its shape) is tuned on tweets by transformers' own Trainer, with
the callback and without, in turns and each in a process of its own; ratios are of processor time of ``train()``. The
callback's own account of its share of wall time stands beside them. Goal: at most 10 % of training time.

    python benchmarks/watching.py --rows 6400 --rounds 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHARED = Path(os.environ.get("TUNESCOPE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
THREADS = os.environ.get("OMP_NUM_THREADS", "1")
GOAL = 0.10
PROBES = 128


def measure(watched: bool, rows: int, epochs: float) -> dict[str, Any]:
    """Train once in this process; processor seconds of training, and what the callback says of itself."""
    import polars as pl
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    from tunescope import TunescopeCallback

    torch.manual_seed(0)
    folder = SHARED / "weights" / "gpt2-mini-english"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=6)
    model.config.pad_token_id = tokenizer.pad_token_id
    frame = pl.read_parquet(SHARED / "data" / "emotion" / "train.parquet").head(rows)
    probe = pl.read_parquet(SHARED / "data" / "emotion" / "validation.parquet").head(PROBES)
    encoded = [tokenizer(text, truncation=True, max_length=64) for text in frame["text"]]
    data = Dataset.from_list(
        [{**one, "labels": label} for one, label in zip(encoded, frame["label"], strict=True)]
    )
    with tempfile.TemporaryDirectory() as place:
        callback = TunescopeCallback(
            probe["text"].to_list(), probe["label"].to_list(), folder=Path(place) / "watched"
        )
        arguments = TrainingArguments(
            str(Path(place) / "out"), num_train_epochs=epochs, per_device_train_batch_size=32, learning_rate=5e-4,
            report_to=[], save_strategy="no", logging_steps=50, use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(
            model, arguments, train_dataset=data, processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer), callbacks=[callback] if watched else [],
        )  # fmt: skip
        start, wall = time.process_time(), time.perf_counter()
        trainer.train()
        found = {
            "processor": time.process_time() - start, "seconds": time.perf_counter() - wall,
            "steps": trainer.state.global_step,
        }  # fmt: skip
        if watched:
            about = json.loads((Path(place) / "watched" / "watch.json").read_text(encoding="utf-8"))
            looks = len(list((Path(place) / "watched" / "steps").glob("*.parquet")))
            events = list((Path(place) / "watched" / "tensorboard").glob("events*"))
            found |= {"share": about["share_looking"], "looks": looks, "left_out": len(about["left_out"])}
            found["scalars_bytes"] = sum(one.stat().st_size for one in events)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=6400)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=("watched", "bare"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        print(json.dumps(measure(chosen.only == "watched", chosen.rows, chosen.epochs)))
        return
    best: dict[str, dict[str, Any]] = {}
    environment = {**os.environ, "OMP_NUM_THREADS": THREADS, "OPENBLAS_NUM_THREADS": "1"}
    for _ in range(chosen.rounds):
        for way in ("bare", "watched"):
            command = [sys.executable, __file__, "--only", way, "--rows", str(chosen.rows)]
            command += ["--epochs", str(chosen.epochs)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            print(json.dumps({"way": way, **found}), flush=True)
            if way not in best or found["processor"] < best[way]["processor"]:
                best[way] = found
    bare, watched = best["bare"]["processor"], best["watched"]["processor"]
    share = (watched - bare) / watched  # of the training's time, looking included
    shape = f"small GPT-2, {chosen.rows} tweets, {best['bare']['steps']} steps of 32, {PROBES} probes, {THREADS} thread"
    print(json.dumps({
        "figure": "looking, share of training time (processor)", "value": round(share, 4), "goal": GOAL,
        "met": share <= GOAL, "looks": best["watched"]["looks"], "left_out": best["watched"]["left_out"],
        "own_account": round(best["watched"]["share"], 4), "shape": shape,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
