"""The audit of 400,000 rows: time and memory, whether it finds what was planted, and what a loop would take.

Rows are generated from the word statistics of the real emotion data (``TUNESCOPE_SHARED``, default ``../shared``; of a
generated vocabulary where that is not there) and 5 % of them are planted duplicates: exact, normalised (case and
punctuation) and near (one word of a long text replaced). The audit runs in a child process on two cores, with GPT-2's
tokenizer. Beside it: the same near-duplicate search as a datasketch loop, timed on 5,000 rows. One JSON line a figure;
``processor_seconds`` is what to read on a machine that does other work too.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

ROWS, PLANTED, CLASSES, LOOP_ROWS = 400_000, 0.05, 6, 5_000
SECONDS, BYTES, RECALL = 60.0, 2e9, 0.99
SHARED = Path(os.environ.get("TUNESCOPE_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))


def statistics() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Words, their share in each class, the lengths of texts and the shares of the classes."""
    source = SHARED / "data" / "emotion" / "train.parquet"
    if source.is_file():
        frame = pl.read_parquet(source)
        words = frame.select("label", pl.col("text").str.split(" ")).explode("text", empty_as_null=False)
        table = (
            words.group_by("text", "label").agg(pl.len().alias("n")).pivot("label", index="text", values="n")
        )
        counts = table.select(pl.exclude("text")).select(sorted(table.columns[1:])).fill_null(0).to_numpy().T
        shares = np.bincount(frame["label"].to_numpy()) / frame.height
        lengths = frame["text"].str.split(" ").list.len().to_numpy()
        return table["text"].to_numpy(), counts / counts.sum(axis=1, keepdims=True), lengths, shares
    generator = np.random.default_rng(0)
    share = 1 / np.arange(1, 15_001)
    words = np.asarray([f"word{i}" for i in range(len(share))])
    lengths = np.clip(generator.gamma(3.0, 6.4, 16_000).astype(int), 2, 66)
    return words, np.tile(share / share.sum(), (CLASSES, 1)), lengths, np.full(CLASSES, 1 / CLASSES)


def generate(seed: int = 0) -> tuple[pl.DataFrame, dict[str, list[tuple[int, int]]]]:
    """Rows, and the planted pairs of each kind."""
    generator = np.random.default_rng(seed)
    words, shares, lengths, classes = statistics()
    labels = generator.choice(len(classes), size=ROWS, p=classes)
    sizes = generator.choice(lengths, size=ROWS)
    texts: list[str] = [""] * ROWS
    for label in range(len(classes)):
        rows = np.flatnonzero(labels == label)
        drawn = words[generator.choice(len(words), size=sizes[rows].sum(), p=shares[label])]
        for row, part in zip(rows, np.split(drawn, np.cumsum(sizes[rows])[:-1]), strict=True):
            texts[row] = " ".join(part)
    planted: dict[str, list[tuple[int, int]]] = {"exact": [], "normalised": [], "near": []}
    targets = generator.permutation(ROWS)[: int(2 * PLANTED * ROWS)].reshape(-1, 2)
    for place, (source, target) in enumerate(targets.tolist()):
        kind = ("exact", "normalised", "near")[place % 3]
        parts = texts[source].split(" ")
        if kind == "near" and len(parts) >= 25:
            parts[len(parts) // 2] = "unheard"
        elif kind == "near":
            kind = "exact"
        texts[target] = texts[source].capitalize() + " !" if kind == "normalised" else " ".join(parts)
        labels[target] = labels[source]
        planted[kind].append((source, target))
    colours = generator.choice(["red", "green", "blue"], size=ROWS)
    return pl.DataFrame({"text": texts, "label": labels, "colour": colours}), planted


def tokenizer() -> object:
    """GPT-2's tokenizer where it is there, else a small byte-level one of the same kind."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = SHARED / "tokenizers" / "gpt2"
    if folder.is_dir():
        return AutoTokenizer.from_pretrained(folder)
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = {sign: i for i, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    small = Tokenizer(models.BPE(alphabet, []))
    small.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    small.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=small)


def child(path: str, tokens: bool) -> None:
    """Audit a file, and print what it took and what it found."""
    from tunescope.config import DataConfig
    from tunescope.data import load_rows
    from tunescope.data.audit import AuditOptions, audit

    made = tokenizer() if tokens else None
    start, used = time.perf_counter(), time.process_time()
    rows = load_rows(DataConfig(path=path, text="text", label="label", validation=0, test=0), 0)
    read = time.perf_counter() - start
    found = audit(rows, AuditOptions(tokenizer=made, max_length=64 if tokens else None))
    answer = {
        "seconds": time.perf_counter() - start,
        "read_seconds": read,
        "processor_seconds": time.process_time() - used,
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "repeats": {
            kind: found.parts["duplicates"][kind]["repeats"] for kind in ("exact", "normalised", "near")
        },
        "red": found.count("red"),
    }
    print(json.dumps(answer))


def measure(path: Path, tokens: bool) -> dict:
    """Run the audit in a process of its own on two cores."""
    two = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else None
    done = subprocess.run(
        [sys.executable, __file__, "child", str(path), str(int(tokens))],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "POLARS_MAX_THREADS": "2",
            "RAYON_NUM_THREADS": "2",
            "TOKENIZERS_PARALLELISM": "true",
        },
        preexec_fn=(lambda: os.sched_setaffinity(0, two)) if two else None,
    )
    return json.loads(done.stdout.splitlines()[-1])


def loop(texts: list[str]) -> float:
    """Seconds that a datasketch loop takes for the near-duplicate search alone."""
    from datasketch import MinHash, MinHashLSH

    start = time.perf_counter()
    index = MinHashLSH(num_perm=128, params=(32, 4))
    for row, text in enumerate(texts):
        words = text.lower().split()
        sketch = MinHash(num_perm=128)
        sketch.update_batch([" ".join(words[i : i + 3]).encode() for i in range(max(len(words) - 2, 1))])
        index.query(sketch)
        index.insert(row, sketch)
    return time.perf_counter() - start


def report(figure: str, value: float, goal: float, met: bool, **more: object) -> None:
    print(json.dumps({"figure": figure, "value": round(value, 3), "goal": goal, "met": met, **more}))


def main() -> None:
    """Generate, measure, compare and print."""
    frame, planted = generate()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        frame.write_parquet(path)
        whole, bare = measure(path, True), measure(path, False)
    more = {"processor_seconds": round(whole["processor_seconds"], 1), "load": round(os.getloadavg()[0], 1)}
    report("audit of 400,000 rows with tokens, seconds", whole["seconds"], SECONDS, whole["seconds"] < SECONDS,
           without_tokens=round(bare["seconds"], 1), reading=round(whole["read_seconds"], 1), **more)  # fmt: skip
    report("peak memory, bytes", whole["bytes"], BYTES, whole["bytes"] < BYTES, without_tokens=bare["bytes"])
    # what is equal by chance adds to what was planted: short texts of few words meet
    least = {"exact": len(planted["exact"]), "normalised": len(planted["exact"]) + len(planted["normalised"]),
             "near": sum(map(len, planted.values()))}  # fmt: skip
    for kind, count in least.items():
        by_chance = frame.height - frame["text"].n_unique() - count if kind == "exact" else None
        found = whole["repeats"][kind]
        report(f"planted {kind} duplicates found (share)", found / count, RECALL, found / count >= RECALL,
               planted=count, found=found, by_chance=by_chance)  # fmt: skip
    report("red findings on clean columns", whole["red"], 0, whole["red"] == 0)
    seconds = loop(frame["text"].head(LOOP_ROWS).to_list()) * ROWS / LOOP_ROWS
    ratio = seconds / bare["seconds"]
    report("datasketch loop for near duplicates alone, against the whole audit without tokens (ratio)", ratio, 1.0,
           ratio > 1, loop_seconds_for_all=round(seconds, 1))  # fmt: skip


if __name__ == "__main__":
    child(sys.argv[2], bool(int(sys.argv[3]))) if sys.argv[1:2] == ["child"] else main()
