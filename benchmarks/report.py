"""How soon the report of a twelve-layer model with all lenses can be read, and how large it is.

A run is made by the real pipeline on generated rows: one model of GPT-2-small's depth and heads, of small width (a page
grows with layers, heads, classes and arms; the width matters to the figures of dimensions alone, --width sets it), two
arms, every lens that a study can have. Then Chromium opens the file ROUNDS times, each time with a fresh profile. First
content is the browser's own first contentful paint; the first figure is there when the depth strip is drawn.

    python benchmarks/report.py                    # makes the run first: some minutes on two cores
    python benchmarks/report.py --keep runs/twelve # keeps that run, and goes on with it where it was interrupted
    python benchmarks/report.py --run runs/NAME    # opens the report of a run that is there
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

LAYERS, HEADS, ROWS, ROUNDS = 12, 12, 150, 5
GOALS = {"first_content_seconds": 2.0, "megabytes": 10.0}
LENSES = (
    "cka", "similarity", "probes", "ablation", "spread", "dimensions", "maps", "patching", "patching_cross",
    "grafting", "logit_lens", "attribution_direct", "words", "attention", "flow", "activations", "weights",
)  # fmt: skip
LOOKED_AT = 24  # rows: a page grows with layers, heads, classes and arms, hardly with rows
CLASSES = {
    "good": ("love", "fine", "warm"),
    "bad": ("sad", "noise", "cold"),
    "odd": ("what", "film", "because"),
}
FILLERS = (
    "the", "cat", "sat", "he", "said", "in", "a", "street", "she", "walked", "home", "on", "mat", "and", "it", "was",
    "night", "rain", "fell",
)  # fmt: skip
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


def write_rows(path: Path) -> Path:
    """Write generated texts of three classes, each told by one of three words."""
    rng = random.Random(0)
    lines = ["text,label"]
    for number in range(ROWS):
        label = sorted(CLASSES)[number % len(CLASSES)]
        words = [*rng.sample(FILLERS, 7), rng.choice(CLASSES[label]), str(number)]
        rng.shuffle(words)
        lines.append(f"{' '.join(words)},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_model(folder: Path, width: int) -> Path:
    """Write a GPT-2 of random weights with a tokenizer of the texts' words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = sorted(
        {*FILLERS, *(word for known in CLASSES.values() for word in known), *map(str, range(ROWS))}
    )
    vocabulary = {word: place for place, word in enumerate(["<end>", *words])}
    bare = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=bare, eos_token="<end>", bos_token="<end>", unk_token="<end>", pad_token="<end>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=LAYERS, n_head=HEADS, n_embd=width, n_positions=64, vocab_size=len(vocabulary),
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def make_run(folder: Path, width: int) -> Path:
    """Make the run, or what is missing of it, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    from tunescope.config import load_study
    from tunescope.progress import Progress
    from tunescope.study import LENSES as KNOWN
    from tunescope.study import METHODS, run

    model = str(write_model(folder / "model", width))
    few: dict[str, dict[str, Any]] = {
        "similarity": {"permutations": 50},
        "dimensions": {"train_rows": 60, "random": 2},
        "maps": {"methods": ["pca"], "axes": [2]},
        "words": {"gradient_rows": 2, "at_least": 3},
    }
    study = {
        "name": "twelve-layers", "question": "How soon can it be read?",
        "data": {
            "path": str(write_rows(folder / "rows.csv")), "text": "text", "label": "label", "validation": 0.25,
            "test": 0.25,
        },
        "arms": [{"name": "full", "model": model}, {"name": "head-only", "model": model, "method": "head_only"}],
        "training": {"num_train_epochs": 1, "learning_rate": 1e-3, "per_device_train_batch_size": 32},
        "lenses": [
            {"lens": name, **({} if name == "weights" else {"rows": {"n": LOOKED_AT}}), **few.get(name, {})}
            for name in LENSES
        ],
    }  # fmt: skip
    return run(load_study(study, [], methods=METHODS, lenses=KNOWN), folder / "run", progress=Progress())


def opened(report: Path) -> dict[str, float]:
    """Open the report in a browser of its own and return when what could be seen, in seconds."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(report.as_uri())
        page.wait_for_selector(".plot[data-drawn=done]")
        figure = page.evaluate("performance.now()") / 1000
        content = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
        browser.close()
    return {"first_content_seconds": content, "first_figure_seconds": figure}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a run folder whose report is there already")
    parser.add_argument("--keep", type=Path, help="make the run in this folder and leave it there")
    parser.add_argument("--width", type=int, default=48, help="of the model; 12 heads divide it")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = chosen.run or make_run(chosen.keep or Path(place), chosen.width)
        begin = time.perf_counter()
        from tunescope.report import write_report

        report = write_report(folder).resolve()
        seconds = time.perf_counter() - begin
        times = [opened(report) for _ in range(ROUNDS)]
        size = report.stat().st_size / 1e6
    found = {name: statistics.median(one[name] for one in times) for name in times[0]}
    found |= {"megabytes": size, "write_seconds": seconds}
    about = {"rounds": ROUNDS, "cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1)}
    for name, value in found.items():
        line: dict[str, Any] = {"figure": name, "value": round(value, 3), **about}
        if name in GOALS:
            line |= {"goal": GOALS[name], "met": value <= GOALS[name]}
        print(json.dumps(line))


if __name__ == "__main__":
    main()
