"""Which neurons tuning moved most: picked on one half of the texts, shown on the other, corrected over all neurons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from tunescope.stats.tests import benjamini_hochberg

MOST_HELD = 256 << 20  # bytes of the base's neurons that wait for the tuned model's
PICK, SHOW = 0, 1


@dataclass(frozen=True)
class Shift:
    """One neuron's change on the half of the texts that did not pick it.

    Attributes:
        layer: Its block.
        neuron: Its number in the block.
        base: Mean before tuning.
        tuned: Mean after.
        value: Mean paired difference, tuned minus base.
        low: Lower end of the 95 % t interval.
        high: Upper end.
        p: Two-sided, paired t test.
        q: p after Benjamini and Hochberg over all neurons of all blocks.
        picked: The mean difference on the half that picked it: flattering.
        control: Median size of a shift over all neurons of the block, on the shown half.
        n: Texts of the shown half.
    """

    layer: int
    neuron: int
    base: float
    tuned: float
    value: float
    low: float
    high: float
    p: float
    q: float
    picked: float
    control: float
    n: int


class NeuronShifts:
    """Sums of each neuron's mean activation a text, base and tuned, for two halves of the different texts.

    Texts that repeat count once. The base's numbers of a text wait for the tuned model's; where those of all texts
    would take more than 256 MiB, the first texts in the drawn (random) order are taken.

    Args:
        groups: Number of each row's text, `[N]`; rows with equal numbers have equal tokens.
        layers: Blocks.
        seed: Draws the halves.
    """

    def __init__(self, groups: np.ndarray, layers: int, seed: int) -> None:
        self.layers = layers
        self._distinct = np.sort(np.unique(groups, return_index=True)[1])
        self._seed, self._rows = seed, len(groups)
        self._half: np.ndarray | None = None
        self._waiting: dict[int, np.ndarray] = {}
        self._sums: dict[int, np.ndarray] = {}
        self._counts: dict[int, np.ndarray] = {}

    def before(self, layer: int, ranks: np.ndarray, means: np.ndarray) -> None:
        """Take the base's mean activation of each row, `[B, F]`."""
        half = self._halves(means.shape[1])
        kept = self._waiting.setdefault(layer, np.empty((len(half), means.shape[1]), dtype=np.float32))
        here, place = self._chosen(ranks)
        kept[place] = means[here]

    def after(self, layer: int, ranks: np.ndarray, means: np.ndarray) -> None:
        """Take the tuned model's, after the base's of the same rows."""
        half = self._halves(means.shape[1])
        here, place = self._chosen(ranks)
        base, tuned = self._waiting[layer][place].astype(np.float64), means[here].astype(np.float64)
        sums = self._sums.setdefault(layer, np.zeros((2, 4, means.shape[1])))
        counts = self._counts.setdefault(layer, np.zeros(2, dtype=np.int64))
        for which in (PICK, SHOW):
            own = half[place] == which
            moved = tuned[own] - base[own]
            sums[which] += np.stack([
                base[own].sum(0), tuned[own].sum(0), moved.sum(0), (moved**2).sum(0),
            ])  # fmt: skip
            counts[which] += int(own.sum())

    def _halves(self, width: int) -> np.ndarray:
        """Return the half of each text that is taken; which texts, is decided when the width is known."""
        if self._half is None:
            most = max(4, MOST_HELD // (self.layers * width * 4))
            self._distinct = self._distinct[:most]
            order = np.random.default_rng(self._seed).permutation(len(self._distinct))
            self._half = np.empty(len(order), dtype=np.int64)
            self._half[order] = np.arange(len(order)) % 2
            self._place = np.full(self._rows, -1, dtype=np.int64)
            self._place[self._distinct] = np.arange(len(self._distinct))
        return self._half

    def _chosen(self, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place = self._place[ranks]
        here = place >= 0
        return here, place[here]

    def strongest(self, top: int) -> list[Shift]:
        """Return the neurons whose mean moved most on the picking half, as the other half shows them.

        Empty where a half has fewer than two texts.
        """
        shown = self._shown()
        if not shown:
            return []
        wide, p = shown
        q = benjamini_hochberg(p.reshape(-1)).reshape(p.shape)
        picked = np.stack(
            [self._sums[layer][PICK, 2] / self._counts[layer][PICK] for layer in sorted(self._sums)]
        )
        best = np.argsort(-np.abs(picked), axis=None, kind="stable")[:top]
        found = []
        for layer, neuron in zip(*np.unravel_index(best, picked.shape), strict=True):
            n = int(self._counts[layer][SHOW])
            base, tuned, value, _ = self._sums[layer][SHOW][:, neuron] / n
            typical = float(np.median(np.abs(self._sums[layer][SHOW, 2]))) / n
            found.append(
                Shift(
                    int(layer), int(neuron), float(base), float(tuned), float(value),
                    float(value - wide[layer, neuron]), float(value + wide[layer, neuron]),
                    float(p[layer, neuron]), float(q[layer, neuron]), float(picked[layer, neuron]), typical, n,
                )
            )  # fmt: skip
        return found

    def means(self, layer: int) -> np.ndarray:
        """Return the mean activation of every neuron of a layer over the texts, before and after, [2, F]."""
        sums, counts = self._sums[layer], self._counts[layer]
        return np.asarray((sums[PICK, :2] + sums[SHOW, :2]) / counts.sum())

    def shifted(self, level: float = 0.05) -> list[tuple[int, float, int]]:
        """Return (layer, share of its neurons with q at most ``level``, its neurons), on the shown half."""
        shown = self._shown()
        if not shown:
            return []
        q = benjamini_hochberg(shown[1].reshape(-1)).reshape(shown[1].shape)
        return [(layer, float((row <= level).mean()), len(row)) for layer, row in enumerate(q)]

    def _shown(self) -> tuple[np.ndarray, np.ndarray] | tuple[()]:
        """Return half the width of every interval and every p, `[layers, F]`, of the shown half."""
        if len(self._counts) < self.layers or min(int(one.min()) for one in self._counts.values()) < 2:
            return ()
        wide, p = [], []
        for layer in range(self.layers):
            n, sums = self._counts[layer][SHOW], self._sums[layer][SHOW]
            mean = sums[2] / n
            error = np.sqrt(np.maximum(sums[3] / n - mean**2, 0) / (n - 1))
            with np.errstate(divide="ignore", invalid="ignore"):
                # A neuron that moved by one amount in all texts has no error; one that did not move has not changed.
                ratio = np.where(error > 0, np.abs(mean) / error, np.where(mean == 0, 0.0, np.inf))
            wide.append(student.ppf(0.975, n - 1) * error)
            p.append(2 * student.sf(ratio, n - 1))
        return np.stack(wide), np.stack(p)
