"""What a lens takes, in floating-point operations by stated arithmetic; and how precise its numbers can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunescope.config import LensConfig

ASSUMED_SD = 1.0
CKA_BLOCK = 256
WORDS_A_TOKEN = 1 / 1.4
MOST_REPLACEMENTS = 12  # texts a row among which patching chooses
GRADIENT_STEPS = 64  # points of an integrated gradient, of at most 256
Options = Mapping[str, Any]

ARITHMETIC = (
    "Lenses: one that reads passes once over base and tuned (cka again above 256 MiB of states), and CKA takes",
    "512 x sites squared x rows operations a variant beside it; probes and dimensions read their train rows too;",
    "steps and other_models read one model more each (watch two a step); words runs a row twice a word (left out,",
    "masked), and three times for each of 64 points of an integrated gradient; ablation runs half of the blocks",
    "for each component, edit and random control, all of them for all but one and (on half of the rows) for each",
    "step of a removal, and a screen takes 3 passes and 2 a block; patching, patching_cross and grafting likewise",
    "run half of the blocks for each place or part, each way and control, and grafting the greedy steps on half of",
    "the rows. Fits of probes, t-SNE, UMAP and bootstraps are left out.",
)


@dataclass(frozen=True)
class Passes:
    """What the arithmetic knows of an arm and the rows of a lens.

    Attributes:
        one: Operations of one pass of one model over the lens's rows.
        row: The same for one row of the train split.
        layers: Number of blocks.
        heads: Heads in a block.
        rows: The lens's rows.
        tokens: Mean tokens of a row.
        train: Rows of the train split.
    """

    one: float
    row: float
    layers: int
    heads: int
    rows: int
    tokens: float
    train: int


def lens_operations(lens: LensConfig, passes: Passes) -> float:
    """Return the operations of a lens on one training; a lens that is not in the table reads both models once."""
    cost = _COSTS.get(lens.lens)
    return 2 * passes.one if cost is None else cost(lens.options, passes)


def _reading(_options: Options, passes: Passes) -> float:
    return 2 * passes.one


def _nothing(_options: Options, _passes: Passes) -> float:
    return 0.0


def _flow(options: Options, passes: Passes) -> float:
    """Patterns once; then attention, a third of a block, without each earlier part and its random control."""
    senders = passes.layers * (passes.heads + 1) if options.get("edges", True) else 0
    return 2 * passes.one * (2 + senders / 3)


def _cka(options: Options, passes: Passes) -> float:
    variants = options.get("variants") or ("raw", "standardised", "without_outliers")
    sites = 2 * (passes.layers + 2)
    pairs = 2.0 * CKA_BLOCK * sites**2 * passes.rows * len(variants)
    return 2 * passes.one + pairs


def _with_train(options: Options, passes: Passes) -> float:
    """Dimensions: rows and train rows of both models."""
    return 2 * (passes.one + passes.row * min(passes.train, int(options.get("train_rows") or 0)))


def _probes(options: Options, passes: Passes) -> float:
    """Probes: the same, and an untrained model's."""
    return _with_train(options, passes) * (1.5 if options.get("untrained", True) else 1.0)


def _steps(options: Options, passes: Passes) -> float:
    return (1 + int(options.get("most") or 0)) * passes.one


def _watched(options: Options, passes: Passes) -> float:
    """Base and checkpoint in every step, and once more to choose the heads whose maps are kept."""
    return 2 * (2 + int(options.get("most") or 0)) * passes.one


def _others(options: Options, passes: Passes) -> float:
    return (2 + len(options.get("models") or ())) * passes.one


def _words(options: Options, passes: Passes) -> float:
    words = min(passes.tokens * WORDS_A_TOKEN, float(options.get("most_words") or passes.tokens))
    each = passes.one / max(1, passes.rows)
    gradients = min(passes.rows, int(options.get("gradient_rows") or 0)) * 3 * GRADIENT_STEPS
    return 2 * (passes.one * (1 + 2 * words) + each * gradients)


def _ablation(options: Options, passes: Passes) -> float:
    """Half of the blocks run anew for each component, edit and random control; nearly all for sets.

    All but one and the steps of removal curves (on half of the rows) begin in the first block. A screen takes a pass
    and a gradient (twice a pass) for itself and each block, of the tuned model alone, and leaves fewer components.
    """
    kinds = {"heads": passes.heads}
    each = sum(kinds.get(kind, 1) for kind in options.get("components") or ("heads", "attention", "mlp"))
    singles: float = passes.layers * each
    screen = options.get("screen")
    screening = 0.0 if screen is None else passes.one * (1 + 2 * (1 + passes.layers))
    if screen is not None and not screen.get("check"):
        singles = min(singles, int(screen.get("verify", 20)))
    more = len(options.get("also") or ()) + len(options.get("groups") or ())
    heads = passes.heads * passes.layers
    pairs = {"none": 0.0, "within_layer": passes.layers * passes.heads * (passes.heads - 1) / 2,
             "all": heads * (heads - 1) / 2}[options.get("pairs") or "none"]  # fmt: skip
    edits = len(options.get("edits") or ("zero", "mean"))
    runs = (singles + more + pairs) * (edits + bool(options.get("random_control", True))) / 2
    runs += sum(passes.layers * kinds.get(kind, 1) for kind in options.get("all_but_one") or ()) * edits
    return 2 * passes.one * (1 + runs + _removal_runs(options.get("removal"), edits) / 2) + screening


def _removal_runs(removal: Options | None, edits: int) -> float:
    if removal is None:
        return 0.0
    random = int(removal.get("random_orders", 3))
    orders = removal.get("orders") or ("strongest_first", "weakest_first", "random")
    curves = sum(random if one == "random" else 1 for one in orders)
    return float(curves * int(removal.get("steps", 8)) * min(edits, 2))


def _patching(options: Options, passes: Passes) -> float:
    """Half of the blocks run anew for each place, direction, model and unrelated text; words are chosen first."""
    others = len(options.get("sites") or (0,) * 4) - 1
    places = passes.heads * len(options.get("head_positions") or (0,))
    places += others * len(options.get("positions") or (0,) * 5)
    runs = passes.layers * places * (1 + bool(options.get("unrelated_control", True)))
    given = options.get("pairs") or {}
    chosen = given.get("kind", "words") == "words" and given.get("choose", "largest_gap") == "largest_gap"
    choosing = passes.one * MOST_REPLACEMENTS if chosen else 0.0
    return 2 * passes.one * len(options.get("directions") or (0, 0)) * (2 + runs / 2) + choosing


def _patching_cross(options: Options, passes: Passes) -> float:
    """Half of the blocks run anew for each place, direction and random control."""
    runs = passes.layers * (passes.heads + 3) * (1 + bool(options.get("random_control", True)))
    return passes.one * (2 + len(options.get("directions") or (0, 0)) * runs / 2)


def _grafting(options: Options, passes: Passes) -> float:
    """Single parts both ways and at random, curves over depth, and every step of the greedy set on half of the rows."""
    singles = 3 * passes.layers * (passes.heads + 3) / 2
    curves = 4 * passes.layers / 2
    candidates = passes.layers * len(options.get("smallest") or ())
    return passes.one * (8 + singles + curves + candidates**2 / 8 + len(options.get("weight_rows") or ()))


_COSTS: dict[str, Callable[[Options, Passes], float]] = {
    "cka": _cka, "similarity": _reading, "spread": _reading, "dimensions": _with_train, "probes": _probes,
    "maps": _reading, "steps": _steps, "other_models": _others, "logit_lens": _reading,
    "attribution_direct": _reading, "words": _words, "weights": _nothing, "ablation": _ablation,
    "patching": _patching, "patching_cross": _patching_cross, "grafting": _grafting, "attention": _reading,
    "activations": _reading, "flow": _flow, "watch": _watched,
}  # fmt: skip


def lens_precision(lens: LensConfig, count: int, half_width: Callable[[float, int], float]) -> Iterator[str]:
    """Yield how precise a lens's numbers can be on so many rows, as far as that is known before.

    Args:
        lens: The lens.
        count: Its rows.
        half_width: Half the width of the interval of a share of rows.
    """
    if not count:
        return
    if lens.lens == "ablation":
        width = 1.96 * ASSUMED_SD / math.sqrt(count)
        yield (
            f"  ablation on {count:,} rows: ±{width:.3f} logits of margin, if effects spread by "
            f"{ASSUMED_SD:g} logit between rows (1.96 x sd / sqrt(n); the sd is assumed)"
        )
    elif lens.lens in ("probes", "dimensions", "logit_lens"):
        yield (
            f"  {lens.lens} on {count:,} rows: accuracies ±{half_width(0.5, count):.3f} at 0.50, "
            f"±{half_width(0.9, count):.3f} at 0.90 (Wilson)"
        )
    elif lens.lens == "spread":
        width = 1.96 * math.sqrt(2 / count)
        yield f"  spread on {count:,} rows: a variance ±{width:.1%} of itself, if it is normal"
    elif lens.lens in ("words", "attribution_direct"):
        width = 1.96 * ASSUMED_SD / math.sqrt(count)
        yield f"  {lens.lens} on {count:,} rows: ±{width:.3f} logits for a mean over rows, if they spread by 1 logit"
    elif lens.lens in ("patching", "patching_cross", "grafting"):
        yield f"  {lens.lens} on {count:,} rows: not known before; shares of a gap are as sure as the gap is large"
    elif lens.lens in ("cka", "similarity", "maps", "steps", "other_models"):
        yield f"  {lens.lens} on {count:,} rows: not known before; it comes from the spread between rows"


def passes_of(
    lens_lengths: tuple[np.ndarray, int], train: np.ndarray, inner: int, layers: int, heads: int
) -> Passes:
    """Return what the arithmetic needs, from the lengths of the split that a lens looks at and of the train rows."""
    lengths, count = lens_lengths
    mean = float(lengths.mean()) if len(lengths) else 0.0
    each = float(train.mean()) if len(train) else 0.0
    return Passes(2.0 * inner * mean * count, 2.0 * inner * each, layers, heads, count, mean, len(train))
