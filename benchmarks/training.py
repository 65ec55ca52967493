"""Training as tunescope does it against transformers' Trainer as a user would write it, and against itself.

Everything runs in one process with the same weights, rows, batch size, precision, optimiser and number of threads,
in interleaved repeats; the ratio is that of the best repeats' processor time, and wall time is printed beside it.
Times are those of ``Trainer.train()`` on both sides; filling the activation store is added where it is named.

(a) Full tuning of a small GPT-2 on tweets and on reviews, without padding.
(b) The last 2 of 12 blocks at the width of GPT-2 small, from stored activations.
(c) bf16 against fp32, where the processor has it.

Real texts and weights are read from ../shared (or TUNESCOPE_SHARED); without them rows are drawn with the same
distribution of lengths, and the output says so. The last lines are JSON, one figure each.

Usage: python benchmarks/training.py [--threads 2] [--repeats 2] [--only a,b,c] [--quick]
(--quick: a quarter of the rows, once; for a look, not for the record.)
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    DataCollatorWithPadding,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from tunescope.data.labels import LabelMap
from tunescope.data.sampler import LengthGroupedSampler
from tunescope.data.tokens import Tokens
from tunescope.evaluation.predict import logits_of
from tunescope.models import load_trunk
from tunescope.models.source import quiet_transformers
from tunescope.models.store import ActivationStore
from tunescope.training import TrainLog, TrainOptions, session, train
from tunescope.tuning import METHODS

SHARED = Path(os.environ.get("TUNESCOPE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
EMOTIONS, SENTIMENTS = ("sadness", "joy", "love", "anger", "fear", "surprise"), ("negative", "positive")
BATCH, RATE, WINDOW = 16, 1e-4, 512
SHARE = 1  # one row in so many is trained on; --quick sets 4
POOL = 1600  # rows that length grouping sorts: two of its mega-batches of 50 batches
# Quantiles (0 to 100 % in steps of 10) of the tokens a row under the vocabulary of the small GPT-2.
LENGTHS = {
    "emotion": (3, 8, 11, 13, 16, 19, 22, 27, 32, 40, 75),
    "imdb": (20, 128, 160, 186, 211, 247, 300, 380, 512, 512, 512),
}


@dataclass(frozen=True)
class Material:
    """A model folder and rows of tokens.

    Attributes:
        folder: The model.
        tokens: Train rows.
        held: Rows to measure accuracy on.
        names: The classes.
        real: Whether texts and weights are real.
    """

    folder: Path
    tokens: Tokens
    held: Tokens
    names: tuple[str, ...]
    real: bool


@dataclass
class Best:
    """The best repeat of one way to train.

    Attributes:
        processor: Processor seconds of all threads.
        wall: Seconds.
        places: Token places that went through the model, padding included.
        log: What tunescope said about it, or None.
    """

    processor: float = float("inf")
    wall: float = float("inf")
    places: int = 0
    log: TrainLog | None = None

    def take(self, processor: float, wall: float) -> None:
        """Keep the smaller of what was known and what was measured now."""
        self.processor, self.wall = min(self.processor, processor), min(self.wall, wall)


CLOCK: list[tuple[float, float]] = []


def time_training() -> None:
    """Make tunescope's trainer note the processor and wall time of each ``train`` in ``CLOCK``."""
    plain = session.ClassifierTrainer.train

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        forget()
        start = time.process_time(), time.perf_counter()
        try:
            return plain(self, *args, **kwargs)
        finally:
            CLOCK.append((time.process_time() - start[0], time.perf_counter() - start[1]))

    session.ClassifierTrainer.train = timed  # type: ignore[method-assign]


def forget() -> None:
    """Take what exists out of the collector's sight: Trainer collects garbage once, a constant on both sides."""
    gc.collect()
    gc.freeze()


# ---- material ----


def small_model(folder: Path) -> tuple[Path, bool]:
    """Return the real small GPT-2, or one of its shape with drawn weights."""
    real = SHARED / "weights" / "gpt2-mini-english"
    if real.is_dir():
        return real, True
    return write_model(folder / "mini", layers=6, heads=8, width=256), False


def write_model(folder: Path, layers: int, heads: int, width: int) -> Path:
    """Write a GPT-2 with drawn weights: speed does not depend on what the weights say."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(8192)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    shape = {"n_layer": layers, "n_head": heads, "n_embd": width, "n_positions": WINDOW, "vocab_size": 8192}
    dropout = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    config = GPT2Config(**shape, **dropout, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    with quiet_transformers():
        GPT2LMHeadModel(config).save_pretrained(folder)  # no head: classes are the data's
        PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", unk_token="w0").save_pretrained(
            folder
        )
    return folder


def material(name: str, folder: Path, rows: int, held: int = 8) -> Material:
    """Return ``rows`` train rows and ``held`` others of a data set, as tokens of the small GPT-2.

    The rows stand in whole batches that length grouping forms of ``POOL`` rows, so that its padding is that of the
    full size. Batches are drawn evenly from the shortest to the longest, because the mean length of a few drawn at
    random is not that of the data (of four batches of reviews, 423 tokens in the place of 285); their order is random.
    """
    rows = max(BATCH, rows // SHARE)
    pool = max(POOL, rows)
    names = EMOTIONS if name == "emotion" else SENTIMENTS
    model, real = small_model(folder)
    path = SHARED / "data" / name / "train.parquet"
    if real and path.is_file():
        import polars as pl
        from transformers import AutoTokenizer

        frame = pl.read_parquet(path).sample(pool + held, seed=0, shuffle=True)
        tokenizer = AutoTokenizer.from_pretrained(model)
        encoded = tokenizer(frame["text"].to_list(), truncation=True, max_length=WINDOW)["input_ids"]
        ids = [np.asarray(one, dtype=np.int32) for one in encoded]
        labels = frame["label"].to_numpy().astype(np.int64)
    else:
        real = False
        generator = np.random.default_rng(0)
        drawn = np.interp(generator.random(pool + held) * 10, range(11), LENGTHS[name]).astype(int)
        ids = [generator.integers(1, 8192, n).astype(np.int32) for n in drawn]
        labels = generator.integers(0, len(names), pool + held)
    lengths = np.array([len(one) for one in ids])
    every = Tokens([f"{name}-{i}" for i in range(len(ids))], ids, None, labels, lengths, 0)
    order = np.asarray(LengthGroupedSampler(every.kept[:pool], BATCH, seed=0).order())
    order = even_batches(order[: len(order) // BATCH * BATCH].reshape(-1, BATCH), every.kept, rows // BATCH)
    return Material(model, every.take(order), every.take(np.arange(pool, pool + held)), names, real)


def even_batches(batches: np.ndarray, lengths: np.ndarray, wanted: int) -> np.ndarray:
    """Return the rows of ``wanted`` of the batches [B, n], evenly spaced by their tokens, in the order given."""
    by_length = np.argsort(lengths[batches].sum(axis=1), kind="stable")
    chosen = by_length[((np.arange(wanted) + 0.5) * len(batches) / wanted).astype(int)]
    return batches[np.sort(chosen)].ravel()


# ---- the two ways ----


def theirs(what: Material, folder: Path, pad_to: int | None = None, **more: Any) -> tuple[float, float, int]:
    """Train with transformers' Trainer; return processor time, wall time and token places."""
    with quiet_transformers():
        model = GPT2ForSequenceClassification.from_pretrained(
            what.folder, num_labels=len(what.names), pad_token_id=0, dtype=torch.float32
        )
        tokenizer = PreTrainedTokenizerFast.from_pretrained(what.folder)
    tokenizer.pad_token_id = 0
    width = {"padding": "max_length", "max_length": pad_to} if pad_to else {"padding": True}
    collator = DataCollatorWithPadding(tokenizer, **width)
    places = 0

    def collate(rows: list[dict[str, Any]]) -> Any:
        nonlocal places
        batch = collator(rows)
        places += batch["input_ids"].numel()
        return batch

    rows = [
        {
            "input_ids": ids.tolist(),
            "attention_mask": [1] * len(ids),
            "labels": int(label),
        }
        for ids, label in zip(what.tokens.input_ids, what.tokens.labels, strict=True)
    ]
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=RATE,
        save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True, remove_unused_columns=False,
        dataloader_pin_memory=False, **more,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate)
    trainer.callback_handler.callbacks = [
        one for one in trainer.callback_handler.callbacks if "Printer" not in type(one).__name__
    ]
    forget()
    start = time.process_time(), time.perf_counter()
    trainer.train()
    return time.process_time() - start[0], time.perf_counter() - start[1], places


def ours(
    what: Material, folder: Path, method: str = "full", store: Path | None = None, **more: Any
) -> tuple[float, float, TrainLog, Any]:
    """Train with tunescope; return processor time, wall time, its log and the model."""
    classifier = load_trunk(str(what.folder), labels=LabelMap(what.names), max_length=WINDOW)
    chosen = METHODS[method]
    chosen.prepare(classifier, chosen.options(**({"k": 2} if method == "last_k" else {})))
    fields = {
        "per_device_train_batch_size": BATCH, "num_train_epochs": 1, "learning_rate": RATE, "padding": "none",
        "save_strategy": "no", "eval_strategy": "no", "report_to": "none", **more,
    }  # fmt: skip
    log = train(classifier, what.tokens, None, folder, TrainOptions(training=fields, store=store))
    return *CLOCK.pop(), log, classifier


# ---- (a) ----


def part_a(folder: Path, peak: float, repeats: int) -> list[dict[str, Any]]:
    """Full tuning on tweets and reviews."""
    tweets, reviews = material("emotion", folder, 640), material("imdb", folder, 64)
    few = Material(
        tweets.folder, tweets.tokens.take(np.arange(64 // SHARE)), tweets.held, tweets.names, tweets.real
    )
    grouped = {"train_sampling_strategy": "sequential"}  # the rows stand in the batches of length grouping
    figures = compare("emotion", tweets, folder, peak, repeats, {
        "padded to 128 (Hugging Face's example)": (6.0, {"pad_to": 128}),
        "dynamic padding": (2.0, {}),
        "length grouping": (1.2, grouped),
    })  # fmt: skip
    figures += compare("emotion, few rows", few, folder, peak, 1,
                       {f"padded to the window of {WINDOW}": (None, {"pad_to": WINDOW})})  # fmt: skip
    return figures + compare("imdb at 512", reviews, folder, peak, repeats, {"dynamic padding": (1.8, {})})


def compare(
    name: str,
    what: Material,
    folder: Path,
    peak: float,
    repeats: int,
    others: dict[str, tuple[float | None, dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Time tunescope beside transformers' Trainer in some of its settings."""
    best = {other: Best() for other in (*others, "tunescope")}
    for _ in range(repeats):
        for other, (_, fields) in others.items():
            processor, wall, best[other].places = theirs(what, folder / "theirs", **fields)
            best[other].take(processor, wall)
        processor, wall, log, _ = ours(what, folder / "ours")
        best["tunescope"].take(processor, wall)
        best["tunescope"].places, best["tunescope"].log = log.real_tokens, log
    real, us = int(what.tokens.kept.sum()), best["tunescope"]
    flops = 6.0 * block_weights(what.folder) * real
    print(
        f"{name}: {len(what.tokens)} rows, {real} tokens ({real / len(what.tokens):.1f} a row), "
        f"{'real' if what.real else 'GENERATED'} texts"
    )
    for other, one in best.items():
        print(
            f"  {other:42s} {one.processor:7.2f} s processor {one.wall:7.2f} s wall "
            f"{real / one.wall:8.0f} real tokens/s, {1 - real / one.places:4.0%} padding, "
            f"{flops / one.processor / peak:4.0%} of the matrix-multiply peak on real tokens"
        )
    return [
        figure(
            f"(a) {name}: against {other}",
            best[other],
            us,
            goal,
            real,
            flops / us.processor / peak,
            what.real,
        )
        for other, (goal, _) in others.items()
    ]


def figure(
    name: str, other: Best, us: Best, goal: float | None, tokens: int, share: float, real: bool
) -> dict[str, Any]:
    """Return one figure: the ratio in processor time, with everything needed to judge it."""
    ratio = other.processor / us.processor
    return {
        "figure": name, "ratio": round(ratio, 2), "goal": goal, "met": None if goal is None else ratio >= goal,
        "ratio_wall": round(other.wall / us.wall, 2), "tokens_per_second": round(tokens / us.wall),
        "share_of_peak": round(share, 3), "real_texts": real,
    }  # fmt: skip


def block_weights(folder: Path) -> int:
    """Return the weights of all blocks: each costs 2 operations a token forward and 4 backward."""
    config = json.loads((folder / "config.json").read_text())
    return 12 * int(config["n_layer"]) * int(config["n_embd"]) ** 2


# ---- (b) ----


def part_b(folder: Path, peak: float, repeats: int) -> list[dict[str, Any]]:
    """The last 2 of 12 blocks from stored activations, at the width of GPT-2 small."""
    tweets = material("emotion", folder, 64)
    wide = write_model(folder / "wide", layers=12, heads=12, width=768)
    what = Material(wide, tweets.tokens, tweets.held, tweets.names, False)
    best = {name: Best() for name in ("uncached", "from the second epoch on", "with filling")}
    epochs = 3
    for repeat in range(repeats):
        store = folder / f"store-{repeat}"
        processor, wall, log, _ = ours(what, folder / "plain", "last_k", num_train_epochs=epochs)
        best["uncached"].take(processor, wall)
        filling = fill(what, store)
        processor, wall, stored, _ = ours(
            what, folder / "stored", "last_k", store, num_train_epochs=epochs, activation_store="always"
        )
        best["from the second epoch on"].take(processor, wall)
        best["with filling"].take(processor + filling[0], wall + filling[1])
        same = [event["loss"] for event in log.events] == [event["loss"] for event in stored.events]
        if not same:
            sys.exit("the losses of cached and uncached training differ")
        ActivationStore(store).evict()
    real = epochs * int(what.tokens.kept.sum())
    # Of 6 operations a weight and token, 2 are forward; the last block's second half (8 of its 12 width^2 weights)
    # runs on one token a row.
    tail = 6 * (1 + (4 + 8 * len(what.tokens) * epochs / real) / 12)
    cost = {
        "uncached": 10 * 2 + tail,
        "from the second epoch on": tail,
        "with filling": 10 * 2 / epochs + tail,
    }
    flops = {name: block_weights(wide) / 12 * real * each for name, each in cost.items()}
    print(
        f"last 2 of 12 blocks, width 768: {len(what.tokens)} rows, {real} tokens in {epochs} epochs; same bits"
    )
    for name, one in best.items():
        print(f"  {name:42s} {one.processor:7.2f} s processor {one.wall:7.2f} s wall "
              f"{real / one.wall:8.0f} real tokens/s")  # fmt: skip
    figures = []
    for name, goal in {"from the second epoch on": 2.3, "with filling": 1.5}.items():
        one, limit = best[name], cost["uncached"] / cost[name]
        share = flops[name] / one.processor / peak
        entry = figure(f"(b) last 2 of 12, {name}", best["uncached"], one, goal, real, share, tweets.real)
        figures.append({**entry, "arithmetic_limit": round(limit, 2)})
    return figures


def fill(what: Material, store: Path) -> tuple[float, float]:
    """Fill the store as a training does first; return processor and wall time."""
    classifier = load_trunk(str(what.folder), labels=LabelMap(what.names), max_length=WINDOW)
    METHODS["last_k"].prepare(classifier, METHODS["last_k"].options(k=2))
    start = time.process_time(), time.perf_counter()
    ActivationStore(store).obtain(classifier, what.tokens, classifier.frozen_blocks)
    return time.process_time() - start[0], time.perf_counter() - start[1]


# ---- (c) ----


def part_c(folder: Path, peak: float, repeats: int) -> list[dict[str, Any]]:
    """bf16 against fp32, with the accuracy of both on the same rows."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        print("bf16: this processor does not have it")
        return [{"figure": "(c) bf16 against fp32", "ratio": None, "goal": None, "met": None,
                 "note": "the processor has no bf16"}]  # fmt: skip
    what = material("emotion", folder, 960, held=1000)
    best, right = {"fp32": Best(), "bf16": Best()}, {}
    for _ in range(max(1, repeats - 1)):
        for name in best:
            processor, wall, best[name].log, model = ours(
                what, folder / name, bf16=name == "bf16", learning_rate=5e-4, num_train_epochs=2
            )
            best[name].take(processor, wall)
            right[name] = float((logits_of(model, what.held).argmax(1) == what.held.labels).mean())
    real = 2 * int(what.tokens.kept.sum())
    for name, one in best.items():
        print(f"{name}: {one.processor:.2f} s processor, {one.wall:.2f} s wall, accuracy {right[name]:.3f}")
    share = 6.0 * block_weights(what.folder) * real / best["bf16"].processor / peak
    entry = figure("(c) bf16 against fp32", best["fp32"], best["bf16"], None, real, share, what.real)
    return [{**entry, "accuracy_fp32": right["fp32"], "accuracy_bf16": right["bf16"],
             "accuracy_change": round(right["bf16"] - right["fp32"], 4)}]  # fmt: skip


def matrix_peak() -> float:
    """Return the operations that a large fp32 matrix product makes in a processor second, the best of a few."""
    first, second = torch.randn(1536, 1536), torch.randn(1536, 1536)
    best = float("inf")
    for _ in range(8):
        start = time.process_time()
        first @ second
        best = min(best, time.process_time() - start)
    return 2 * 1536**3 / best


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description="Training benchmarks; the last lines are JSON.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", default="a,b,c")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    if asked.quick:
        global SHARE
        SHARE, asked.repeats = 4, 1
    warnings.simplefilter("ignore")
    torch.set_num_threads(asked.threads)
    time_training()
    parts: dict[str, Callable[[Path, float, int], list[dict[str, Any]]]] = {
        "a": part_a,
        "b": part_b,
        "c": part_c,
    }
    peak = matrix_peak()
    print(f"{asked.threads} threads; matrix-multiply peak {peak / 1e9:.0f} GFLOP a processor second in fp32")
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for part in asked.only.split(","):
            figures += parts[part](Path(folder), peak, asked.repeats)
    for entry in figures:
        print(json.dumps(entry))


if __name__ == "__main__":
    main()
