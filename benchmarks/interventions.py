"""The exact head sweep against what a user would otherwise write: a full forward pass with a hook for every head.

Both zero every head of the same classifier on the same rows, in the same process, with the same attention and the same
number of threads; the naive loop uses the fastest of three batch sizes, with dynamic padding. Prints one JSON line.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

from tunescope.capture import Site, editing, zero
from tunescope.data.batches import batches
from tunescope.data.tokens import Tokens
from tunescope.lenses.sweep import Sweep, Variant, component_means
from tunescope.models import Classifier, load
from tunescope.models.source import quiet_transformers
from tunescope.progress import SILENT

LAYERS, HEADS, WIDTH, ROWS, THREADS, REPEATS = 6, 8, 256, 48, 2, 2
GOAL = 0.9  # of the arithmetic limit: starting at the edited block leaves (L + 1) / 2 of L blocks to compute


def classifier(folder: Path) -> Classifier:
    """A randomly initialised classifier: speed does not depend on what the weights say."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(1000)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    config = GPT2Config(
        n_layer=LAYERS,
        n_head=HEADS,
        n_embd=WIDTH,
        n_positions=128,
        vocab_size=1000,
        num_labels=6,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    with quiet_transformers():
        GPT2ForSequenceClassification(config).save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", unk_token="w0").save_pretrained(
            folder
        )
    return load(str(folder))


def rows(seed: int = 0) -> Tokens:
    """Token rows with the lengths of tweets: mean about 20, at most 80."""
    generator = np.random.default_rng(seed)
    lengths = np.clip(generator.gamma(3.2, 6.2, ROWS).astype(int), 3, 80)
    ids = [generator.integers(1, 1000, size=n).astype(np.int32) for n in lengths]
    return Tokens([str(i) for i in range(ROWS)], ids, None, np.zeros(ROWS, dtype=np.int64), lengths, 0)


def naive(model: Classifier, tokens: Tokens, size: int) -> np.ndarray:
    """One full forward pass a head and batch."""
    out = np.empty((LAYERS * HEADS, len(tokens), 6), dtype=np.float32)
    with torch.inference_mode():
        for batch in batches(tokens, max_rows=size):
            for layer in range(LAYERS):
                for head in range(HEADS):
                    with editing(model, [zero(Site("head_z", layer), (head,))]):
                        out[layer * HEADS + head, batch.index] = model(**batch.inputs()).numpy()
    return out


def ours(model: Classifier, tokens: Tokens) -> np.ndarray:
    """The sweep that the lens runs."""
    variants = [Variant(layer, "head_out", head, "zero") for layer in range(LAYERS) for head in range(HEADS)]
    out = np.empty((len(variants), len(tokens), 6), dtype=np.float32)
    with SILENT.task("", 1) as task:
        means = component_means(model, tokens.take(np.arange(4)), task)
        for index, _, logits in Sweep(model, variants, means, 0).run(tokens, task):
            out[:, index] = logits.numpy()
    return out


def seconds(function: object, *arguments: object) -> tuple[float, np.ndarray]:
    """Best of a few repeats, and the last result."""
    best, result = float("inf"), np.empty(0)
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = function(*arguments)  # type: ignore[operator]
        best = min(best, time.perf_counter() - start)
    return best, result


def main() -> None:
    """Measure, compare and print."""
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        model, tokens = classifier(Path(folder)), rows()
        slow = {size: seconds(naive, model, tokens, size) for size in (8, 16, 48)}
        size = min(slow, key=lambda key: slow[key][0])
        fast, logits = seconds(ours, model, tokens)
    gap = float(np.abs(logits - slow[size][1]).max())
    print(
        f"{LAYERS} layers x {HEADS} heads, width {WIDTH}, {ROWS} rows, {tokens.lengths.sum()} tokens, {THREADS} threads"
    )
    print(
        f"naive, batches of {size}: {slow[size][0]:.2f} s; sweep: {fast:.2f} s; largest difference in a logit {gap:.1e}"
    )
    ratio = slow[size][0] / fast
    limit = 2 * LAYERS / (LAYERS + 1)
    figure = {"figure": "head sweep against naive loop", "ratio": round(ratio, 2), "goal": round(GOAL * limit, 2),
              "met": ratio >= GOAL * limit,
              "arithmetic_limit": round(limit, 2), "largest_logit_difference": gap}  # fmt: skip
    print(json.dumps(figure))
    if gap > 1e-4:
        raise SystemExit("the sweep is not exact")


if __name__ == "__main__":
    main()
