"""What reading lenses cost beside the bare forward passes that they need, and how much memory attention takes.

Two models of GPT-2-small's shape (random weights: costs do not depend on them) read rows of 512 tokens. Bare passes
are those of plain transformers, as anyone would run them in evaluation mode. Beside them stand passes in the very
batches that lenses take, which are no bar: where no lens looks, they leave out of the last block what nobody reads.
Every measurement is a process of its own, in turn, and the best of ROUNDS is taken; memory is the peak above what the
process held before the rows. Tables (CKA of all pairs, bootstraps) cost the same for few rows as for many, so reading
alone is timed as well.

    python benchmarks/reading.py            # 16 rows, 12 layers: about six minutes on two cores
    python benchmarks/reading.py --rows 256 --turns 16

With ``--turns`` bare passes and lenses run each in a process of its own that goes on by so many rows at a time while
the others wait, so that whatever else the machine does meets all of them; the ratios so far are printed every time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

THREADS = str(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
LENGTH, VOCABULARY = 512, 50257
LIGHT = ("cka", "spread", "similarity", "activations")
GOALS = {"light": 1.2, "attention": 1.5, "memory": 8.0, "speed": 1.0}
ROUNDS = 2
WAYS = ("plain", "bare", "light", "attention", "attention_alone", "output_attentions")
IN_TURNS = WAYS[:4]
ROWS_AT_ONCE = 4  # of plain transformers: as many tokens as the batches that lenses take


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


class Turns:
    """Where reading reports to; stops every so many rows of a model until a line comes in.

    Args:
        rows: Rows of both models between two stops; 0 never stops.
    """

    def __init__(self, rows: int) -> None:
        self.rows = 2 * rows
        self.done, self.start = 0.0, time.process_time()

    def wait(self) -> None:
        """Say how far it is and what it took, and wait."""
        if self.rows:
            print(
                json.dumps({"done": self.done / 2, "processor": time.process_time() - self.start}), flush=True
            )
            sys.stdin.readline()

    @contextlib.contextmanager
    def task(self, _name: str, _total: float, _unit: str = "") -> Iterator[Turns]:
        """Report one piece of work."""
        yield self

    def advance(self, steps: float = 1) -> None:
        """Count rows of a model that were read."""
        before, self.done = self.done, self.done + steps
        if self.rows and before // self.rows < self.done // self.rows:
            self.wait()


def measure(what: str, rows: int, layers: int, turn: int = 0) -> dict[str, float]:
    """Run one way of reading in this process; seconds, and bytes above those before the rows."""
    import torch

    from tunescope.data.packed import packed_batches
    from tunescope.lenses import Subject
    from tunescope.lenses.reading import PROCESSOR_TOKENS

    base, tuned = models(layers)
    data = tokens(rows)
    turns: Any = Turns(turn)
    subject = Subject("arm", 0, base, tuned, "none", {"validation": data}, progress=turns)
    turns.wait()  # until all are ready
    turns.start = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, processor = time.perf_counter(), time.process_time()
    read = None
    if what == "plain":
        for model in (base, tuned):
            for first in range(0, rows, ROWS_AT_ONCE):
                ids = torch.tensor([row.tolist() for row in data.input_ids[first : first + ROWS_AT_ONCE]])
                with torch.inference_mode():
                    model.model(input_ids=ids, attention_mask=torch.ones_like(ids))
                turns.advance(len(ids))
    elif what == "bare":
        with torch.inference_mode():
            for model in (base, tuned):
                for batch in packed_batches(data, max_tokens=PROCESSOR_TOKENS):
                    model(**batch.inputs())
                    turns.advance(len(batch))
    elif what == "output_attentions":
        _all_attentions(base, tuned, data)
    else:
        read = _lenses(what, subject)
    done = time.perf_counter(), time.process_time()
    read = read or done
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {
        "seconds": done[0] - start, "processor": done[1] - processor, "bytes": float(peak),
        "reading_seconds": read[0] - start, "reading_processor": read[1] - processor,
    }  # fmt: skip


def _lenses(what: str, subject: Any) -> tuple[float, float]:
    """Read what lenses need in one pass, as a study does, then make their tables; return when reading was done."""
    from tunescope.lenses import LENSES, ReadLens
    from tunescope.lenses.geometry.pooled import KeptRows
    from tunescope.lenses.logits.logit_lens import StreamLogits
    from tunescope.lenses.reading import PerModel, ReadingLens, read_pass

    names = {"light": LIGHT, "attention": (*LIGHT, "attention"), "attention_alone": ("attention",)}[what]
    rows = len(subject.splits["validation"])
    readers: list[ReadingLens] = []
    for name in names:
        lens = LENSES[name]
        assert isinstance(lens, ReadLens)
        options = lens.options.model_validate({"rows": {"split": "validation", "n": rows}})
        tokens = subject.draw(options.rows, labelled=False)
        readers.append(lens.start(subject, options, rows))
        assert readers[-1].before() is None, "no lens asks for a second pass"
    if what != "attention_alone":
        readers += [KeptRows(rows), PerModel({"base": StreamLogits(rows), "tuned": StreamLogits(rows)})]
    read_pass(subject, tokens, readers)
    read = time.perf_counter(), time.process_time()
    for reader in readers:
        reader.table()
    return read


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


def in_turns(rows: int, layers: int, turn: int) -> dict[str, dict[str, float]]:
    """Measure bare passes and lenses side by side, each in its own process, and print the ratios after every turn."""
    command = [sys.executable, __file__, "--rows", str(rows), "--layers", str(layers), "--turns", str(turn)]
    environment = {**os.environ, "OMP_NUM_THREADS": THREADS, "OPENBLAS_NUM_THREADS": "1"}
    running = {
        way: subprocess.Popen(
            [*command, "--only", way], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for way in IN_TURNS
    }  # fmt: skip
    said: dict[str, dict[str, float]] = {way: {} for way in running}
    for way, child in running.items():
        assert child.stdout is not None
        said[way] = json.loads(child.stdout.readline())
    while any("seconds" not in one for one in said.values()):
        for way, child in running.items():
            if "seconds" in said[way]:
                continue
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write("\n")
            child.stdin.flush()
            said[way] = json.loads(child.stdout.readline())
        if len({one.get("done") for one in said.values()}) == 1 and "seconds" not in said["bare"]:
            ratios = {way: round(said[way]["processor"] / said["bare"]["processor"], 3) for way in said}
            print(
                json.dumps({"rows": said["bare"]["done"], "bare": said["bare"]["processor"], **ratios}),
                flush=True,
            )
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument(
        "--turns", type=int, default=0, help="rows between two stops; 0: one way after another"
    )
    parser.add_argument("--only", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        print(json.dumps(measure(chosen.only, chosen.rows, chosen.layers, chosen.turns)))
        return
    best: dict[str, dict[str, float]] = {}
    if chosen.turns:
        best = in_turns(chosen.rows, chosen.layers, chosen.turns)
    for way in () if chosen.turns else WAYS * ROUNDS:
        found = run(way, chosen.rows, chosen.layers)
        known = best.get(way, found)
        best[way] = {key: min(known[key], found[key]) for key in found}
    show(
        best,
        f"{chosen.layers} layers, {LENGTH} tokens, {chosen.rows} rows, {THREADS} threads",
        not chosen.turns,
    )


def show(best: dict[str, dict[str, float]], shape: str, walls: bool) -> None:
    """Print what every way took, and every ratio beside its goal; wall times of turns mean nothing."""
    print(f"{shape}; light lenses: {', '.join(LIGHT)}, probe features, logits of every layer")
    for way, one in best.items():
        print(
            f"{way:18} {one['seconds']:7.2f} s  {one['processor']:7.2f} s processor (reading "
            f"{one['reading_processor']:.2f})  {one['bytes'] / 2**20:7.0f} MiB"
        )
    clocks = ("seconds", "processor") if walls else ("processor",)
    figures: dict[str, tuple[float, float | None, bool]] = {}
    for way in ("light", "attention"):
        for part in ("reading_", ""):
            for clock in clocks:
                for against, said in (
                    ("plain", "plain transformers"),
                    ("bare", "bare passes in the same batches"),
                ):
                    named = f"{way}: {'reading' if part else 'reading and tables'}, {clock}, over {said}"
                    goal = GOALS[way] if against == "plain" else None
                    figures[named] = (best[way][part + clock] / best[against][clock], goal, True)
    if "output_attentions" in best:
        every, alone = best["output_attentions"], best["attention_alone"]
        memory = every["bytes"] / alone["bytes"]
        figures["memory of all patterns over attention lens"] = (memory, GOALS["memory"], False)
        for clock in clocks:
            named = f"time of all patterns over attention lens, {clock}"
            figures[named] = (every[clock] / alone[clock], GOALS["speed"], False)
    for figure, (ratio, goal, at_most) in figures.items():
        met = None if goal is None else ratio <= goal if at_most else ratio >= goal
        print(
            json.dumps({"figure": figure, "ratio": round(ratio, 3), "goal": goal, "met": met, "shape": shape})
        )


if __name__ == "__main__":
    main()
