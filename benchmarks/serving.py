"""How long the bench of the local page takes to answer for a GPT-2-small-sized classifier at 64 tokens.

Base and tuned are random classifiers of GPT-2-small's shape (12 layers of 12 heads, width 768: costs do not depend on
the weights). Every question goes through the whole server in this process (guard, routes, worker, JSON) over loopback,
each about a text that was not asked about before. An answer is the prediction of both models, from the request to the
last byte. The goal is 300 ms on two cores for what a hand waits for: a typed text, and a switch (one in the first
block, the longest way to the logits). What fills the page afterwards is timed as well: its first answer and its last.
Beside them stand bare passes of base and tuned without a bench, which no answer can do without: one after another on
all threads, and at the same time on half of them each, as the bench does it.

    python benchmarks/serving.py             # two minutes on two quiet cores
    python benchmarks/serving.py --waited    # some seconds: only what a hand waits for
    python benchmarks/serving.py --layers 4  # a short trial

It prints JSON lines; milliseconds are medians over the rounds, and the load of the machine stands beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import torch
import uvicorn
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.data.tokens import tokenize
from tunescope.lenses.bench import Bench
from tunescope.lenses.bench.at_once import at_once
from tunescope.lenses.subject import Subject
from tunescope.models.classifier import Classifier
from tunescope.models.families import family_of
from tunescope.serve.app import make_app, make_site
from tunescope.serve.runs import ServedRun
from tunescope.serve.server import listening

TOKENS, WORDS, GOAL = 64, 5000, 300.0
LABELS = LabelMap(("bad", "good"))


def classifier(layers: int, seed: int) -> Classifier:
    """Return a random classifier of GPT-2-small's width, whose words are its tokens."""
    vocabulary = {f"w{number}": number for number in range(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0", eos_token="w1", pad_token="w1")
    torch.manual_seed(seed)
    config = GPT2Config(n_layer=layers, num_labels=2, pad_token_id=1)
    family = family_of("gpt2")
    model = GPT2ForSequenceClassification(config).eval()
    return Classifier(model, fast, family, family.own_pooling, LABELS, 1024).eval()


def texts(seed: int) -> Iterator[str]:
    """Yield texts of 64 tokens, none twice."""
    generator = np.random.default_rng(seed)
    while True:
        yield " ".join(f"w{number}" for number in generator.integers(2, WORDS, TOKENS))


def subject(layers: int) -> Subject:
    """Return base and tuned, with a few train rows."""
    base, tuned = classifier(layers, 0), classifier(layers, 1)
    made = texts(9)
    frame = pl.DataFrame({
        "row_id": [str(number) for number in range(8)], "position": pl.Series(range(8), dtype=pl.Int64),
        "split": ["train"] * 8, "text": [next(made) for _ in range(8)],
        "label": pl.Series([0, 1] * 4, dtype=pl.Int64),
    })  # fmt: skip
    rows = Rows(frame, LABELS, {})
    return Subject("arm", 0, base, tuned, "tuned", {"train": tokenize(rows, tuned.tokenizer, 1024)})


def timed(client: httpx.Client, kind: str, text: str, **more: Any) -> tuple[float, float, float, int]:
    """Ask once; milliseconds to the first and to the last answer, of processor time, and how many answers came."""
    start, processor, first, count = time.perf_counter(), time.process_time(), 0.0, 0
    question = {"tab": "one", "side": "a", "kind": kind, "text": text, **more}
    with client.stream("POST", "/ask/run/arm/0", json=question) as answer:
        for line in answer.iter_lines():
            item = json.loads(line)
            assert "error" not in item, item
            first = first or time.perf_counter() - start
            count += 1
    spent = time.process_time() - processor
    return 1000 * first, 1000 * (time.perf_counter() - start), 1000 * spent, count


def bare(bench: Bench, text: str, together: bool) -> tuple[float, float, float, int]:
    """Run a text through both models and nothing else; as :func:`timed` returns it."""
    inputs = bench.read(text).inputs(bench.subject.tuned.device)

    def run(model: Classifier) -> None:
        with torch.inference_mode():
            model(**inputs)

    start, processor = time.perf_counter(), time.process_time()
    tasks = {which: partial(run, model) for which, model in bench.models.items()}
    if together:
        at_once(tasks)
    else:
        for task in tasks.values():
            task()
    spent, waited = time.process_time() - processor, time.perf_counter() - start
    return 1000 * waited, 1000 * waited, 1000 * spent, len(bench.models)


def measure(client: httpx.Client, bench: Bench, rounds: int, waited: bool) -> None:
    """Print a JSON line a kind of question."""
    made = texts(1)
    found: dict[str, list[tuple[float, float, float, int]]] = {}
    for number in range(rounds + 1):  # the first round warms up
        text = next(made)
        one = {
            "bare passes, one after another": bare(bench, next(made), False),
            "bare passes, at once": bare(bench, next(made), True),
            "text": timed(client, "text", text),
            "switch one head": timed(client, "switch", text, off=["L0H3"]),
            "switch five parts": timed(
                client, "switch", text, off=["L0H1", "L1H2", "L2.mlp", "L3H0", "L3.attention"]
            ),
        }
        if not waited:
            one["attention"] = timed(client, "attention", text, layer=1, head=2)
            one["swaps"] = timed(client, "swaps", f"he said {text}")
        if number:
            for kind, times in one.items():
                found.setdefault(kind, []).append(times)
    for kind, times in found.items():
        say(kind, times)
    text = next(made)
    for kind in () if waited else ("words", "grid"):  # these fill the page bit by bit, and are asked once
        say(kind, [timed(client, kind, text)])


def say(kind: str, times: list[tuple[float, float, float, int]]) -> None:
    """Print what one kind of question took."""
    first, last, processor = (statistics.median(one[at] for one in times) for at in (0, 1, 2))
    record = {
        "question": kind, "first_answer_ms": round(first, 1), "last_answer_ms": round(last, 1),
        "processor_ms": round(processor, 1), "answers": times[0][3], "rounds": len(times),
    }  # fmt: skip
    if kind in ("text", "switch one head", "switch five parts"):
        cores = min(torch.get_num_threads(), 2)  # what the goal is for
        record |= {"goal_ms": GOAL, "met": last <= GOAL, "met_in_processor_time": processor <= cores * GOAL}
    print(json.dumps(record), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--waited", action="store_true", help="only what a hand waits for")
    options = parser.parse_args()
    run = ServedRun("run", Path.cwd(), "run")
    site, listener = make_site([run], "cpu", 1e10), listening(0)
    bench = Bench(subject(options.layers))
    site.benches.put(("run", "arm", 0), bench)
    port = listener.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(make_app(site, "token", port), log_level="error", lifespan="off", ws="none")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    load = os.getloadavg()[0]
    about = {
        "model": f"{options.layers} layers, width 768", "tokens": TOKENS, "threads": torch.get_num_threads(),
        "parameters_million": round(sum(one.numel() for one in bench.subject.tuned.model.parameters()) / 1e6, 1),
        "load_average": round(load, 1),
    }  # fmt: skip
    print(json.dumps(about), flush=True)
    cookies = {f"tunescope-{port}": "token"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", cookies=cookies, timeout=600) as client:
        measure(client, bench, options.rounds, options.waited)
    server.should_exit = True
    thread.join(10)
    site.close()


if __name__ == "__main__":
    main()
