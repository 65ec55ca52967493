"""The exact head sweep against what a user would otherwise write: a full forward pass with a hook for every head.

Both zero heads of the same GPT-2-small-shaped classifier (12 layers of 12 heads, width 768) on the same rows, in one
process, with the same attention, activation and number of threads, and in processor time, so that other work on the
machine does not count. The sweep does all 144 heads. The naive loop costs the same for every head, so it is timed on
one head a layer and scaled to 144, at each of several batch sizes with dynamic padding; the fastest one counts.

nnsight (on the same classifier) and TransformerLens (on the same language model) run in environments of their own
(`sh benchmarks/other_tools/make_environments.sh`), as subprocesses that share weights and token ids with this one;
where an environment is not there, its line says so. Attribution patching is timed and held against exact effects on
trained models: `--models` names a run folder, of which the first seed of every arm is read.

Run it: OMP_NUM_THREADS=1 python benchmarks/interventions.py. It prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast

from tunescope.capture import Site, editing, zero
from tunescope.capture.stored import StoredPass
from tunescope.data.batches import collate
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens, tokenize
from tunescope.lenses.ablation.components import every
from tunescope.lenses.ablation.effects import empty_effects, fill
from tunescope.lenses.ablation.replacement import Statistics
from tunescope.lenses.ablation.screen import estimates, quality
from tunescope.lenses.ablation.sweep import Sweep
from tunescope.models import Classifier, load
from tunescope.models.activations import fast_activations
from tunescope.models.language import LanguageModel, load_language_model
from tunescope.models.questions import final_norm
from tunescope.models.source import quiet_transformers
from tunescope.progress import SILENT, Task

LAYERS, HEADS, WIDTH, CLASSES = 12, 12, 768, 6
ROWS = {"equal": 16, "tweets": 24}
LENGTH = 20
SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
QUANTILES = (3, 6, 11, 17, 26, 42, 55, 67)
SIZES = {"equal": (8, 16), "tweets": (2, 4, 8, 16)}
GOALS = {"equal": 2.0, "tweets": 4.5}
GAP = 1e-5
OTHERS_GAP = 1e-4  # other tools order their sums in other ways; logits of the language model reach about 1
OTHER_TOOLS = Path(__file__).parent / "other_tools"
ENVIRONMENTS = Path("/tmp/bench-envs")
TRAINED_ROWS, TOP = 96, 20
PARTS = ("equal", "tweets", "nnsight", "transformer-lens", "attribution", "memory")
SMALL = (4, 4, 128)  # layers, heads, width of the model on which memory is measured


def classifier(folder: Path, layers: int = LAYERS, heads: int = HEADS, width: int = WIDTH) -> Classifier:
    """A randomly initialised classifier: speed does not depend on what the weights say."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(1000)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    config = GPT2Config(
        n_layer=layers, n_head=heads, n_embd=width, n_positions=128, vocab_size=1000, num_labels=CLASSES,
        pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with quiet_transformers():
        GPT2ForSequenceClassification(config).save_pretrained(folder)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", unk_token="w0")
        tokenizer.save_pretrained(folder)
    return load(str(folder)).eval()


def rows(kind: str, count: int, seed: int = 0) -> Tokens:
    """Token rows of equal length, or with the lengths of tweets: mean about 20, at most 80."""
    generator = np.random.default_rng(seed)
    lengths = np.full(count, LENGTH)
    if kind == "tweets":
        # Evenly spaced quantiles of the lengths of the emotion tweets in GPT-2 tokens (mean 19.7, deviation 11.3), so
        # that few rows waste as much on padding as many do; in random order.
        places = (np.arange(count) + 0.5) / count
        lengths = generator.permutation(np.interp(places, SHARES, QUANTILES).astype(int))
    ids = [generator.integers(1, 1000, size=n).astype(np.int32) for n in lengths]
    return Tokens([str(i) for i in range(count)], ids, None, np.zeros(count, dtype=np.int64), lengths, 0)


def naive(model: Classifier, tokens: Tokens, size: int) -> np.ndarray:
    """One full forward pass a head and batch, one head a layer; batches in the order of the rows, as they come."""
    out = np.empty((model.n_layers, len(tokens), CLASSES), dtype=np.float32)
    with torch.inference_mode(), fast_activations(model.model):
        for start in range(0, len(tokens), size):
            batch = collate(tokens, np.arange(start, min(len(tokens), start + size)))
            for layer in range(model.n_layers):
                with editing(model, [zero(Site("head_z", layer), (layer % model.n_heads,))]):
                    out[layer, batch.index] = model(**batch.inputs()).numpy()
    return out


def ours(model: Classifier, tokens: Tokens) -> np.ndarray:
    """The sweep that the lens runs, over every head; a language model is asked for what comes after the last token."""
    variants = every(model, ("heads",), "zero")
    spoken = model if isinstance(model, LanguageModel) else None
    answers = None if spoken is None else lambda _, stored: LastToken(spoken, stored)
    out = np.empty(
        (len(variants), len(tokens), CLASSES if spoken is None else spoken.vocabulary), dtype=np.float32
    )
    with SILENT.task("", 1) as task:
        for index, _, logits in Sweep(model, variants, Statistics(), 0, answers=answers).run(tokens, task):
            out[:, index] = logits.numpy()
    return out


def processor_seconds(function: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Processor time of one call, and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def limit(layers: int = LAYERS) -> float:
    """Blocks of 12 D^2 multiply-adds a token that a naive pass computes, over those that are needed.

    Of the changed block only the MLP (8 of 12) is needed; of the last block keys and values (2 of 12), and for the
    changed last block nothing but the pooled token. The sweep goes below that in the last block: with one query a
    row it needs neither keys nor values (``stored._attend_without_keys``). Of the changed block's MLP it needs only
    the second product (``tunescope.capture.fused_heads``), once the matrices are made.
    """
    needed = sum(
        (8 / 12 + (layers - 2 - layer) + 2 / 12) if layer < layers - 1 else 0 for layer in range(layers)
    )
    return layers * layers / needed


def measure(model: Classifier, kind: str) -> dict[str, object]:
    """Compare sweep and loop on rows of one kind."""
    tokens = rows(kind, ROWS[kind])
    slow = {size: processor_seconds(lambda size=size: naive(model, tokens, size)) for size in SIZES[kind]}  # type: ignore[misc]
    size = min(slow, key=lambda key: slow[key][0])
    fast, logits = processor_seconds(lambda: ours(model, tokens))
    heads = [layer * HEADS + layer % HEADS for layer in range(LAYERS)]
    gap = float(np.abs(logits[heads] - slow[size][1]).max())
    seconds = {key: round(value[0] * HEADS, 1) for key, value in slow.items()}
    ratio = slow[size][0] * HEADS / fast
    return {
        "figure": f"144-head sweep against naive loop, {kind} rows", "ratio": round(ratio, 2), "goal": GOALS[kind],
        "met": ratio >= GOALS[kind], "arithmetic_limit_without_padding": round(limit(), 2),
        "largest_logit_difference": gap, "exact": gap <= GAP, "rows": len(tokens), "tokens": int(tokens.lengths.sum()),
        "naive_seconds_by_batch_size": seconds, "naive_fastest_batch": size, "sweep_seconds": round(fast, 1),
        "threads": torch.get_num_threads(),
    }  # fmt: skip


class LastToken:
    """What a language model says behind the last token of rows of one length, as the sweep asks for it."""

    def __init__(self, model: LanguageModel, stored: StoredPass) -> None:
        self.model = model
        self.clean = self(stored.values["resid_post"][-1])

    def __call__(self, stream: torch.Tensor) -> torch.Tensor:
        """Return logits [R, vocabulary] of states [R, T, D] behind the last block."""
        found: torch.Tensor = self.model.head(final_norm(self.model, stream[:, -1]))
        return found


def other_tool(tool: str, environments: Path, kind: str = "tweets") -> dict[str, object]:
    """Compare the sweep with another tool at that tool's own fastest batch size, on the same weights and tokens."""
    python = environments / tool / "bin" / "python"
    name = f"144-head sweep against {tool}, {kind} rows"
    if not python.is_file():
        made = "sh benchmarks/other_tools/make_environments.sh makes it"
        return {"figure": name, "note": f"skipped: there is no {python}; {made}"}
    tokens = rows(kind, ROWS[kind])
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder)
        model = classifier(shared / "model") if tool == "nnsight" else language_model(shared / "model")
        with fast_activations(model.model):
            seconds, logits = processor_seconds(lambda: ours(model, tokens))
        slow: dict[int, float] = {}
        answers: dict[int, np.ndarray] = {}
        about: dict[str, object] = {}
        for size in SIZES[kind]:
            asked = {"rows": [ids.tolist() for ids in tokens.input_ids], "batch_size": size}
            (shared / "tokens.json").write_text(json.dumps(asked))
            command = [str(python), str(OTHER_TOOLS / "zero_heads.py"), tool, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                return {"figure": name, "note": f"{tool} failed: {done.stderr.strip().splitlines()[-1]}"}
            about = json.loads(done.stdout.strip().splitlines()[-1])
            slow[size] = float(str(about.pop("seconds"))) * model.n_heads
            answers[size] = np.load(shared / "logits.npy")
    best = min(slow, key=lambda key: slow[key])
    heads = [layer * model.n_heads + layer % model.n_heads for layer in range(model.n_layers)]
    gap = float(np.abs(logits[heads] - answers[best]).max())
    return {
        "figure": name, "ratio": round(slow[best] / seconds, 2), "largest_logit_difference": gap,
        "exact": gap <= OTHERS_GAP, "their_seconds_by_batch_size": {key: round(one, 1) for key, one in slow.items()},
        "their_fastest_batch": best, "sweep_seconds": round(seconds, 1), "their_versions": about,
    }  # fmt: skip


def language_model(folder: Path) -> LanguageModel:
    """A randomly initialised language model of GPT-2-small's shape, of the classifier's vocabulary."""
    classifier(folder)  # writes the tokenizer
    torch.manual_seed(1)
    config = GPT2Config(
        n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, n_positions=128, vocab_size=1000, pad_token_id=0,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with quiet_transformers():
        GPT2LMHeadModel(config).save_pretrained(folder)
    model = load_language_model(str(folder))
    model.eval()
    return model


def attribution(folder: Path | None) -> Iterator[dict[str, object]]:
    """Time attribution patching and the exact sweep of heads on trained models, and say how well it ranks."""
    name = "attribution patching against the exact sweep, trained models"
    arms = sorted(folder.glob("arms/*/seed-0/model")) if folder is not None else []
    if folder is None or not arms:
        yield {"figure": name, "note": "skipped: --models names no run folder with arms/NAME/seed-0/model"}
        return
    frame = pl.read_parquet(folder / "data" / "rows.parquet").filter(pl.col("split") == "validation")
    frame = frame.filter(pl.col("label").is_not_null()).head(TRAINED_ROWS)
    for place in arms:
        model = load(str(place)).eval()
        tokens = tokenize(Rows(frame, model.labels, {}), model.tokenizer, model.max_length)
        variants = every(model, ("heads", "attention", "mlp"), "zero")
        sweep = Sweep(model, variants, Statistics(), 0)
        with SILENT.task("", 1) as task:
            screen, found = processor_seconds(lambda: estimates(sweep, tokens, task))  # noqa: B023
            exact_seconds, exact = processor_seconds(lambda: _margin_changes(sweep, tokens, task))  # noqa: B023
        told = quality(found, exact, variants, TOP, np.arange(len(tokens)))
        ranks = {one["by"]: [round(one[key], 3) for key in ("value", "low", "high")] for one in told
                 if one["metric"] == "screen_rank_correlation"}  # fmt: skip
        worst = next(one for one in told if one["metric"] == "screen_worst_miss")
        rank = next(one for one in told if one["metric"] == "screen_worst_miss_rank")
        yield {
            "figure": name, "model": place.parts[-3], "rows": len(tokens), "components": len(variants),
            "rank_correlation_with_interval": ranks, "verified": TOP, "worst_miss": worst["component"],
            "worst_miss_margin": round(worst["value"], 3), "worst_miss_rank": int(rank["value"]),
            "largest_exact_effect": round(float(exact.mean(0).min()), 3),
            "attribution_seconds": round(screen, 2), "exact_seconds": round(exact_seconds, 2),
        }  # fmt: skip


def _margin_changes(sweep: Sweep, tokens: Tokens, task: Task) -> np.ndarray:
    """Exact changes of the true class's margin, [N, V]."""
    effects = empty_effects(sweep.variants, len(tokens), len(sweep.model.labels.names))
    for index, clean, changed in sweep.run(tokens, task):
        fill(effects, index, clean, changed, tokens.labels[index])
    return effects.margin_change


def peak(count: int) -> None:
    """Print the peak memory in MiB that a sweep of rows of equal length adds; runs in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        model = classifier(Path(folder), *SMALL)
        tokens = rows("equal", count)
        sweep = Sweep(model, every(model, ("heads", "attention", "mlp"), "zero"), Statistics(), 0)
        with SILENT.task("", 1) as task:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is used now
            before = _status("VmRSS")
            for _ in sweep.run(tokens, task):
                pass
    print(json.dumps({"rows": count, "added": (_status("VmHWM") - before) / 1024}))


def _status(key: str) -> int:
    """Return one number of Linux's account of this process, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def memory() -> dict[str, object]:
    """Compare the peak memory of a sweep of 200 rows with that of four times as many (Linux only)."""
    if not Path("/proc/self/clear_refs").exists():
        return {"figure": "peak memory", "note": "not measured: needs Linux"}
    found = []
    for count in (200, 800):
        command = [sys.executable, __file__, "--peak", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(round(json.loads(done.stdout.strip().splitlines()[-1])["added"], 1))
    name = "peak memory added by a sweep of 200 and of 800 rows, MiB"
    return {"figure": name, "values": found, "met": found[1] <= 1.25 * found[0]}


def _figures(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Measure what was asked for, one figure after another."""
    with tempfile.TemporaryDirectory() as folder:
        model = classifier(Path(folder)) if set(arguments.only) & set(GOALS) else None
        for kind in GOALS:
            if model is not None and kind in arguments.only:
                yield measure(model, kind)
    for tool in ("nnsight", "transformer-lens"):
        if tool in arguments.only:
            yield other_tool(tool, arguments.environments)
    if "attribution" in arguments.only:
        yield from attribution(arguments.models)
    if "memory" in arguments.only:
        yield memory()


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", type=int, help="measure peak memory with so many rows (used by itself)")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="some parts alone")
    parser.add_argument("--models", type=Path, help="run folder of trained models, for attribution")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS, help="where the other tools are")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if arguments.peak:
        peak(arguments.peak)
        return
    figures: list[dict[str, object]] = []
    for figure in _figures(arguments):
        figures.append(figure)
        print(json.dumps(figure), flush=True)
    if not all(figure.get("exact", True) for figure in figures):
        raise SystemExit("the sweep is not exact")


if __name__ == "__main__":
    main()
